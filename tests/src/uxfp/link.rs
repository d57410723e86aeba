//! The tool's end of a diag port.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::stat::Mode;
use nix::sys::termios::{FlushArg, SetArg, cfmakeraw, tcflush, tcgetattr, tcsetattr};

use crate::modem::frame::{self, Frame, Frames, Kind};

const RETRIES: u32 = 3;

#[derive(Debug)]
pub struct Link {
    port: OwnedFd,
    frames: Frames,
    sequence: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("could not open the port: {0}")]
    Open(Errno),
    #[error("the port disappeared")]
    Gone,
    #[error("ack check failed!\nRun out of retries")]
    Silent,
    #[error("got a NACK! ({0})")]
    Nack(String),
    #[error("no device came back")]
    NoDevice,
    #[error("{0}")]
    File(#[from] io::Error),
}

impl LinkError {
    pub fn exit_code(&self) -> u8 {
        match self {
            LinkError::Open(Errno::EACCES | Errno::EPERM) => 243,
            LinkError::Open(Errno::EBUSY) => 240,
            LinkError::Open(_) | LinkError::NoDevice => 237,
            LinkError::Gone | LinkError::File(_) => 251,
            LinkError::Silent => 146,
            LinkError::Nack(_) => 185,
        }
    }
}

impl Link {
    pub fn open(port: &Path) -> Result<Link, LinkError> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let port = nix::fcntl::open(port, flags, Mode::empty()).map_err(LinkError::Open)?;
        let mut settings = tcgetattr(&port).map_err(LinkError::Open)?;
        cfmakeraw(&mut settings);
        tcsetattr(&port, SetArg::TCSANOW, &settings).map_err(LinkError::Open)?;
        tcflush(&port, FlushArg::TCIOFLUSH).map_err(LinkError::Open)?;
        Ok(Link { port, frames: Frames::default(), sequence: 0 })
    }

    /// Sends a frame until it is acknowledged; what the acknowledgement carries.
    pub fn exchange(
        &mut self,
        kind: Kind,
        payload: &[u8],
        patience: Duration,
    ) -> Result<Vec<u8>, LinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = frame::encode(kind, self.sequence, payload);
        for _ in 0..RETRIES {
            let deadline = Instant::now() + patience;
            if !self.write(&bytes, deadline)? {
                continue;
            }
            while let Some(answer) = self.read(deadline)? {
                match answer.kind {
                    _ if answer.sequence != self.sequence => {}
                    Kind::Ack => return Ok(answer.payload),
                    _ => {
                        let reason = String::from_utf8_lossy(&answer.payload).into_owned();
                        return Err(LinkError::Nack(reason));
                    }
                }
            }
        }
        Err(LinkError::Silent)
    }

    fn write(&self, mut bytes: &[u8], deadline: Instant) -> Result<bool, LinkError> {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.port, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    if !self.wait(PollFlags::POLLOUT, deadline)? {
                        return Ok(false);
                    }
                }
                Err(_) => return Err(LinkError::Gone),
            }
        }
        Ok(true)
    }

    fn read(&mut self, deadline: Instant) -> Result<Option<Frame>, LinkError> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.frames.take() {
                return Ok(Some(frame));
            }
            match nix::unistd::read(&self.port, &mut buffer) {
                Ok(count) if count > 0 => self.frames.push(&buffer[..count]),
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    if !self.wait(PollFlags::POLLIN, deadline)? {
                        return Ok(None);
                    }
                }
                Ok(_) | Err(_) => return Err(LinkError::Gone),
            }
        }
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<bool, LinkError> {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let limit = u16::try_from(left).unwrap_or(u16::MAX);
        let mut port = [PollFd::new(self.port.as_fd(), what)];
        match nix::poll::poll(&mut port, PollTimeout::from(limit)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(_) => Err(LinkError::Gone),
        }
    }
}
