//! Which modems are there, and where: what sysfs says, and what it means.
//!
//! [`Snapshot::read`] reads (`usb`, `pcie`); everything else decides on a snapshot. A port is found by its USB interface
//! number and never by its ttyUSB number (the driver skips interfaces, numbers depend on what was free); a
//! modem is recognised by its IMEI and never by its place on the bus (it may come back from flashing on
//! another one, at another speed). Source: the facts of the FN990A compositions in `docs/`.

mod pcie;
mod usb;

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::ids::UsbId;

pub use pcie::{PciId, PcieDevice, WwanPort};

/// The devices of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub devices: Vec<UsbDevice>,
    #[serde(default)]
    pub pcie: Vec<PcieDevice>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbDevice {
    /// Its place: `2-1.4`. Good for messages, not for recognising it.
    pub bus_id: String,
    pub id: UsbId,
    pub manufacturer: Option<String>,
    pub product: Option<String>,
    pub serial: Option<String>,
    /// In the order of their numbers.
    pub interfaces: Vec<UsbInterface>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbInterface {
    pub number: u8,
    pub driver: Option<String>,
    /// `ttyUSB2`.
    pub tty: Option<String>,
    /// `wwan0`.
    pub net: Option<String>,
}

impl Snapshot {
    /// Reads `<sysfs>/bus/usb/devices` and `<sysfs>/class/wwan`. A device that vanishes meanwhile is left
    /// out.
    pub fn read(sysfs: &Path) -> io::Result<Snapshot> {
        Ok(Snapshot { devices: usb::devices(sysfs)?, pcie: pcie::devices(sysfs) })
    }

    /// The modems that run their own firmware.
    pub fn modems(&self) -> Vec<Modem> {
        let usb = self.devices.iter().filter_map(Modem::of);
        usb.chain(self.pcie.iter().filter_map(Modem::of_pcie)).collect()
    }

    /// What a modem looks like that does not.
    pub fn abnormal(&self) -> Vec<Abnormal> {
        self.devices.iter().filter_map(Abnormal::of).collect()
    }
}

/// A modem in normal operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Modem {
    /// Its place: `2-1.4`, or `0000:01:00.0`.
    pub bus_id: String,
    pub bus: Bus,
    /// Its id on its bus; on PCIe vendor and device.
    pub usb: UsbId,
    pub manufacturer: Option<String>,
    pub product: Option<String>,
    pub serial: Option<String>,
    /// Names below `/dev` of the ports that answer AT, the best first. Where the layout of a composition is
    /// not known, all its ttys.
    pub at: Vec<String>,
    /// The diag port, which flashing tools take.
    pub diag: Option<String>,
    pub net: Vec<String>,
}

/// How a modem is attached. An FN990A on PCIe is seen and asked, and never flashed: stock kernels have no
/// channel to its loader there, and its download mode would not be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bus {
    Usb,
    Pcie,
}

const TELIT: u16 = 0x1bc7;

/// Interface numbers of one composition.
struct Layout {
    at: &'static [u8],
    diag: u8,
}

/// FN990A, `AT#USBCFG`. The second AT port goes first: ModemManager and its like take the other. 1072 and 1073:
/// AT on 5 and 6 is inferred, the ports are tried before they are used.
fn layout(product: u16) -> Option<Layout> {
    match product {
        0x1070 => Some(Layout { at: &[5, 4], diag: 0 }),
        0x1071 => Some(Layout { at: &[6, 5], diag: 0 }),
        0x1072 => Some(Layout { at: &[6, 5, 4, 7], diag: 2 }),
        0x1073 => Some(Layout { at: &[6, 5, 4, 7], diag: 0 }),
        _ => None,
    }
}

/// 1074 and 1077 to 1079 are the FN990A with ports that are written down nowhere public. 1075 is missing on
/// purpose: it is the same modem a second time, beside its PCIe function.
const UNKNOWN_LAYOUT: &[u16] = &[0x1074, 0x1077, 0x1078, 0x1079];

