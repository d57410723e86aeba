//! What a modem and its router showed at one moment, in a form that a test can play again: sysfs, the AT
//! exchange byte for byte with its times, kernel drivers, routes, and who had the ports open.
//!
//! Digits that name a person or a device (IMEI, IMSI, ICCID, a USB serial) are masked unless they are
//! wanted: of each long number the first six digits stay, and its length.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dialect::{self, VersionCommands};
use super::discovery::{Modem, Snapshot};
use super::port::{Exchange, Port, PortError, QUICK};
use crate::files;

/// The version of [`Recording`].
pub const FORMAT: u8 = 1;
/// From so many digits on it is no version and no number of a network.
const LONG: usize = 14;
/// Digits that stay: of an IMEI the maker, of an IMSI country and network.
const KEPT: usize = 6;

/// Read-only, and good to know of a modem that nobody here has seen.
const ALSO: &[&str] = &[
    "ATI",
    "AT#HWREV",
    "AT#GETFW",
    "AT#FWSWITCH?",
    "AT#USBCFG?",
    "AT#FWAUTOSIM?",
    "AT#CBC",
    "AT#TEMPSENS=2",
    "AT#QSS?",
    "AT+CPIN?",
    "AT+CSQ",
    "AT+CREG?",
    "AT+C5GREG?",
    "AT+COPS?",
    "AT+CIMI",
    "AT#CCID",
    "AT+CMEE?",
];

/// Those of the drivers that flashing depends on.
const DRIVERS: &[&str] = &[
    "option",
    "qcserial",
    "usb_wwan",
    "usbserial",
    "qmi_wwan",
    "cdc_mbim",
    "cdc_ether",
    "cdc_wdm",
    "mhi",
    "mhi_pci_generic",
    "mhi_wwan_ctrl",
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    pub format: u8,
    pub agent_version: String,
    /// `uname -r`
    pub kernel: String,
    pub masked: bool,
    /// Loaded drivers and their versions, where they have one.
    pub drivers: BTreeMap<String, String>,
    pub snapshot: Snapshot,
    /// Files of `/proc/net`, as they are.
    pub routes: BTreeMap<String, String>,
    /// Who had a port open: port and process.
    pub used: Vec<(String, String)>,
    pub modems: Vec<Recorded>,
}

/// The exchange with one modem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub bus_id: String,
    /// `ttyUSB3`
    pub port: String,
    pub exchanges: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub command: String,
    /// All that came after it: echo, lines, final result, and what the modem said unasked.
    pub answer: String,
    pub ms: u64,
}

impl Recording {
    /// The router's part; the modems come with [`record`].
    #[must_use]
    pub fn of_router(sysfs: &Path, proc: &Path, snapshot: Snapshot) -> Recording {
        let module = |name: &&str| sysfs.join("module").join(name);
        let loaded = DRIVERS.iter().filter(|name| module(name).exists());
        let drivers = loaded.map(|name| {
            let version = files::read_text(&module(name).join("version")).unwrap_or_default();
            ((*name).to_owned(), version.trim().to_owned())
        });
        let routes = ["route", "ipv6_route"].into_iter().filter_map(|name| {
            let text = files::read_text(&proc.join("net").join(name)).ok()?;
            Some((name.to_owned(), text))
        });
        let kernel = files::read_text(&proc.join("sys/kernel/osrelease")).unwrap_or_default();
        Recording {
            format: FORMAT,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel.trim().to_owned(),
            masked: false,
            drivers: drivers.collect(),
            snapshot,
            routes: routes.collect(),
            used: Vec::new(),
            modems: Vec::new(),
        }
    }

    /// Without what names a person or a device.
    #[must_use]
    pub fn masked(mut self) -> Recording {
        self.masked = true;
        for device in &mut self.snapshot.devices {
            if let Some(serial) = &mut device.serial {
                *serial = "0".repeat(serial.len());
            }
        }
        for line in self.modems.iter_mut().flat_map(|modem| &mut modem.exchanges) {
            line.answer = mask(&line.answer);
        }
        self
    }
}

/// The exchange with the first AT port of `modem` that answers. The caller holds its lock.
///
/// # Errors
/// None does; the last one's reason.
pub async fn record(modem: &Modem, dev: &Path, patience: Duration) -> Result<Recorded, PortError> {
    let mut failed = PortError::Gone;
    for name in &modem.at {
        match Port::open_recorded(&dev.join(name), patience).await {
            Ok(mut port) => {
                ask_everything(&mut port).await;
                let exchanges = port.recorded().into_iter().map(line).collect();
                let (bus_id, port) = (modem.bus_id.clone(), name.clone());
                return Ok(Recorded { bus_id, port, exchanges });
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// What it does not answer, or answers oddly, is what the recording is for.
async fn ask_everything(port: &mut Port) {
    let versions = ["#SWPKGV", "+CGMR", "+GMR", "#CGMR"].map(str::to_owned);
    let identified = dialect::identify(port).await.map(|_| ());
    let read = dialect::read_versions(port, &VersionCommands::new([], &versions)).await;
    for failed in [identified.err(), read.map(|_| ()).err()].into_iter().flatten() {
        log::info!("recording: {failed}");
    }
    for command in ALSO {
        if let Err(PortError::Gone) = port.command(command, QUICK).await {
            log::warn!("the port disappeared after {command}");
            return;
        }
    }
}

fn line(exchange: Exchange) -> Line {
    Line {
        command: exchange.command,
        answer: String::from_utf8_lossy(&exchange.answer).into_owned(),
        ms: u64::try_from(exchange.took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(end);
        masked += before;
        if number.len() >= LONG {
            masked += &number[..KEPT];
            masked += &"0".repeat(number.len() - KEPT);
        } else {
            masked += number;
        }
        rest = after;
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_masked_and_keep_their_length() {
        let text = "AT+CGSN\r\r\n356938035643809\r\n\r\nOK\r\n#CCID: 89490200001234567890";
        let masked = "AT+CGSN\r\r\n356938000000000\r\n\r\nOK\r\n#CCID: 89490200000000000000";
        assert_eq!(mask(text), masked);
        for version in ["45.00.010-B022-P0R.001600", "20211007123456 x 1", "M0R.010002", "", "é1"]
        {
            let short = version.split(' ').all(|word| word.len() < LONG || word.contains('.'));
            assert_eq!(mask(version) == version, short, "{version}");
        }
    }

    #[test]
    fn a_router_is_recorded_as_its_files_say() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("sys/module/option/version", "v0.7.2\n");
        file("sys/module/qmi_wwan/parameters", "");
        file("proc/net/route", "Iface\n");
        file("proc/sys/kernel/osrelease", "6.6.73\n");
        let (sysfs, proc) = (root.path().join("sys"), root.path().join("proc"));
        let recording = Recording::of_router(&sysfs, &proc, Snapshot::default());
        assert_eq!(recording.kernel, "6.6.73");
        assert_eq!(recording.drivers["option"], "v0.7.2");
        assert_eq!(recording.drivers["qmi_wwan"], "");
        assert_eq!(recording.routes["route"], "Iface\n");
        let json = serde_json::to_string(&recording).unwrap();
        assert_eq!(serde_json::from_str::<Recording>(&json).unwrap(), recording);
    }
}
