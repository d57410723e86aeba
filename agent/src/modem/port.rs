//! A modem's AT port: commands and their answers, over a [`wire`], which is the only place that opens a tty.
//!
//! Every way in which a port disappears (HUP, EIO, ENODEV, a read of 0) is one error, [`PortError::Gone`]:
//! the modem re-enumerates and must be looked for again.

mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::at::{self, Answer, Collector, Digester, Final};
use wire::Wire;

/// Telit asks for 20 ms between a result and the next command.
const PAUSE: Duration = Duration::from_millis(20);
/// After a reply that never came: as long as this must be silent before the next command.
const SILENCE: Duration = Duration::from_millis(150);
const SILENCE_LIMIT: Duration = Duration::from_secs(2);
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
    /// What went over it, for a recording.
    tap: Option<Vec<Exchange>>,
}

/// A command and the bytes that came after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub command: String,
    pub answer: Vec<u8>,
    /// From the command to the end of its answer, or of the patience.
    pub took: Duration,
}

impl Port {
    /// Opens `path`, turns the echo off and waits for the answer at most `limit`.
    pub async fn open(path: &Path, limit: Duration) -> Result<Port, PortError> {
        Self::open_with(path, limit, None).await
    }

    /// As [`Port::open`]; all that goes over the port is kept for [`Port::recorded`].
    pub async fn open_recorded(path: &Path, limit: Duration) -> Result<Port, PortError> {
        Self::open_with(path, limit, Some(Vec::new())).await
    }

    async fn open_with(
        path: &Path,
        limit: Duration,
        tap: Option<Vec<Exchange>>,
    ) -> Result<Port, PortError> {
        let mut port = Port {
            wire: Some(Wire::open(path).await?),
            path: path.to_owned(),
            digester: Digester::default(),
            free_at: Instant::now(),
            overdue: false,
            tap,
        };
        port.send("ATE0", Answer::Nothing, limit).await?;
        // Words instead of digits, and numbers for errors; a modem that knows no +CMEE is none the worse.
        port.send("ATV1", Answer::Nothing, QUICK).await?;
        match port.send("AT+CMEE=1", Answer::Nothing, QUICK).await {
            Ok(_) | Err(PortError::Refused { .. }) => Ok(port),
            Err(error) => Err(error),
        }
    }

    /// What went over the port since it was opened or this was asked last.
    pub fn recorded(&mut self) -> Vec<Exchange> {
        self.tap.as_mut().map(std::mem::take).unwrap_or_default()
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
        let began = Instant::now();
        if let Some(tap) = &mut self.tap {
            let (command, answer) = (command.to_owned(), Vec::new());
            tap.push(Exchange { command, answer, took: Duration::ZERO });
        }
        let exchanged = timeout(limit, self.exchange(command)).await;
        if let Some(exchange) = self.tap.as_mut().and_then(|tap| tap.last_mut()) {
            exchange.took = began.elapsed();
        }
        let Ok(reply) = exchanged else {
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
            if let Some(exchange) = self.tap.as_mut().and_then(|tap| tap.last_mut()) {
                exchange.answer.extend_from_slice(&buffer[..count]);
            }
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
