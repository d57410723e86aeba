//! The one list of options: each read once, with its type, range and default.

use std::path::{Path, PathBuf};

use shared::ids::Slot;

use super::gates::{cost, gates};
use super::merged::{Merged, OptionError, Reader};
use super::types::{
    Coordinator, Holders, Image, Modem, Paths, Settings, SlotSettings, Trust, Upgrade, Uplink,
};
use super::values::{parse_imei, parse_name, parse_pin, parse_url, parse_usb_path};
use super::{UNCONFIGURED, openwisp};

/// On the router's own flash, and not below `/etc`: `sysupgrade -c` packs all that was changed there into memory.
const STAGING: &str = "/usr/lib/modem-upgrader/staging";
/// Where earlier versions staged by default.
const FORMER_STAGING: &str = "/etc/modem-upgrader/staging";
/// Roots that OpenWrt's ca-bundle installs.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

impl Settings {
    /// Reads every option once; all errors at a time.
    pub(super) fn validate(mut merged: Merged) -> Result<Self, Vec<OptionError>> {
        let enabled = merged.section("agent").flag("enabled", true);
        let neighbour = neighbour(&mut merged.section(openwisp::SECTION));
        let coordinator = coordinator(&mut merged.section("coordinator"), enabled, &neighbour);
        let uplink = uplink(&mut merged.section("uplink"));
        let paths = paths(&mut merged.section("paths"));
        let image = image(&mut merged.section("image"));
        let gates = gates(&mut merged.section("gates"));
        let upgrade = upgrade(&mut merged.section("upgrade"));
        let holders = holders(&mut merged.section("holders"));
        let modem = modem(&mut merged.section("modem"));
        let slots = slots(&mut merged);
        let effective = merged.finish()?;
        // `finish` has reported what made any of these absent.
        match (coordinator, paths, slots) {
            (Some(coordinator), Some(paths), Some(slots)) => Ok(Self {
                enabled,
                coordinator,
                uplink,
                paths,
                image,
                gates,
                upgrade,
                holders,
                modem,
                slots,
                openwisp_uuid: neighbour.uuid,
                effective,
                refused: None,
            }),
            _ => Err(Vec::new()),
        }
    }
}

/// What openwisp-config's settings lend to ours.
struct Neighbour {
    uuid: Option<String>,
    ca_file: Option<String>,
}

fn neighbour(section: &mut Reader<'_>) -> Neighbour {
    let text = |text: &str| Ok(text.to_owned());
    Neighbour {
        uuid: section.parsed("uuid", None, text),
        ca_file: section.parsed("ca_file", None, text),
    }
}

fn coordinator(
    section: &mut Reader<'_>,
    enabled: bool,
    neighbour: &Neighbour,
) -> Option<Coordinator> {
    // Who is not to run need not know whereto.
    let url = section.parsed("url", Some(if enabled { "" } else { UNCONFIGURED }), parse_url);
    let pins = section.list("pins", &[], parse_pin);
    let trust = section.parsed("trust", None, parse_trust);
    let roots = match (trust, &neighbour.ca_file) {
        (None, _) if !pins.is_empty() => None,
        (None | Some(Roots::OpenWisp), Some(theirs)) => Some(theirs.as_str()),
        (None | Some(_), _) => Some(SYSTEM_ROOTS),
    };
    let ca_file = section.path("ca_file", roots);
    let enrolment_token_file = section.path("enrolment_token_file", None);
    Some(Coordinator { url: url?, trust: Trust { pins, ca_file }, enrolment_token_file })
}

/// Whose roots count where `ca_file` names none.
#[derive(Debug, Clone, Copy)]
enum Roots {
    System,
    OpenWisp,
}

fn parse_trust(text: &str) -> Result<Roots, String> {
    match text {
        "system" => Ok(Roots::System),
        "openwisp" => Ok(Roots::OpenWisp),
        _ => Err(format!("{text:?}: expected system or openwisp")),
    }
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
    let staging = section.paths("staging", &[STAGING]);
    let mut path = |option, default| section.path(option, Some(default));
    let state_dir = path("state_dir", "/etc/modem-upgrader/state");
    let run_dir = path("run_dir", "/var/run/modem-upgrader");
    let keys_dir = path("keys_dir", "/etc/modem-upgrader/keys");
    let profiles_dir = path("profiles_dir", "/etc/modem-upgrader/profiles.d");
    let hooks_dir = path("hooks_dir", "/etc/modem-upgrader/hooks.d");
    let init_dir = path("init_dir", "/etc/init.d");
    let (ifup, ifdown) = (path("ifup", "/sbin/ifup"), path("ifdown", "/sbin/ifdown"));
    let ifstatus = path("ifstatus", "/sbin/ifstatus");
    let (ubus, mmcli) = (path("ubus", "/bin/ubus"), path("mmcli", "/usr/bin/mmcli"));
    let crontab = path("crontab", "/etc/crontabs/root");
    let (ip, timezone) = (path("ip", "/sbin/ip"), path("timezone", "/etc/TZ"));
    let (sysfs, dev, proc) = (path("sysfs", "/sys"), path("dev", "/dev"), path("proc", "/proc"));
    if staging.is_empty() {
        section.missing("staging", "names no directory");
    }
    let staging = with_former(staging, Path::new(FORMER_STAGING));
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
        ubus: ubus?,
        mmcli: mmcli?,
        crontab: crontab?,
        ip: ip?,
        timezone: timezone?,
        sysfs: sysfs?,
        dev: dev?,
        proc: proc?,
    })
}

/// What an earlier version has staged by default may be all that a modem can be recovered from: as long as something
/// is there it is found, and tidied up.
pub(super) fn with_former(mut staging: Vec<PathBuf>, former: &Path) -> Vec<PathBuf> {
    let by_default = staging.iter().eq([Path::new(STAGING)]);
    let holds_something =
        || std::fs::read_dir(former).is_ok_and(|mut names| names.next().is_some());
    if by_default && holds_something() {
        staging.push(former.to_owned());
    }
    staging
}

fn image(section: &mut Reader<'_>) -> Image {
    Image {
        require_signature: section.flag("require_signature", true),
        reserve_bytes: section.number("reserve_bytes", 8 << 20, 0..=i64::MAX),
        allow_volatile_staging: section.flag("allow_volatile_staging", false),
        cost: cost(section),
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
        settle: section.seconds("settle_s", 900, 0..=31_536_000),
    }
}

fn holders(section: &mut Reader<'_>) -> Holders {
    Holders {
        services: section.list("services", &[], parse_name),
        interfaces: section.list("interfaces", &[], parse_name),
        rebooters: section.list("rebooters", &[], parse_name),
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
