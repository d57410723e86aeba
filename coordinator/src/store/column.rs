//! From a column's text to our types, with the column told when it does not parse.

use std::str::FromStr;

use rusqlite::types::{FromSql, Type};
use rusqlite::{Row, RowIndex};
use serde::de::DeserializeOwned;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A text column that parses as `T`.
pub fn parsed<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: Into<Cause>,
{
    let column = column.idx(row.as_ref())?;
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| damaged(column, error))
}

/// As [`parsed`], NULL being `None`.
pub fn parsed_opt<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<T>>
where
    T: FromStr,
    T::Err: Into<Cause>,
{
    let column = column.idx(row.as_ref())?;
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(str::parse).transpose().map_err(|error| damaged(column, error))
}

/// A text column that holds JSON.
pub fn json<T: DeserializeOwned>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T> {
    let column = column.idx(row.as_ref())?;
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| damaged(column, error))
}

/// As [`json`], NULL being `None`.
pub fn json_opt<T: DeserializeOwned>(
    row: &Row<'_>,
    column: impl RowIndex,
) -> rusqlite::Result<Option<T>> {
    let column = column.idx(row.as_ref())?;
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(serde_json::from_str).transpose().map_err(|error| damaged(column, error))
}

/// A text column that is one of an enum's names on the wire, NULL being `None`.
pub fn word<T: DeserializeOwned>(
    row: &Row<'_>,
    column: impl RowIndex,
) -> rusqlite::Result<Option<T>> {
    let column = column.idx(row.as_ref())?;
    let text = row.get_ref(column)?.as_str_or_null()?;
    let read = |text: &str| {
        T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text))
    };
    text.map(read).transpose().map_err(|error| damaged(column, error))
}

/// For a column that [`json`] reads.
pub fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn damaged(column: usize, error: impl Into<Cause>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

/// A row's columns one after another, as its query lists them. For rows of many columns: to find
/// each by its name took longer than the query.
pub struct Cells<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Cells<'a> {
    pub fn of(row: &'a Row<'a>) -> Self {
        Self { row, next: 0 }
    }

    fn step(&mut self) -> usize {
        let column = self.next;
        self.next += 1;
        column
    }

    pub fn plain<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.row.get(self.step())
    }

    pub fn parsed<T>(&mut self) -> rusqlite::Result<T>
    where
        T: FromStr,
        T::Err: Into<Cause>,
    {
        parsed(self.row, self.step())
    }

    pub fn parsed_opt<T>(&mut self) -> rusqlite::Result<Option<T>>
    where
        T: FromStr,
        T::Err: Into<Cause>,
    {
        parsed_opt(self.row, self.step())
    }

    pub fn json<T: DeserializeOwned>(&mut self) -> rusqlite::Result<T> {
        json(self.row, self.step())
    }

    pub fn json_opt<T: DeserializeOwned>(&mut self) -> rusqlite::Result<Option<T>> {
        json_opt(self.row, self.step())
    }

    pub fn word<T: DeserializeOwned>(&mut self) -> rusqlite::Result<Option<T>> {
        word(self.row, self.step())
    }
}
