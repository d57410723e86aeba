//! A copy of the settings that were valid last: settings that somebody broke must not keep the agent
//! from a modem whose flash was cut short.
//!
//! The copy lies where it is found without reading any settings, in the directory `state` beside the
//! TOML file, which is where the state is by default as well. It is TOML, and leaves out defaults: a
//! later version may have others.

use super::{
    Fragment, Settings, SettingsError, Value, from_fragments,
    merged::Effective,
    origin::Origin,
    source::{Router, Source},
};
use crate::files;
use std::{
    io,
    path::{Path, PathBuf},
};

const HEAD: &str = "# Written by the agent: its settings as they were valid last. Used only to finish an \
                    upgrade\n# of which a modem may need the rest, while those of the router are refused.\n";
/// More than a settings file may have.
const LIMIT: usize = 128 * 1024;

/// Keeps what `source` said; written only where that differs from what is kept.
///
/// # Errors
/// The copy cannot be written.
pub fn keep(source: &Source, settings: &Settings) -> io::Result<()> {
    let (path, text) = (place(source), toml(&settings.effective));
    path.parent().map_or(Ok(()), files::durable_dir)?;
    if files::read_limited(&path, LIMIT).is_ok_and(|kept| kept == text.as_bytes()) {
        return Ok(());
    }
    files::write_atomic(&path, text.as_bytes())
}

/// What was kept of `source`.
///
/// # Errors
/// Nothing was, or this version does not understand it.
pub fn find(source: &Source) -> Result<Settings, SettingsError> {
    from_fragments([Fragment::from_file(&place(source))?])
}

fn place(source: &Source) -> PathBuf {
    let toml = match source {
        Source::Toml(path) => path.clone(),
        Source::Router | Source::Uci(_) | Source::UciFile(_) => Router::default().toml,
    };
    toml.parent().unwrap_or(Path::new("")).join("state/last-valid.toml")
}

fn toml(effective: &Effective) -> String {
    let mut text = HEAD.to_owned();
    let mut last = None;
    for (section, option, value, origin) in &effective.0 {
        if *origin == Origin::Default {
            continue;
        }
        if last != Some(section) {
            let kind = &section.kind;
            text += &section
                .name
                .as_ref()
                .map_or(format!("\n[{kind}]\n"), |_| format!("\n[[{kind}]]\n"));
            last = Some(section);
        }
        // A text of JSON is one of TOML.
        let value = match value {
            Value::Text(text) => serde_json::to_string(text),
            Value::List(texts) => serde_json::to_string(texts),
            Value::Number(_) | Value::Flag(_) => Ok(value.to_string()),
        };
        text += &format!("\"{option}\" = {}\n", value.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "[coordinator]\nurl = \"https://h\"\n[uplink]\nmqtt = false\npoll_interval_s = 7\n\
        [holders]\nservices = [\"a\", \"b\"]\n[gates]\ntimezone = \"<+03>-3\"\n\
        [[slot]]\nname = \"left\"\nimei = \"356938035643809\"\n[[slot]]\nname = \"right\"\nimei = \"356938035643817\"\n";

    fn settings(text: &str) -> Settings {
        let assigned = Fragment::from_assignment("uplink.retry_s=9").unwrap();
        from_fragments([Fragment::from_toml(text, "t").unwrap(), assigned]).unwrap()
    }

    /// All in force, without where it stands.
    fn values(settings: &Settings) -> Vec<String> {
        let entries = settings.effective.0.iter();
        entries.map(|(section, option, value, _)| format!("{section} {option} {value}")).collect()
    }

    #[test]
    fn what_was_in_force_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Toml(dir.path().join("agent.toml"));
        assert!(find(&source).is_err());
        for text in [WRITTEN, "[coordinator]\nurl = \"https://other\"\n"] {
            let settings = settings(text);
            keep(&source, &settings).unwrap();
            assert_eq!(values(&find(&source).unwrap()), values(&settings));
        }
    }

    #[test]
    fn any_text_is_kept_and_defaults_are_not() {
        let text = "[holders]\n\"x\" = \"a\\\"b\\\\c\\n\\u0001ä\"\n";
        let entry = Fragment::from_toml(text, "t").unwrap().entries.remove(0);
        let odd = (entry.section.clone(), entry.option, entry.value.clone(), entry.origin);
        let default = (entry.section, "y".to_owned(), Value::Number(1), Origin::Default);
        let kept = Fragment::from_toml(&toml(&Effective(vec![odd, default])), "t").unwrap();
        assert_eq!(kept.entries.len(), 1);
        assert_eq!(kept.entries[0].value, entry.value);
    }

    #[test]
    fn the_same_is_not_written_again() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Toml(dir.path().join("agent.toml"));
        let inode = || std::fs::metadata(place(&source)).unwrap().ino();
        keep(&source, &settings("[coordinator]\nurl = \"https://h\"")).unwrap();
        let first = inode();
        keep(&source, &settings("[coordinator]\nurl = \"https://h\"")).unwrap();
        assert_eq!(inode(), first);
    }
}
