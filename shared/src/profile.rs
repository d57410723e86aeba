//! Tool profiles: how one vendor's flashing tool is called and understood. Data, not code: TOML,
//! built in ([`BUILT_IN`]) or in the router's own profile directory.
//!
//! Paths, programs, arguments and gates come only from here, never from the network. A job or a
//! manifest may set only the options that the profile declares, each of which becomes one argv
//! element after a fixed flag ([`options`]).

pub mod options;
mod surroundings;

use crate::{ids::UsbId, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use surroundings::{Gates, Holds, ModemManager, Needs, Restore, Setting};

/// The profiles that come with the software: name and TOML.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("telit-uxfp", include_str!("profile/telit-uxfp.toml")),
    ("generic-script", include_str!("profile/generic-script.toml")),
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolProfile {
    pub name: String,
    pub description: String,
    pub fits: Fits,
    pub versions: Versions,
    pub tool: Tool,
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
    /// Ids in normal operation; empty = any.
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

/// How the tool is called. Placeholders stand alone in an argument: `{image}`, `{diag}` (the
/// modem's diagnostic port), `{port}` (the download mode's port), `{state_dir}`.
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
    /// The file's path, for tools that look at the name; checked to be that file.
    Path,
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
    Toml(#[from] toml::de::Error),
    #[error("{key}: {problem}")]
    Key { key: String, problem: String },
}

fn key(key: impl Into<String>, problem: impl Into<String>) -> ProfileError {
    ProfileError::Key { key: key.into(), problem: problem.into() }
}

const PLACEHOLDERS: &[&str] = &["{image}", "{diag}", "{port}", "{state_dir}"];

impl ToolProfile {
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        if text.len() > limits::PROFILE {
            return Err(ProfileError::TooLarge);
        }
        let profile: Self = toml::from_str(text)?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), ProfileError> {
        if self.name.parse::<crate::ids::Slot>().is_err() {
            return Err(key("name", "must be 1 to 32 characters of a-z, 0-9 and '-'"));
        }
        if !self.tool.program.starts_with('/') {
            return Err(key("tool.program", "must be an absolute path"));
        }
        for (name, argv) in [("argv", &self.tool.argv), ("recovery_argv", &self.tool.recovery_argv)]
        {
            let odd =
                argv.iter().find(|a| a.contains(['{', '}']) && !PLACEHOLDERS.contains(&a.as_str()));
            if let Some(argument) = odd {
                let known = PLACEHOLDERS.join(" ");
                return Err(key(
                    format!("tool.{name}"),
                    format!("{argument:?} is not one of {known}"),
                ));
            }
        }
        if !self.tool.recovery_argv.is_empty() && self.fits.download_mode.is_empty() {
            return Err(key("fits.download_mode", "needed for tool.recovery_argv"));
        }
        let t = &self.timeouts;
        if t.total_s == 0 || t.typical_s > t.total_s || t.total_s > 24 * 3600 {
            return Err(key("timeouts", "total_s must be 1 to 86400 and not below typical_s"));
        }
        self.check_surroundings()?;
        self.options.iter().try_for_each(|(name, rule)| {
            rule.check().map_err(|problem| key(format!("options.{name}"), problem))
        })
    }

    /// Whether the tool is for a modem that calls itself so.
    #[must_use]
    pub fn fits(&self, vendor: &str, model: &str) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
        any(&self.fits.vendors, vendor) && any(&self.fits.models, model)
    }

    /// Seconds the modem is usually away, and the longest that is no failure.
    #[must_use]
    pub fn dark_window_s(&self) -> (u64, u64) {
        let t = &self.timeouts;
        (t.typical_s + t.boot_s, t.total_s + t.grace_s + 2 * t.boot_s)
    }
}

#[cfg(test)]
#[path = "profile/tests.rs"]
mod tests;
