//! What a simulated modem keeps without power.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::surroundings::Surroundings;
use crate::firmware::{Model, Versions};

/// The content of the flash chip, as a file of its router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flash {
    pub model: Model,
    pub imei: String,
    /// The USB serial number.
    pub serial: String,
    /// None: no SIM.
    pub iccid: Option<String>,
    /// The SIM waits for its PIN.
    #[serde(default)]
    pub sim_locked: bool,
    /// It registers nowhere.
    #[serde(default)]
    pub no_network: bool,
    pub hardware_revision: String,
    pub versions: Versions,
    pub condition: FlashCondition,
    /// `AT#USBCFG`: 0 RNDIS, 1 rmnet, 2 MBIM, 3 ECM.
    pub usb_composition: u8,
    /// `AT#FWSWITCH`.
    pub firmware_switch: String,
    /// How often writing firmware began, and how often it ended well.
    pub begun: u32,
    pub completed: u32,
    /// Of the last firmware that was written whole.
    pub payload_sha256: Option<String>,
    /// `AT+CGDCONT`, as in `1,"IP","internet"`.
    #[serde(default)]
    pub contexts: Vec<String>,
    #[serde(default)]
    pub surroundings: Surroundings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashCondition {
    Whole,
    /// Boots into download mode.
    HalfWritten,
    /// Boots into a crash dump.
    Crashing,
    /// Shows nothing on USB.
    Dead,
}

impl Flash {
    pub fn load(path: &Path) -> io::Result<Flash> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }

    /// Durable when it returns: the truth survives whatever is killed next.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(fresh, path)
    }
}
