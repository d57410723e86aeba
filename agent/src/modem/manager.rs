//! What ModemManager says of the modems that it owns, through `mmcli`: while it has their ports open, a
//! second reader would only steal its answers.
//!
//! `mmcli -L -K` lists them, `mmcli -m N -K` prints one as `key : value` lines (`--` where it knows nothing).
//! Reading those is pure. It cannot be asked for AT commands: OpenWrt builds it without.

mod network;

pub use network::{baseline, rsrp};

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use shared::event::VersionLine;

use super::dialect::looks;
use super::ready::Sought;
use crate::commands::{self, Call, NotDone};

/// How long one call may take: a ModemManager that is busy with a modem answers late.
const LIMIT: Duration = Duration::from_secs(15);
/// Most output read of one call, in bytes.
const MAX_OUTPUT: usize = 64 * 1024;
/// More modems than a router has.
const MAX_MODEMS: usize = 16;
/// Longest value taken over, in bytes.
const MAX_VALUE: usize = 256;
/// Where ModemManager's modems are on D-Bus.
const MODEM_PATH: &str = "/org/freedesktop/ModemManager1/Modem/";
const SIM_PATH: &str = "/org/freedesktop/ModemManager1/SIM/";

/// A modem as ModemManager knows it. What it does not know is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Managed {
    /// ModemManager's number for it.
    pub number: u32,
    /// Which device `mmcli --inhibit-device` means.
    pub uid: String,
    /// The last part of its place in sysfs: `1-1.4`, or `0000:01:00.0`.
    pub bus_id: String,
    pub manufacturer: String,
    pub model: String,
    pub imei: String,
    /// `#SWPKGV`'s first line, `+CGMR` or what QMI and MBIM say, whichever ModemManager got.
    pub revision: String,
    /// Whether there is a SIM.
    pub sim: bool,
    /// ModemManager's number for it.
    #[serde(skip)]
    pub sim_number: Option<u32>,
    /// Name or number of the network.
    pub operator: String,
    /// `home`, `roaming`, `searching`, ...
    pub registration: String,
    pub signal_percent: Option<u8>,
    /// The access technologies in use: `5gnr`, `lte`.
    pub technologies: Vec<String>,
    /// `ttyUSB2`, `cdc-wdm0`, `wwan0`, ...
    pub ports: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("mmcli {0}")]
    NotDone(#[from] NotDone),
    #[error("mmcli ended with {0}")]
    Failed(std::process::ExitStatus),
    #[error("ModemManager does not know the modem")]
    Unknown,
}

/// All modems that ModemManager has; `mmcli` is the program.
///
/// # Errors
/// ModemManager does not answer.
pub async fn modems(mmcli: &Path) -> Result<Vec<Managed>, NoAnswer> {
    let mut modems = Vec::new();
    for number in numbers(&answer(mmcli, &["-L", "-K"]).await?) {
        // One that vanished meanwhile is none.
        match answer(mmcli, &["-m", &number.to_string(), "-K"]).await {
            Ok(text) => modems.push(modem(number, &text)),
            Err(error) => log::debug!("modem {number}: {error}"),
        }
    }
    Ok(modems)
}

/// The modem that is sought.
///
/// # Errors
/// ModemManager does not answer or has no such modem.
pub async fn find(mmcli: &Path, sought: Sought<'_>) -> Result<Managed, NoAnswer> {
    pick(modems(mmcli).await?, sought).ok_or(NoAnswer::Unknown)
}

fn value(text: &str, key: &str) -> Option<String> {
    pairs(text).find(|(name, _)| *name == key).map(|(_, value)| plain(value))
}

fn pick(modems: Vec<Managed>, sought: Sought<'_>) -> Option<Managed> {
    modems.into_iter().find(|modem| match sought {
        Sought::Imei(imei) => modem.imei == imei,
        Sought::At(bus_id) => modem.bus_id == bus_id,
        Sought::Any => true,
    })
}

async fn answer(mmcli: &Path, arguments: &[&str]) -> Result<String, NoAnswer> {
    let call = Call { keep: MAX_OUTPUT, ..Call::new(mmcli, arguments, LIMIT) };
    let done = commands::run(&call).await?;
    if !done.status.success() {
        return Err(NoAnswer::Failed(done.status));
    }
    Ok(String::from_utf8_lossy(&done.output).into_owned())
}