impl Modem {
    fn of(device: &UsbDevice) -> Option<Modem> {
        if device.id.vendor != TELIT {
            return None;
        }
        let (at, diag) = match layout(device.id.product) {
            Some(layout) => {
                let at = layout.at.iter().filter_map(|number| device.tty(*number)).collect();
                (at, device.tty(layout.diag))
            }
            None if UNKNOWN_LAYOUT.contains(&device.id.product) => (device.ttys(), None),
            None => return None,
        };
        Some(Modem {
            bus_id: device.bus_id.clone(),
            bus: Bus::Usb,
            usb: device.id,
            manufacturer: device.manufacturer.clone(),
            product: device.product.clone(),
            serial: device.serial.clone(),
            at,
            diag,
            net: device.interfaces.iter().filter_map(|interface| interface.net.clone()).collect(),
        })
    }

    /// An FN990A behind PCIe. Its USB side (1bc7:1075), where there is one, is the same modem.
    fn of_pcie(device: &PcieDevice) -> Option<Modem> {
        let id = device.fn990()?;
        let named = |kind: &str| -> Vec<String> {
            let ports = device.ports.iter().filter(|port| port.kind == kind);
            ports.map(|port| port.name.clone()).collect()
        };
        // The second one first, as with USB.
        let at = named("AT").into_iter().rev().collect();
        Some(Modem {
            bus_id: device.address.clone(),
            bus: Bus::Pcie,
            usb: id,
            manufacturer: None,
            product: None,
            serial: None,
            at,
            diag: named("QCDM").pop(),
            net: device.net.clone(),
        })
    }

    /// Whether it is written down which of its ports is which.
    pub fn has_known_ports(&self) -> bool {
        self.bus == Bus::Usb && self.usb.vendor == TELIT && layout(self.usb.product).is_some()
    }

    /// The key of [`super::lock::ModemLock`]: the vendor. Product, place and ports change while a modem is
    /// flashed and its IMEI cannot be read then; and a router flashes one modem at a time anyway.
    pub fn lock_key(&self) -> String {
        lock_key(self.usb)
    }
}

/// The lock of whoever does not know yet which modem it will meet: all that we know are Telit's.
pub const LOCK_KEY: &str = "1bc7";

/// The lock of a modem whose id, in any of its modes and on any bus, is `id`.
pub fn lock_key(id: UsbId) -> String {
    if id.vendor == pcie::QUALCOMM { LOCK_KEY.to_owned() } else { format!("{:04x}", id.vendor) }
}

impl UsbDevice {
    fn tty(&self, number: u8) -> Option<String> {
        let interface = self.interfaces.iter().find(|interface| interface.number == number)?;
        interface.tty.clone()
    }

    /// `ttyUSB0`, in the order of the interfaces.
    pub fn ttys(&self) -> Vec<String> {
        self.interfaces.iter().filter_map(|interface| interface.tty.clone()).collect()
    }
}

/// A mode in which a modem answers no AT command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// 1bc7:9010: waits for firmware. Shared by FN980 and FN990, without a serial number.
    DownloadMode,
    /// 1bc7:9000: it crashed and offers its memory.
    CrashDump,
    /// 05c6:9008: the chip's own loader.
    Qdl,
    /// 18d1:d00d.
    Fastboot,
}

/// A device in such a mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Abnormal {
    pub bus_id: String,
    pub usb: UsbId,
    pub condition: Condition,
    /// Its ports; in download mode the tool takes the first.
    pub ttys: Vec<String>,
    /// The kernel driver bound to its first interface.
    pub driver: Option<String>,
}

impl Abnormal {
    fn of(device: &UsbDevice) -> Option<Abnormal> {
        Some(Abnormal {
            bus_id: device.bus_id.clone(),
            usb: device.id,
            condition: condition(device.id)?,
            ttys: device.ttys(),
            driver: device.interfaces.first().and_then(|interface| interface.driver.clone()),
        })
    }
}

/// Whether the kernel has a control channel to some modem: one in download mode has none.
#[must_use]
pub fn any_talks(sysfs: &Path) -> bool {
    let has = |class: &str, name: &str| {
        let entries = std::fs::read_dir(sysfs.join("class").join(class));
        let mut names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.any(|found| found.to_string_lossy().starts_with(name))
    };
    has("usbmisc", "cdc-wdm") || has("wwan", "wwan")
}

/// What a USB id says about the state of a modem, if anything.
pub fn condition(id: UsbId) -> Option<Condition> {
    match (id.vendor, id.product) {
        (TELIT, 0x9010) => Some(Condition::DownloadMode),
        (TELIT, 0x9000) => Some(Condition::CrashDump),
        (0x05c6, 0x9008) => Some(Condition::Qdl),
        (0x18d1, 0xd00d) => Some(Condition::Fastboot),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
