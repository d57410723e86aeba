//! The servers that an operator has logged in to: `modem-upgrader/config.toml` below
//! `$XDG_CONFIG_HOME` (else `~/.config`), for its owner alone. Owns how it is read and written.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use shared::hex::Sha256;

use super::output::note;
use super::trust;
use crate::secret_file;

/// What a profile is called: a bare key in TOML.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// A server, how to recognize it, and the token for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    pub url: String,
    #[serde(deserialize_with = "pin")]
    pub pin: Option<Sha256>,
    pub ca: Option<PathBuf>,
    pub token: Option<String>,
    /// The token's id, where it came of a password: `logout` ends it.
    pub token_id: Option<String>,
    /// Whose token it is, for people.
    pub user: Option<String>,
    /// When it ends (RFC 3339), for people.
    pub expires: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profiles {
    /// The one in use where none is named.
    pub current: Option<Name>,
    profiles: BTreeMap<Name, Profile>,
}

impl Profiles {
    /// What is on disk; nothing where there is no file yet.
    pub fn load() -> anyhow::Result<Self> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let bytes = match secret_file::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if path.metadata().is_ok_and(|known| known.permissions().mode() & 0o077 != 0) {
            note!("warning: others may read {0}: chmod 600 {0}", path.display());
        }
        let text = String::from_utf8(bytes)?;
        toml::from_str(&text).with_context(|| format!("{} is broken", path.display()))
    }

    /// Replaces the file, whole or not at all.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let path = path().context("neither XDG_CONFIG_HOME nor HOME is set")?;
        let text = self.to_toml();
        secret_file::write(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub fn get(&self, name: &Name) -> Option<&Profile> {
        self.profiles.get(name)
    }

    pub fn in_use(&self) -> Option<&Profile> {
        self.profiles.get(self.current.as_ref()?)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Profile)> {
        self.profiles.iter()
    }

    /// Keeps a profile and uses it from now on.
    pub fn put(&mut self, name: Name, profile: Profile) {
        self.profiles.insert(name.clone(), profile);
        self.current = Some(name);
    }

    pub fn choose(&mut self, name: &Name) -> anyhow::Result<()> {
        if !self.profiles.contains_key(name) {
            bail!("no profile {name}: `modem-upgrader profiles` lists them");
        }
        self.current = Some(name.clone());
        Ok(())
    }

    /// Takes a profile out; the one in use leaves nothing in use.
    pub fn remove(&mut self, name: &Name) -> anyhow::Result<Profile> {
        let gone = self.profiles.remove(name);
        let gone = gone.with_context(|| format!("no profile {name}"))?;
        self.current.take_if(|current| *current == *name);
        Ok(gone)
    }

    fn to_toml(&self) -> String {
        let mut text = "# Written by `modem-upgrader login`.\n".to_owned();
        line(&mut text, "current", self.current.as_ref().map(Name::to_string));
        for (name, profile) in &self.profiles {
            text.push_str(&format!("\n[profiles.{name}]\n"));
            let pin = profile.pin.map(|pin| format!("sha256//{}", STANDARD.encode(pin.0)));
            let ca = profile.ca.as_ref().map(|path| path.to_string_lossy().into_owned());
            line(&mut text, "url", Some(profile.url.clone()));
            line(&mut text, "pin", pin);
            line(&mut text, "ca", ca);
            line(&mut text, "token", profile.token.clone());
            line(&mut text, "token_id", profile.token_id.clone());
            line(&mut text, "user", profile.user.clone());
            line(&mut text, "expires", profile.expires.clone());
        }
        text
    }
}

/// The TOML crate is built without its writer; strings are all that we write.
fn line(text: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value {
        text.push_str(&format!("{key} = {}\n", quoted(&value)));
    }
}

/// A basic string of TOML 1.0: JSON's escapes, and DEL as well.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn path() -> Option<PathBuf> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = given("XDG_CONFIG_HOME").or_else(|| Some(given("HOME")?.join(".config")))?;
    Some(folder.join("modem-upgrader/config.toml"))
}

fn pin<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Sha256>, D::Error> {
    let text = String::deserialize(value)?;
    trust::parse_pin(&text).map(Some).map_err(serde::de::Error::custom)
}

impl Default for Name {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err("expected up to 64 letters, digits, - and _".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut profiles = Profiles::default();
        let odd = Profile {
            url: "https://x:8443".into(),
            pin: "ab".repeat(32).parse().ok(),
            ca: Some("/a \"b\"\\c\u{7f}\n".into()),
            token: Some("mu-api-1".into()),
            user: Some("Zoë".into()),
            ..Profile::default()
        };
        profiles.put("lab-1".parse().unwrap(), odd);
        profiles.put(Name::default(), Profile::default());
        let text = profiles.to_toml();
        assert_eq!(toml::from_str::<Profiles>(&text).unwrap(), profiles, "{text}");
        assert_eq!(profiles.current, Some(Name::default()));
    }

    #[test]
    fn names_are_bare_keys() {
        for bad in ["", "a.b", "a b", "ü", "[x]"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_removed_is_no_longer_in_use() {
        let mut profiles = Profiles::default();
        let name: Name = "a".parse().unwrap();
        profiles.put(name.clone(), Profile::default());
        profiles.remove(&name).unwrap();
        assert_eq!(profiles, Profiles::default());
        assert!(profiles.choose(&name).is_err());
    }
}
