//! Tool profiles: how one vendor's flashing tool is called and understood. Data, not code: TOML,
//! built in ([`BUILT_IN`]) or in the router's own profile directory.
//!
//! Paths, programs, arguments and gates come only from here, never from the network. A job or a
//! manifest may set only the options that the profile declares, each of which becomes one argv
//! element after a fixed flag ([`options`]).

mod check;
pub mod options;
pub mod place;
mod read;
mod surroundings;

use crate::{ids::UsbId, limits};
pub use read::Misfit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use surroundings::{Gates, Holds, ModemManager, Needs, Restore, Setting};

/// The profiles that come with the software: name and TOML.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("telit-uxfp", include_str!("profile/telit-uxfp.toml")),
    ("generic-script", include_str!("profile/generic-script.toml")),
    ("telit-tfl", include_str!("profile/telit-tfl.toml")),
    ("quectel-qfirehose", include_str!("profile/quectel-qfirehose.toml")),
    ("sierra-qmi-firmware-update", include_str!("profile/sierra-qmi-firmware-update.toml")),
    ("fibocom", include_str!("profile/fibocom.toml")),
    ("openwisp-safe-update", include_str!("profile/openwisp-safe-update.toml")),
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolProfile {
    pub name: String,
    pub description: String,
    pub fits: Fits,
    pub versions: Versions,
    pub tool: Tool,
    /// For a tool that returns while its work goes on.
    pub follow: Option<Follow>,
    #[serde(default)]
    pub options: BTreeMap<String, options::OptionRule>,
    pub output: Output,
    #[serde(default)]
    pub exit: Exit,
    pub timeouts: Timeouts,
    #[serde(default)]
    pub needs: Needs,
    #[serde(default)]
    pub gates: Gates,
    #[serde(default)]
    pub holds: Holds,
    #[serde(default)]
    pub restore: Restore,
}

/// Which modems the tool is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fits {
    /// Answers to `+CGMI`; empty = any.
    #[serde(default)]
    pub vendors: Vec<String>,
    /// Answers to `+CGMM`; empty = any.
    #[serde(default)]
    pub models: Vec<String>,
    /// Ids on USB in normal operation; empty = any. A modem that is not on USB fits no profile.
    #[serde(default)]
    pub usb: Vec<UsbId>,
    /// Ids in the download mode that the tool recovers from.
    #[serde(default)]
    pub download_mode: Vec<UsbId>,
}

/// Commands whose replies are the version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    pub commands: Vec<String>,
}

/// How the tool is called. A placeholder stands alone in an argument:
///
/// | placeholder | what stands for it |
/// |---|---|
/// | `{image}` | the verified image, see [`ImageArgument`] |
/// | `{diag}` | the modem's diagnostic port; needs `needs.diag` |
/// | `{port}` | the download mode's port; only in `recovery_argv` |
/// | `{usb}` | the device's directory in sysfs, `/sys/bus/usb/devices/1-1` |
/// | `{usb_id}` | its id, `1199:68c0` |
/// | `{state_dir}` | a directory that is empty when the tool starts, gone with the router's power |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Absolute path.
    pub program: String,
    pub argv: Vec<String>,
    /// How it is called for a modem in download mode; empty = it cannot recover.
    #[serde(default)]
    pub recovery_argv: Vec<String>,
    #[serde(default)]
    pub image: ImageArgument,
    /// For [`ImageArgument::Named`]: the name, as in `firmware.zip`.
    pub image_name: Option<String>,
    /// Set in the tool's environment, which is empty otherwise but for `PATH`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// What stands for `{image}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageArgument {
    /// `/proc/self/fd/N` of the very file that was verified.
    #[default]
    Descriptor,
    /// The file's path in the staging directory; checked to be that file.
    Path,
    /// A link `{state_dir}/<image_name>` to that path, for tools that judge a file by its name. The
    /// name is the profile's: none comes from the network.
    Named,
}

