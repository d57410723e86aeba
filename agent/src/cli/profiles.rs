//! `profiles`: those of this router, one of them as TOML, and what is wrong with a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::FAILED;
use super::arguments::ProfilesVerb;
use crate::{files, profiles};
use shared::limits;
use shared::profile::{ToolProfile, place::Mistake};

/// Carries out `verb` for the profiles in `directory` and the built-in ones.
pub fn execute(directory: &Path, verb: &ProfilesVerb) -> ExitCode {
    match verb {
        ProfilesVerb::List => list(directory),
        ProfilesVerb::Show(name) => show(directory, name),
        ProfilesVerb::Check(files) if files.is_empty() => check_all(directory),
        ProfilesVerb::Check(files) => status(files.iter().map(|file| check_file(file)).collect()),
    }
}

fn list(directory: &Path) -> ExitCode {
    let names = profiles::names(directory);
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for name in names {
        let own = directory.join(format!("{name}.toml")).exists();
        let origin = if own { "own" } else { "built in" };
        let text = match profiles::find(directory, &name) {
            Ok(profile) => {
                let there = Path::new(&profile.tool.program).exists();
                let missing = if there { "" } else { " (not on this router)" };
                format!("{}; {}{missing}", profile.description, profile.tool.program)
            }
            Err(error) => format!("WRONG: {error}"),
        };
        println!("{name:width$}  {origin:8}  {text}");
    }
    ExitCode::SUCCESS
}

fn show(directory: &Path, name: &str) -> ExitCode {
    // A name that leads elsewhere is one that nothing is called by.
    let own = name.parse::<shared::ids::Slot>().is_ok().then(|| own_file(directory, name));
    let own = own.and_then(|file| read(&file).ok());
    match own.as_deref().or(profiles::built_in_text(name)) {
        Some(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("this router has no tool profile {name:?}");
            ExitCode::from(FAILED)
        }
    }
}

fn own_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.toml"))
}

/// A directory of one's own that holds nothing is nothing wrong.
fn check_all(directory: &Path) -> ExitCode {
    let checked = profiles::names(directory).into_iter().map(|name| {
        let own = own_file(directory, &name);
        if own.exists() {
            check_file(&own)
        } else {
            say(
                Path::new(&name),
                profiles::check(&name, profiles::built_in_text(&name).unwrap_or("")),
            )
        }
    });
    status(checked.collect())
}

fn status(good: Vec<bool>) -> ExitCode {
    if good.contains(&false) { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

fn check_file(file: &Path) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    match read(file) {
        Ok(text) => say(file, profiles::check(&stem, &text)),
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            false
        }
    }
}

fn say(file: &Path, checked: Result<ToolProfile, Mistake>) -> bool {
    match checked {
        Ok(profile) => {
            println!("{}: good", file.display());
            for (key, doubt) in profile.doubts() {
                eprintln!("{}: warning: {key}: {doubt}", file.display());
            }
            true
        }
        Err(mistake) => {
            eprintln!("{}", explain(file, &mistake));
            false
        }
    }
}

/// As compilers have it, so that editors find the place.
fn explain(file: &Path, mistake: &Mistake) -> String {
    let mut text = format!("{}:{mistake}", file.display());
    if mistake.line > 0 {
        let number = mistake.line.to_string();
        let (gap, indent) = (" ".repeat(number.len()), " ".repeat(mistake.column - 1));
        let source = mistake.source.replace('\t', " ");
        text.push_str(&format!("\n {number} | {source}\n {gap} | {indent}^"));
    }
    text
}

fn read(file: &Path) -> std::io::Result<String> {
    let bytes = files::read_limited(file, limits::PROFILE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::profile::BUILT_IN;

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let text = BUILT_IN[0].1.replace("program = \"/usr/bin/uxfp\"", "program = \"uxfp\"");
        let mistake = profiles::check("telit-uxfp", &text).unwrap_err();
        let line = 1 + text.lines().position(|line| line.starts_with("program")).unwrap();
        assert_eq!(
            explain(Path::new("/etc/telit-uxfp.toml"), &mistake),
            format!(
                "/etc/telit-uxfp.toml:{line}:1: tool.program: must be an absolute path\n \
                 {line} | program = \"uxfp\"\n    | ^"
            )
        );
    }

    #[test]
    fn one_wrong_file_among_good_ones_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let check = |files| execute(directory.path(), &ProfilesVerb::Check(files));
        assert_eq!(check(vec![]), ExitCode::SUCCESS);
        let good = file("telit-uxfp.toml", BUILT_IN[0].1);
        assert_eq!(check(vec![good.clone()]), ExitCode::SUCCESS);
        let other_name = file("mine.toml", BUILT_IN[0].1);
        assert_eq!(check(vec![good.clone(), other_name]), ExitCode::from(FAILED));
        assert_eq!(check(vec![]), ExitCode::from(FAILED));
        assert_eq!(check(vec!["/nowhere.toml".into()]), ExitCode::from(FAILED));
        for name in ["telit-uxfp", "generic-script"] {
            let show = ProfilesVerb::Show(name.into());
            assert_eq!(execute(directory.path(), &show), ExitCode::SUCCESS);
        }
        let show = ProfilesVerb::Show("../mine".into());
        assert_eq!(execute(directory.path(), &show), ExitCode::from(FAILED));
    }
}
