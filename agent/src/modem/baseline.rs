//! How the modem stood before the flash, to be compared with how it stands after it.
//!
//! Everything here is the best that could be read: a modem without SIM still has a baseline, and a command
//! that this firmware does not know is `None`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::profile::Setting;

use super::dialect::{ModemError, optional};
use super::measure;
use super::port::{Port, PortError, SLOW};

/// FWSWITCH and USBCFG may write flash before they answer.
const RESTORE: Duration = Duration::from_secs(30);

/// SIM, network and settings of a modem at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Baseline {
    /// `READY`, `SIM PIN`, ... or the error (`+CME ERROR: 10`: no SIM).
    pub sim: Option<String>,
    /// 18 to 22 digits, perhaps with a filling F.
    pub iccid: Option<String>,
    /// `#QSS`: the SIM as the modem sees it.
    pub sim_status: Option<String>,
    pub lte: Option<Registration>,
    pub nr: Option<Registration>,
    /// `#FWSWITCH`: the carrier image and where it is stored, as in `40,0,0`.
    pub firmware_switch: Option<String>,
    /// `#USBCFG`: the composition, as in `1`.
    pub usb_composition: Option<String>,
    /// `+CGDCONT`: the contexts as far as they go back into a command, as in `1,"IP","internet"`.
    pub contexts: Option<Vec<String>>,
    /// `+COPS`: the access technology (3GPP TS 27.007), 7 = LTE, 11 to 13 = 5G.
    pub access_technology: Option<u8>,
    /// The signal, see [`measure::rsrp`].
    pub rsrp_dbm: Option<i32>,
}

/// The status of `+CEREG`/`+C5GREG` (3GPP TS 27.007).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    NotSearching,
    Home,
    Searching,
    Denied,
    Unknown,
    Roaming,
    /// A status that is not for data: SMS only, emergency only, ...
    Other,
}

impl Registration {
    fn of(status: &str) -> Option<Registration> {
        Some(match status.trim().parse::<u8>().ok()? {
            0 => Registration::NotSearching,
            1 => Registration::Home,
            2 => Registration::Searching,
            3 => Registration::Denied,
            4 => Registration::Unknown,
            5 => Registration::Roaming,
            _ => Registration::Other,
        })
    }

    pub fn is_registered(self) -> bool {
        matches!(self, Registration::Home | Registration::Roaming)
    }
}

/// Something that was there before the flash and is not after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    Sim { before: String, after: Option<String> },
    SimCard { before: String, after: Option<String> },
    Network,
    FirmwareSwitch { before: String, after: Option<String> },
    UsbComposition { before: String, after: Option<String> },
    Context { before: String },
}

impl Difference {
    /// The setting that differs, if it is one.
    #[must_use]
    pub fn setting(&self) -> Option<Setting> {
        match self {
            Difference::FirmwareSwitch { .. } => Some(Setting::FirmwareSwitch),
            Difference::UsbComposition { .. } => Some(Setting::UsbComposition),
            Difference::Context { .. } => Some(Setting::Contexts),
            Difference::Sim { .. } | Difference::SimCard { .. } | Difference::Network => None,
        }
    }

    /// The command that puts a setting back. Which of them restart the modem is the profile's word;
    /// after [`Difference::UsbComposition`] it comes back with another USB id.
    pub fn restoring_command(&self) -> Option<String> {
        match self {
            Difference::FirmwareSwitch { before, .. } => Some(format!("AT#FWSWITCH={before}")),
            Difference::UsbComposition { before, .. } => Some(format!("AT#USBCFG={before}")),
            Difference::Context { before } => Some(format!("AT+CGDCONT={before}")),
            Difference::Sim { .. } | Difference::SimCard { .. } | Difference::Network => None,
        }
    }
}

impl Baseline {
    pub fn is_registered(&self) -> bool {
        [self.lte, self.nr].into_iter().flatten().any(Registration::is_registered)
    }

