//! What a device says of itself: so that an operator's preview can tell who cannot be upgraded.

use crate::{
    event::VersionLine,
    ids::{Slot, UsbId},
};
use serde::{Deserialize, Serialize};

/// The version of [`Inventory`].
pub const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub v: u8,
    pub agent_version: String,
    pub capabilities: Vec<String>,
    /// The board's name, for instance `glinet,gl-x3000`.
    pub board: String,
    pub hostname: String,
    pub boot_id: String,
    /// False only if router-local configuration turned signatures off.
    pub require_signature: bool,
    /// Key numbers (hex) of the signing keys the router trusts.
    pub keys: Vec<String>,
    /// Names of the tool profiles that are installed.
    pub profiles: Vec<String>,
    pub staging: Vec<Staging>,
    pub modems: Vec<Modem>,
}

/// A directory where an image can lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    pub path: String,
    /// Bytes, the reserve already taken off.
    pub free_bytes: u64,
    /// Whether it survives a power cut.
    pub durable: bool,
    /// Why it cannot be used now; then the others are 0 and false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modem {
    pub slot: Slot,
    pub manufacturer: String,
    pub model: String,
    pub imei: String,
    pub versions: Vec<VersionLine>,
    #[serde(default)]
    pub usb: Option<UsbId>,
    /// Whether the way to the coordinator leads over this modem alone; unknown counts as true.
    pub sole_uplink: bool,
    /// Absent where nobody could tell, and from agents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Why the rest is empty, if the modem could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// SIM and network of a modem at the moment of the inventory, as far as is told. Which SIM it is belongs to
/// its owner: neither ICCID nor IMSI leaves the router.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sim: Option<bool>,
    /// The first six digits of its ICCID: country and issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sim_issuer: Option<String>,
    /// `home`, `roaming`, `searching`, `not_searching`, `denied`, `unknown`, `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// Name or number of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// `gsm`, `umts`, `lte`, `5g-nsa`, `5g`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technology: Option<String>,
    /// Reference signal received power in dBm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rsrp_dbm: Option<i32>,
}
