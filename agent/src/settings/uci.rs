//! UCI, OpenWrt's configuration language: text in, sections out. Pure, and bounded by [`MAX_BYTES`].
//!
//! It reads a file of `/etc/config` as well as what `uci export` prints, with libuci's rules:
//! `'..'` is literal, in `".."` and outside of quotes a backslash takes the next character as it is (or
//! joins the next line), pieces that touch are one word (`'it'\''s'`), `#` begins a comment outside of quotes,
//! `;` ends a statement as a line end does, and a quoted value may go over several lines.

mod statement;
mod words;

use std::fmt::Write as _;

/// More than this is no settings file.
pub const MAX_BYTES: usize = 64 * 1024;

/// One package: the sections in the order they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    pub name: Option<String>,
    pub sections: Vec<Section>,
}

/// `config TYPE 'NAME'` and what follows. A second section of the same name continues the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub kind: String,
    /// Absent in an unnamed section.
    pub name: Option<String>,
    /// In the order of their first mention, each name once.
    pub options: Vec<UciOption>,
    /// Where it begins, counted from 1.
    pub line: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UciOption {
    pub name: String,
    pub value: Value,
    /// Where it was last set, counted from 1.
    pub line: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `option`
    One(String),
    /// `list`, never empty
    List(Vec<String>),
}

/// Why a text is not UCI, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: u32,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("a zero byte")]
    ZeroByte,
    #[error("the quote that begins here has no end")]
    Unterminated,
    #[error("{0:?} is no statement; expected package, config, option or list")]
    UnknownStatement(String),
    #[error("{statement} wants {expected}")]
    Words { statement: &'static str, expected: &'static str },
    #[error("{0:?} is no name; letters, digits and _ are")]
    Name(String),
    #[error("{0:?} is no type; one word is")]
    Type(String),
    #[error("an option outside of any section")]
    NoSection,
    #[error("a second package")]
    SecondPackage,
}

/// # Errors
/// The first place that libuci would not read either.
pub fn parse(text: &str) -> Result<Package, SyntaxError> {
    let refused = |line, problem| Err(SyntaxError { line, problem });
    if text.len() > MAX_BYTES {
        return refused(1, Problem::TooLarge);
    }
    if text.contains('\0') {
        return refused(1, Problem::ZeroByte);
    }
    let mut package = Package::default();
    for statement in words::statements(text)? {
        let line = statement.line;
        if let Err(problem) = statement::apply(&mut package, statement) {
            return refused(line, problem);
        }
    }
    Ok(package)
}

/// As `uci export` prints it; [`parse`] gives the same again but for the lines.
#[must_use]
pub fn export(package: &Package) -> String {
    let mut text = String::new();
    if let Some(name) = &package.name {
        let _ = writeln!(text, "package {name}");
    }
    for section in &package.sections {
        let name = section.name.as_ref().map(|name| format!(" {}", quoted(name)));
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        let kind = match &section.kind {
            kind if kind.bytes().all(is_plain) => kind.clone(),
            kind => quoted(kind),
        };
        let _ = writeln!(text, "\nconfig {kind}{}", name.unwrap_or_default());
        for option in &section.options {
            let (word, values) = match &option.value {
                Value::One(value) => ("option", std::slice::from_ref(value)),
                Value::List(values) => ("list", values.as_slice()),
            };
            for value in values {
                let _ = writeln!(text, "\t{word} {} {}", option.name, quoted(value));
            }
        }
    }
    text
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Package {
    /// The sections of a type.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Section> {
        self.sections.iter().filter(move |section| section.kind == kind)
    }
}

impl Section {
    /// The value of an `option`; of a `list` its last.
    #[must_use]
    pub fn text(&self, option: &str) -> Option<&str> {
        self.options.iter().find(|o| o.name == option).and_then(|o| match &o.value {
            Value::One(value) => Some(value.as_str()),
            Value::List(values) => values.last().map(String::as_str),
        })
    }
}

#[cfg(test)]
mod tests;
