//! What the modem shows on USB in each of its modes.

use std::io;
use std::time::Instant;

use super::at::Session;
use super::flash::Flash;
use super::frame::Frames;
use super::pty::Pty;
use super::settings::Settings;
use super::tree::{Function, Interface, Shape};
use super::voice::Voice;

const TELIT: u16 = 0x1bc7;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Diag,
    At,
    /// The diag port of download mode.
    Loader,
    /// NMEA, aux: says nothing.
    Mute,
}

/// One open serial port, from the modem's side.
#[derive(Debug)]
pub struct Port {
    pub pty: Pty,
    pub role: Role,
    pub voice: Voice,
    pub session: Session,
    /// The command line so far.
    pub command: Vec<u8>,
    pub frames: Frames,
    /// When bytes last came.
    pub heard: Instant,
    /// Somebody has the other end open.
    pub open: bool,
}

enum Kind {
    Port(Role),
    Net,
    Other,
}

use Kind::{Net, Other, Port as Tty};
use Role::{At, Diag, Loader, Mute};

/// Product id and interfaces of `AT#USBCFG=n`.
fn composition(n: u8) -> (u16, &'static [Kind]) {
    match n {
        0 => (0x1072, &[Net, Other, Tty(Diag), Other, Tty(Mute), Tty(At), Tty(At), Tty(Mute)]),
        2 => (0x1071, &[Tty(Diag), Other, Net, Other, Tty(Mute), Tty(At), Tty(At), Tty(Mute)]),
        3 => (0x1073, &[Tty(Diag), Other, Net, Other, Tty(Mute), Tty(At), Tty(At), Tty(Mute)]),
        _ => (0x1070, &[Tty(Diag), Other, Net, Tty(Mute), Tty(At), Tty(At), Tty(Mute)]),
    }
}

/// The modem with its own firmware running.
pub fn normal(settings: &Settings, flash: &Flash) -> io::Result<(Shape, Vec<Port>)> {
    let (product, kinds) = composition(flash.usb_composition);
    let shape = Shape {
        bus_id: settings.bus_id.clone(),
        vendor: TELIT,
        product,
        product_name: flash.model.name().to_owned(),
        serial: Some(flash.serial.clone()),
        interfaces: Vec::new(),
    };
    with_interfaces(shape, kinds, &settings.net)
}

/// 1bc7:9010: one port, no serial number, the product name of its sister.
pub fn download(settings: &Settings) -> io::Result<(Shape, Vec<Port>)> {
    bare(settings, 0x9010, &[Tty(Loader)])
}

/// 1bc7:9000.
pub fn crash_dump(settings: &Settings) -> io::Result<(Shape, Vec<Port>)> {
    bare(settings, 0x9000, &[Tty(Mute)])
}

fn bare(settings: &Settings, product: u16, kinds: &[Kind]) -> io::Result<(Shape, Vec<Port>)> {
    let shape = Shape {
        bus_id: settings.download_bus_id.clone(),
        vendor: TELIT,
        product,
        product_name: "FN980m".to_owned(),
        serial: None,
        interfaces: Vec::new(),
    };
    with_interfaces(shape, kinds, &settings.net)
}

fn with_interfaces(mut shape: Shape, kinds: &[Kind], net: &str) -> io::Result<(Shape, Vec<Port>)> {
    let mut ports = Vec::new();
    for (number, kind) in (0..).zip(kinds) {
        let function = match kind {
            Kind::Net => Function::Net(net.to_owned()),
            Kind::Other => Function::Other,
            Kind::Port(role) => {
                let port = Port::open(*role)?;
                let function = Function::Tty(port.pty.slave.clone());
                ports.push(port);
                function
            }
        };
        shape.interfaces.push(Interface { number, function });
    }
    Ok((shape, ports))
}

impl Port {
    fn open(role: Role) -> io::Result<Port> {
        let now = Instant::now();
        Ok(Port {
            pty: Pty::open()?,
            role,
            voice: Voice::new(now),
            session: Session::default(),
            command: Vec::new(),
            frames: Frames::default(),
            heard: now,
            open: false,
        })
    }
}
