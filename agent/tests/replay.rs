//! A recording made by `probe --record`, played again: the agent must find in it what was there.
//!
//! `fixtures/*.json` are such recordings. Each becomes a sysfs tree and a pty that answers as it did then,
//! byte for byte, so that what a real modem showed once is a test for ever.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::modem::dialect::{VersionCommands, read_versions};
use agent::modem::discovery::UsbDevice;
use agent::modem::recording::{FORMAT, Recorded, Recording};
use agent::modem::{Place, Ready, Sought, wait_ready};
use agent::route::{Network, Sole, Way};
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use tokio::time::Instant;

fn recording(name: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let recording: Recording = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(recording.format, FORMAT);
    recording
}

/// The router of a recording: `sys` and `dev`.
struct Replayed(tempfile::TempDir);

impl Replayed {
    fn new(recording: &Recording) -> Replayed {
        let replayed = Replayed(tempfile::tempdir().unwrap());
        for directory in ["dev", "proc/net"] {
            fs::create_dir_all(replayed.path(directory)).unwrap();
        }
        for (name, text) in &recording.routes {
            fs::write(replayed.path("proc/net").join(name), text).unwrap();
        }
        for device in &recording.snapshot.devices {
            replayed.plug(device);
        }
        for modem in &recording.modems {
            replayed.answer(modem);
        }
        replayed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn plug(&self, device: &UsbDevice) {
        let root = self.path("sys/bus/usb/devices");
        let directory = root.join(&device.bus_id);
        fs::create_dir_all(&directory).unwrap();
        let attribute = |name: &str, value: &str| {
            fs::write(directory.join(name), format!("{value}\n")).unwrap();
        };
        attribute("idVendor", &format!("{:04x}", device.id.vendor));
        attribute("idProduct", &format!("{:04x}", device.id.product));
        for (name, value) in [
            ("manufacturer", &device.manufacturer),
            ("product", &device.product),
            ("serial", &device.serial),
        ] {
            value.iter().for_each(|value| attribute(name, value));
        }
        for interface in &device.interfaces {
            let directory = root.join(format!("{}:1.{}", device.bus_id, interface.number));
            fs::create_dir_all(&directory).unwrap();
            let number = format!("{:02x}\n", interface.number);
            fs::write(directory.join("bInterfaceNumber"), number).unwrap();
            if let Some(tty) = &interface.tty {
                fs::create_dir(directory.join(tty)).unwrap();
            }
            if let Some(net) = &interface.net {
                fs::create_dir_all(directory.join("net").join(net)).unwrap();
                self.interface(net, &directory);
            }
        }
    }

    /// A network interface on a device.
    fn interface(&self, name: &str, device: &Path) {
        let directory = self.path("sys/class/net").join(name);
        fs::create_dir_all(&directory).unwrap();
        symlink(device, directory.join("device")).unwrap();
    }

    /// Whether the recorded modem is the only way to an address of the internet.
    async fn sole(&self, modem: &str) -> Sole {
        let network = Network { proc_root: self.path("proc"), sysfs: self.path("sys") };
        let url = "https://192.0.2.7/".parse().unwrap();
        let ip = self.path("ip");
        let rules =
            "0: from all lookup local\n32766: from all lookup main\n32767: from all lookup default";
        fs::write(&ip, format!("#!/bin/sh\necho '{rules}'\n")).unwrap();
        fs::set_permissions(&ip, fs::Permissions::from_mode(0o755)).unwrap();
        let way = Way::find(&url, &ip).await;
        network.is_sole_during_flash(modem, &way, None).await
    }

    /// A pty in the port's place, whose other end says what was recorded.
    fn answer(&self, modem: &Recorded) {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ptsname_r(&master).unwrap();
        // Held open by the thread, so that the master never sees a hang-up between two readers.
        let held = fs::File::options().read(true).write(true).open(&slave).unwrap();
        let mut settings = tcgetattr(&held).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&held, SetArg::TCSANOW, &settings).unwrap();
        symlink(&slave, self.path("dev").join(&modem.port)).unwrap();
        let mut answers: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
        for line in &modem.exchanges {
            let of_command = answers.entry(line.command.clone()).or_default();
            of_command.push_back(line.answer.clone());
        }
        std::thread::spawn(move || {
            play(master, answers);
            drop(held);
        });
    }

