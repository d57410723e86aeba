//! A modem's AT port: the only place that opens a tty.
//!
//! tokio-serial carries ttys. Ports without termios2 (`/dev/wwan*at*`, and every tty under qemu-user, whose
//! TCGETS2 answers ENOSYS) are opened with plain termios and an `AsyncFd`.
//!
//! Every way in which a port disappears (HUP, EIO, ENODEV, a read of 0) is one error, [`PortError::Gone`]:
//! the modem re-enumerates and must be looked for again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::termios::{FlushArg, SetArg, cfmakeraw, tcflush, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_serial::{ClearBuffer, SerialPort, SerialStream};

use super::at::{self, Answer, Collector, Digester, Final};

/// Telit asks for 20 ms between a result and the next command.
const PAUSE: Duration = Duration::from_millis(20);
/// After a reply that never came: as long as this must be silent before the next command.
const SILENCE: Duration = Duration::from_millis(150);
const SILENCE_LIMIT: Duration = Duration::from_secs(2);
/// Opening a tty may hang in the driver.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// ModemManager sees EAGAIN from tcsetattr on ports that have just appeared, and tries again.
const SETTINGS_TRIES: u32 = 4;
const SETTINGS_PAUSE: Duration = Duration::from_millis(100);
/// USB ttys ignore it; a real UART of a Telit module comes up with it.
const BAUD: u32 = 115_200;

/// Limits of commands that are answered at once, and of those that ask the SIM or the network.
pub const QUICK: Duration = Duration::from_secs(3);
pub const SLOW: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("opening {path} hangs")]
    OpenHangs { path: PathBuf },
    /// The modem re-enumerated, was switched off or was unplugged.
    #[error("the port disappeared")]
    Gone,
    #[error("no answer to {command} within {} s", limit.as_secs_f32())]
    Timeout { command: String, limit: Duration },
    #[error("{command} was answered with {result}")]
    Refused { command: String, result: Final },
    #[error("the answer to {command} is longer than any answer should be")]
    TooLong { command: String },
    #[error("{command:?} is not a command line")]
    NotACommand { command: String },
    #[error("reading or writing the port failed")]
    Io(#[source] io::Error),
}

/// An open AT port with the echo off.
#[derive(Debug)]
pub struct Port {
    /// Only `None` while it is being dropped.
    wire: Option<Wire>,
    path: PathBuf,
    digester: Digester,
    /// No command before this instant.
    free_at: Instant,
    /// A reply is overdue and may still come.
    overdue: bool,
}

#[derive(Debug)]
enum Wire {
    Serial(Box<SerialStream>),
    Plain(AsyncFd<OwnedFd>),
}

