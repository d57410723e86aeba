//! Validated settings: types the rest of the agent may rely on, and the one list of options.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use shared::ids::Slot;

use crate::modem::Sought;

use super::merged::{Effective, Merged, OptionError, Reader};

/// Everything an agent may be told, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub coordinator: Coordinator,
    pub uplink: Uplink,
    pub paths: Paths,
    pub image: Image,
    pub upgrade: Upgrade,
    pub modem: Modem,
    /// Never empty: without `[[slot]]` the one slot "main" without constraints.
    pub slots: Vec<SlotSettings>,
    /// What is in force and where it came from, for `check-config`.
    pub effective: Effective,
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
    /// PEM file of roots.
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
    pub holders: Holders,
}

/// Who is asked to let go of the modem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// Names in `init_dir`.
    pub services: Vec<String>,
    /// Logical interfaces for ifdown and ifup.
    pub interfaces: Vec<String>,
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
    /// The bus id in sysfs, such as "1-1.4": where the modem is looked for until its IMEI is known.
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

impl Settings {
    /// Reads every option once; all errors at a time.
    pub(super) fn validate(mut merged: Merged) -> Result<Self, Vec<OptionError>> {
        let coordinator = coordinator(&mut merged.section("coordinator"));
        let uplink = uplink(&mut merged.section("uplink"));
        let paths = paths(&mut merged.section("paths"));
        let image = image(&mut merged.section("image"));
        let upgrade = upgrade(&mut merged.section("upgrade"));
        let modem = modem(&mut merged.section("modem"));
        let slots = slots(&mut merged);
        let effective = merged.finish()?;
        // `finish` has reported what made any of these absent.
        match (coordinator, paths, slots) {
            (Some(coordinator), Some(paths), Some(slots)) => {
                Ok(Self { coordinator, uplink, paths, image, upgrade, modem, slots, effective })
            }
            _ => Err(Vec::new()),
        }
    }
}

fn coordinator(section: &mut Reader<'_>) -> Option<Coordinator> {
    let url = section.parsed("url", Some(""), parse_url);
    let pins = section.list("pins", &[], parse_pin);
    let default_ca = pins.is_empty().then_some("/etc/ssl/certs/ca-certificates.crt");
    let ca_file = section.path("ca_file", default_ca);
    let enrolment_token_file = section.path("enrolment_token_file", None);
    Some(Coordinator { url: url?, trust: Trust { pins, ca_file }, enrolment_token_file })
}

fn uplink(section: &mut Reader<'_>) -> Uplink {
    let percent = section.number("poll_jitter_percent", 20, 0..=90);
    Uplink {
        poll_interval: section.seconds("poll_interval_s", 300, 1..=86_400),
        poll_jitter_percent: u32::try_from(percent).unwrap_or(20),
        retry: section.seconds("retry_s", 2, 1..=3_600),
        retry_max: section.seconds("retry_max_s", 600, 1..=86_400),
        request_timeout: section.seconds("request_timeout_s", 30, 1..=600),
        inventory_interval: section.seconds("inventory_interval_s", 21_600, 10..=604_800),
        mqtt: section.flag("mqtt", true),
        mqtt_patience: section.seconds("mqtt_patience_s", 30, 1..=3_600),
    }
}

fn paths(section: &mut Reader<'_>) -> Option<Paths> {
    let staging = section.paths("staging", &["/etc/modem-upgrader/staging"]);
    let mut path = |option, default| section.path(option, Some(default));
    let state_dir = path("state_dir", "/etc/modem-upgrader/state");
    let run_dir = path("run_dir", "/var/run/modem-upgrader");
    let keys_dir = path("keys_dir", "/etc/modem-upgrader/keys");
    let profiles_dir = path("profiles_dir", "/etc/modem-upgrader/profiles.d");
    let hooks_dir = path("hooks_dir", "/etc/modem-upgrader/hooks.d");
    let init_dir = path("init_dir", "/etc/init.d");
    let (ifup, ifdown) = (path("ifup", "/sbin/ifup"), path("ifdown", "/sbin/ifdown"));
    let ifstatus = path("ifstatus", "/sbin/ifstatus");
    let (sysfs, dev, proc) = (path("sysfs", "/sys"), path("dev", "/dev"), path("proc", "/proc"));
    if staging.is_empty() {
        section.missing("staging", "names no directory");
    }
    Some(Paths {
        state_dir: state_dir?,
        run_dir: run_dir?,
        staging,
        keys_dir: keys_dir?,
        profiles_dir: profiles_dir?,
        hooks_dir: hooks_dir?,
        init_dir: init_dir?,
        ifup: ifup?,
        ifdown: ifdown?,
        ifstatus: ifstatus?,
        sysfs: sysfs?,
        dev: dev?,
        proc: proc?,
    })
}

