//! Fragments merged, the later one winning, and typed reading that collects every error.
//!
//! An option counts as known once somebody asked for it: what nobody asked for is reported by
//! [`Merged::finish`] as unknown. So the list of options stands in one place, the validation.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::fragment::{Fragment, Section, Value};
use super::origin::Origin;

/// What is wrong with one option, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct OptionError {
    /// Absent where nothing was written.
    pub origin: Option<Origin>,
    pub section: Section,
    pub option: String,
    pub problem: String,
}

impl std::fmt::Display for OptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { section, option, problem, .. } = self;
        match &self.origin {
            Some(origin @ Origin::Uci { section, line: Some(_), .. }) => {
                write!(f, "{origin}, section {section}, option {option}: {problem}")
            }
            Some(Origin::Uci { path, section, line: None }) => {
                write!(f, "{path}, section {section}, option {option}: {problem}")
            }
            Some(origin) => write!(f, "{origin}: {section} {option}: {problem}"),
            None => write!(f, "settings: {section} {option}: {problem}"),
        }
    }
}

/// All options, each with the origin that won.
#[derive(Debug, Default)]
pub struct Merged {
    values: BTreeMap<(Section, String), (Value, Origin)>,
    asked: BTreeSet<(String, String)>,
    effective: Vec<(Section, String, Value, Origin)>,
    errors: Vec<OptionError>,
}

impl Merged {
    /// `fragments` in rising order of weight.
    pub fn new(fragments: impl IntoIterator<Item = Fragment>) -> Self {
        let mut values = BTreeMap::new();
        for entry in fragments.into_iter().flat_map(|fragment| fragment.entries) {
            values.insert((entry.section, entry.option), (entry.value, entry.origin));
        }
        Self { values, ..Self::default() }
    }

    /// Where an option would stand that is not there: beside those of its section.
    fn beside(&self, section: &Section) -> Option<Origin> {
        let origins = self.values.iter().filter(|((other, _), _)| other == section);
        let mut origins = origins.map(|(_, (_, origin))| origin.clone());
        origins.next().map(|origin| match origin {
            Origin::Uci { path, section, .. } => Origin::Uci { path, line: None, section },
            other => other,
        })
    }

    /// Names of the `[[kind]]` sections.
    pub fn names(&self, kind: &str) -> Vec<String> {
        let names: BTreeSet<_> = self
            .values
            .keys()
            .filter(|(section, _)| section.kind == kind)
            .filter_map(|(section, _)| section.name.clone())
            .collect();
        names.into_iter().collect()
    }

    /// The options of the section `kind`.
    pub fn section(&mut self, kind: &str) -> Reader<'_> {
        Reader { section: Section::plain(kind), merged: self }
    }

    /// The options of `[[kind]]` called `name`.
    pub fn named(&mut self, kind: &str, name: &str) -> Reader<'_> {
        Reader { section: Section::named(kind, name), merged: self }
    }

    /// Every option that was asked for with its value in force and its origin, or every error.
    pub fn finish(mut self) -> Result<Effective, Vec<OptionError>> {
        for ((section, option), (_, origin)) in &self.values {
            if !self.asked.contains(&(section.kind.clone(), option.clone())) {
                self.errors.push(OptionError {
                    origin: Some(origin.clone()),
                    section: section.clone(),
                    option: option.clone(),
                    problem: "no such option".to_owned(),
                });
            }
        }
        if self.errors.is_empty() { Ok(Effective(self.effective)) } else { Err(self.errors) }
    }
}

/// Options in force, for `check-config`.
#[derive(Debug, Clone)]
pub struct Effective(pub Vec<(Section, String, Value, Origin)>);

impl std::fmt::Display for Effective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = None;
        for (section, option, value, origin) in &self.0 {
            if last != Some(section) {
                writeln!(f, "{section}")?;
                last = Some(section);
            }
            writeln!(f, "  {option} = {value}    # {origin}")?;
        }
        Ok(())
    }
}

