//! Settings in three steps: fragments as written, merged, validated.
//!
//! ```text
//! /etc/config/openwisp (its CA and uuid) ─┐
//! /etc/config/modem-upgrader (UCI)       ─┤
//! /etc/modem-upgrader/agent.toml         ─┼─ Fragment ─ Merged ─ Settings   or every error at once,
//! --set section.option=value             ─┘                                 each with file, section, option
//! ```
//! The later source wins. Every option has a default except `[coordinator] url`. Secrets are given as
//! paths of files.

mod derived;
mod fragment;
mod from_uci;
mod gates;
pub mod last_valid;
mod merged;
mod openwisp;
mod origin;
mod source;
mod types;
pub mod uci;
mod validated;
mod values;

#[cfg(test)]
mod tests;

pub use fragment::{Entry, Fragment, ReadError, Section, Value};
pub use gates::{Cost, Gates};
pub use merged::{Effective, OptionError};
pub use origin::Origin;
pub use source::{Router, Source};
pub use types::{
    Coordinator, Holders, Image, Modem, Paths, Settings, SlotSettings, SpkiPin, Trust, Upgrade,
    Uplink,
};
pub use values::parse_pin;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}", lines(.0))]
    Invalid(Vec<OptionError>),
    /// Each: what they leave alone that is not finished.
    #[error("{}", .0.join("\n"))]
    Unfinished(Vec<String>),
}

fn lines(errors: &[OptionError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Stands for a coordinator where none is needed.
const UNCONFIGURED: &str = "https://unconfigured.invalid/";

/// What `source` says and then `overrides`, the later one winning.
pub fn load(source: &Source, overrides: Vec<Fragment>) -> Result<Settings, SettingsError> {
    let written = Router::default().read(source)?;
    if written.is_empty() {
        return Err(source::nothing().into());
    }
    from_fragments(neighbours().into_iter().chain(written).chain(overrides))
}

/// As [`load`], for commands that look at this router only: nothing need be written, not even the
/// coordinator's URL.
pub fn load_local(source: &Source, overrides: Vec<Fragment>) -> Result<Settings, SettingsError> {
    let mut unset = Fragment::default();
    let url = Value::Text(UNCONFIGURED.to_owned());
    unset.push(Section::plain("coordinator"), "url", url, Origin::Default);
    let written = Router::default().read(source)?;
    from_fragments([unset].into_iter().chain(neighbours()).chain(written).chain(overrides))
}

fn neighbours() -> Option<Fragment> {
    Router::default().openwisp()
}

/// Fragments in rising order of weight.
pub fn from_fragments(
    fragments: impl IntoIterator<Item = Fragment>,
) -> Result<Settings, SettingsError> {
    Settings::validate(merged::Merged::new(fragments)).map_err(SettingsError::Invalid)
}
