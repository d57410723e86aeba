//! Where in a profile's text a mistake is: for whoever wrote it.

use super::ProfileError;
use std::fmt;
use toml::de::{DeTable, DeValue};

/// A mistake with its place, shown as `12:5: tool.program: must be an absolute path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// From 1; 0 where it has no place (the file is too large).
    pub line: usize,
    /// In characters, from 1; likewise.
    pub column: usize,
    /// Dotted, as in `tool.program`; empty where the text is not TOML.
    pub key: String,
    pub problem: String,
    /// The line itself.
    pub source: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl Mistake {
    /// Finds the place of `error` in the `text` that it was found in.
    #[must_use]
    pub fn find(text: &str, error: &ProfileError) -> Self {
        match error {
            ProfileError::TooLarge => Self {
                line: 0,
                column: 0,
                key: String::new(),
                problem: error.to_string(),
                source: String::new(),
            },
            ProfileError::Toml(misfit) => {
                let start = misfit.span.as_ref().map_or(0, |span| span.start);
                Self::at(text, start, misfit.key.clone(), &misfit.problem)
            }
            ProfileError::Key { key, problem } => {
                Self::at(text, offset_of(text, key), key.clone(), problem)
            }
        }
    }

    fn at(text: &str, offset: usize, key: String, problem: &str) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            key,
            problem: problem.replace('\n', " "),
            source: text[start..].lines().next().unwrap_or("").to_owned(),
        }
    }
}

/// Where `key` stands, or what it would stand in: a key that is missing has no place of its own.
fn offset_of(text: &str, key: &str) -> usize {
    let Ok(root) = DeTable::parse(text) else { return 0 };
    let mut table = root.get_ref();
    let mut offset = 0;
    for part in key.split('.') {
        let Some((name, value)) = table.iter().find(|(name, _)| **name.get_ref() == *part) else {
            break;
        };
        offset = name.span().start;
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    offset
}