    /// Why what was before cannot be held against `now`: there was neither SIM nor network, or
    /// somebody has changed the SIM meanwhile.
    #[must_use]
    pub fn not_comparable(&self, now: &Baseline) -> Option<&'static str> {
        match (&self.iccid, &now.iccid) {
            (Some(before), Some(after)) if before != after => Some("another SIM is in the modem"),
            (None, _) if !self.is_registered() => Some("there was no SIM and no network before"),
            _ => None,
        }
    }

    /// Why the way into the network is not back, if it is not: a SIM if there was one, registered if
    /// it was. Ask [`Self::not_comparable`] first.
    pub fn missing_network(&self, now: &Baseline) -> Option<String> {
        if self.iccid.is_some() && now.iccid.is_none() {
            return Some("the SIM is not back".into());
        }
        if self.is_registered() && !now.is_registered() {
            return Some("the modem is not registered in a network again".into());
        }
        None
    }

    /// What `now` lacks of what `self` had; nothing is missed that was not read before.
    pub fn differences(&self, now: &Baseline) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare =
            |before: &Option<String>, after: &Option<String>, kind: MakeDifference| {
                if let Some(before) = before.as_ref().filter(|_| before != after) {
                    found.push(kind(before.clone(), after.clone()));
                }
            };
        compare(&self.sim, &now.sim, |before, after| Difference::Sim { before, after });
        compare(&self.iccid, &now.iccid, |before, after| Difference::SimCard { before, after });
        compare(&self.firmware_switch, &now.firmware_switch, |before, after| {
            Difference::FirmwareSwitch { before, after }
        });
        compare(&self.usb_composition, &now.usb_composition, |before, after| {
            Difference::UsbComposition { before, after }
        });
        if let (Some(before), Some(after)) = (&self.contexts, &now.contexts) {
            let gone = before.iter().filter(|context| !after.contains(context));
            found.extend(gone.map(|context| Difference::Context { before: context.clone() }));
        }
        if self.is_registered() && !now.is_registered() {
            found.push(Difference::Network);
        }
        found
    }
}

type MakeDifference = fn(String, Option<String>) -> Difference;

/// Reads the baseline. Only a port that is gone or silent is an error.
pub async fn baseline(port: &mut Port) -> Result<Baseline, ModemError> {
    Ok(Baseline {
        sim: sim(port).await?,
        iccid: iccid(port).await?,
        sim_status: field(port, "AT#QSS?", |value| is_numbers(value, 2..=4)).await?,
        lte: registration(port, "AT+CEREG?").await?,
        nr: registration(port, "AT+C5GREG?").await?,
        firmware_switch: field(port, "AT#FWSWITCH?", |value| is_numbers(value, 2..=3)).await?,
        usb_composition: field(port, "AT#USBCFG?", |value| is_numbers(value, 1..=1)).await?,
        contexts: lines(port, "AT+CGDCONT?").await?.map(|lines| contexts(&lines)),
        access_technology: lines(port, "AT+COPS?").await?.and_then(|lines| technology(&lines)),
        rsrp_dbm: measure::rsrp(port).await?,
    })
}

