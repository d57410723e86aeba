//! The bytes of a port: the only place that opens a tty.
//!
//! tokio-serial carries ttys. Ports without termios2 (`/dev/wwan*at*`, and every tty under qemu-user, whose
//! TCGETS2 answers ENOSYS) are opened with plain termios and an `AsyncFd`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::termios::{FlushArg, SetArg, cfmakeraw, tcflush, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_serial::{ClearBuffer, SerialPort, SerialStream};

use super::PortError;

/// Opening a tty may hang in the driver.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// ModemManager sees EAGAIN from tcsetattr on ports that have just appeared, and tries again.
const SETTINGS_TRIES: u32 = 4;
const SETTINGS_PAUSE: Duration = Duration::from_millis(100);
/// USB ttys ignore it; a real UART of a Telit module comes up with it.
const BAUD: u32 = 115_200;

#[derive(Debug)]
pub enum Wire {
    Serial(Box<SerialStream>),
    Plain(AsyncFd<OwnedFd>),
}

impl Wire {
    pub async fn open(path: &Path) -> Result<Wire, PortError> {
        let owned = path.to_owned();
        let opening = tokio::task::spawn_blocking(move || open_blocking(&owned));
        match timeout(OPEN_LIMIT, opening).await {
            Ok(Ok(Ok(wire))) => Ok(wire),
            Ok(Ok(Err(source))) if is_gone(&source) => Err(PortError::Gone),
            Ok(Ok(Err(source))) => Err(PortError::Open { path: path.to_owned(), source }),
            Ok(Err(join)) => Err(PortError::Io(io::Error::other(join))),
            Err(_hangs) => Err(PortError::OpenHangs { path: path.to_owned() }),
        }
    }

    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PortError> {
        let read = match self {
            Wire::Serial(stream) => stream.read(buffer).await,
            Wire::Plain(fd) => read_plain(fd, buffer).await,
        };
        match read {
            Ok(0) => Err(PortError::Gone),
            Ok(count) => Ok(count),
            Err(error) => Err(port_error(error)),
        }
    }

    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        let written = match self {
            Wire::Serial(stream) => stream.write_all(bytes).await,
            Wire::Plain(fd) => write_plain(fd, bytes).await,
        };
        written.map_err(port_error)
    }

    pub fn discard(&self) {
        // A port that is gone has nothing left to discard.
        let _ = match self {
            Wire::Serial(stream) => stream.clear(ClearBuffer::All).map_err(io::Error::from),
            Wire::Plain(fd) => tcflush(fd, FlushArg::TCIOFLUSH).map_err(io::Error::from),
        };
    }
}

async fn read_plain(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = fd.readable().await?;
        let read = ready.try_io(|fd| nix::unistd::read(fd, buffer).map_err(io::Error::from));
        if let Ok(read) = read {
            return read;
        }
    }
}

async fn write_plain(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        let written = ready.try_io(|fd| nix::unistd::write(fd, bytes).map_err(io::Error::from));
        if let Ok(written) = written {
            bytes = bytes.get(written?..).unwrap_or_default();
        }
    }
    Ok(())
}

/// Runs on a blocking thread of the runtime, whose reactor the descriptor is registered with.
fn open_blocking(path: &Path) -> io::Result<Wire> {
    if is_wwan(path) {
        return open_plain(path);
    }
    // TIOCEXCL keeps nobody out where all are root; the modem's lock does.
    let builder = tokio_serial::new(path.to_string_lossy(), BAUD).exclusive(false);
    match SerialStream::open(&builder) {
        Ok(stream) => {
            stream.clear(ClearBuffer::All)?;
            Ok(Wire::Serial(Box::new(stream)))
        }
        Err(error) => {
            let error = io::Error::from(error);
            log::debug!("{}: {error}; trying plain termios", path.display());
            if without_termios2(&error) { open_plain(path) } else { Err(error) }
        }
    }
}

fn is_wwan(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wwan"))
}

fn without_termios2(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::ENOSYS, Errno::ENOTTY])
}

/// serialport turns errno values into text, so their words have to do as well.
fn is_one_of(error: &io::Error, choices: &[Errno]) -> bool {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => choices.contains(&errno),
        None => {
            let text = error.to_string();
            choices.iter().any(|errno| text.contains(errno.desc()))
        }
    }
}

fn open_plain(path: &Path) -> io::Result<Wire> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, Mode::empty())?;
    match make_raw(&fd) {
        // A wwan port is raw by nature where it knows no termios at all.
        Err(Errno::ENOTTY | Errno::ENOSYS) if is_wwan(path) => {}
        outcome => outcome?,
    }
    watch(fd).map(Wire::Plain)
}

#[expect(deprecated, reason = "an OwnedFd is all that the unsafe `register` asks for")]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

#[allow(
    clippy::disallowed_methods,
    reason = "at most 0.3 s, where a tty is busy with its old settings"
)]
fn make_raw(fd: &OwnedFd) -> nix::Result<()> {
    let mut settings = tcgetattr(fd)?;
    cfmakeraw(&mut settings);
    for _ in 1..SETTINGS_TRIES {
        match tcsetattr(fd.as_fd(), SetArg::TCSANOW, &settings) {
            Err(Errno::EAGAIN) => std::thread::sleep(SETTINGS_PAUSE),
            outcome => return outcome.and_then(|()| tcflush(fd, FlushArg::TCIOFLUSH)),
        }
    }
    tcsetattr(fd.as_fd(), SetArg::TCSANOW, &settings)
}

fn port_error(error: io::Error) -> PortError {
    if is_gone(&error) { PortError::Gone } else { PortError::Io(error) }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, UnexpectedEof, WriteZero};
    is_one_of(error, &[Errno::EIO, Errno::ENODEV, Errno::ENXIO, Errno::ENOENT])
        || matches!(error.kind(), BrokenPipe | UnexpectedEof | WriteZero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_known_by_number_and_by_serialports_words() {
        let by_number = io::Error::from(Errno::ENOSYS);
        let in_words = |errno: Errno| io::Error::other(errno.to_string());
        for error in [by_number, in_words(Errno::ENOSYS)] {
            assert!(without_termios2(&error) && !is_gone(&error), "{error:?}");
        }
        for errno in [Errno::EIO, Errno::ENODEV, Errno::ENXIO, Errno::ENOENT] {
            assert!(is_gone(&io::Error::from(errno)), "{errno}");
            assert!(is_gone(&in_words(errno)), "{errno}");
        }
        // serialport calls a port that somebody else took for himself "not found".
        let taken = io::Error::new(io::ErrorKind::NotFound, Errno::EBUSY.to_string());
        assert!(!is_gone(&taken) && !is_gone(&io::Error::from(Errno::EACCES)));
    }
}
