//! `upgrade_options`: what an operator may ask of the tool.
//!
//! The predecessor's own options name paths and times that only the router's files may set. They
//! are accepted, shown and not passed on. Everything else must be a flag, a number or a plain word,
//! and the router checks it once more against its tool profile.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use shared::desired::OptionValue;
use shared::profile::options::PREDECESSORS;

/// Leave to stage the image where a power cut erases it; a field of the job, not of the tool.
const VOLATILE: &str = "allow_volatile_staging";
const MOST: usize = 32;
const WORD: usize = 64;

/// An option that no tool will see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    #[error("more than {MOST} options")]
    TooMany,
    #[error("{0:?} is not an option's name")]
    Name(String),
    #[error(
        "{0}: expected true, false, a number or a word of letters, digits, '.', '_' and '-' that does not start with '-'"
    )]
    Value(String),
}

/// The options of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobOptions {
    pub tool: BTreeMap<String, OptionValue>,
    pub allow_volatile_staging: bool,
}

/// Reads an operator's options.
///
/// ```
/// use coordinator::operation::options;
/// let read = |text| options::read(&serde_json::from_str(text).unwrap());
/// assert_eq!(read(r#"{"speed":"115200","tool_path":"/usr/bin/uxfp"}"#).unwrap().tool.len(), 1);
/// assert!(read(r#"{"speed":"-rf"}"#).is_err());
/// assert!(read(r#"{"speed":"1;reboot"}"#).is_err());
/// assert!(read(r#"{"script":"/tmp/x"}"#).is_err());
/// ```
///
/// # Errors
/// Names the option that is wrong.
pub fn read(options: &Map<String, Value>) -> Result<JobOptions, BadOption> {
    if options.len() > MOST {
        return Err(BadOption::TooMany);
    }
    let mut job = JobOptions::default();
    for (name, value) in options {
        check_name(name)?;
        if name == VOLATILE {
            job.allow_volatile_staging = value.as_bool().ok_or(BadOption::Value(name.clone()))?;
        } else if PREDECESSORS.contains(&name.as_str()) {
            check_own(name, value)?;
        } else {
            let value = read_value(value).ok_or_else(|| BadOption::Value(name.clone()))?;
            job.tool.insert(name.clone(), value);
        }
    }
    Ok(job)
}

fn check_name(name: &str) -> Result<(), BadOption> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    let fits = (1..=32).contains(&name.len()) && name.bytes().all(plain);
    if fits { Ok(()) } else { Err(BadOption::Name(name.chars().take(40).collect())) }
}

/// Kept only to be shown again; still no place for anything large.
fn check_own(name: &str, value: &Value) -> Result<(), BadOption> {
    let fits = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= 256,
        Value::Array(_) | Value::Object(_) => false,
    };
    if fits { Ok(()) } else { Err(BadOption::Value(name.to_owned())) }
}

fn read_value(value: &Value) -> Option<OptionValue> {
    match value {
        Value::Bool(flag) => Some(OptionValue::Flag(*flag)),
        Value::Number(number) => number.as_u64().map(OptionValue::Number),
        Value::String(word) if is_word(word) => Some(OptionValue::Word(word.clone())),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn is_word(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=WORD).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(plain)
}
