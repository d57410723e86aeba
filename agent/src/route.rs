//! Whether a modem is this router's only way to the coordinator's images: the kernel's routing
//! tables as text, the interfaces in sysfs, down to the USB device.
//!
//! The route that is in use decides. That there are others proves nothing: nobody knows whether
//! they lead anywhere. What goes down together with the modem is no other way. What cannot be followed
//! (tunnels over unknown ways, PPP) is `Unknown`, which counts as sole.

mod flashed;
mod policy;
mod tables;

pub use policy::{Policy, Way};
pub use tables::{Route, Tables};

use crate::{files, gates::traffic::Counters, settings::Paths};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sole {
    /// Every way in use leads through the modem.
    Sole,
    /// This interface leads there and is not the modem's.
    NotSole {
        interface: String,
    },
    Unknown(String),
    /// The coordinator's name cannot be resolved now.
    Unresolved,
}

impl Sole {
    /// Whether the image must survive a power cut: what is unknown counts as sole.
    #[must_use]
    pub fn counts_as_sole(&self) -> bool {
        !matches!(self, Self::NotSole { .. })
    }
}

/// What leads nowhere during a flash.
#[derive(Debug, Clone, Copy)]
struct Down<'a> {
    modem: &'a str,
    with_it: &'a [String],
}

/// What carries an interface's packets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Carrier {
    /// The modem in question, or what goes down with it.
    Modem,
    /// A device that is not the modem.
    Other,
    /// Its packets are packets of other routes.
    Tunnel,
    Unknown(String),
}

/// The addresses of a URL's host; none if its name cannot be resolved now.
async fn addresses(url: &reqwest::Url) -> Vec<IpAddr> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            log::debug!("the coordinator's name: {error}");
            Vec::new()
        }
    }
}

/// Reads `<proc>/net/{route,ipv6_route}` and the sysfs of interfaces.
#[derive(Debug, Clone)]
pub struct Network {
    pub proc_root: PathBuf,
    pub sysfs: PathBuf,
}

impl Network {
    #[must_use]
    pub fn of(paths: &Paths) -> Self {
        Self { proc_root: paths.proc.clone(), sysfs: paths.sysfs.clone() }
    }

    /// Whether the USB device `modem` (its name in `<sysfs>/bus/usb/devices`, for instance `1-1`)
    /// is the only way to the image's host. Interfaces that go down `with_it` are as good as its own.
    #[must_use]
    fn is_sole_uplink(&self, modem: &str, way: &Way, with_it: &[String]) -> Sole {
        let tables = match Tables::read(&self.proc_root) {
            Ok(tables) => tables,
            Err(error) => return Sole::Unknown(format!("routing tables: {error}")),
        };
        judge(&tables, way, |interface| self.carrier(interface, Down { modem, with_it }))
    }

    /// Network interfaces that are the modem's own.
    #[must_use]
    pub fn interfaces_of(&self, modem: &str) -> Vec<String> {
        let listed = std::fs::read_dir(self.sysfs.join("class/net")).into_iter().flatten();
        let names = listed.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| {
                self.follow(name, Down { modem, with_it: &[] }, 0).ok() == Some(Carrier::Modem)
            })
            .collect()
    }

    /// Bytes through `interfaces` since the kernel began to count.
    #[must_use]
    pub fn counters(&self, interfaces: &[String]) -> Counters {
        let read = |name: &String, which: &str| {
            let path = self.sysfs.join("class/net").join(name).join("statistics").join(which);
            files::read_text(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        let one =
            |name| Counters { received: read(name, "rx_bytes"), sent: read(name, "tx_bytes") };
        interfaces.iter().map(one).fold(Counters::default(), |sum, one| sum + one)
    }

    fn carrier(&self, interface: &str, down: Down<'_>) -> Carrier {
        match self.follow(interface, down, 0) {
            Ok(carrier) => carrier,
            Err(error) => Carrier::Unknown(format!("{interface}: {error}")),
        }
    }

    /// An interface on a device, or on other interfaces (VLAN, bridge, bond, qmimux).
    fn follow(&self, interface: &str, down: Down<'_>, depth: u8) -> io::Result<Carrier> {
        if down.with_it.iter().any(|name| name == interface) {
            return Ok(Carrier::Modem);
        }
        let directory = self.sysfs.join("class/net").join(interface);
        if !directory.is_dir() {
            return Ok(Carrier::Unknown(format!("no interface {interface}")));
        }
        if let Ok(device) = directory.join("device").canonicalize() {
            return self.is_below(&device, down.modem).map(|below| match below {
                true => Carrier::Modem,
                false => Carrier::Other,
            });
        }
        let lower = lower_interfaces(&directory)?;
        if lower.is_empty() {
            return Ok(virtual_carrier(interface, &directory));
        }
        if depth == 8 {
            return Ok(Carrier::Unknown(format!("{interface} lies on too many others")));
        }
        let mut carrier = Carrier::Other;
        for name in lower {
            carrier = worse(carrier, self.follow(&name, down, depth + 1)?);
        }
        Ok(carrier)
    }

    fn is_below(&self, device: &Path, modem: &str) -> io::Result<bool> {
        let usb = self.sysfs.join("bus/usb/devices").join(modem).canonicalize()?;
        // In the kernel's tree an interface lies below its device; named alike it is its interface.
        let prefix = format!("{modem}:");
        let named = device
            .components()
            .any(|part| part.as_os_str().to_str().is_some_and(|name| name.starts_with(&prefix)));
        Ok(named || device.starts_with(usb))
    }
}

/// The names behind `lower_*` links.
fn lower_interfaces(directory: &Path) -> io::Result<Vec<String>> {
    let mut lower = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        lower.extend(name.to_str().and_then(|n| n.strip_prefix("lower_")).map(str::to_owned));
    }
    Ok(lower)
}

