//! The modems that the tool finds.

use std::fs;
use std::path::{Path, PathBuf};

/// Mission ids of the FN990, and the interface of their diag port.
const MISSION: &[(&str, u8)] = &[("1070", 0), ("1071", 0), ("1072", 2), ("1073", 0)];
pub const LOADER: &str = "1bc7:9010";

/// A device that the tool can talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `1bc7:1070`.
    pub id: String,
    /// `2-1`.
    pub location: String,
    pub serial: Option<String>,
    /// `<router>/dev/ttyUSB0`.
    pub port: PathBuf,
}

impl Device {
    pub fn is_loader(&self) -> bool {
        self.id == LOADER
    }
}

/// All of them, by their place on the bus.
pub fn devices(router: &Path) -> Vec<Device> {
    let root = router.join("sys/bus/usb/devices");
    let names = fs::read_dir(&root).into_iter().flatten().flatten();
    let mut devices: Vec<Device> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.contains(':'))
        .filter_map(|name| device(router, &root, &name))
        .collect();
    devices.sort_by(|a, b| a.location.cmp(&b.location));
    devices
}

fn device(router: &Path, root: &Path, location: &str) -> Option<Device> {
    let read = |name: &str| {
        let text = fs::read_to_string(root.join(location).join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let (vendor, product) = (read("idVendor")?, read("idProduct")?);
    let interface = match product.as_str() {
        "9010" => 0,
        product => MISSION.iter().find(|(id, _)| *id == product)?.1,
    };
    let directory = root.join(format!("{location}:1.{interface}"));
    let tty = fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name.starts_with("ttyUSB"))?;
    (vendor == "1bc7").then(|| Device {
        id: format!("{vendor}:{product}"),
        location: location.to_owned(),
        serial: read("serial"),
        port: router.join("dev").join(tty),
    })
}
