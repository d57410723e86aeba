//! What a device's place in sysfs tells of it.

use std::path::Path;

/// Whether the device of this directory, with all links resolved, is plugged in by USB:
/// `/sys/devices/platform/soc/11200000.usb/usb2/2-1/...`.
#[must_use]
pub fn is_on_usb(device: &Path) -> bool {
    let names = device.components().filter_map(|part| part.as_os_str().to_str());
    names.into_iter().any(|name| name == "usb" || is_bus(name))
}

/// `usb1`: the kernel's directory of a bus.
fn is_bus(name: &str) -> bool {
    name.strip_prefix("usb").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_is_told_from_what_is_only_called_so() {
        let on_usb = |path: &str| is_on_usb(Path::new(path));
        assert!(on_usb("/sys/devices/platform/soc/11200000.usb/usb2/2-1/2-1:1.0/block/sda"));
        assert!(on_usb("/sys/bus/usb/devices/1-2:1.0"));
        assert!(!on_usb("/sys/devices/platform/11230000.mmc/mmc_host/mmc0/block/mmcblk0"));
        assert!(!on_usb("/sys/devices/platform/11200000.usb/usbx/mmc"));
    }
}