/// An interface without a device: WireGuard and tun say what they are.
fn virtual_carrier(interface: &str, directory: &Path) -> Carrier {
    let uevent = files::read_text(&directory.join("uevent")).unwrap_or_default();
    let wireguard = uevent.lines().any(|line| line == "DEVTYPE=wireguard");
    if wireguard || directory.join("tun_flags").exists() {
        return Carrier::Tunnel;
    }
    Carrier::Unknown(format!("{interface} has no device"))
}

fn worse(one: Carrier, other: Carrier) -> Carrier {
    let rank = |carrier: &Carrier| match carrier {
        Carrier::Other => 0,
        Carrier::Tunnel => 1,
        Carrier::Unknown(_) => 2,
        Carrier::Modem => 3,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// The pure part: one address that is reached without the modem is enough.
fn judge(tables: &Tables, way: &Way, carrier: impl Fn(&str) -> Carrier) -> Sole {
    let mut answer = None;
    for address in &way.addresses {
        let judged = match way.policy(*address) {
            Policy::Main => judge_one(tables, *address, &carrier),
            Policy::Rules(interfaces) => judge_all(interfaces, &carrier),
            Policy::Unknown(reason) => Sole::Unknown(reason.clone()),
        };
        match judged {
            found @ Sole::NotSole { .. } => return found,
            // An address that cannot be followed makes the whole unknown.
            found @ Sole::Unknown(_) => answer = Some(found),
            found @ (Sole::Sole | Sole::Unresolved) => answer = answer.or(Some(found)),
        }
    }
    answer.unwrap_or(Sole::Unresolved)
}

/// With rules that choose between tables, only what all of them agree on is certain.
fn judge_all(interfaces: &[String], carrier: &impl Fn(&str) -> Carrier) -> Sole {
    let carriers: Vec<Carrier> = interfaces.iter().map(|interface| carrier(interface)).collect();
    match interfaces.first() {
        Some(first) if carriers.iter().all(|carrier| *carrier == Carrier::Other) => {
            Sole::NotSole { interface: first.clone() }
        }
        Some(_) if carriers.iter().all(|carrier| *carrier == Carrier::Modem) => Sole::Sole,
        _ => Sole::Unknown(format!("routing rules choose between {}", interfaces.join(", "))),
    }
}

fn judge_one(tables: &Tables, address: IpAddr, carrier: &impl Fn(&str) -> Carrier) -> Sole {
    let Some(route) = tables.route_to(address) else {
        return Sole::Unknown(format!("no route to {address}"));
    };
    let interface = &route.interface;
    match carrier(interface) {
        Carrier::Modem => Sole::Sole,
        Carrier::Other => Sole::NotSole { interface: interface.clone() },
        Carrier::Unknown(reason) => Sole::Unknown(reason),
        Carrier::Tunnel if leads_elsewhere(tables, carrier) => {
            Sole::NotSole { interface: interface.clone() }
        }
        Carrier::Tunnel => Sole::Unknown(format!("{interface} is a tunnel over an unknown way")),
    }
}

/// A tunnel's packets take another route of the tables, which one only the tunnel knows. It is
/// certain only where none of them leads through the modem or into the dark.
fn leads_elsewhere(tables: &Tables, carrier: &impl Fn(&str) -> Carrier) -> bool {
    let mut others = tables
        .routes()
        .iter()
        .filter(|route| route.is_unicast() && route.interface != "lo")
        .map(|route| carrier(&route.interface))
        .filter(|carrier| *carrier != Carrier::Tunnel)
        .peekable();
    others.peek().is_some() && others.all(|carrier| carrier == Carrier::Other)
}

#[cfg(test)]
mod tests;