fn image(section: &mut Reader<'_>) -> Image {
    Image {
        require_signature: section.flag("require_signature", true),
        reserve_bytes: section.number("reserve_bytes", 8 << 20, 0..=i64::MAX),
        allow_volatile_staging: section.flag("allow_volatile_staging", false),
    }
}

fn upgrade(section: &mut Reader<'_>) -> Upgrade {
    let flashes = section.number("max_flashes_per_30_days", 6, 1..=100);
    let attempts = section.number("max_attempts", 3, 1..=3);
    Upgrade {
        max_flashes_per_30_days: u32::try_from(flashes).unwrap_or(1),
        max_attempts: u8::try_from(attempts).unwrap_or(1),
        backoff: section.seconds("backoff_s", 60, 0..=86_400),
        recovery: section.seconds("recovery_s", 30, 1..=86_400),
        again: section.seconds("again_s", 5, 1..=3_600),
        holders: Holders {
            services: section.list("holders.services", &["modemmanager"], parse_name),
            interfaces: section.list("holders.interfaces", &[], parse_name),
        },
    }
}

fn modem(section: &mut Reader<'_>) -> Modem {
    Modem {
        boot_silence: section.seconds("boot_silence_s", 60, 1..=600),
        away: section.seconds("away_s", 180, 1..=3_600),
    }
}

fn slots(merged: &mut Merged) -> Option<Vec<SlotSettings>> {
    let names = merged.names("slot");
    let names = if names.is_empty() { vec!["main".to_owned()] } else { names };
    let mut slots = Vec::new();
    for name in names {
        let mut section = merged.named("slot", &name);
        let slot = section
            .parsed("name", Some(&name), |text| text.parse::<Slot>().map_err(|e| e.to_string()));
        let imei = section.parsed("imei", None, parse_imei);
        let usb_path = section.parsed("usb_path", None, parse_usb_path);
        slots.push(SlotSettings { slot: slot?, imei, usb_path });
    }
    // A flashed modem may come back at another place, and which one is away is known by those that
    // answer.
    if slots.len() > 1 && slots.iter().any(|slot| slot.imei.is_none()) {
        let name = slots[0].slot.to_string();
        let problem = "with several slots, each needs the imei of its modem";
        merged.named("slot", &name).missing("imei", problem);
        return None;
    }
    Some(slots)
}

fn parse_url(text: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err("is missing; expected https://host[:port]/".to_owned());
    }
    let url = Url::parse(text).map_err(|e| format!("{text:?}: {e}"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    if url.scheme() == "https" && url.has_host() && bare && nobody {
        Ok(url)
    } else {
        Err(format!("{text:?}: expected https://host[:port]/ and nothing more"))
    }
}

/// # Errors
/// It is not `sha256//` and a digest in base64.
pub fn parse_pin(text: &str) -> Result<SpkiPin, String> {
    text.strip_prefix("sha256//")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .and_then(|digest| digest.try_into().ok())
        .map(SpkiPin)
        .ok_or_else(|| format!("{text:?}: expected sha256// and the digest in base64"))
}

/// A name that becomes an argument or a file name: nothing a shell or an option parser minds.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a plain name"))
    }
}

fn parse_imei(text: &str) -> Result<String, String> {
    if text.len() == 15 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not an IMEI of 15 digits"))
    }
}

fn parse_usb_path(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if !text.is_empty() && text.len() <= 32 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a USB path such as 1-1.4"))
    }
}
