//! Whether a kernel driver binds a USB id, as far as that can be told before such a device is there.
//!
//! Told by `<sysfs>/bus/usb*/drivers/<driver>/new_id` (ids added at run time) and by `modules.alias` (those
//! it was built with). OpenWrt ships no `modules.alias`, and a driver may be built in: then nobody knows.

use std::path::Path;

use shared::ids::UsbId;

use crate::files;

/// Longest `modules.alias`, in bytes.
const MAX_ALIASES: usize = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binds {
    Yes,
    No,
    Unknown,
}

/// `driver` as the module is called; usb-serial names the driver `option1` where the module is `option`.
#[must_use]
pub fn binds(sysfs: &Path, aliases: &Path, driver: &str, id: UsbId) -> Binds {
    let serial = format!("usb-serial/drivers/{driver}1/new_id");
    let places = [format!("usb/drivers/{driver}/new_id"), serial];
    let added =
        places.iter().filter_map(|place| files::read_text(&sysfs.join("bus").join(place)).ok());
    let id_line = format!("{:04x} {:04x}", id.vendor, id.product);
    if added.into_iter().any(|text| text.lines().any(|line| line.trim().starts_with(&id_line))) {
        return Binds::Yes;
    }
    match files::read_limited(aliases, MAX_ALIASES) {
        Ok(bytes) => by_aliases(&String::from_utf8_lossy(&bytes), driver, id),
        Err(_) => Binds::Unknown,
    }
}

/// `alias usb:v1BC7p9010d*dc*dsc*dp*ic*isc*ip*in* option`
fn by_aliases(text: &str, driver: &str, id: UsbId) -> Binds {
    let mut own = text.lines().filter_map(|line| {
        let (pattern, module) = line.strip_prefix("alias usb:")?.rsplit_once(' ')?;
        (module == driver).then_some(pattern)
    });
    let vendor = format!("v{:04X}p", id.vendor);
    let product = format!("{:04X}d", id.product);
    let fits = |pattern: &str| {
        let rest = pattern.strip_prefix(&vendor);
        rest.is_some_and(|rest| rest.starts_with(&product) || rest.starts_with('*'))
    };
    match own.next() {
        None => Binds::Unknown,
        Some(first) if fits(first) || own.any(fits) => Binds::Yes,
        Some(_) => Binds::No,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test plays the kernel")]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_the_kernel_tells_is_believed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (sysfs, aliases) = (dir.path().join("sys"), dir.path().join("modules.alias"));
        let id: UsbId = "1bc7:9010".parse().unwrap();
        let ask = || binds(&sysfs, &aliases, "option", id);
        assert_eq!(ask(), Binds::Unknown, "nothing to read");
        let other = "alias usb:v1BC7p9010d*dc*dsc*dp*ic*isc*ip*in* qcserial\n";
        fs::write(&aliases, other).unwrap();
        assert_eq!(ask(), Binds::Unknown, "the driver is not listed");
        let old = format!("{other}alias usb:v1BC7p1070d*dc*dsc*dp*icFFisc*ip*in* option\n");
        fs::write(&aliases, &old).unwrap();
        assert_eq!(ask(), Binds::No);
        fs::write(&aliases, format!("{old}{}", other.replace("qcserial", "option"))).unwrap();
        assert_eq!(ask(), Binds::Yes);
        fs::write(&aliases, old).unwrap();
        let added = sysfs.join("bus/usb-serial/drivers/option1");
        fs::create_dir_all(&added).unwrap();
        fs::write(added.join("new_id"), "1bc7 1070\n1bc7 9010\n").unwrap();
        assert_eq!(ask(), Binds::Yes);
    }
}