    fn place(&self) -> Place {
        Place::new(&self.path("sys"), &self.path("dev"))
    }
}

/// Each command gets its recorded answers in turn, and its last one again and again. One that was never
/// asked gets none.
fn play(mut master: PtyMaster, mut answers: BTreeMap<String, VecDeque<String>>) {
    let mut line = Vec::new();
    let mut byte = [0; 1];
    while let Ok(1) = master.read(&mut byte) {
        if byte[0] != b'\r' {
            line.push(byte[0]);
            continue;
        }
        let command = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
        let Some(of_command) = answers.get_mut(&command) else { continue };
        let answer = match of_command.len() {
            1 => of_command[0].clone(),
            _ => of_command.pop_front().unwrap(),
        };
        if master.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

async fn ready(replayed: &Replayed) -> Ready {
    let deadline = Instant::now() + Duration::from_secs(30);
    wait_ready(&replayed.place(), Sought::Any, deadline).await.unwrap()
}

#[tokio::test]
async fn a_simulated_fn990_is_found_and_read_as_when_it_was_recorded() {
    let recording = recording("simulated-fn990a28.json");
    assert!(recording.masked);
    let replayed = Replayed::new(&recording);
    let mut ready = ready(&replayed).await;
    assert_eq!(ready.modem.usb.to_string(), "1bc7:1070");
    assert_eq!(ready.port.path(), replayed.path("dev").join(&recording.modems[0].port));
    assert_eq!(ready.identity.model, "FN990A28");
    assert_eq!(ready.identity.imei, "351234000000000", "masked, and an IMEI all the same");
    let commands = ["#SWPKGV", "+CGMR"].map(str::to_owned);
    let commands = VersionCommands::new(&commands, []);
    let versions = read_versions(&mut ready.port, &commands).await.unwrap();
    let first: Vec<_> = versions.iter().map(|(_, lines)| lines[0].as_str()).collect();
    assert!(first[0].starts_with("45.00.002"), "{first:?}");
    assert!(first[1].starts_with("M0R.0"), "{first:?}");
}

#[tokio::test]
async fn the_recorded_routes_tell_whether_the_modem_was_the_only_way_out() {
    let mut recording = recording("simulated-fn990a28.json");
    let replayed = Replayed::new(&recording);
    assert_eq!(replayed.sole("2-1").await, Sole::Sole);

    // The same router with a wired uplink beside it.
    let wired = "eth0\t00000000\t010200C0\t0003\t0\t0\t5\t00000000\t0\t0\t0\n";
    recording.routes.get_mut("route").unwrap().push_str(wired);
    let replayed = Replayed::new(&recording);
    let wire = replayed.path("sys/devices/platform/eth");
    fs::create_dir_all(&wire).unwrap();
    replayed.interface("eth0", &wire);
    assert_eq!(replayed.sole("2-1").await, Sole::NotSole { interface: "eth0".into() });

    // One without its routes is of no use here, and says so.
    recording.routes.clear();
    let unknown = Replayed::new(&recording).sole("2-1").await;
    assert!(unknown.counts_as_sole(), "{unknown:?}");
}

#[tokio::test]
async fn a_recording_says_in_what_it_was_made() {
    let recording = recording("simulated-fn990a28.json");
    let [device] = recording.snapshot.devices.as_slice() else { panic!("{recording:?}") };
    assert!(device.serial.as_deref().is_some_and(|serial| serial.bytes().all(|b| b == b'0')));
    for line in &recording.modems[0].exchanges {
        let mut numbers = line.answer.split(|c: char| !c.is_ascii_digit());
        let long = numbers.find(|number| number.len() >= 14);
        assert!(long.is_none_or(|number| number[6..].bytes().all(|b| b == b'0')), "{line:?}");
    }
}
