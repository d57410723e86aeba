//! Reads USB devices and their interfaces from sysfs.

use std::io;
use std::path::Path;

use shared::ids::UsbId;

use super::{UsbDevice, UsbInterface};

/// Longest attribute read from sysfs, in bytes.
const MAX_ATTRIBUTE: usize = 256;

pub(super) fn devices(sysfs: &Path) -> io::Result<Vec<UsbDevice>> {
    let root = sysfs.join("bus/usb/devices");
    let mut names = match list(&root) {
        // A router whose modem is on PCIe need not have USB.
        Err(error) if error.kind() == io::ErrorKind::NotFound && sysfs.join("class").exists() => {
            return Ok(Vec::new());
        }
        names => names?,
    };
    names.sort();
    let is_device = |name: &&String| !name.contains(':') && !name.starts_with("usb");
    let devices = names.iter().filter(is_device);
    Ok(devices.filter_map(|bus_id| read_device(&root, bus_id, &names)).collect())
}

fn read_device(root: &Path, bus_id: &str, names: &[String]) -> Option<UsbDevice> {
    let directory = root.join(bus_id);
    let hex = |name| u16::from_str_radix(&attribute(&directory, name)?, 16).ok();
    let id = UsbId { vendor: hex("idVendor")?, product: hex("idProduct")? };
    let mut interfaces: Vec<UsbInterface> = names
        .iter()
        .filter(|name| name.split_once(':').is_some_and(|(device, _)| device == bus_id))
        .filter_map(|name| read_interface(&root.join(name)))
        .collect();
    interfaces.sort_by_key(|interface| interface.number);
    Some(UsbDevice {
        bus_id: bus_id.to_owned(),
        id,
        manufacturer: attribute(&directory, "manufacturer"),
        product: attribute(&directory, "product"),
        serial: attribute(&directory, "serial"),
        interfaces,
    })
}

fn read_interface(directory: &Path) -> Option<UsbInterface> {
    let number = u8::from_str_radix(&attribute(directory, "bInterfaceNumber")?, 16).ok()?;
    let mut children = list(directory).ok()?;
    // cdc_acm's are one level deeper.
    children.extend(list(&directory.join("tty")).unwrap_or_default());
    let driver = std::fs::read_link(directory.join("driver")).ok();
    Some(UsbInterface {
        number,
        driver: driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
        tty: children.into_iter().find(|name| is_tty(name)),
        net: list(&directory.join("net")).ok().and_then(|names| names.into_iter().min()),
    })
}

fn is_tty(name: &str) -> bool {
    name.starts_with("ttyUSB") || name.starts_with("ttyACM")
}

pub(super) fn list(directory: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

pub(super) fn attribute(directory: &Path, name: &str) -> Option<String> {
    let bytes = std::fs::read(directory.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_ATTRIBUTE)]).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