/// How a tool that returns before its work is done is asked whether it goes on. It is asked when
/// no process of it is left, until it says something else than [`Follow::running`], which is then
/// read by [`Output`]'s patterns; `timeouts.total_s` holds for all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// Absolute path.
    pub program: String,
    /// Placeholders as in [`Tool`], of which only `{state_dir}` makes sense here.
    pub argv: Vec<String>,
    /// Seconds between two questions.
    pub every_s: u64,
    /// Patterns for "not yet".
    pub running: Vec<String>,
    /// A file in the state directory that the tool writes instead of its standard output; read
    /// like it, as it grows.
    pub log: Option<String>,
}

/// How its output is understood. Patterns are literal but for `*` (anything) and `{percent}`.
/// All of them are hints: only the versions read back decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    #[serde(default)]
    pub progress: Vec<String>,
    #[serde(default)]
    pub success: Vec<String>,
    #[serde(default)]
    pub failure: Vec<String>,
    /// Failures that another attempt cannot mend.
    #[serde(default)]
    pub refusal: Vec<String>,
}

/// What exit codes say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Empty = no status means success, only a text does: for tools that end with 0 when they
    /// failed.
    pub success: Vec<u8>,
    /// Codes that another attempt cannot mend.
    #[serde(default)]
    pub refusal: Vec<u8>,
}

impl Default for Exit {
    fn default() -> Self {
        Self { success: vec![0], refusal: vec![] }
    }
}

/// Seconds, each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Silence after which the tool is reported as stalled.
    pub idle_s: u64,
    /// After this the tool is ended.
    pub total_s: u64,
    /// From the request to end to the kill.
    #[serde(default = "grace")]
    pub grace_s: u64,
    /// How long it usually takes; the expected dark window with `boot_s`.
    pub typical_s: u64,
    /// From the tool's end until the modem answers.
    pub boot_s: u64,
    /// How long the flashed modem may take, once its settings are restored, to be back in its network; some
    /// twenty minutes where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_s: Option<u64>,
}

fn grace() -> u64 {
    10
}

/// Why a text is not a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("larger than {} bytes", limits::PROFILE)]
    TooLarge,
    #[error("{0}")]
    Toml(#[from] Misfit),
    #[error("{key}: {problem}")]
    Key { key: String, problem: String },
}

fn key(key: impl Into<String>, problem: impl Into<String>) -> ProfileError {
    ProfileError::Key { key: key.into(), problem: problem.into() }
}

impl ToolProfile {
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        if text.len() > limits::PROFILE {
            return Err(ProfileError::TooLarge);
        }
        let profile: Self = read::read(text)?;
        profile.check()?;
        Ok(profile)
    }

    /// Whether the tool is for a modem that calls itself so.
    #[must_use]
    pub fn fits(&self, vendor: &str, model: &str) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
        any(&self.fits.vendors, vendor) && any(&self.fits.models, model)
    }

    /// Whether ModemManager lets go of all its modems for this tool.
    #[must_use]
    pub fn stops_modemmanager(&self) -> bool {
        self.holds.modemmanager == ModemManager::Stop
    }

    /// Whether the tool is for a modem that has this id on USB.
    #[must_use]
    pub fn fits_usb(&self, id: UsbId) -> bool {
        self.fits.usb.is_empty() || self.fits.usb.contains(&id)
    }

    /// What is allowed and perhaps not meant: key and doubt.
    #[must_use]
    pub fn doubts(&self) -> Vec<(&'static str, &'static str)> {
        let any_id = self.fits.usb.is_empty() && !self.fits.download_mode.is_empty();
        let doubt = "names no id, so the tool may be started for a modem in any USB composition";
        any_id.then_some(("fits.usb", doubt)).into_iter().collect()
    }

    /// Seconds the modem is usually away, and the longest that is no failure.
    #[must_use]
    pub fn dark_window_s(&self) -> (u64, u64) {
        let t = &self.timeouts;
        let total_s = t.total_s * if self.follow.is_some() { BELIEVED } else { 1 };
        let longest = total_s + t.grace_s + 2 * t.boot_s + t.network_s.unwrap_or(0);
        (t.typical_s + t.boot_s, longest)
    }
}

/// How many times its total time a tool has whose own program ([`Follow`]) says that its work goes on: after that it
/// is taken for the word of a worker that died.
pub const BELIEVED: u64 = 3;

#[cfg(test)]
#[path = "profile/tests.rs"]
mod tests;