/// `modem.generic.model : FN990A28`. A value may have colons of its own.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.trim(), value.trim())).filter(|(_, value)| *value != "--")
}

fn numbers(list: &str) -> Vec<u32> {
    let values = pairs(list).filter(|(key, _)| key.starts_with("modem-list.value["));
    let numbers = values.filter_map(|(_, path)| path.strip_prefix(MODEM_PATH)?.parse().ok());
    numbers.take(MAX_MODEMS).collect()
}

fn modem(number: u32, text: &str) -> Managed {
    let mut modem = Managed { number, ..Managed::default() };
    for (key, value) in pairs(text) {
        let value = plain(value);
        match key.strip_prefix("modem.").unwrap_or(key) {
            "generic.device" => {
                modem.bus_id = value.rsplit('/').next().unwrap_or_default().to_owned();
                modem.uid = value;
            }
            // Where udev rules gave the device another uid, its place is told apart.
            "generic.physdev" => {
                modem.bus_id = value.rsplit('/').next().unwrap_or_default().to_owned();
            }
            "generic.manufacturer" => modem.manufacturer = value,
            "generic.model" => modem.model = value,
            "generic.revision" => modem.revision = value,
            "generic.equipment-identifier" if modem.imei.is_empty() => modem.imei = value,
            "3gpp.imei" => modem.imei = value,
            "generic.sim" => {
                modem.sim = true;
                modem.sim_number = value.strip_prefix(SIM_PATH).and_then(|n| n.parse().ok());
            }
            "3gpp.operator-name" => modem.operator = value,
            "3gpp.operator-code" if modem.operator.is_empty() => modem.operator = value,
            "3gpp.registration-state" => modem.registration = value,
            "generic.signal-quality.value" => modem.signal_percent = value.parse().ok(),
            key if key.starts_with("generic.access-technologies.value[") => {
                modem.technologies.push(value);
            }
            key if key.starts_with("generic.ports.value[") => {
                // `ttyUSB2 (at)`
                modem.ports.extend(value.split_whitespace().next().map(str::to_owned));
            }
            _ => {}
        }
    }
    modem.imei = Some(modem.imei).filter(|imei| looks::is_imei(imei)).unwrap_or_default();
    modem
}

