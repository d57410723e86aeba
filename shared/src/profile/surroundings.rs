//! What must hold around a run of the tool: prerequisites, gates, who lets go, what is put back.

use super::{ProfileError, ToolProfile, key};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// What must be there before the modem is touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// Kernel drivers, as in /sys/bus/usb/drivers or usb-serial/drivers.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// Whether one of [`Needs::drivers`] must take each id of `fits.download_mode`: without it the
    /// tool would lose the modem half-way.
    #[serde(default)]
    pub binds_download_mode: bool,
    /// Whether the modem's diagnostic port must be known.
    #[serde(default)]
    pub diag: bool,
    /// A call of the tool that touches no modem and ends by itself, such as `--help`: it shows that
    /// the program is one for this processor with all its libraries. Ending by a signal or with
    /// status 127 means that it is not. Empty = the file must be executable, no more is asked.
    #[serde(default)]
    pub probe_argv: Vec<String>,
}

/// What the modem itself must say before it may be flashed; a gate that is closed postpones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Lowest supply voltage, by `AT#CBC` (which counts in 10 mV). Absent = not asked.
    pub min_voltage_mv: Option<u16>,
    /// Highest temperature in degrees Celsius, by `AT#TEMPSENS=2`, of every sensor. Absent = not
    /// asked.
    pub max_temperature_c: Option<i16>,
}

/// What is held down while the modem is flashed, beside what the router's settings name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holds {
    /// Services under /etc/init.d that use the modem's ports, beside ModemManager. One that is not
    /// installed or not running is passed over.
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub modemmanager: ModemManager,
    /// Services under /etc/init.d known to restart the router or the modem when the network is
    /// gone for long; held like the others.
    #[serde(default)]
    pub rebooters: Vec<String>,
}

/// How ModemManager is made to let go of the modem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModemManager {
    /// The whole service is stopped: sure, also when the modem moves to another bus.
    #[default]
    Stop,
    /// `mmcli --inhibit-device`: other modems stay in use. Only for tools whose modem comes back at
    /// the same place, for the inhibition does not follow it to another.
    Inhibit,
}

/// Settings that the flash may reset and that are written back as they were before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// In the order in which they are written back.
    #[serde(default)]
    pub commands: Vec<Setting>,
    /// Those of [`Restore::commands`] after which the modem restarts by itself.
    #[serde(default)]
    pub restarts: Vec<Setting>,
}

/// A setting that is read by `AT<name>?` and written by `AT<name>=<value>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// The carrier image in use and where it is stored.
    #[serde(rename = "#FWSWITCH")]
    FirmwareSwitch,
    /// The USB composition; another one is another USB id.
    #[serde(rename = "#USBCFG")]
    UsbComposition,
    /// The packet data contexts with their APNs.
    #[serde(rename = "+CGDCONT")]
    Contexts,
}

impl Setting {
    /// `#FWSWITCH`
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FirmwareSwitch => "#FWSWITCH",
            Self::UsbComposition => "#USBCFG",
            Self::Contexts => "+CGDCONT",
        }
    }
}

/// A modem's supply; beyond it is a slip of the pen (V, or 10 mV).
const VOLTAGE_MV: RangeInclusive<u16> = 2000..=15000;
/// Sensors in a modem; below it would never be flashed.
const TEMPERATURE_C: RangeInclusive<i16> = 20..=125;

impl ToolProfile {
    pub(super) fn check_surroundings(&self) -> Result<(), ProfileError> {
        let needs = &self.needs;
        if needs.binds_download_mode && needs.drivers.is_empty() {
            return Err(key("needs.drivers", "needed for needs.binds_download_mode"));
        }
        if needs.binds_download_mode && self.fits.download_mode.is_empty() {
            return Err(key("fits.download_mode", "needed for needs.binds_download_mode"));
        }
        check_names("needs.drivers", &needs.drivers)?;
        if needs.probe_argv.iter().any(|argument| argument.contains(['{', '}'])) {
            return Err(key("needs.probe_argv", "must touch no modem: no placeholders"));
        }
        if self.gates.min_voltage_mv.is_some_and(|mv| !VOLTAGE_MV.contains(&mv)) {
            return Err(key("gates.min_voltage_mv", "must be 2000 to 15000 (mV)"));
        }
        if self.gates.max_temperature_c.is_some_and(|c| !TEMPERATURE_C.contains(&c)) {
            return Err(key("gates.max_temperature_c", "must be 20 to 125 (°C)"));
        }
        check_names("holds.services", &self.holds.services)?;
        check_names("holds.rebooters", &self.holds.rebooters)?;
        let stopped = self.holds.services.iter().any(|service| service == "modemmanager");
        if stopped && self.holds.modemmanager == ModemManager::Inhibit {
            return Err(key("holds.services", "\"modemmanager\" cannot be stopped and inhibited"));
        }
        let restore = &self.restore;
        match restore.restarts.iter().find(|setting| !restore.commands.contains(setting)) {
            Some(setting) => Err(key(
                "restore.restarts",
                format!("{:?} is not in restore.commands", setting.name()),
            )),
            None => Ok(()),
        }
    }
}

/// Names that become one path component.
pub(super) fn check_names(name: &str, list: &[String]) -> Result<(), ProfileError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    match list.iter().find(|n| n.is_empty() || n.len() > 64 || !n.chars().all(plain)) {
        Some(odd) => Err(key(name, format!("{odd:?} must be a plain name"))),
        None => Ok(()),
    }
}
