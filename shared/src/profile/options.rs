//! The options of a tool: which a profile allows, and how a value becomes arguments.

use crate::{desired::OptionValue, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a profile says of one option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "Written")]
pub enum OptionRule {
    /// `flag` is given when true.
    Flag { flag: String },
    /// `flag`, then the number.
    Number { flag: String, min: u64, max: u64 },
    /// `flag`, then one of these words.
    Word { flag: String, values: Vec<String> },
}

/// A rule as it is written: what may stand in it depends on its type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    r#type: Type,
    flag: String,
    min: Option<u64>,
    max: Option<u64>,
    values: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    Flag,
    Number,
    Word,
}

impl TryFrom<Written> for OptionRule {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        let Written { r#type, flag, min, max, values } = written;
        match (r#type, min, max, values) {
            (Type::Flag, None, None, None) => Ok(Self::Flag { flag }),
            (Type::Flag, ..) => Err("a flag has no `min`, `max` or `values`"),
            (Type::Number, Some(min), Some(max), None) => Ok(Self::Number { flag, min, max }),
            (Type::Number, ..) => Err("a number has `min` and `max`, and no `values`"),
            (Type::Word, None, None, Some(values)) => Ok(Self::Word { flag, values }),
            (Type::Word, ..) => Err("a word has `values`, and no `min` or `max`"),
        }
    }
}

/// Options of the predecessor's API that name paths or switch off checks: accepted by the
/// coordinator, and ignored.
pub const PREDECESSORS: &[&str] = &[
    "tool_path",
    "safe_update_path",
    "verify_update_path",
    "state_dir",
    "verify_checksum",
    "transfer_timeout",
    "upgrade_timeout",
    "progress_callback_interval",
];

/// Why an option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionRefused {
    #[error("option {0:?} is not one of this tool's")]
    NotAllowed(String),
    #[error("option {name:?} must be {expected}")]
    Value { name: String, expected: String },
}

impl OptionRefused {
    /// The option's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::NotAllowed(name) | Self::Value { name, .. } => name,
        }
    }
}

impl OptionRule {
    /// What is wrong with the rule itself.
    pub(super) fn check(&self) -> Result<(), String> {
        let (flag, values): (_, &[String]) = match self {
            Self::Flag { flag } => (flag, &[]),
            Self::Number { flag, min, max } if min > max => {
                return Err(format!("{flag}: min is above max"));
            }
            Self::Number { flag, .. } => (flag, &[]),
            Self::Word { flag, values } if values.is_empty() => {
                return Err(format!("{flag}: no values"));
            }
            Self::Word { flag, values } => (flag, values),
        };
        if !flag.starts_with('-') {
            return Err(format!("flag {flag:?} must start with '-'"));
        }
        match values.iter().find(|v| !is_word(v)) {
            Some(value) => Err(format!("value {value:?} must be a plain word")),
            None => Ok(()),
        }
    }

    fn argv(&self, name: &str, value: &OptionValue) -> Result<Vec<String>, OptionRefused> {
        let expected = |expected: String| OptionRefused::Value { name: name.to_owned(), expected };
        match (self, value) {
            (Self::Flag { flag }, OptionValue::Flag(true)) => Ok(vec![flag.clone()]),
            (Self::Flag { .. }, OptionValue::Flag(false)) => Ok(vec![]),
            (Self::Flag { .. }, _) => Err(expected("true or false".into())),
            (Self::Number { flag, min, max }, OptionValue::Number(n))
                if (min..=max).contains(&n) =>
            {
                Ok(vec![flag.clone(), n.to_string()])
            }
            (Self::Number { min, max, .. }, _) => {
                Err(expected(format!("a number from {min} to {max}")))
            }
            (Self::Word { flag, values }, value) => {
                let word = value.to_string();
                if values.contains(&word) {
                    Ok(vec![flag.clone(), word])
                } else {
                    Err(expected(format!("one of {}", values.join(", "))))
                }
            }
        }
    }
}

fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
    (1..=64).contains(&text.len())
        && text.chars().all(|c| plain(c) || c == '-')
        && !text.starts_with('-')
}

/// The arguments for `chosen`, in the order of the options' names. Every option must be declared
/// by a rule and every value must fit it: nothing else becomes an argument.
pub fn argv(
    rules: &BTreeMap<String, OptionRule>,
    chosen: &BTreeMap<String, OptionValue>,
) -> Result<Vec<String>, OptionRefused> {
    let mut argv = Vec::new();
    for (name, value) in chosen {
        let rule =
            rules.get(name).ok_or_else(|| OptionRefused::NotAllowed(limits::cut(name.clone())))?;
        argv.extend(rule.argv(name, value)?);
    }
    Ok(argv)
}
