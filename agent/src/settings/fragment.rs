//! Settings as written: one source (TOML, UCI, the command line) as a list of entries.
//!
//! A fragment knows nothing of which options exist. Every value keeps its origin, so that an error can
//! say where it was written. UCI's values are texts only (`from_uci`), so the validation reads numbers and
//! booleans from text too.

use std::fmt;
use std::path::Path;

use super::origin::Origin;

/// More than this is no settings file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

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
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| malformed(e.to_string()))?;
        let mut fragment = Self::default();
        for (kind, value) in table {
            match value {
                toml::Value::Table(options) => {
                    fragment.add_table(&Section::plain(&kind), "", options, origin)?;
                }
                toml::Value::Array(tables) => {
                    for (index, table) in tables.into_iter().enumerate() {
                        let toml::Value::Table(mut options) = table else {
                            return Err(malformed(format!("{kind}: expected [[{kind}]] sections")));
                        };
                        let Some(toml::Value::String(name)) = options.remove("name") else {
                            return Err(malformed(format!(
                                "[[{kind}]] number {}: option `name` (text) is missing",
                                index + 1
                            )));
                        };
                        let section = Section::named(&kind, &name);
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
        options: toml::Table,
        origin: &str,
    ) -> Result<(), ReadError> {
        // An entry of its own, so that a section without options exists too.
        let name = section.name.clone().unwrap_or_default();
        let written = Origin::File(origin.to_owned());
        self.push(section.clone(), "name", Value::Text(name), written);
        self.add_table(&section, "", options, origin)
    }

    fn add_table(
        &mut self,
        section: &Section,
        prefix: &str,
        options: toml::Table,
        origin: &str,
    ) -> Result<(), ReadError> {
        for (key, value) in options {
            let option = format!("{prefix}{key}");
            let value = match value {
                toml::Value::Table(inner) => {
                    self.add_table(section, &format!("{option}."), inner, origin)?;
                    continue;
                }
                toml::Value::String(text) => Value::Text(text),
                toml::Value::Integer(number) => Value::Number(number),
                toml::Value::Boolean(flag) => Value::Flag(flag),
                toml::Value::Array(items) => {
                    Value::List(texts(items).ok_or_else(|| ReadError::Malformed {
                        path: origin.to_owned(),
                        message: format!("{section} {option}: a list holds only texts"),
                    })?)
                }
                toml::Value::Float(_) | toml::Value::Datetime(_) => {
                    return Err(ReadError::Malformed {
                        path: origin.to_owned(),
                        message: format!(
                            "{section} {option}: neither fractions nor dates are used"
                        ),
                    });
                }
            };
            self.push(section.clone(), &option, value, Origin::File(origin.to_owned()));
        }
        Ok(())
    }
}

fn texts(items: Vec<toml::Value>) -> Option<Vec<String>> {
    items
        .into_iter()
        .map(|item| match item {
            toml::Value::String(text) => Some(text),
            _ => None,
        })
        .collect()
}
