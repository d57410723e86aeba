//! What each statement does to a package.

use super::words::Statement;
use super::{Package, Problem, Section, UciOption, Value};

pub fn apply(package: &mut Package, statement: Statement) -> Result<(), Problem> {
    let Statement { line, words } = statement;
    let mut words = words.into_iter();
    let first = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    match first.as_str() {
        "package" | "p" => name_package(package, words),
        "config" | "c" => begin_section(package, line, words),
        "option" | "o" => {
            let (name, value) = name_and_value("option", words)?;
            set(current(package)?, name, Value::One(value), line);
            Ok(())
        }
        "list" | "l" => {
            let (name, value) = name_and_value("list", words)?;
            add(current(package)?, name, value, line);
            Ok(())
        }
        _ => Err(Problem::UnknownStatement(shared::limits::cut(first))),
    }
}

fn name_package(package: &mut Package, words: Vec<String>) -> Result<(), Problem> {
    let [name] = exactly(words, "package", "a name")?;
    // A hyphen is allowed here and nowhere else.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Problem::Name(shared::limits::cut(name)));
    }
    if package.name.is_some() || !package.sections.is_empty() {
        return Err(Problem::SecondPackage);
    }
    package.name = Some(name);
    Ok(())
}

fn begin_section(package: &mut Package, line: u32, words: Vec<String>) -> Result<(), Problem> {
    let mut words = words.into_iter();
    let (kind, name) = (words.next(), words.next().filter(|name| !name.is_empty()));
    let expected = Problem::Words { statement: "config", expected: "a type and at most a name" };
    let (Some(kind), None) = (kind, words.next()) else { return Err(expected) };
    check_type(&kind)?;
    if let Some(name) = &name {
        check_name(name)?;
        let known = package.sections.iter().position(|s| s.name.as_ref() == Some(name));
        if let Some(index) = known {
            // It goes on, and is the one that options belong to.
            let mut section = package.sections.remove(index);
            section.kind = kind;
            package.sections.push(section);
            return Ok(());
        }
    }
    package.sections.push(Section { kind, name, options: Vec::new(), line });
    Ok(())
}

fn current(package: &mut Package) -> Result<&mut Section, Problem> {
    package.sections.last_mut().ok_or(Problem::NoSection)
}

fn name_and_value(
    statement: &'static str,
    words: Vec<String>,
) -> Result<(String, String), Problem> {
    let [name, value] = exactly(words, statement, "a name and a value")?;
    check_name(&name)?;
    Ok((name, value))
}

fn exactly<const N: usize>(
    words: Vec<String>,
    statement: &'static str,
    expected: &'static str,
) -> Result<[String; N], Problem> {
    words.try_into().map_err(|_| Problem::Words { statement, expected })
}

/// Types may be any word, as `bridge-vlan` is; names may not.
fn check_type(kind: &str) -> Result<(), Problem> {
    if !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Problem::Type(shared::limits::cut(kind.to_owned())))
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !name.is_empty() && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(Problem::Name(shared::limits::cut(name.to_owned())))
    }
}

fn set(section: &mut Section, name: String, value: Value, line: u32) {
    match section.options.iter_mut().find(|option| option.name == name) {
        Some(option) => (option.value, option.line) = (value, line),
        None => section.options.push(UciOption { name, value, line }),
    }
}

/// An `option` of the same name becomes the list's first value.
fn add(section: &mut Section, name: String, value: String, line: u32) {
    let Some(option) = section.options.iter_mut().find(|option| option.name == name) else {
        section.options.push(UciOption { name, value: Value::List(vec![value]), line });
        return;
    };
    option.line = line;
    match &mut option.value {
        Value::List(values) => values.push(value),
        Value::One(first) => option.value = Value::List(vec![std::mem::take(first), value]),
    }
}
