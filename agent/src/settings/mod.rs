//! Settings in three steps: fragments as written, merged, validated.
//!
//! ```text
//! /etc/modem-upgrader/agent.toml ─┐
//! (UCI, later)                   ─┼─ Fragment ─ Merged ─ Settings   or every error at once,
//! --set section.option=value     ─┘                                 each with file, section, option
//! ```
//! Every option has a default except `[coordinator] url`. Secrets are given as paths of files.

mod derived;
mod fragment;
mod merged;
mod validated;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use fragment::{Entry, Fragment, ReadError, Section, Value};
pub use merged::{Effective, OptionError};
pub use validated::{
    Coordinator, Holders, Image, Modem, Paths, Settings, SlotSettings, SpkiPin, Trust, Upgrade,
    Uplink, parse_pin,
};

/// Where the settings lie unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/modem-upgrader/agent.toml";

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}", lines(.0))]
    Invalid(Vec<OptionError>),
}

fn lines(errors: &[OptionError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The file and then `overrides`, the later one winning.
pub fn load(file: &Path, overrides: Vec<Fragment>) -> Result<Settings, SettingsError> {
    let file = Fragment::from_file(file)?;
    from_fragments(std::iter::once(file).chain(overrides))
}

/// As [`load`], for commands that look at this router only: the default file may be missing, and
/// so may the coordinator's URL.
pub fn load_local(file: &Path, overrides: Vec<Fragment>) -> Result<Settings, SettingsError> {
    let mut unset = Fragment::default();
    let url = Value::Text("https://unconfigured.invalid/".to_owned());
    unset.push(Section::plain("coordinator"), "url", url, "default");
    let written = match Fragment::from_file(file) {
        Err(ReadError::Unreadable { source, .. })
            if file == Path::new(DEFAULT_FILE) && source.kind() == std::io::ErrorKind::NotFound =>
        {
            Fragment::default()
        }
        read => read?,
    };
    from_fragments([unset, written].into_iter().chain(overrides))
}

/// Fragments in rising order of weight.
pub fn from_fragments(
    fragments: impl IntoIterator<Item = Fragment>,
) -> Result<Settings, SettingsError> {
    Settings::validate(merged::Merged::new(fragments)).map_err(SettingsError::Invalid)
}
