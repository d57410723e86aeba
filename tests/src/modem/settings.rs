//! What a simulated modem is told before it starts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flash::{Flash, FlashCondition};
use super::surroundings::Surroundings;
use crate::faults::ModemFault;
use crate::firmware::{Model, Versions};

/// A modem and its place in a router. Times are those of the real thing, made short.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The router's directory: `sys` and `dev` in it are written.
    pub router: PathBuf,
    /// Names its files: `<router>/<name>.json` (flash), `<router>/<name>.sock` (control).
    pub name: String,
    /// Used where there is no flash file yet.
    pub factory: Flash,
    /// Place on the bus in normal operation.
    pub bus_id: String,
    /// Place in download mode: real ones were seen to move to the slower bus.
    pub download_bus_id: String,
    /// `wwan0`.
    pub net: String,
    /// Of fragments, pauses and unsolicited codes.
    pub seed: u64,
    /// From power or restart to USB.
    pub enumeration: Duration,
    /// From USB to the first answer; up to 40 s in the field.
    pub boot_silence: Duration,
    /// Each enumeration starts looking for free ttyUSB numbers somewhere else.
    pub renumber: bool,
    pub faults: Vec<ModemFault>,
}

impl Settings {
    /// An FN990A in `router`, fast enough for tests.
    pub fn new(router: &Path, model: Model, package: &str, imei: &str) -> Settings {
        Settings {
            router: router.to_owned(),
            name: "modem".to_owned(),
            factory: Flash {
                model,
                imei: imei.to_owned(),
                serial: imei.chars().rev().take(8).collect(),
                iccid: Some("8949021000000000018".to_owned()),
                sim_locked: false,
                no_network: false,
                hardware_revision: "1.00".to_owned(),
                versions: Versions::of_package(package),
                condition: FlashCondition::Whole,
                usb_composition: 1,
                firmware_switch: "40,0,0".to_owned(),
                begun: 0,
                completed: 0,
                payload_sha256: None,
                contexts: vec![r#"1,"IPV4V6","internet""#.to_owned()],
                surroundings: Surroundings::default(),
            },
            bus_id: "2-1".to_owned(),
            download_bus_id: "1-1".to_owned(),
            net: "wwan0".to_owned(),
            seed: 1,
            enumeration: Duration::from_millis(100),
            boot_silence: Duration::from_millis(200),
            renumber: true,
            faults: Vec::new(),
        }
    }

    pub fn flash_file(&self) -> PathBuf {
        self.router.join(format!("{}.json", self.name))
    }

    pub fn socket(&self) -> PathBuf {
        socket(&self.router, &self.name)
    }
}

/// Where the modem `name` of a router is controlled.
pub fn socket(router: &Path, name: &str) -> PathBuf {
    router.join(format!("{name}.sock"))
}
