//! The board the agent runs on, as the kernel tells it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::identity::Claims;

use crate::{files, sysfs};

/// Wired interfaces of a router that are looked at.
const MOST_MACS: usize = 16;
/// `addr_assign_type` of an address that the hardware was given. Random ones (1) are others at each boot, and
/// those of 2 are another interface's.
const OWN: &str = "0";
/// Of one that whoever configures the router has set.
const SET: &str = "3";

/// What tells one router from another. Every part may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// As in OpenWrt's `board_name`, for instance `glinet,gl-x3000`.
    #[serde(default)]
    pub name: Option<String>,
    /// Of the first built-in network interface that has one of its own, else one that was set. Told, and
    /// nothing hangs on it.
    #[serde(default)]
    pub mac: Option<String>,
    /// The own ones of all of them: which is the first, and which are there, changes with the system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    #[serde(default)]
    pub serial: Option<String>,
}

impl Board {
    /// Reads the device tree or DMI, and the interfaces, under `sysfs`.
    #[must_use]
    pub fn read(sysfs: &Path) -> Self {
        let tree = sysfs.join("firmware/devicetree/base");
        let dmi = sysfs.join("class/dmi/id");
        let net = sysfs.join("class/net");
        let macs = macs(&net, OWN);
        Self {
            name: first_text(&tree.join("compatible"))
                .or_else(|| first_text(&dmi.join("product_name"))),
            mac: macs.first().cloned().or_else(|| self::macs(&net, SET).into_iter().next()),
            macs,
            serial: first_text(&tree.join("serial-number"))
                .or_else(|| first_text(&dmi.join("product_serial"))),
        }
    }

    /// Whether this may be `other`. What its hardware was given decides, as far as both know it. The name is the
    /// system's, and another release of OpenWrt may have another one for the same board: it counts only where
    /// neither address nor serial number can be compared.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let serial = same(self.serial.as_ref(), other.serial.as_ref());
        match (self.shares_a_mac(other), serial) {
            (None, None) => same(self.name.as_ref(), other.name.as_ref()) != Some(false),
            (mac, serial) => mac != Some(false) && serial != Some(false),
        }
    }

    /// `None`: one of them is not known to have any.
    fn shares_a_mac(&self, other: &Self) -> Option<bool> {
        let known = !self.macs.is_empty() && !other.macs.is_empty();
        known.then(|| self.macs.iter().any(|mac| other.macs.contains(mac)))
    }

    /// What the device says of itself at enrolment.
    #[must_use]
    pub fn claims(&self, proc: &Path) -> Claims {
        Claims {
            hostname: hostname(proc),
            board: self.name.clone().unwrap_or_default(),
            mac: self.mac.clone(),
            serial: self.serial.clone(),
            openwisp_uuid: None,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The host name, empty if unknown.
#[must_use]
pub fn hostname(proc: &Path) -> String {
    first_text(&proc.join("sys/kernel/hostname")).unwrap_or_default()
}

/// `None`: one of them is not known.
fn same(one: Option<&String>, other: Option<&String>) -> Option<bool> {
    Some(one? == other?)
}

/// The text up to the first NUL (device tree lists) or line end; `None` if there is nothing.
fn first_text(path: &Path) -> Option<String> {
    let text = files::read_text(path).ok()?;
    let first = text.split(['\0', '\n']).next()?.trim();
    (!first.is_empty()).then(|| first.chars().take(128).collect())
}

/// The addresses of one kind of the wired interfaces that are hardware and not on USB, by their names: those of
/// modems and dongles come and go, and so do radios with their settings.
fn macs(net: &Path, kind: &str) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(net).into_iter().flatten().flatten().map(|e| e.path()).collect();
    names.sort();
    let of_kind = names.into_iter().filter_map(|interface| {
        let device = std::fs::canonicalize(interface.join("device")).ok()?;
        let on_usb = sysfs::is_on_usb(&device);
        let is_radio = interface.join("phy80211").exists();
        let told = first_text(&interface.join("addr_assign_type"));
        let address = first_text(&interface.join("address"))?;
        let counts = !on_usb && !is_radio && told.as_deref() == Some(kind);
        (counts && address != "00:00:00:00:00:00").then_some(address)
    });
    of_kind.take(MOST_MACS).collect()
}
