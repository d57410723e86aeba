//! The same modem in a slot for cards: what the kernel's MHI driver shows of it, instead of USB.

use super::Router;
use std::{fs, io, os::unix::fs::symlink};

/// The ports of `AT#USBCFG=1` by their interfaces, and what they are called behind PCIe.
const PORTS: [(u8, &str, &str); 3] =
    [(4, "wwan0at0", "AT"), (5, "wwan0at1", "AT"), (0, "wwan0qcdm0", "QCDM")];
/// An FN990A's, by the kernel's `pci_generic.c`.
const IDS: [(&str, &str); 4] = [
    ("vendor", "0x17cb"),
    ("device", "0x0308"),
    ("subsystem_vendor", "0x1c5d"),
    ("subsystem_device", "0x2010"),
];

impl Router {
    /// Moves the modem, which has power and shows its USB ports, from USB to PCIe.
    ///
    /// # Errors
    /// The ports are not there yet, or files cannot be written.
    pub fn move_to_pcie(&self) -> io::Result<()> {
        let usb = self.dir.join("sys/bus/usb/devices");
        let ttys = PORTS.map(|(interface, ..)| tty(&usb.join(format!("2-1:1.{interface}"))));
        let ttys = ttys.into_iter().collect::<io::Result<Vec<_>>>()?;
        let card = self.dir.join("sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0");
        let class = self.dir.join("sys/class/wwan");
        fs::create_dir_all(&card)?;
        fs::create_dir_all(&class)?;
        for (name, value) in IDS {
            fs::write(card.join(name), format!("{value}\n"))?;
        }
        for ((_, name, kind), tty) in PORTS.iter().zip(ttys) {
            let port = fs::read_link(self.dir.join("dev").join(tty))?;
            symlink(port, self.dir.join("dev").join(name))?;
            let entry = card.join("mhi0/wwan/wwan0").join(name);
            fs::create_dir_all(&entry)?;
            fs::write(entry.join("type"), format!("{kind}\n"))?;
            symlink(&entry, class.join(name))?;
        }
        for entry in fs::read_dir(usb)? {
            fs::remove_dir_all(entry?.path())?;
        }
        Ok(())
    }
}

fn tty(interface: &std::path::Path) -> io::Result<String> {
    let names =
        fs::read_dir(interface)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.into_iter().find(|name| name.starts_with("ttyUSB")).ok_or(io::ErrorKind::NotFound.into())
}
