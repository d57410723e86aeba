//! One run: choose the device, enter boot mode, upload.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::bus::{self, Device};
use super::link::{Link, LinkError};
use super::report::Report;
use super::{Arguments, Failure};
use crate::faults::{self, ToolFaultKind};
use crate::firmware::{HEADER_SIZE, Header};
use crate::modem::frame::{Greeting, Kind};

const CHUNK: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(3);
/// For the device to come back in boot mode.
const RECONNECT: Duration = Duration::from_secs(30);

pub fn run(
    arguments: &Arguments,
    router: &Path,
    devices: &[Device],
    report: &mut Report,
) -> Result<(), Failure> {
    let path = arguments.file.as_deref().ok_or(Failure::NoFile)?;
    let name = || path.display().to_string();
    let mut file = File::open(path).map_err(|_| Failure::File(name()))?;
    let header = Header::read(&mut file).map_err(|_| Failure::Chipset(name()))?;
    describe(arguments, path, &header, report);
    let faults = Faults { all: faults::take_tool_faults(router)?, started: Instant::now() };

    report.line("[+] checking connected devices...");
    let device = choose(arguments, devices)?;
    report.line(&format!(
        "using device: {{vid:pid:{}, location_path:{}, port:{}}}",
        device.id,
        device.location,
        device.port.display()
    ));
    if faults.all.contains(&ToolFaultKind::Lie) {
        return lie(&header, report);
    }
    report.step("boot");
    let mut link = enter_boot_mode(arguments, router, &device, &header, report)?;
    report.line("[+] enter boot mode OK");
    if arguments.boot_mode {
        return Ok(());
    }
    report.step("upload");
    report.line("[+] uploading firmware");
    report.line("[+] this may take several minutes, do not disconnect the device");
    upload(&mut link, &mut file, &header, &faults, report)?;
    report.line("[+] firmware uploaded successfully!");
    Ok(())
}

fn describe(arguments: &Arguments, path: &Path, header: &Header, report: &mut Report) {
    report.line("options:");
    report.line(&format!(" - stream file    : {}", path.display()));
    if let Some(port) = &arguments.port {
        report.line(&format!(" - usb port       : {}", port.display()));
    }
    report.line(&format!(
        " - stream header  : product name {}, header size {HEADER_SIZE}, version {}, file size {}",
        header.product.name(),
        header.versions.package,
        header.payload_size + HEADER_SIZE as u64
    ));
}

fn choose(arguments: &Arguments, devices: &[Device]) -> Result<Device, Failure> {
    if let Some(port) = &arguments.port {
        let at_port = devices.iter().find(|device| device.port == *port);
        return at_port.cloned().ok_or(Failure::NoDevice);
    }
    let fit = |device: &&Device| arguments.serial.is_none() || device.serial == arguments.serial;
    let mut fitting = devices.iter().filter(fit);
    match (fitting.next(), fitting.count()) {
        (None, _) => Err(Failure::NoDevice),
        (Some(device), 0) => Ok(device.clone()),
        (Some(_), more) => Err(Failure::TooMany(more + 1)),
    }
}

fn enter_boot_mode(
    arguments: &Arguments,
    router: &Path,
    device: &Device,
    header: &Header,
    report: &mut Report,
) -> Result<Link, Failure> {
    match (device.is_loader(), arguments.lossrecovery) {
        (true, true) => return greet_loader(&device.port).map_err(Failure::BootMode),
        (true, false) => return Err(Failure::InRecovery),
        (false, true) => return Err(Failure::BootMode(LinkError::NoDevice)),
        (false, false) => {}
    }
    let mut link = Link::open(&device.port).map_err(Failure::BootMode)?;
    let model = greet(&mut link).map_err(Failure::BootMode)?.model.unwrap_or(0);
    if model != header.product.number() {
        return Err(Failure::Model(header.product.number(), model));
    }
    report.line("[+] enter boot mode");
    match link.exchange(Kind::EnterBoot, b"", PATIENCE) {
        // It was so quick that the answer was lost.
        Ok(_) | Err(LinkError::Gone) => {}
        Err(error) => return Err(Failure::BootMode(error)),
    }
    drop(link);
    report.line("[+] enter boot mode phase 2: the device will disconnect and reconnect");
    let deadline = Instant::now() + RECONNECT;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        for port in loaders(router) {
            match greet_loader(&port) {
                Ok(link) => return Ok(link),
                Err(error) => report.line(&format!(
                    "boot mode failed, retrying to address possible temporary enumeration issues ({error})"
                )),
            }
        }
    }
    Err(Failure::BootMode(LinkError::NoDevice))
}