/// Puts one setting back; the modem may be gone before its OK gets out.
pub async fn restore(port: &mut Port, difference: &Difference) -> Result<(), ModemError> {
    let Some(command) = difference.restoring_command() else { return Ok(()) };
    match port.command(&command, RESTORE).await {
        Ok(_) | Err(PortError::Gone) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn sim(port: &mut Port) -> Result<Option<String>, ModemError> {
    match port.command("AT+CPIN?", SLOW).await {
        Ok(lines) => Ok(prefixed("+CPIN", &lines).next()),
        Err(PortError::Refused { result, .. }) => Ok(Some(result.to_string())),
        Err(error) => Err(error.into()),
    }
}

async fn iccid(port: &mut Port) -> Result<Option<String>, ModemError> {
    for command in ["AT#CCID", "AT+ICCID"] {
        let value = field(port, command, is_iccid).await?;
        if value.is_some() {
            return Ok(value);
        }
    }
    Ok(None)
}

/// `+CEREG: <n>,<stat>[,...]`: the unsolicited form begins with the status, so a line counts only if its
/// second field is one, and `"tac"` there is not.
async fn registration(port: &mut Port, command: &str) -> Result<Option<Registration>, ModemError> {
    let Some(lines) = lines(port, command).await? else { return Ok(None) };
    let name = command.trim_start_matches("AT").trim_end_matches('?');
    Ok(prefixed(name, &lines).filter_map(|value| Registration::of(value.split(',').nth(1)?)).next())
}

/// The first value that carries the command's own name and looks like one: `#QSS: 1` comes unasked, the
/// answer has more fields.
async fn field(
    port: &mut Port,
    command: &str,
    is_value: impl Fn(&str) -> bool,
) -> Result<Option<String>, ModemError> {
    let Some(lines) = lines(port, command).await? else { return Ok(None) };
    let name = command.trim_start_matches("AT").trim_end_matches('?');
    Ok(prefixed(name, &lines).find(|value| is_value(value)))
}

async fn lines(port: &mut Port, command: &str) -> Result<Option<Vec<String>>, ModemError> {
    optional(port.command(command, SLOW).await.map_err(ModemError::from))
}

fn prefixed(name: &str, lines: &[String]) -> impl Iterator<Item = String> {
    lines
        .iter()
        .filter_map(move |line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// `+CGDCONT: 1,"IP","internet","",0,0`: number, type and APN. What could not stand in a command as
/// it is stays out.
fn contexts(lines: &[String]) -> Vec<String> {
    let quoted = |field: &str| {
        let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.is_some_and(|text| {
            text.len() <= 100
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        })
    };
    let context = |value: String| {
        let mut fields = value.split(',').map(str::trim);
        let (number, kind, apn) = (fields.next()?, fields.next()?, fields.next()?);
        let plain = is_numbers(number, 1..=1) && quoted(kind) && quoted(apn);
        plain.then(|| format!("{number},{kind},{apn}"))
    };
    prefixed("+CGDCONT", lines).filter_map(context).collect()
}

/// `+COPS: 0,0,"Operator",7`: the last field.
fn technology(lines: &[String]) -> Option<u8> {
    prefixed("+COPS", lines).find_map(|value| value.rsplit_once(',')?.1.trim().parse().ok())
}

fn is_numbers(value: &str, count: std::ops::RangeInclusive<usize>) -> bool {
    let number = |field: &str| {
        !field.is_empty() && field.len() <= 3 && field.bytes().all(|byte| byte.is_ascii_digit())
    };
    count.contains(&value.split(',').count()) && value.split(',').all(number)
}

fn is_iccid(value: &str) -> bool {
    (18..=22).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Baseline {
        Baseline {
            sim: Some("READY".into()),
            iccid: Some("8949000000000000001".into()),
            lte: Some(Registration::Home),
            firmware_switch: Some("40,0,0".into()),
            usb_composition: Some("1".into()),
            ..Baseline::default()
        }
    }

    #[test]
    fn what_was_lost_is_named_and_settings_have_a_command() {
        let now = Baseline {
            sim: Some("+CME ERROR: 10".into()),
            iccid: None,
            lte: Some(Registration::Searching),
            usb_composition: Some("2".into()),
            firmware_switch: Some("0,0,0".into()),
            ..before()
        };
        let found = before().differences(&now);
        assert_eq!(found.len(), 5);
        let commands: Vec<_> = found.iter().filter_map(Difference::restoring_command).collect();
        assert_eq!(commands, ["AT#FWSWITCH=40,0,0", "AT#USBCFG=1"]);
    }

    #[test]
    fn what_was_never_there_is_not_missed() {
        assert_eq!(Baseline::default().differences(&before()), []);
        assert_eq!(before().differences(&before()), []);
        let roaming = Baseline { lte: None, nr: Some(Registration::Roaming), ..before() };
        assert_eq!(before().differences(&roaming), []);
    }

    #[test]
    fn contexts_go_back_as_they_were_and_only_if_they_are_plain() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let told = "+CGDCONT: 1,\"IPV4V6\",\"internet\",\"\",0,0\n+CGDCONT: 2,\"IP\",\"\"\n\
                    +CGDCONT: 3,\"IP\",\"a\";+CFUN=0\n+CGDCONT: x,\"IP\",\"b\"";
        let found = contexts(&lines(told));
        assert_eq!(found, ["1,\"IPV4V6\",\"internet\"", "2,\"IP\",\"\""]);
        let before = Baseline { contexts: Some(found.clone()), ..before() };
        let now = Baseline { contexts: Some(found[1..].to_vec()), ..before.clone() };
        let lost = before.differences(&now);
        assert_eq!(lost, [Difference::Context { before: found[0].clone() }]);
        let command = lost[0].restoring_command().unwrap();
        assert_eq!(command, "AT+CGDCONT=1,\"IPV4V6\",\"internet\"");
        let untold = Baseline { contexts: None, ..before.clone() };
        assert_eq!(before.differences(&untold), [], "nothing is missed that is not told");
    }

    #[test]
    fn technology_is_the_last_field() {
        let lines = |text: &str| vec![text.to_owned()];
        assert_eq!(technology(&lines("+COPS: 0,0,\"Vodafone.de\",7")), Some(7));
        assert_eq!(technology(&lines("+COPS: 0")), None);
    }

    #[test]
    fn another_sim_or_none_before_is_not_comparable() {
        let other = Baseline { iccid: Some("8949000000000000002".into()), ..before() };
        let none = Baseline { iccid: None, ..before() };
        let nothing = Baseline::default();
        assert!(before().not_comparable(&other).is_some());
        assert!(nothing.not_comparable(&before()).is_some());
        assert_eq!(before().not_comparable(&before()), None);
        assert_eq!(before().not_comparable(&none), None, "a SIM that is gone is missed");
    }

    #[test]
    fn settings_that_go_back_into_a_command_are_numbers() {
        assert!(is_numbers("40,0,0", 2..=3) && is_numbers("1", 1..=1));
        for wrong in ["", ",", "1;AT", "40,0,0,0", "1,-1", "1 "] {
            assert!(!is_numbers(wrong, 1..=3), "{wrong}");
        }
    }
}
