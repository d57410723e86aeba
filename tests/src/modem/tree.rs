//! A device as the kernel would show it: `sys` and `dev` of a router's directory.
//!
//! ```text
//! sys/bus/usb/devices/2-1/{idVendor,idProduct,manufacturer,product,serial}
//! sys/bus/usb/devices/2-1:1.4/{bInterfaceNumber,driver,ttyUSB2/}
//! sys/bus/usb/devices/2-1:1.2/net/wwan0        sys/class/net/wwan0/device -> the interface
//! dev/ttyUSB2 -> /dev/pts/7
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What a device says of itself on the bus.
#[derive(Debug, Clone)]
pub struct Shape {
    pub bus_id: String,
    pub vendor: u16,
    pub product: u16,
    pub product_name: String,
    pub serial: Option<String>,
    pub interfaces: Vec<Interface>,
}

#[derive(Debug, Clone)]
pub struct Interface {
    pub number: u8,
    pub function: Function,
}

#[derive(Debug, Clone)]
pub enum Function {
    /// A tty that the driver `option` made of this pty.
    Tty(PathBuf),
    Net(String),
    /// adb, or the control half of a network function.
    Other,
}

/// One device's entries.
#[derive(Debug)]
pub struct Tree {
    router: PathBuf,
    /// What is there now, to be removed in reverse.
    entries: Vec<PathBuf>,
    /// The ttys, in the order of their interfaces.
    pub ttys: Vec<String>,
}

impl Tree {
    /// Makes the directories that are there without any device.
    pub fn new(router: &Path) -> io::Result<Tree> {
        for directory in
            ["sys/bus/usb/devices", "sys/bus/usb/drivers/option", "sys/class/net", "dev"]
        {
            fs::create_dir_all(router.join(directory))?;
        }
        Ok(Tree { router: router.canonicalize()?, entries: Vec::new(), ttys: Vec::new() })
    }

    /// Shows the device; ttyUSB numbers are the lowest free ones from `first_tty` on.
    pub fn attach(&mut self, shape: &Shape, first_tty: u32) -> io::Result<()> {
        self.detach();
        let device = self.devices().join(&shape.bus_id);
        self.directory(&device)?;
        write(&device, "manufacturer", "Telit Wireless Solutions")?;
        write(&device, "product", &shape.product_name)?;
        if let Some(serial) = &shape.serial {
            write(&device, "serial", serial)?;
        }
        write(&device, "idVendor", &format!("{:04x}", shape.vendor))?;
        write(&device, "idProduct", &format!("{:04x}", shape.product))?;
        let mut next = first_tty;
        for interface in &shape.interfaces {
            self.attach_interface(shape, interface, &mut next)?;
        }
        Ok(())
    }

    fn attach_interface(
        &mut self,
        shape: &Shape,
        interface: &Interface,
        next: &mut u32,
    ) -> io::Result<()> {
        let name = format!("{}:1.{}", shape.bus_id, interface.number);
        let directory = self.devices().join(name);
        self.directory(&directory)?;
        write(&directory, "bInterfaceNumber", &format!("{:02x}", interface.number))?;
        match &interface.function {
            Function::Tty(pty) => {
                symlink(self.router.join("sys/bus/usb/drivers/option"), directory.join("driver"))?;
                let tty = self.link_tty(pty, next)?;
                fs::create_dir(directory.join(&tty))?;
                self.ttys.push(tty);
            }
            Function::Net(net) => {
                fs::create_dir_all(directory.join("net").join(net))?;
                let class = self.router.join("sys/class/net").join(net);
                self.directory(&class)?;
                symlink(&directory, class.join("device"))?;
            }
            Function::Other => {}
        }
        Ok(())
    }

    /// Modems that enumerate at the same time race for numbers: making the link is the claim.
    fn link_tty(&mut self, pty: &Path, next: &mut u32) -> io::Result<String> {
        loop {
            let tty = format!("ttyUSB{next}");
            let link = self.router.join("dev").join(&tty);
            *next += 1;
            match symlink(pty, &link) {
                Ok(()) => {
                    self.entries.push(link);
                    return Ok(tty);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the device away.
    pub fn detach(&mut self) {
        for entry in self.entries.drain(..).rev() {
            let _ = fs::remove_file(&entry).or_else(|_| fs::remove_dir_all(&entry));
        }
        self.ttys.clear();
    }

    fn devices(&self) -> PathBuf {
        self.router.join("sys/bus/usb/devices")
    }

    /// Left behind by a process that was killed: the place is ours.
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        fs::create_dir(path)?;
        self.entries.push(path.to_owned());
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.detach();
    }
}

fn write(directory: &Path, name: &str, value: &str) -> io::Result<()> {
    fs::write(directory.join(name), format!("{value}\n"))
}
