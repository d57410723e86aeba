//! `mmcli --inhibit-device`: ModemManager leaves one modem alone for as long as this process lives.
//!
//! It must outlive the agent that started it, as the tool does, and be found by whoever gives back. So it is
//! in a process group of its own and has a locked file as its standard input: while it lives, the lock is
//! held, and `/proc` shows by whom. A reboot ends it and erases the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::guardian::tree;
use crate::{clock, files};

const LOOK: Duration = Duration::from_millis(50);
/// How long it may take after SIGTERM; the inhibition ends with it in any case. (SIGINT, which its manual
/// names, may be ignored by inheritance.)
const GRACE: Duration = Duration::from_secs(5);
/// What it prints once ModemManager let go.
const INHIBITED: &str = "successfully inhibited";
/// Most of its output looked at, in bytes.
const MAX_OUTPUT: usize = 4096;

#[derive(Debug, Clone)]
pub struct Inhibition {
    lock: PathBuf,
    output: PathBuf,
}

impl Inhibition {
    pub fn new(run_dir: &Path) -> Self {
        Self { lock: run_dir.join("inhibition.lock"), output: run_dir.join("inhibition.out") }
    }

    pub fn is_held(&self) -> bool {
        files::is_locked(&self.lock).unwrap_or(true)
    }

    /// Returns once ModemManager has let go of the modem; it disables it first, which takes seconds. One that
    /// was begun before is waited for.
    pub async fn begin(&self, mmcli: &Path, uid: &str, limit: Duration) -> io::Result<()> {
        let mut child = match files::try_lock(&self.lock)? {
            Some(lock) => Some(self.spawn(mmcli, uid, lock)?),
            None => None,
        };
        let deadline = clock::boottime().saturating_add(limit);
        loop {
            let said = files::read_limited(&self.output, MAX_OUTPUT).unwrap_or_default();
            let said = String::from_utf8_lossy(&said).into_owned();
            // Whoever reaps it later: this process's runtime, or init after it.
            if said.contains(INHIBITED) && self.is_held() {
                return Ok(());
            }
            let ended = match &mut child {
                Some(child) => child.try_wait()?.is_some(),
                None => !self.is_held(),
            };
            if ended {
                let line = said.lines().next().unwrap_or_default();
                return Err(io::Error::other(format!("mmcli ended: {line}")));
            }
            if clock::boottime() >= deadline {
                self.signal(Signal::SIGKILL);
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the one program that has to stay")]
    fn spawn(&self, mmcli: &Path, uid: &str, lock: File) -> io::Result<tokio::process::Child> {
        let output = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(files::PRIVATE)
            .open(&self.output)?;
        let errors = output.try_clone()?;
        tokio::process::Command::new(mmcli)
            .arg(format!("--inhibit-device={uid}"))
            .stdin(lock)
            .stdout(output)
            .stderr(Stdio::from(errors))
            .process_group(0)
            .spawn()
    }

    /// Returns once ModemManager may have the modem again.
    pub async fn end(&self, limit: Duration) -> io::Result<()> {
        let begun = clock::boottime();
        let mut killed = false;
        self.signal(Signal::SIGTERM);
        while self.is_held() {
            let elapsed = clock::boottime().saturating_sub(begun);
            if elapsed >= GRACE.min(limit / 2) && !killed {
                self.signal(Signal::SIGKILL);
                killed = true;
            } else if elapsed >= limit {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::time::sleep(LOOK).await;
        }
        files::remove_if_present(&self.output)
    }

    fn signal(&self, signal: Signal) {
        tree::signal(&tree::holding(&self.lock), signal);
    }
}
