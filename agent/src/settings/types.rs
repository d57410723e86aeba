//! Validated settings: types the rest of the agent may rely on.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use shared::ids::Slot;

use crate::modem::Sought;

use super::gates::{Cost, Gates};
use super::merged::Effective;

/// Everything an agent may be told, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether `run` is wanted at all.
    pub enabled: bool,
    pub coordinator: Coordinator,
    pub uplink: Uplink,
    pub paths: Paths,
    pub image: Image,
    pub gates: Gates,
    pub upgrade: Upgrade,
    pub holders: Holders,
    pub modem: Modem,
    /// Never empty: without `[[slot]]` the one slot "main" without constraints.
    pub slots: Vec<SlotSettings>,
    /// What openwisp-config calls this device: a hint, never a proof.
    pub openwisp_uuid: Option<String>,
    /// What is in force and where it came from, for `check-config`.
    pub effective: Effective,
    /// What is wrong with the router's settings of now, where these are the last that were valid: they
    /// serve to finish what was begun, and nothing is begun with them.
    pub refused: Option<String>,
}

/// Where the coordinator is and how it proves to be it.
#[derive(Debug, Clone)]
pub struct Coordinator {
    /// `https://host[:port]/`; nothing else.
    pub url: Url,
    pub trust: Trust,
    /// Holds the enrolment token; absent on a device that is already known.
    pub enrolment_token_file: Option<PathBuf>,
}

/// What a server certificate is held against. At least one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// SHA-256 of the SubjectPublicKeyInfo; any one has to match.
    pub pins: Vec<SpkiPin>,
    /// PEM file of roots, or a directory of such files.
    pub ca_file: Option<PathBuf>,
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpkiPin(pub [u8; 32]);

/// How the agent talks to the coordinator.
#[derive(Debug, Clone)]
pub struct Uplink {
    pub poll_interval: Duration,
    /// Each pause is longer or shorter by up to this share of it, in percent.
    pub poll_jitter_percent: u32,
    /// First pause after a failure; doubled each time up to `retry_max`, with full jitter.
    pub retry: Duration,
    pub retry_max: Duration,
    /// Limit of one HTTPS request (images have their own).
    pub request_timeout: Duration,
    pub inventory_interval: Duration,
    pub mqtt: bool,
    /// Events that MQTT did not get acknowledged for so long go over HTTPS.
    pub mqtt_patience: Duration,
}

/// Where things lie. All can be redirected, which is how the lab has many routers on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Journal, outbox, identity. Must survive a power cut.
    pub state_dir: PathBuf,
    /// Locks, exit records, status.json. Gone after a restart.
    pub run_dir: PathBuf,
    /// Directories that may hold an image, the preferred one first.
    pub staging: Vec<PathBuf>,
    pub keys_dir: PathBuf,
    pub profiles_dir: PathBuf,
    pub hooks_dir: PathBuf,
    /// Init scripts, for services held during an upgrade.
    pub init_dir: PathBuf,
    /// netifd's commands for the interfaces held.
    pub ifup: PathBuf,
    pub ifdown: PathBuf,
    pub ifstatus: PathBuf,
    /// netifd is asked over ubus; where there is none, by those three.
    pub ubus: PathBuf,
    /// ModemManager's command.
    pub mmcli: PathBuf,
    /// Root's cron jobs, which `probe` looks through.
    pub crontab: PathBuf,
    /// Tells the rules of policy routing.
    pub ip: PathBuf,
    /// The router's time zone as a POSIX text.
    pub timezone: PathBuf,
    pub sysfs: PathBuf,
    pub dev: PathBuf,
    pub proc: PathBuf,
}

impl Paths {
    /// Exists once NTP has set the clock in this boot.
    #[must_use]
    pub fn ntp_marker(&self) -> PathBuf {
        self.run_dir.join("clock-set")
    }

    /// What `run` says of itself to `status`.
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.run_dir.join("status.json")
    }
}

/// Rules for firmware images.
#[derive(Debug, Clone)]
pub struct Image {
    /// Only ever turned off here, never by a job.
    pub require_signature: bool,
    /// Stays free on the staging file system.
    pub reserve_bytes: u64,
    /// Accepts staging that a power cut erases although the modem is the sole uplink
    /// (the job has to allow it too).
    pub allow_volatile_staging: bool,
    pub cost: Cost,
}

/// Rules for upgrades.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Of one modem.
    pub max_flashes_per_30_days: u32,
    /// Tool starts an operation, 1 to 3.
    pub max_attempts: u8,
    /// First pause before another attempt; it doubles.
    pub backoff: Duration,
    /// First pause before another recovery; it doubles, and recovery is never given up.
    pub recovery: Duration,
    /// First pause before a step that failed is tried again; it doubles.
    pub again: Duration,
    /// For so long after the router's start, a driver, a mount or a tool that is missing may still come:
    /// it postpones, and fails only then.
    pub settle: Duration,
}

/// Who is asked to let go of the modem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// Names in `init_dir`, beside the profile's and ModemManager.
    pub services: Vec<String>,
    /// netifd's interfaces on the modem; those that ubus shows on it are held anyway.
    pub interfaces: Vec<String>,
    /// Services that would restart router or modem when the network is away, beside the profile's.
    pub rebooters: Vec<String>,
}

/// Patience with modems.
#[derive(Debug, Clone)]
pub struct Modem {
    /// A modem may be silent for so long after it appeared on the bus.
    pub boot_silence: Duration,
    /// A modem may be away from the bus for so long while it restarts.
    pub away: Duration,
}

/// One place for a modem, and which modem belongs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSettings {
    pub slot: Slot,
    pub imei: Option<String>,
    /// The bus id in sysfs, such as "1-1.4", or "0000:01:00.0" behind PCIe: where the modem is looked for until its IMEI is known.
    pub usb_path: Option<String>,
}

impl SlotSettings {
    /// How its modem is recognised; `known` is the IMEI that an upgrade has read.
    #[must_use]
    pub fn sought<'a>(&'a self, known: Option<&'a str>) -> Sought<'a> {
        match (known.or(self.imei.as_deref()), self.usb_path.as_deref()) {
            (Some(imei), _) => Sought::Imei(imei),
            (None, Some(bus_id)) => Sought::At(bus_id),
            (None, None) => Sought::Any,
        }
    }
}