fn plain(value: &str) -> String {
    let mut text: String = value.chars().filter(|c| !c.is_control()).collect();
    let mut end = text.len().min(MAX_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Managed {
    /// The version that its revision certainly is; the other lines of `#SWPKGV` nobody told. What QMI or MBIM
    /// call a revision may look otherwise, and then no version is known.
    #[must_use]
    pub fn versions(&self) -> Vec<VersionLine> {
        let command = match looks::version_command(&self.revision) {
            Some(command) => command.to_owned(),
            None => return Vec::new(),
        };
        vec![VersionLine { command, line: 1, value: self.revision.clone() }]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::script;

    /// As mmcli 1.22 prints it, shortened.
    pub(super) const FN990: &str = "\
modem.dbus-path                                 : /org/freedesktop/ModemManager1/Modem/3
modem.generic.device-identifier                 : 0f6ec1cb
modem.generic.manufacturer                      : Telit
modem.generic.model                             : FN990A28
modem.generic.revision                          : 45.00.002-P0R.000900
modem.generic.hardware-revision                 : 1.00
modem.generic.equipment-identifier              : 356938035643809
modem.generic.device                            : /sys/devices/platform/soc/11200000.usb/usb2/2-1
modem.generic.primary-port                      : cdc-wdm0
modem.generic.ports.length                      : 3
modem.generic.ports.value[1]                    : cdc-wdm0 (qmi)
modem.generic.ports.value[2]                    : ttyUSB2 (at)
modem.generic.ports.value[3]                    : wwan0 (net)
modem.generic.state                             : connected
modem.generic.access-technologies.length        : 1
modem.generic.access-technologies.value[1]      : 5gnr
modem.generic.signal-quality.value              : 67
modem.generic.signal-quality.recent             : yes
modem.generic.sim                               : /org/freedesktop/ModemManager1/SIM/0
modem.3gpp.imei                                 : 356938035643809
modem.3gpp.operator-code                        : 26201
modem.3gpp.operator-name                        : Telekom.de
modem.3gpp.registration-state                   : home
modem.3gpp.packet-service-state                 : --
";

    #[test]
    fn a_modem_is_read_from_its_lines() {
        let modem = modem(3, FN990);
        assert_eq!(modem.bus_id, "2-1");
        assert_eq!(modem.uid, "/sys/devices/platform/soc/11200000.usb/usb2/2-1");
        assert_eq!((modem.manufacturer.as_str(), modem.model.as_str()), ("Telit", "FN990A28"));
        assert_eq!(modem.imei, "356938035643809");
        assert_eq!((modem.operator.as_str(), modem.registration.as_str()), ("Telekom.de", "home"));
        assert_eq!((modem.signal_percent, modem.sim), (Some(67), true));
        assert_eq!(modem.ports, ["cdc-wdm0", "ttyUSB2", "wwan0"]);
        assert_eq!(modem.technologies, ["5gnr"]);
        let [version] = modem.versions().try_into().unwrap();
        assert_eq!((version.command.as_str(), version.line), ("#SWPKGV", 1));
        assert_eq!(version.value, "45.00.002-P0R.000900");
    }

    #[test]
    fn only_a_version_counts_as_one() {
        let of = |revision: &str| {
            let managed = Managed { revision: revision.into(), ..Managed::default() };
            managed.versions().pop().map(|version| version.command)
        };
        assert_eq!(of("M0R.000002").as_deref(), Some("+CGMR"));
        assert_eq!(of("45.00.002").as_deref(), Some("#SWPKGV"));
        for other in ["", "M0R.000002  1  [Oct 07 2021]", "SWI9X50C_01.14.13.00", "P0R.000900"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn nonsense_is_nothing() {
        let odd = "modem.generic.equipment-identifier : 12\nmodem.generic.model\n: x\n\
                   modem.generic.signal-quality.value : 900\nmodem.generic.sim : --\n";
        assert_eq!(modem(1, odd), Managed { number: 1, ..Managed::default() });
        let long = format!("modem.generic.model : {}", "ä".repeat(400));
        assert_eq!(modem(1, &long).model.len(), MAX_VALUE);
        let list = "modem-list.length : 3\nmodem-list.value[1] : /org/freedesktop/ModemManager1/Modem/3\n\
                    modem-list.value[2] : /org/freedesktop/ModemManager1/Modem/-1\n\
                    modem-list.value[3] : --help\n";
        assert_eq!(numbers(list), [3]);
    }

    #[test]
    fn the_modem_is_known_by_imei_or_place() {
        let managed = |number, imei: &str, bus_id: &str| Managed {
            number,
            imei: imei.into(),
            bus_id: bus_id.into(),
            ..Managed::default()
        };
        let modems = vec![managed(0, "1", "1-1"), managed(1, "2", "1-2")];
        let picked = |sought| pick(modems.clone(), sought).map(|modem| modem.number);
        assert_eq!(picked(Sought::Imei("2")), Some(1));
        assert_eq!(picked(Sought::At("1-1")), Some(0));
        assert_eq!(picked(Sought::Imei("3")), None);
        assert_eq!(picked(Sought::Any), Some(0));
    }

    #[tokio::test]
    async fn mmcli_is_asked_for_each_modem() {
        let directory = tempfile::tempdir().unwrap();
        let (mmcli, text) = (directory.path().join("mmcli"), directory.path().join("fn990"));
        std::fs::write(&text, FN990).unwrap();
        let body = format!(
            "case \"$*\" in
             '-L -K') echo 'modem-list.value[1] : {MODEM_PATH}3'
                      echo 'modem-list.value[2] : {MODEM_PATH}4' ;;
             '-m 3 -K') cat {} ;;
             *) echo \"error: couldn't find modem\" >&2; exit 1 ;;
             esac",
            text.display()
        );
        script(&mmcli, &body);
        let found = find(&mmcli, Sought::Imei("356938035643809")).await.unwrap();
        assert_eq!(found.number, 3);
        let other = find(&mmcli, Sought::Imei("356938035643817")).await;
        assert!(matches!(other, Err(NoAnswer::Unknown)), "{other:?}");
        script(&mmcli, "exit 1");
        assert!(matches!(modems(&mmcli).await, Err(NoAnswer::Failed(_))));
        let none = modems(&directory.path().join("none")).await;
        assert!(matches!(none, Err(NoAnswer::NotDone(error)) if error.is_absent()));
    }
}
