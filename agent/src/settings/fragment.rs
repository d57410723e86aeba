//! Settings as written: one source (TOML, UCI, the command line) as a list of entries.
//!
//! A fragment knows nothing of which options exist. Every value keeps its origin, so that an error can
//! say where it was written. UCI's values are texts only (`from_uci`), so the validation reads numbers and
//! booleans from text too.

use std::fmt;
use std::path::Path;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::origin::Origin;

/// More than this is no settings file.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The option that is the name of its section.
const NAME: &str = "name";

/// A value as the source could express it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::List(list) => write!(f, "{list:?}"),
        }
    }
}

/// The section of an entry: `[uplink]` has no name, `[[slot]]` is told apart by its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Section {
    pub kind: String,
    pub name: Option<String>,
}

impl Section {
    pub fn plain(kind: &str) -> Self {
        Self { kind: kind.to_owned(), name: None }
    }

    pub fn named(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: Some(name.to_owned()) }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "[[{}]] {name}", self.kind),
            None => write!(f, "[{}]", self.kind),
        }
    }
}

/// One option as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub section: Section,
    pub option: String,
    pub value: Value,
    pub origin: Origin,
}

/// All that one source says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    pub entries: Vec<Entry>,
}

/// A source that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{path}: cannot be read")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{path}: larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: String },
    #[error("{path}: {message}")]
    Malformed { path: String, message: String },
}

impl Fragment {
    /// The TOML file at `path`.
    pub fn from_file(path: &Path) -> Result<Self, ReadError> {
        let shown = path.display().to_string();
        let unreadable = |source| ReadError::Unreadable { path: shown.clone(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
            return Err(ReadError::TooLarge { path: shown });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::from_toml(&text, &shown)
    }

    /// TOML text; `origin` is what errors call it.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ReadError> {
        let malformed = |message: String| ReadError::Malformed { path: origin.to_owned(), message };
        // The document itself: by way of serde it would be twice the code.
        let document = DeTable::parse(text).map_err(|error| malformed(error.to_string()))?;
        let mut fragment = Self::default();
        for (kind, value) in document.get_ref() {
            let kind = kind.get_ref();
            match value.get_ref() {
                DeValue::Table(options) => {
                    fragment.add_table(&Section::plain(kind), "", options, origin)?;
                }
                DeValue::Array(tables) => {
                    for (index, table) in tables.iter().enumerate() {
                        let DeValue::Table(options) = table.get_ref() else {
                            return Err(malformed(format!("{kind}: expected [[{kind}]] sections")));
                        };
                        let Some(DeValue::String(name)) = value_of(options, NAME) else {
                            return Err(malformed(format!(
                                "[[{kind}]] number {}: option `{NAME}` (text) is missing",
                                index + 1
                            )));
                        };
                        let section = Section::named(kind, name);
                        fragment.add_named(section, options, origin)?;
                    }
                }
                _ => return Err(malformed(format!("option `{kind}` stands outside any section"))),
            }
        }
        Ok(fragment)
    }

    /// `section.option=text`, as `--set` on the command line has it.
    pub fn from_assignment(text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        let (section, option) = key.split_once('.')?;
        let mut fragment = Self::default();
        fragment.push(
            Section::plain(section),
            option,
            Value::Text(value.to_owned()),
            Origin::CommandLine,
        );
        Some(fragment)
    }

    pub fn push(&mut self, section: Section, option: &str, value: Value, origin: Origin) {
        self.entries.push(Entry { section, option: option.to_owned(), value, origin });
    }

    fn add_named(
        &mut self,
        section: Section,
        options: &DeTable<'_>,
        origin: &str,
    ) -> Result<(), ReadError> {
        // An entry of its own, so that a section without options exists too.
        let name = section.name.clone().unwrap_or_default();
        let written = Origin::File(origin.to_owned());
        self.push(section.clone(), NAME, Value::Text(name), written);
        self.add_table(&section, "", options, origin)
    }

    fn add_table(
        &mut self,
        section: &Section,
        prefix: &str,
        options: &DeTable<'_>,
        origin: &str,
    ) -> Result<(), ReadError> {
        for (key, value) in options {
            let option = format!("{prefix}{}", key.get_ref());
            if section.name.is_some() && option == NAME {
                continue;
            }
            let malformed = |problem: &str| ReadError::Malformed {
                path: origin.to_owned(),
                message: format!("{section} {option}: {problem}"),
            };
            let value = match value.get_ref() {
                DeValue::Table(inner) => {
                    self.add_table(section, &format!("{option}."), inner, origin)?;
                    continue;
                }
                DeValue::String(text) => Value::Text(text.to_string()),
                DeValue::Integer(number) => Value::Number(
                    number_of(number).ok_or_else(|| malformed("the number is too large"))?,
                ),
                DeValue::Boolean(flag) => Value::Flag(*flag),
                DeValue::Array(items) => {
                    Value::List(texts(items).ok_or_else(|| malformed("a list holds only texts"))?)
                }
                DeValue::Float(_) | DeValue::Datetime(_) => {
                    return Err(malformed("neither fractions nor dates are used"));
                }
            };
            self.push(section.clone(), &option, value, Origin::File(origin.to_owned()));
        }
        Ok(())
    }
}

fn value_of<'t>(options: &'t DeTable<'_>, name: &str) -> Option<&'t DeValue<'t>> {
    options.iter().find(|(key, _)| *key.get_ref() == *name).map(|(_, value)| value.get_ref())
}

fn number_of(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn texts(items: &DeArray<'_>) -> Option<Vec<String>> {
    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
}
