//! What the FN990A calls things: identity and versions.
//!
//! Its answers carry no prefix, so an unsolicited line that nobody knew would pass for a value. Hence a
//! value must look like what it is (15 digits, `M0R.010002`), and one that decides about success is read
//! until two readings in a row agree. Source: Telit AT guides, ModemManager's Telit plugin and its tests.

pub(super) mod looks;

use serde::{Deserialize, Serialize};
use shared::event::VersionLine;

use super::port::{Port, PortError, QUICK};
use looks::{is_dotted_number, is_imei, is_model, is_name, one, version_lines};

/// Readings of one value before it is called unreadable.
const READINGS: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum ModemError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("{command} gave nothing like its value: {lines:?}")]
    Unreadable { command: String, lines: Vec<String> },
    #[error("two readings of {command} never agreed")]
    Unsteady { command: String },
}

/// Who the modem is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `Telit` or `Telit Cinterion`.
    pub manufacturer: String,
    /// `FN990A28`.
    pub model: String,
    /// 15 digits.
    pub imei: String,
    /// `1.00`; not every firmware tells.
    pub hardware_revision: Option<String>,
}

/// Reads the identity. It needs no SIM.
pub async fn identify(port: &mut Port) -> Result<Identity, ModemError> {
    Ok(Identity {
        manufacturer: steady(port, "AT+CGMI", &|lines| one(lines, is_name)).await?,
        model: steady(port, "AT+CGMM", &|lines| one(lines, is_model)).await?,
        imei: steady(port, "AT+CGSN", &|lines| one(lines, is_imei)).await?,
        hardware_revision: optional(
            steady(port, "AT#HWREV", &|lines| one(lines, is_dotted_number)).await,
        )?,
    })
}

/// Version commands, `#SWPKGV` or `AT#SWPKGV`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionCommands {
    /// Something is decided by them: without an answer nothing is known.
    pub required: Vec<String>,
    /// Good to know, where the firmware has them.
    pub optional: Vec<String>,
}

impl VersionCommands {
    /// Each once; one that is required is not optional as well.
    pub fn new<'a>(
        required: impl IntoIterator<Item = &'a String>,
        optional: impl IntoIterator<Item = &'a String>,
    ) -> VersionCommands {
        let mut commands = VersionCommands::default();
        for command in required {
            if !commands.required.contains(command) {
                commands.required.push(command.clone());
            }
        }
        for command in optional {
            if !commands.required.contains(command) && !commands.optional.contains(command) {
                commands.optional.push(command.clone());
            }
        }
        commands
    }
}

/// Reads the answer to each of `commands`: the command as given, its lines. An optional one that the
/// firmware refuses is left out.
///
/// Lines are compared by equality with what a manifest lists, so they come without prefix and without
/// anything that is not theirs.
pub async fn read_versions(
    port: &mut Port,
    commands: &VersionCommands,
) -> Result<Vec<(String, Vec<String>)>, ModemError> {
    let mut versions = Vec::new();
    for command in &commands.required {
        versions.push((command.clone(), read_version(port, command).await?));
    }
    for command in &commands.optional {
        if let Some(lines) = optional(read_version(port, command).await)? {
            versions.push((command.clone(), lines));
        }
    }
    Ok(versions)
}

async fn read_version(port: &mut Port, command: &str) -> Result<Vec<String>, ModemError> {
    let name = command.strip_prefix("AT").unwrap_or(command);
    steady(port, &format!("AT{name}"), &|lines| version_lines(name, lines)).await
}

/// [`read_versions`], line by line as a manifest names them.
pub async fn read_version_lines(
    port: &mut Port,
    commands: &VersionCommands,
) -> Result<Vec<VersionLine>, ModemError> {
    let answers = read_versions(port, commands).await?;
    Ok(answers.into_iter().flat_map(|(command, lines)| numbered(&command, lines)).collect())
}

/// Lines count from 1.
fn numbered(command: &str, lines: Vec<String>) -> impl Iterator<Item = VersionLine> + use<> {
    let command = command.strip_prefix("AT").unwrap_or(command).to_owned();
    (1..=u8::MAX).zip(lines).map(move |(line, value)| VersionLine {
        command: command.clone(),
        line,
        value,
    })
}

/// Repeats `command` until two readings in a row agree.
pub(super) async fn steady<T: PartialEq>(
    port: &mut Port,
    command: &str,
    select: &impl Fn(&[String]) -> Option<T>,
) -> Result<T, ModemError> {
    let mut last: Option<T> = None;
    let mut unread = None;
    for _ in 0..READINGS {
        let lines = match port.command(command, QUICK).await {
            Ok(lines) => lines,
            Err(error @ PortError::Timeout { .. }) if last.is_some() => {
                log::debug!("{error}; asking again");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match select(&lines) {
            Some(value) if last.as_ref() == Some(&value) => return Ok(value),
            Some(value) => last = Some(value),
            None => unread = Some(lines),
        }
    }
    let command = command.to_owned();
    Err(match (last, unread) {
        (None, Some(lines)) => ModemError::Unreadable { command, lines },
        _ => ModemError::Unsteady { command },
    })
}

/// `None` where the modem does not know the command.
pub(super) fn optional<T>(read: Result<T, ModemError>) -> Result<Option<T>, ModemError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(ModemError::Port(PortError::Refused { .. }) | ModemError::Unreadable { .. }) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_counted_from_one_under_the_manifests_name() {
        let found: Vec<_> = numbered("AT#SWPKGV", lines("45.00.012\nM0R.010002")).collect();
        let line = |line, value: &str| VersionLine {
            command: "#SWPKGV".into(),
            line,
            value: value.into(),
        };
        assert_eq!(found, [line(1, "45.00.012"), line(2, "M0R.010002")]);
    }
}
