//! From a column's text to our types, with the column named when it does not parse.

use std::str::FromStr;

use rusqlite::Row;
use rusqlite::types::Type;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A text column that parses as `T`.
pub fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: Into<Cause>,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| damaged(row, column, error))
}

/// As [`parsed`], NULL being `None`.
pub fn parsed_opt<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr,
    T::Err: Into<Cause>,
{
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(str::parse).transpose().map_err(|error| damaged(row, column, error))
}

/// A text column that holds JSON.
pub fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| damaged(row, column, error))
}

/// As [`json`], NULL being `None`.
pub fn json_opt<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(serde_json::from_str).transpose().map_err(|error| damaged(row, column, error))
}

/// A text column that is one of an enum's names on the wire, NULL being `None`.
pub fn word<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    let read = |text: &str| {
        T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text))
    };
    text.map(read).transpose().map_err(|error| damaged(row, column, error))
}

/// For a column that [`json`] reads.
pub fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn damaged(row: &Row<'_>, column: &str, error: impl Into<Cause>) -> rusqlite::Error {
    let index = row.as_ref().column_index(column).unwrap_or(usize::MAX);
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into())
}
