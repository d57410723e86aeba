//! What a simulated modem can be told and asked, in its own process or over a socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use serde::{Deserialize, Serialize};

use super::flash::Flash;
use super::settings;
use super::surroundings::Surroundings;
use crate::faults::ModemFault;

/// Longest request and answer, in bytes.
const MAX_LINE: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    State,
    /// The power is gone when this is answered.
    PowerCut,
    PowerOn,
    /// Without power, and as it left the factory.
    Factory,
    SetFault(ModemFault),
    Surround(Surroundings),
}

/// Where the modem is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Without power, or restarting.
    Off,
    Normal,
    Download,
    CrashDump,
    /// Has power and shows nothing.
    Dead,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub mode: Mode,
    /// `ttyUSB2`, ..., in the order of their interfaces.
    pub ttys: Vec<String>,
    /// Of the firmware that is being written.
    pub percent: u8,
    /// AT commands since it was made.
    pub commands: u32,
    pub enumerations: u32,
    pub flash: Flash,
}

/// A request on its way to the modem's thread.
#[derive(Debug)]
pub struct Order {
    pub request: Request,
    pub answer: Sender<State>,
}

/// Serves requests, a JSON line each, until the process ends.
pub fn serve(
    listener: &UnixListener,
    ask: impl Fn(Request) -> io::Result<State>,
) -> io::Result<()> {
    for stream in listener.incoming() {
        if let Err(error) = serve_one(stream?, &ask) {
            log::debug!("a control connection ended: {error}");
        }
    }
    Ok(())
}

fn serve_one(
    mut stream: UnixStream,
    ask: &impl Fn(Request) -> io::Result<State>,
) -> io::Result<()> {
    let request = serde_json::from_str(&read_line(&stream)?)?;
    let mut answer = serde_json::to_vec(&ask(request)?)?;
    answer.push(b'\n');
    stream.write_all(&answer)
}

fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)?;
    Ok(line)
}

/// A modem in a process of its own (`lab sim-modem`).
#[derive(Debug, Clone)]
pub struct RemoteModem {
    socket: PathBuf,
}

impl RemoteModem {
    /// The modem `name` of a router.
    pub fn of(router: &Path, name: &str) -> RemoteModem {
        RemoteModem { socket: settings::socket(router, name) }
    }

    pub fn ask(&self, request: &Request) -> io::Result<State> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(serde_json::from_str(&read_line(&stream)?)?)
    }
}