fn loaders(router: &Path) -> Vec<PathBuf> {
    let loaders = bus::devices(router).into_iter().filter(Device::is_loader);
    loaders.map(|device| device.port).collect()
}

fn greet_loader(port: &Path) -> Result<Link, LinkError> {
    let mut link = Link::open(port)?;
    match greet(&mut link)?.loader {
        true => Ok(link),
        false => Err(LinkError::NoDevice),
    }
}

fn greet(link: &mut Link) -> Result<Greeting, LinkError> {
    let answer = link.exchange(Kind::Hello, b"", Duration::from_secs(1))?;
    serde_json::from_slice(&answer).map_err(|error| LinkError::Nack(error.to_string()))
}

fn upload(
    link: &mut Link,
    file: &mut File,
    header: &Header,
    faults: &Faults,
    report: &mut Report,
) -> Result<(), Failure> {
    let json = serde_json::to_vec(header).map_err(std::io::Error::from)?;
    link.exchange(Kind::Header, &json, PATIENCE).map_err(Failure::Upload)?;
    let mut sent = 0;
    let mut chunk = vec![0; CHUNK];
    loop {
        report.progress(sent, header.payload_size);
        faults.strike(sent, header.payload_size)?;
        let count = read_chunk(file, &mut chunk)?;
        if count == 0 {
            break;
        }
        link.exchange(Kind::Data, &chunk[..count], PATIENCE).map_err(Failure::Upload)?;
        sent += count as u64;
    }
    match link.exchange(Kind::Finish, b"", PATIENCE) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Upload(error)),
    }
}

fn read_chunk(file: &mut File, chunk: &mut [u8]) -> Result<usize, std::io::Error> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read(&mut chunk[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Everything as it should look, and no byte moved.
fn lie(header: &Header, report: &mut Report) -> Result<(), Failure> {
    for line in ["enter boot mode", "enter boot mode OK", "uploading firmware"] {
        report.line(&format!("[+] {line}"));
    }
    for percent in 0..=100 {
        report.progress(header.payload_size * percent / 100, header.payload_size);
    }
    report.line("[+] firmware uploaded successfully!");
    Ok(())
}

/// The faults of this run.
struct Faults {
    all: Vec<ToolFaultKind>,
    started: Instant,
}

impl Faults {
    /// Does what a fault wants at this place of the stream.
    fn strike(&self, sent: u64, size: u64) -> Result<(), Failure> {
        let reached = |percent: u8| sent.saturating_mul(100) >= size * u64::from(percent);
        for fault in &self.all {
            match *fault {
                ToolFaultKind::Fail { at_percent } if reached(at_percent) => {
                    return Err(Failure::Asked);
                }
                ToolFaultKind::Hang { at_percent } if reached(at_percent) => hang(),
                ToolFaultKind::HangIgnoringTerm { at_percent } if reached(at_percent) => {
                    ignore_term();
                    hang();
                }
                ToolFaultKind::Slow { bytes_per_second } => self.slow(sent, bytes_per_second),
                _ => {}
            }
        }
        Ok(())
    }

    fn slow(&self, sent: u64, bytes_per_second: u64) {
        let due = Duration::from_millis(sent.saturating_mul(1000) / bytes_per_second.max(1));
        std::thread::sleep(due.saturating_sub(self.started.elapsed()));
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// A blocked signal is as good as an ignored one: it stays pending.
fn ignore_term() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    let _ = signals.thread_block();
}