impl Port {
    /// Opens `path`, turns the echo off and waits for the answer at most `limit`.
    pub async fn open(path: &Path, limit: Duration) -> Result<Port, PortError> {
        let mut port = Port {
            wire: Some(open_wire(path).await?),
            path: path.to_owned(),
            digester: Digester::default(),
            free_at: Instant::now(),
            overdue: false,
        };
        port.send("ATE0", Answer::Nothing, limit).await?;
        // Words instead of digits, and numbers for errors; a modem that knows no +CMEE is none the worse.
        port.send("ATV1", Answer::Nothing, QUICK).await?;
        match port.send("AT+CMEE=1", Answer::Nothing, QUICK).await {
            Ok(_) | Err(PortError::Refused { .. }) => Ok(port),
            Err(error) => Err(error),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends `command` (with its `AT`, without CR) and gives its information lines.
    ///
    /// Anything but `OK` is [`PortError::Refused`]. After [`PortError::Timeout`] the port can be used on:
    /// the next command first waits until the late answer has passed.
    pub async fn command(
        &mut self,
        command: &str,
        limit: Duration,
    ) -> Result<Vec<String>, PortError> {
        self.send(command, Answer::Text, limit).await
    }

    async fn send(
        &mut self,
        command: &str,
        answer: Answer,
        limit: Duration,
    ) -> Result<Vec<String>, PortError> {
        if !is_command(command) {
            return Err(PortError::NotACommand { command: command.to_owned() });
        }
        self.settle().await?;
        self.digester.begin(command, answer);
        // Set until the result came, so that a caller who gives up half way leaves the port usable.
        self.overdue = true;
        let exchange = self.exchange(command);
        let Ok(reply) = timeout(limit, exchange).await else {
            return Err(PortError::Timeout { command: command.to_owned(), limit });
        };
        let reply = reply?;
        self.overdue = false;
        self.free_at = Instant::now() + PAUSE;
        let reply = reply.map_err(|_| PortError::TooLong { command: command.to_owned() })?;
        match reply.result {
            Final::Ok => Ok(reply.lines),
            result => Err(PortError::Refused { command: command.to_owned(), result }),
        }
    }

    async fn exchange(
        &mut self,
        command: &str,
    ) -> Result<Result<at::Reply, at::TooLong>, PortError> {
        let wire = self.wire.as_mut().ok_or(PortError::Gone)?;
        wire.write_all(format!("{command}\r").as_bytes()).await?;
        let mut collector = Collector::default();
        let mut buffer = [0; 1024];
        loop {
            let count = wire.read(&mut buffer).await?;
            let mut reply = None;
            self.digester.feed(&buffer[..count], &mut |item| {
                if reply.is_none() {
                    reply = collector.take(item);
                }
            });
            if let Some(reply) = reply {
                return Ok(reply);
            }
        }
    }

    /// Waits for the pause after the last result, or lets an overdue reply pass by.
    async fn settle(&mut self) -> Result<(), PortError> {
        if !std::mem::take(&mut self.overdue) {
            sleep_until(self.free_at).await;
            return Ok(());
        }
        self.digester.reset();
        let wire = self.wire.as_mut().ok_or(PortError::Gone)?;
        let limit = Instant::now() + SILENCE_LIMIT;
        let mut buffer = [0; 1024];
        while Instant::now() < limit {
            match timeout_at((Instant::now() + SILENCE).min(limit), wire.read(&mut buffer)).await {
                Ok(read) => read.map(|_| ())?,
                Err(_silent) => break,
            }
        }
        Ok(())
    }
}

impl Drop for Port {
    /// Closing a tty waits for its unsent bytes, up to 30 s in the kernel: drop those, and close elsewhere.
    fn drop(&mut self) {
        let Some(wire) = self.wire.take() else { return };
        let close = move || {
            wire.discard();
            drop(wire);
        };
        if let Err(error) = std::thread::Builder::new().name("close-tty".into()).spawn(close) {
            log::warn!("closed {} in place: {error}", self.path.display());
        }
    }
}

impl Wire {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PortError> {
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

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        let written = match self {
            Wire::Serial(stream) => stream.write_all(bytes).await,
            Wire::Plain(fd) => write_plain(fd, bytes).await,
        };
        written.map_err(port_error)
    }

    fn discard(&self) {
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

async fn open_wire(path: &Path) -> Result<Wire, PortError> {
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

fn is_command(command: &str) -> bool {
    let text = command.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    text && command.len() <= at::MAX_COMMAND && command.starts_with("AT")
}

/// For callers that wait beside a port: as long as one look takes.
pub(super) async fn pause() {
    sleep(Duration::from_millis(200)).await;
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

    #[tokio::test]
    async fn what_is_no_tty_is_neither_opened_nor_gone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ttyUSB0");
        std::fs::write(&file, b"").unwrap();
        let error = Port::open(&file, QUICK).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, PortError::Open { .. }), "{error:?}");
        let error = Port::open(&directory.path().join("none"), QUICK).await.map(|_| ());
        assert!(matches!(error, Err(PortError::Gone)), "{error:?}");
    }

    #[test]
    fn a_command_is_one_line_of_printable_text() {
        assert!(is_command("AT+CGMI") && is_command("AT"));
        let long = format!("AT{}", "x".repeat(at::MAX_COMMAND));
        for wrong in ["", "+CGMI", "AT\r", "AT+CGMI\rAT#REBOOT", "AT\u{e4}", "AT\0", &long] {
            assert!(!is_command(wrong), "{wrong:?}");
        }
    }
}
