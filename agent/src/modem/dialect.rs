//! What the FN990A calls things: identity, versions, restart.
//!
//! Its answers carry no prefix, so an unsolicited line that nobody knew would pass for a value. Hence a
//! value must look like what it is (15 digits, `M0R.010002`), and one that decides about success is read
//! until two readings in a row agree. Source: Telit AT guides, ModemManager's Telit plugin and its tests.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::event::VersionLine;

use super::port::{Port, PortError, QUICK};

/// Readings of one value before it is called unreadable.
const READINGS: u32 = 5;
/// AT#REBOOT: ModemManager gives it as long.
const REBOOT: Duration = Duration::from_secs(8);

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

/// Asks the modem to restart. Its ports vanish, often before the OK gets out: that is success as well.
pub async fn reboot(port: &mut Port) -> Result<(), ModemError> {
    match port.command("AT#REBOOT", REBOOT).await {
        Ok(_) | Err(PortError::Gone | PortError::Timeout { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
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

/// The only line that is like a value.
fn one(lines: &[String], is_value: fn(&str) -> bool) -> Option<String> {
    let mut values = lines.iter().filter(|line| is_value(line));
    let value = values.next()?;
    values.next().is_none().then(|| value.clone())
}

/// The lines of one version command.
fn version_lines(name: &str, lines: &[String]) -> Option<Vec<String>> {
    let bare: Vec<&str> = lines.iter().map(|line| without_prefix(name, line)).collect();
    let only = |is_value: fn(&str) -> bool| {
        let values: Vec<String> =
            bare.iter().filter(|line| is_value(line)).map(|line| (*line).to_owned()).collect();
        (!values.is_empty()).then_some(values)
    };
    match name {
        "#SWPKGV" => only(is_package_line).filter(|lines| is_package(lines)),
        "+CGMR" | "+GMR" | "#CGMR" => only(is_version).filter(|lines| lines.len() == 1),
        _ => only(|line| !line.is_empty()),
    }
}

/// Telit's `#` forms and other vendors repeat the name: `#CGMR: 08.01.005`.
fn without_prefix<'a>(name: &str, line: &'a str) -> &'a str {
    let named = line.strip_prefix(name.trim_end_matches('?'));
    named.and_then(|rest| rest.strip_prefix(':')).map_or(line, str::trim_start)
}

/// Package, modem, production parameters, application, in this order.
fn is_package(lines: &[String]) -> bool {
    let starts =
        |index: usize, letter| lines.get(index).is_some_and(|line| line.starts_with(letter));
    lines.len() == 4
        && lines.first().is_some_and(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        && starts(1, 'M')
        && starts(2, 'P')
        && starts(3, 'A')
}

/// The command whose first line a revision is that another program read: `#SWPKGV` or `+CGMR`, by its looks.
pub(super) fn version_command(revision: &str) -> Option<&'static str> {
    if !is_package_line(revision) {
        return None;
    }
    match revision.chars().next() {
        Some('M') => Some("+CGMR"),
        Some(first) if first.is_ascii_digit() => Some("#SWPKGV"),
        _ => None,
    }
}

fn is_package_line(line: &str) -> bool {
    let head = line.split('-').next().unwrap_or("");
    is_version(line) && (is_digits(head, &[2, 2, 3]) || is_component(head))
}

/// `M0R.010002`: kind, two characters of the family, six digits.
fn is_component(text: &str) -> bool {
    let Some((family, digits)) = text.split_once('.') else { return false };
    family.len() == 3
        && family.starts_with(['M', 'P', 'A'])
        && family.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && digits.len() == 6
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `45.00.012`, groups of digits of these lengths.
fn is_digits(text: &str, lengths: &[usize]) -> bool {
    let groups: Vec<&str> = text.split('.').collect();
    groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(group, length)| {
            group.len() == *length && group.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// One word that starts with a letter or digit and has a dot and a digit: any vendor's version.
fn is_version(line: &str) -> bool {
    line.len() <= 64
        && line.starts_with(|c: char| c.is_ascii_alphanumeric())
        && line.contains(|c: char| c.is_ascii_digit())
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_name(line: &str) -> bool {
    line.len() <= 40
        && line.starts_with(|c: char| c.is_ascii_uppercase())
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" .-".contains(&byte))
        && line.contains(|c: char| c.is_ascii_lowercase())
}

fn is_model(line: &str) -> bool {
    line.len() <= 40
        && line.starts_with(|c: char| c.is_ascii_alphabetic())
        && line.bytes().any(|byte| byte.is_ascii_digit())
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

pub(super) fn is_imei(line: &str) -> bool {
    line.len() == 15 && line.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_dotted_number(line: &str) -> bool {
    let parts: Vec<&str> = line.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    line.len() <= 16 && parts.len() > 1 && parts.iter().all(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_package_version_is_its_four_lines_and_nothing_between_them() {
        let clean = "45.00.010-B022-P0R.001600\nM0R.010000-B022\nP0R.001600\nA0R.000000-B022";
        let noisy = format!("#UNKNOWN: 1,2\n{}\nCALL READY", clean.replacen('\n', "\n^BOOT\n", 2));
        assert_eq!(version_lines("#SWPKGV", &lines(clean)), Some(lines(clean)));
        assert_eq!(version_lines("#SWPKGV", &lines(&noisy)), Some(lines(clean)));
    }

    #[test]
    fn a_package_version_with_a_line_too_few_or_too_many_is_none() {
        let short = "45.00.012\nM0R.010002\nP0R.001600";
        let long = "45.00.012\nM0R.010002\nM0R.010003\nP0R.001600\nA0R.000000";
        let twisted = "45.00.012\nP0R.001600\nM0R.010002\nA0R.000000";
        for wrong in ["", short, long, twisted] {
            assert_eq!(version_lines("#SWPKGV", &lines(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn the_same_command_of_another_vendor_repeats_its_name() {
        assert_eq!(
            version_lines("+CGMR", &lines("+CGMR: LE13B04SIM8202")),
            Some(lines("LE13B04SIM8202"))
        );
        assert_eq!(version_lines("#CGMR", &lines("#CGMR: 08.01.005")), Some(lines("08.01.005")));
        assert_eq!(version_lines("+CGMR", &lines("M0R.010002\nM0R.010003")), None);
        assert_eq!(
            version_lines("!PRIID?", &lines("PRI 1: x\n\nPRI 2: y")),
            Some(lines("PRI 1: x\nPRI 2: y"))
        );
    }

    #[test]
    fn versions_of_every_kind_in_the_facts() {
        for package in ["45.00.012", "25.21.664-P0F.664501", "45.00.010-B022-P0R.001600"] {
            assert!(is_package_line(package), "{package}");
        }
        for component in ["M0R.115005", "P0R.000566", "A0F.660014", "M0R.010000-B022"] {
            assert!(is_package_line(component), "{component}");
        }
        for not in
            ["OK", "+CREG: 1", "45.00", "M0R.1", "B0R.010002", "hello", "1.00", "M0R.010002 x"]
        {
            assert!(!is_package_line(not), "{not}");
        }
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

    #[test]
    fn identity_is_recognised_by_its_looks() {
        assert_eq!(one(&lines("#X: 1\n351234567890123"), is_imei), Some("351234567890123".into()));
        assert_eq!(one(&lines("351234567890123\n351234567890124"), is_imei), None);
        assert!(is_name("Telit") && is_name("Telit Cinterion") && !is_name("#QSS: 1"));
        assert!(is_model("FN990A28") && is_model("FN990A40") && !is_model("Telit"));
        assert!(is_dotted_number("1.00") && !is_dotted_number("1") && !is_dotted_number("1..0"));
    }
}