/// Reads the options of one section, each with its type and default.
pub struct Reader<'a> {
    section: Section,
    merged: &'a mut Merged,
}

impl Reader<'_> {
    /// Text that `parse` accepts; its error is the problem shown.
    pub fn parsed<T>(
        &mut self,
        option: &str,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(option, default.map(|text| Value::Text(text.to_owned())))?;
        let text = match value {
            Value::Text(text) => text,
            other => return self.wrong(option, format!("expected a text, found {other}")),
        };
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(problem) => self.wrong(option, problem),
        }
    }

    /// Several texts; a single text counts as a list of one.
    pub fn list<T>(
        &mut self,
        option: &str,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let default = default.iter().map(|&text| text.to_owned()).collect();
        let texts = match self.take(option, Some(Value::List(default))) {
            Some(Value::List(texts)) => texts,
            Some(Value::Text(text)) => vec![text],
            Some(other) => {
                self.wrong::<()>(option, format!("expected a list of texts, found {other}"));
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let mut parsed = Vec::new();
        for text in texts {
            match parse(&text) {
                Ok(item) => parsed.push(item),
                Err(problem) => {
                    self.wrong::<()>(option, problem);
                }
            }
        }
        parsed
    }

    /// An absolute path.
    pub fn path(&mut self, option: &str, default: Option<&str>) -> Option<PathBuf> {
        self.parsed(option, default, absolute_path)
    }

    pub fn paths(&mut self, option: &str, default: &[&str]) -> Vec<PathBuf> {
        self.list(option, default, absolute_path)
    }

    /// A whole number within `range`.
    pub fn number(&mut self, option: &str, default: i64, range: RangeInclusive<i64>) -> u64 {
        let fallback = default.unsigned_abs();
        let number = match self.take(option, Some(Value::Number(default))) {
            Some(Value::Number(number)) => Some(number),
            Some(Value::Text(text)) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => number.unsigned_abs(),
            _ => {
                let (low, high) = (range.start(), range.end());
                self.wrong::<()>(option, format!("expected a whole number from {low} to {high}"));
                fallback
            }
        }
    }

    /// A number of seconds.
    pub fn seconds(&mut self, option: &str, default: i64, range: RangeInclusive<i64>) -> Duration {
        Duration::from_secs(self.number(option, default, range))
    }

    /// true or false; UCI's 1/0, yes/no, on/off and enabled/disabled too.
    pub fn flag(&mut self, option: &str, default: bool) -> bool {
        match self.take(option, Some(Value::Flag(default))) {
            Some(Value::Flag(flag)) => flag,
            Some(Value::Text(text))
                if matches!(&*text, "1" | "true" | "yes" | "on" | "enabled") =>
            {
                true
            }
            Some(Value::Text(text))
                if matches!(&*text, "0" | "false" | "no" | "off" | "disabled") =>
            {
                false
            }
            _ => {
                self.wrong::<()>(option, "expected true or false".to_owned());
                default
            }
        }
    }

    /// Reports that an option without default is missing.
    pub fn missing(&mut self, option: &str, problem: &str) {
        self.wrong::<()>(option, problem.to_owned());
    }

    fn take(&mut self, option: &str, default: Option<Value>) -> Option<Value> {
        self.merged.asked.insert((self.section.kind.clone(), option.to_owned()));
        let key = (self.section.clone(), option.to_owned());
        let (value, origin) = match self.merged.values.get(&key) {
            Some((value, origin)) => (value.clone(), origin.clone()),
            None => (default?, Origin::Default),
        };
        self.merged.effective.push((key.0, key.1, value.clone(), origin));
        Some(value)
    }

    fn wrong<T>(&mut self, option: &str, problem: String) -> Option<T> {
        let key = (self.section.clone(), option.to_owned());
        let origin = match self.merged.values.get(&key) {
            Some((_, origin)) => Some(origin.clone()),
            None => self.merged.beside(&key.0),
        };
        self.merged.errors.push(OptionError { origin, section: key.0, option: key.1, problem });
        None
    }
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("{text:?} is not an absolute path")) }
}
