//! netifd's interfaces by what they are configured to use. What netifd itself tells of them while they are
//! up names a network device alone, and not the port behind it: `3g` and `ncm` dial over a tty, `qmi` and
//! `mbim` over a control device.

use crate::{files, settings::uci};
use std::path::{Path, PathBuf};

/// Options of `config interface` that name what is used, whatever the protocol.
const OPTIONS: [&str; 3] = ["device", "control", "ifname"];

/// Where netifd's configuration is, by where the init scripts are: `/etc/config/network`.
#[must_use]
pub fn configuration(init_dir: &Path) -> PathBuf {
    init_dir.with_file_name("config").join("network")
}

/// The interfaces of the configuration at `path` that use one of `nodes`: names in `/dev`, network
/// devices, places on the bus. None where it cannot be read, which is said.
#[must_use]
pub fn interfaces_using(path: &Path, nodes: &[String]) -> Vec<String> {
    let text = match files::read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return none(path, &error),
    };
    match uci::parse(&text) {
        Ok(network) => using(&network, |value| is_one(value, nodes)),
        Err(error) => none(path, &error),
    }
}

/// Whether netifd brings the interface `name` up at boot, as far as its configuration can be read.
#[must_use]
pub fn starts_at_boot(path: &Path, name: &str) -> bool {
    let Ok(text) = files::read_text(path) else { return true };
    let Ok(network) = uci::parse(&text) else { return true };
    let says = |section: &uci::Section, option: &str, words: &[&str]| {
        section.text(option).is_some_and(|value| words.contains(&value))
    };
    let comes_up = |section: &uci::Section| {
        !says(section, "auto", &["0", "no", "off", "false", "disabled"])
            && !says(section, "disabled", &["1", "yes", "on", "true", "enabled"])
    };
    let mut sections = network.of_kind("interface");
    sections.find(|section| section.name.as_deref() == Some(name)).is_some_and(comes_up)
}

fn none(path: &Path, error: &dyn std::error::Error) -> Vec<String> {
    log::warn!("interfaces on the modem are not known: {}: {error}", path.display());
    Vec::new()
}

fn using(network: &uci::Package, ours: impl Fn(&str) -> bool) -> Vec<String> {
    let uses = |section: &&uci::Section| {
        let values = OPTIONS.iter().filter_map(|option| section.text(option));
        values.flat_map(str::split_whitespace).any(&ours)
    };
    network.of_kind("interface").filter(uses).filter_map(|section| section.name.clone()).collect()
}

/// `/dev/ttyUSB0`, a link to it, `wwan0`, or ModemManager's way: the device's directory in sysfs.
fn is_one(value: &str, nodes: &[String]) -> bool {
    let path = Path::new(value);
    let named = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| nodes.iter().any(|node| node == name))
    };
    named(path) || (path.is_absolute() && path.canonicalize().is_ok_and(|path| named(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_brings_up_is_not_brought_up_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network");
        assert!(starts_at_boot(&path, "wwan"), "nobody knows");
        let text = "config interface 'wwan'\n\toption proto 'qmi'\n\
                    config interface 'spare'\n\toption auto '0'\n\
                    config interface 'off'\n\toption disabled '1'\n\
                    config bridge-vlan\n\toption device 'br-lan'\n\tlist ports 'lan1:u*'\n\
                    config interface 'on'\n\toption auto '1'\n\toption disabled '0'\n";
        std::fs::write(&path, text).unwrap();
        let starts = ["wwan", "spare", "off", "on", "gone"].map(|name| starts_at_boot(&path, name));
        assert_eq!(starts, [true, false, false, true, false]);
    }

    #[test]
    fn an_interface_is_found_by_its_port_its_control_device_or_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("config")).unwrap();
        std::fs::write(at("ttyUSB7"), "").unwrap();
        std::os::unix::fs::symlink(at("ttyUSB7"), at("modem")).unwrap();
        let interface = |name: &str, proto: &str, option: &str, value: &str| {
            format!(
                "config interface '{name}'\n\toption proto '{proto}'\n\toption {option} '{value}'\n"
            )
        };
        let link = at("modem").display().to_string();
        let text = [
            interface("lan", "static", "device", "br-lan"),
            interface("ppp", "3g", "device", "/dev/ttyUSB2"),
            interface("dial", "ncm", "device", &link),
            interface("qmi", "qmi", "device", "/dev/cdc-wdm0"),
            interface("other", "qmi", "device", "/dev/cdc-wdm1"),
            interface("mm", "modemmanager", "device", "/sys/devices/soc/usb1/1-1"),
            interface("old", "dhcp", "ifname", "eth1 wwan0"),
            "config device 'x'\n\toption device '/dev/ttyUSB2'\n".to_owned(),
        ];
        let path = configuration(&at("init.d"));
        assert_eq!(interfaces_using(&path, &[]), [""; 0], "no such file");
        std::fs::write(&path, text.concat()).unwrap();
        let nodes = ["ttyUSB2", "ttyUSB7", "cdc-wdm0", "wwan0", "1-1"].map(str::to_owned);
        assert_eq!(interfaces_using(&path, &nodes), ["ppp", "dial", "qmi", "mm", "old"]);
        std::fs::write(&path, "config interface 'x\n").unwrap();
        assert_eq!(interfaces_using(&path, &nodes), [""; 0]);
    }
}
