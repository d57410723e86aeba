//! Reads modems behind PCIe from sysfs: their ports are `class/wwan/wwan0at0` and the like, each with its
//! kind in `type`; vendor and device stand above, in the directory of the PCI device.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::ids::UsbId;

use super::usb::{attribute, list};

/// The PCI vendor of the chip in an FN990A.
pub(super) const QUALCOMM: u16 = 0x17cb;
/// What Telit wrote into it: `17cb:0308`, subsystem `1c5d:2010`. Source: the kernel's `pci_generic.c`.
const FN990A: PciId = PciId { vendor: QUALCOMM, device: 0x0308, subsystem: (0x1c5d, 0x2010) };

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieDevice {
    /// `0000:01:00.0`
    pub address: String,
    pub id: PciId,
    /// In the order of their names.
    pub ports: Vec<WwanPort>,
    pub net: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciId {
    pub vendor: u16,
    pub device: u16,
    /// Vendor and device of the card that the chip is on.
    pub subsystem: (u16, u16),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WwanPort {
    /// `wwan0at0`, below `/dev`.
    pub name: String,
    /// `AT`, `QCDM`, `MBIM`, `NMEA`, ...
    pub kind: String,
}

impl PcieDevice {
    pub(super) fn fn990(&self) -> Option<UsbId> {
        let id = UsbId { vendor: self.id.vendor, product: self.id.device };
        (self.id == FN990A).then_some(id)
    }
}

pub(super) fn devices(sysfs: &Path) -> Vec<PcieDevice> {
    let class = sysfs.join("class/wwan");
    let mut names = list(&class).unwrap_or_default();
    names.sort();
    let mut devices: Vec<PcieDevice> = Vec::new();
    for name in &names {
        let Some(pci) = std::fs::canonicalize(class.join(name)).ok().and_then(pci_device) else {
            continue;
        };
        let Some(found) = identify(&pci) else { continue };
        let known = devices.iter_mut().position(|device| device.address == found.address);
        let index = known.unwrap_or(devices.len());
        if known.is_none() {
            devices.push(PcieDevice { net: networks(sysfs, &pci), ..found });
        }
        if let (Some(port), Some(device)) = (port(&class, name), devices.get_mut(index)) {
            device.ports.push(port);
        }
    }
    devices
}

/// The nearest directory above that is a PCI device.
fn pci_device(path: PathBuf) -> Option<PathBuf> {
    path.ancestors().find(|above| above.join("subsystem_vendor").exists()).map(Path::to_owned)
}

fn identify(pci: &Path) -> Option<PcieDevice> {
    let hex = |name| {
        let text = attribute(pci, name)?;
        u16::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
    };
    let subsystem = (hex("subsystem_vendor")?, hex("subsystem_device")?);
    Some(PcieDevice {
        address: pci.file_name()?.to_string_lossy().into_owned(),
        id: PciId { vendor: hex("vendor")?, device: hex("device")?, subsystem },
        ports: Vec::new(),
        net: Vec::new(),
    })
}

/// `wwan0at1`: device, kind, number. `wwan0` alone is the device itself.
fn port(class: &Path, name: &str) -> Option<WwanPort> {
    let rest = name.strip_prefix("wwan")?.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.is_empty() {
        return None;
    }
    let by_name = rest.trim_end_matches(|c: char| c.is_ascii_digit()).to_ascii_uppercase();
    let kind = attribute(&class.join(name), "type").unwrap_or(by_name);
    Some(WwanPort { name: name.to_owned(), kind })
}

fn networks(sysfs: &Path, pci: &Path) -> Vec<String> {
    let class = sysfs.join("class/net");
    let on_it = |name: &String| {
        std::fs::canonicalize(class.join(name)).is_ok_and(|path| path.starts_with(pci))
    };
    let mut names: Vec<String> =
        list(&class).unwrap_or_default().into_iter().filter(on_it).collect();
    names.sort();
    names
}
