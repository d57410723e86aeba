//! The board the agent runs on, as the kernel tells it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::identity::Claims;

use crate::files;

/// What tells one router from another. Every part may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// As in OpenWrt's `board_name`, for instance `glinet,gl-x3000`.
    #[serde(default)]
    pub name: Option<String>,
    /// Of the first built-in network interface.
    #[serde(default)]
    pub mac: Option<String>,
    #[serde(default)]
    pub serial: Option<String>,
}

impl Board {
    /// Reads the device tree or DMI, and the interfaces, under `sysfs`.
    #[must_use]
    pub fn read(sysfs: &Path) -> Self {
        let tree = sysfs.join("firmware/devicetree/base");
        let dmi = sysfs.join("class/dmi/id");
        Self {
            name: first_text(&tree.join("compatible"))
                .or_else(|| first_text(&dmi.join("product_name"))),
            mac: first_mac(&sysfs.join("class/net")),
            serial: first_text(&tree.join("serial-number"))
                .or_else(|| first_text(&dmi.join("product_serial"))),
        }
    }

    /// Whether this may be `other`: no part that both know differs.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        agree(self.name.as_ref(), other.name.as_ref())
            && agree(self.mac.as_ref(), other.mac.as_ref())
            && agree(self.serial.as_ref(), other.serial.as_ref())
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

fn agree(one: Option<&String>, other: Option<&String>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// The text up to the first NUL (device tree lists) or line end; `None` if there is nothing.
fn first_text(path: &Path) -> Option<String> {
    let text = files::read_text(path).ok()?;
    let first = text.split(['\0', '\n']).next()?.trim();
    (!first.is_empty()).then(|| first.chars().take(128).collect())
}

/// The address of the first interface by name that is hardware and not on USB: those of modems
/// and dongles come and go.
fn first_mac(net: &Path) -> Option<String> {
    let mut names: Vec<_> = std::fs::read_dir(net).ok()?.flatten().map(|e| e.path()).collect();
    names.sort();
    names.into_iter().find_map(|interface| {
        let device = std::fs::canonicalize(interface.join("device")).ok()?;
        let on_usb = device.components().any(|part| {
            part.as_os_str().to_str().is_some_and(|name| name == "usb" || is_usb_bus(name))
        });
        let address = first_text(&interface.join("address"))?;
        (!on_usb && address != "00:00:00:00:00:00").then_some(address)
    })
}

/// `usb1`: the kernel's directory of a bus.
fn is_usb_bus(name: &str) -> bool {
    name.strip_prefix("usb").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}
