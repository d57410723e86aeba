//! A UCI package as a [`Fragment`]: what TOML calls `[uplink]` is `config uplink`, and `[[slot]]` with
//! `name = "main"` is `config slot 'main'` (or `option name` in it, where UCI allows no such name).
//! Options are called the same.

use std::collections::BTreeSet;

use super::fragment::{Fragment, ReadError, Section, Value};
use super::origin::Origin;
use super::uci::{self, Package};

/// Section types of which there may be several, each with a name.
const NAMED: &[&str] = &["slot"];

/// `path` is what errors call it; `committed` the file as it is there, which has the lines that people know.
pub fn fragment(
    package: &Package,
    path: &str,
    committed: Option<&Package>,
) -> Result<Fragment, ReadError> {
    let mut fragment = Fragment::default();
    let mut seen = BTreeSet::new();
    for (index, written) in package.sections.iter().enumerate() {
        let shown = shown(written);
        let origin = |line| Origin::Uci { path: path.to_owned(), line, section: shown.clone() };
        let known = committed.and_then(|committed| twin(committed, package, index));
        let section = section_of(written);
        if !seen.insert(section.clone()) {
            let message = format!("section {shown}: there is a second one");
            return Err(ReadError::Malformed { path: path.to_owned(), message });
        }
        if let Some(name) = &section.name {
            let name = Value::Text(name.clone());
            fragment.push(section.clone(), "name", name, origin(known.map(|k| k.line)));
        }
        for option in &written.options {
            let twin = known.and_then(|known| known.options.iter().find(|o| o.name == option.name));
            let line = twin.filter(|twin| twin.value == option.value).map(|twin| twin.line);
            if section.name.is_some() && option.name == "name" {
                continue;
            }
            let value = match &option.value {
                uci::Value::One(text) => Value::Text(text.clone()),
                uci::Value::List(texts) => Value::List(texts.clone()),
            };
            fragment.push(section.clone(), &option.name, value, origin(line));
        }
    }
    Ok(fragment)
}

fn section_of(written: &uci::Section) -> Section {
    if !NAMED.contains(&written.kind.as_str()) {
        return Section::plain(&written.kind);
    }
    let name = written.text("name").or(written.name.as_deref()).unwrap_or_default();
    Section::named(&written.kind, name)
}

fn shown(written: &uci::Section) -> String {
    match &written.name {
        Some(name) => format!("{} '{name}'", written.kind),
        None => written.kind.clone(),
    }
}

/// The section of the file that this one is: by name, or as the nth unnamed one of its type.
fn twin<'a>(committed: &'a Package, package: &Package, index: usize) -> Option<&'a uci::Section> {
    let section = package.sections.get(index)?;
    let alike = |other: &&uci::Section| other.kind == section.kind && other.name == section.name;
    let before = package.sections.iter().take(index).filter(alike).count();
    committed.sections.iter().filter(alike).nth(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SettingsError, from_fragments};

    const PATH: &str = "/etc/config/modem-upgrader";

    fn read(text: &str) -> Fragment {
        let package = uci::parse(text).unwrap();
        fragment(&package, PATH, Some(&package)).unwrap()
    }

    fn errors(text: &str) -> Vec<String> {
        match from_fragments([read(text)]) {
            Err(SettingsError::Invalid(errors)) => errors.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_kind_of_option_is_read_as_in_toml() {
        let uci = read(
            "config coordinator 'coordinator'\n option url 'https://h'\n\
             config uplink\n option poll_interval_s '7'\n option mqtt off\n\
             config holders 'holders'\n list services 'a'\n list services 'b'\n list interfaces wwan\n\
             config slot 'main'\n option imei '356938035643809'\n\
             config slot\n option name left-modem\n option imei '356938035643817'\n",
        );
        let toml = Fragment::from_toml(
            "[coordinator]\nurl = \"https://h\"\n[uplink]\npoll_interval_s = 7\nmqtt = false\n\
             [holders]\nservices = [\"a\", \"b\"]\ninterfaces = \"wwan\"\n\
             [[slot]]\nname = \"main\"\nimei = \"356938035643809\"\n\
             [[slot]]\nname = \"left-modem\"\nimei = \"356938035643817\"\n",
            "agent.toml",
        )
        .unwrap();
        let (uci, toml) = (from_fragments([uci]).unwrap(), from_fragments([toml]).unwrap());
        assert_eq!(uci.slots, toml.slots);
        assert_eq!(uci.slots[0].slot.as_str(), "left-modem");
        assert_eq!(uci.holders, toml.holders);
        assert_eq!((uci.uplink.poll_interval, uci.uplink.mqtt), (toml.uplink.poll_interval, false));
        let shown = uci.effective.to_string();
        let line = "poll_interval_s = \"7\"    # /etc/config/modem-upgrader, line 4";
        assert!(shown.contains(line), "{shown}");
    }

    #[test]
    fn errors_are_in_the_words_of_the_file() {
        let text = "config coordinator\n option url 'https://h'\n\nconfig slot 'main'\n option at_port x\n\
                    config uplink 'uplink'\n option mqtt perhaps\n";
        assert_eq!(
            errors(text),
            [
                "/etc/config/modem-upgrader, line 7, section uplink 'uplink', option mqtt: \
                 expected true or false",
                "/etc/config/modem-upgrader, line 5, section slot 'main', option at_port: \
                 no such option",
            ]
        );
    }

    #[test]
    fn what_is_missing_is_missed_where_it_should_stand() {
        assert_eq!(
            errors("\nconfig coordinator 'c'\n option pins x"),
            [
                "/etc/config/modem-upgrader, section coordinator 'c', option url: is missing; \
                 expected https://host[:port]/",
                "/etc/config/modem-upgrader, line 3, section coordinator 'c', option pins: \
                 \"x\": expected sha256// and the digest in base64",
            ]
        );
    }

    #[test]
    fn a_change_that_nobody_committed_has_no_line() {
        let text = "config uplink 'u'\n option mqtt 1\n option retry_s 3\n";
        let file = uci::parse(&format!("# a comment\n\n{text}")).unwrap();
        let now = uci::parse(&text.replace("mqtt 1", "mqtt 0")).unwrap();
        let fragment = fragment(&now, PATH, Some(&file)).unwrap();
        let origins: Vec<_> = fragment.entries.iter().map(|e| e.origin.to_string()).collect();
        let uncommitted = "/etc/config/modem-upgrader, uncommitted";
        assert_eq!(origins, [uncommitted, "/etc/config/modem-upgrader, line 5"]);
    }

    #[test]
    fn two_of_a_kind_that_is_there_once_are_an_error() {
        let package = uci::parse("config uplink a\nconfig uplink b\n").unwrap();
        let error = fragment(&package, PATH, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/etc/config/modem-upgrader: section uplink 'b': there is a second one"
        );
        let package = uci::parse("config slot main\nconfig slot\n option name main\n").unwrap();
        assert!(fragment(&package, PATH, None).is_err());
    }
}
