//! Whether a kernel driver binds a USB id, as far as that can be told before such a device is there.
//!
//! Asked in this order: `<sysfs>/bus/usb*/drivers/<driver>/new_id` (ids added at run time), the module's own
//! table of ids (`<modules>/<release>/<driver>.ko`, as OpenWrt has it), `modules.alias`, and what is known of
//! kernels since a version. OpenWrt ships no `modules.alias`, strips aliases from its modules, and may have a
//! driver built in: then the version alone tells.

use std::path::{Path, PathBuf};

use shared::ids::UsbId;

use crate::files;

/// Longest `modules.alias` and longest module, in bytes.
const MAX_ALIASES: usize = 8 << 20;
const MAX_MODULE: usize = 1 << 20;

/// Driver, id, and the kernel (major, minor) that has it. Source: the history of
/// `drivers/usb/serial/option.c`.
const SINCE: &[(&str, UsbId, (u32, u32))] =
    &[("option", UsbId { vendor: 0x1bc7, product: 0x9010 }, (5, 5))];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binds {
    Yes,
    No,
    Unknown,
}

/// Where the running kernel tells of its drivers.
#[derive(Debug, Clone)]
pub struct Kernel {
    sysfs: PathBuf,
    /// `6.6.73`
    release: String,
    modules: PathBuf,
}

impl Kernel {
    /// `modules`: `/lib/modules`.
    #[must_use]
    pub fn new(sysfs: &Path, proc: &Path, modules: &Path) -> Self {
        let release = files::read_text(&proc.join("sys/kernel/osrelease")).unwrap_or_default();
        let release = release.trim().to_owned();
        Self { sysfs: sysfs.to_owned(), modules: modules.join(&release), release }
    }

    /// `driver` as the module is called; usb-serial names the driver `option1` where the module is `option`.
    #[must_use]
    pub fn binds(&self, driver: &str, id: UsbId) -> Binds {
        if self.was_added(driver, id) {
            return Binds::Yes;
        }
        // The running driver may be built in, and a module of its name another one: it can only confirm.
        let told = [self.by_module(driver, id), self.by_aliases(driver, id)];
        if told.contains(&Binds::Yes) || self.by_version(driver, id) {
            return Binds::Yes;
        }
        told.into_iter().find(|told| *told != Binds::Unknown).unwrap_or(Binds::Unknown)
    }

    fn was_added(&self, driver: &str, id: UsbId) -> bool {
        let serial = format!("usb-serial/drivers/{driver}1/new_id");
        let places = [format!("usb/drivers/{driver}/new_id"), serial];
        let bus = self.sysfs.join("bus");
        let added = places.iter().filter_map(|place| files::read_text(&bus.join(place)).ok());
        let line = format!("{:04x} {:04x}", id.vendor, id.product);
        added.into_iter().any(|text| text.lines().any(|found| found.trim().starts_with(&line)))
    }

    fn by_module(&self, driver: &str, id: UsbId) -> Binds {
        match files::read_limited(&self.modules.join(format!("{driver}.ko")), MAX_MODULE) {
            Ok(module) if has_entry(&module, id) => Binds::Yes,
            Ok(_) => Binds::No,
            Err(_) => Binds::Unknown,
        }
    }

    fn by_aliases(&self, driver: &str, id: UsbId) -> Binds {
        match files::read_limited(&self.modules.join("modules.alias"), MAX_ALIASES) {
            Ok(bytes) => by_aliases(&String::from_utf8_lossy(&bytes), driver, id),
            Err(_) => Binds::Unknown,
        }
    }

    fn by_version(&self, driver: &str, id: UsbId) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse::<u32>().ok();
        let Some(running) = number().zip(number()) else { return false };
        SINCE
            .iter()
            .any(|(name, known, since)| *name == driver && *known == id && running >= *since)
    }
}

/// `struct usb_device_id` begins with three numbers of 16 bits: what is compared (1: vendor, 2: product),
/// vendor, product. In the order of this processor's bytes, for which the module was built as well.
fn has_entry(module: &[u8], id: UsbId) -> bool {
    let (vendor, product) = (id.vendor.to_ne_bytes(), id.product.to_ne_bytes());
    module.as_chunks::<2>().0.windows(3).any(|entry| {
        let compared = u16::from_ne_bytes(entry[0]);
        compared & 3 == 3 && compared < 0x0800 && entry[1] == vendor && entry[2] == product
    })
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

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(release: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine.write("proc/sys/kernel/osrelease", format!("{release}\n"));
            machine
        }

        fn write(&self, path: &str, content: impl AsRef<[u8]>) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn ask(&self, driver: &str, id: &str) -> Binds {
            let at = |path: &str| self.0.path().join(path);
            let kernel = Kernel::new(&at("sys"), &at("proc"), &at("modules"));
            kernel.binds(driver, id.parse().unwrap())
        }
    }

    #[test]
    fn without_files_the_version_tells_of_what_is_known() {
        for (release, expected) in [
            ("6.6.73", Binds::Yes),
            ("5.5.0-rc1", Binds::Yes),
            ("10.0", Binds::Yes),
            ("5.4.238", Binds::Unknown),
            ("4.14.221", Binds::Unknown),
            ("", Binds::Unknown),
        ] {
            let machine = Machine::new(release);
            assert_eq!(machine.ask("option", "1bc7:9010"), expected, "{release}");
            assert_eq!(machine.ask("qcserial", "05c6:9008"), Binds::Unknown, "{release}");
        }
    }

    #[test]
    fn a_modules_own_table_tells() {
        let entry = |compared: u16, vendor: u16, product: u16| {
            [compared, vendor, product, 0].map(u16::to_ne_bytes).concat()
        };
        let machine = Machine::new("5.4.238");
        let module = "modules/5.4.238/option.ko";
        let others = [entry(0x0183, 0x1bc7, 0x1070), entry(0x0000, 0x1bc7, 0x9010)].concat();
        machine.write(module, &others);
        assert_eq!(machine.ask("option", "1bc7:9010"), Binds::No);
        machine.write(module, [others, entry(3, 0x1bc7, 0x9010)].concat());
        assert_eq!(machine.ask("option", "1bc7:9010"), Binds::Yes);
        assert_eq!(machine.ask("option", "05c6:9008"), Binds::No);
        let newer = Machine::new("6.6.73");
        newer.write("modules/6.6.73/option.ko", entry(3, 0x1bc7, 0x1070));
        assert_eq!(newer.ask("option", "1bc7:9010"), Binds::Yes, "it may be built in all the same");
    }

    #[test]
    fn aliases_and_added_ids_are_believed() {
        let machine = Machine::new("5.4.238");
        let aliases = "modules/5.4.238/modules.alias";
        let ask = || machine.ask("option", "1bc7:9010");
        let other = "alias usb:v1BC7p9010d*dc*dsc*dp*ic*isc*ip*in* qcserial\n";
        machine.write(aliases, other);
        assert_eq!(ask(), Binds::Unknown, "the driver is not listed");
        let old = format!("{other}alias usb:v1BC7p1070d*dc*dsc*dp*icFFisc*ip*in* option\n");
        machine.write(aliases, &old);
        assert_eq!(ask(), Binds::No);
        machine.write(aliases, format!("{old}{}", other.replace("qcserial", "option")));
        assert_eq!(ask(), Binds::Yes);
        machine.write(aliases, old);
        machine.write("sys/bus/usb-serial/drivers/option1/new_id", "1bc7 1070\n1bc7 9010\n");
        assert_eq!(ask(), Binds::Yes);
    }
}
