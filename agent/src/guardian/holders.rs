//! Those who hold the modem or its ports while it works, and must let go while it is flashed:
//! services under `/etc/init.d` and netifd's interfaces.
//!
//! ```text
//! take:       write the record ─ ifdown wwan ─ modemmanager stop      in the given order
//! give back:  modemmanager start ─ ifup wwan ─ remove the record      in reverse
//! ```
//! The record is written before the first holder is stopped, and every step may be repeated: who
//! comes after a crash gives back from the record, and nothing is lost or taken twice. Only what
//! was running is taken, so that giving back starts nothing that an operator had stopped.
//!
//! An agent and an orphaned guardian may come at the same time: `holders.lock` lets in one.

use crate::{clock, files};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use super::record::{self, RunDir};

/// The router's programs; all paths are local settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// Where init scripts are, `/etc/init.d`.
    pub services: PathBuf,
    pub ifup: PathBuf,
    pub ifdown: PathBuf,
    /// Prints an interface's state as JSON, as OpenWrt's `ifstatus` does.
    pub ifstatus: PathBuf,
    /// Milliseconds one call may take.
    pub timeout_ms: u64,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            services: "/etc/init.d".into(),
            ifup: "/sbin/ifup".into(),
            ifdown: "/sbin/ifdown".into(),
            ifstatus: "/sbin/ifstatus".into(),
            timeout_ms: 60_000,
        }
    }
}

/// One holder, by a name from the router's own settings or profiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    Service(String),
    Interface(String),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

/// Why a holder did not let go or could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    #[error("{0:?} is not the name of a service or an interface")]
    Name(String),
    #[error("the record of holders cannot be kept")]
    Record(#[source] io::Error),
    #[error("another process takes the holders or gives them back")]
    Busy,
    #[error("{holder}: {action} did not end in time")]
    Timeout { holder: Holder, action: &'static str },
    #[error("{holder}: {action} ended with {status}")]
    Failed { holder: Holder, action: &'static str, status: ExitStatus },
    #[error("{holder}: {action} could not be run")]
    Run { holder: Holder, action: &'static str, source: io::Error },
}

/// How often a lock is tried that somebody else has.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Taken {
    format: u8,
    /// In the order they were taken.
    holders: Vec<Holder>,
}

/// Takes holders and gives them back.
#[derive(Debug, Clone)]
pub struct Holders {
    programs: Programs,
    record: PathBuf,
    lock: PathBuf,
}

impl Holders {
    #[must_use]
    pub fn new(run_dir: &Path, programs: Programs) -> Self {
        let run = RunDir::new(run_dir);
        Self { programs, record: run.holders(), lock: run.holders_lock() }
    }

    /// Makes each of `holders` let go, in order; those that are not there or not running are left
    /// alone. What was taken before stays in the record, and is stopped again if it came back.
    ///
    /// # Errors
    /// The first holder that does not let go; those before it are in the record and must be given
    /// back.
    pub async fn take(&self, holders: &[Holder]) -> Result<(), HolderError> {
        for holder in holders {
            check_name(holder)?;
        }
        let _alone = self.alone().await?;
        let mut taken = self.taken().map_err(HolderError::Record)?;
        for holder in holders {
            if !self.is_running(holder).await {
                continue;
            }
            if !taken.contains(holder) {
                taken.push(holder.clone());
                self.remember(&taken).map_err(HolderError::Record)?;
            }
            self.call(holder, Action::Stop).await?;
        }
        Ok(())
    }

    /// Gives back all that the record names, the last taken first. Those that fail stay in the
    /// record, the others are tried all the same.
    ///
    /// # Errors
    /// The first that failed.
    pub async fn give_back(&self) -> Result<(), HolderError> {
        let _alone = self.alone().await?;
        self.give_all_back().await
    }

    /// As [`Self::give_back`], unless an agent lives, which `agent_lock` shows. One that starts
    /// from now on takes its holders after this.
    ///
    /// # Errors
    /// As [`Self::give_back`].
    pub async fn give_back_orphaned(&self, agent_lock: &Path) -> Result<(), HolderError> {
        let _alone = self.alone().await?;
        if files::is_locked(agent_lock).unwrap_or(false) {
            log::info!("an agent lives again: the holders are its business");
            return Ok(());
        }
        self.give_all_back().await
    }

    async fn give_all_back(&self) -> Result<(), HolderError> {
        let mut left = self.taken().map_err(HolderError::Record)?;
        let mut first_error = None;
        for index in (0..left.len()).rev() {
            match self.call(&left[index], Action::Start).await {
                Ok(()) => {
                    left.remove(index);
                    self.note_left(&left);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) => Err(error),
            // Needs no room, so that a full disk leaves no record of what is not taken any more.
            None => files::remove_if_present(&self.record).map_err(HolderError::Record),
        }
    }

    /// A record that names too much only starts a holder once more; that must not keep the next
    /// one down.
    fn note_left(&self, left: &[Holder]) {
        if let Err(error) = self.remember(left) {
            log::warn!("{}: {error}", self.record.display());
        }
    }

    /// Waits until nobody else takes or gives back, for as long as one holder may take to stop and
    /// another to start.
    async fn alone(&self) -> Result<File, HolderError> {
        let patience = Duration::from_millis(self.programs.timeout_ms.saturating_mul(2));
        let deadline = clock::boottime().saturating_add(patience);
        loop {
            match files::try_lock(&self.lock).map_err(HolderError::Record)? {
                Some(lock) => return Ok(lock),
                None if clock::boottime() >= deadline => return Err(HolderError::Busy),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What is taken now, in the order it was taken.
    ///
    /// # Errors
    /// The record is there and cannot be read.
    pub fn taken(&self) -> io::Result<Vec<Holder>> {
        match record::read::<Taken>(&self.record) {
            Ok(taken) => Ok(taken.holders),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(error),
        }
    }

    fn remember(&self, holders: &[Holder]) -> io::Result<()> {
        let taken = Taken { format: record::FORMAT, holders: holders.to_vec() };
        files::write_atomic(&self.record, &record::to_json(&taken)?)
    }

    /// Unknown counts as running: a holder too many that is stopped and started does no harm.
    async fn is_running(&self, holder: &Holder) -> bool {
        match holder {
            Holder::Service(name) => {
                let script = self.programs.services.join(name);
                script.exists()
                    && !matches!(self.run(&script, &["running"]).await, Ok(Some(s)) if !s.success())
            }
            Holder::Interface(name) => self.is_interface_up(name).await,
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that runs init scripts and netifd's commands"
    )]
    async fn is_interface_up(&self, name: &str) -> bool {
        #[derive(Deserialize)]
        struct Interface {
            #[serde(default)]
            up: bool,
            #[serde(default)]
            pending: bool,
            #[serde(default)]
            autostart: bool,
        }
        let mut command = tokio::process::Command::new(&self.programs.ifstatus);
        command.arg(name).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let limit = Duration::from_millis(self.programs.timeout_ms);
        match tokio::time::timeout(limit, command.output()).await {
            // An interface that netifd does not know.
            Ok(Ok(output)) if !output.status.success() => false,
            Ok(Ok(output)) => serde_json::from_slice::<Interface>(&output.stdout)
                .map_or(true, |i| i.up || i.pending || i.autostart),
            Ok(Err(error)) => error.kind() != io::ErrorKind::NotFound,
            Err(_) => true,
        }
    }

    async fn call(&self, holder: &Holder, action: Action) -> Result<(), HolderError> {
        let name = action.name();
        let (program, argument) = match (holder, action) {
            (Holder::Service(service), _) => (self.programs.services.join(service), name),
            (Holder::Interface(interface), Action::Stop) => {
                (self.programs.ifdown.clone(), interface.as_str())
            }
            (Holder::Interface(interface), Action::Start) => {
                (self.programs.ifup.clone(), interface.as_str())
            }
        };
        let holder = || holder.clone();
        match self.run(&program, &[argument]).await {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(HolderError::Failed { holder: holder(), action: name, status }),
            Ok(None) => Err(HolderError::Timeout { holder: holder(), action: name }),
            Err(source) => Err(HolderError::Run { holder: holder(), action: name, source }),
        }
    }

    /// `None`: it did not end in time.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that runs init scripts and netifd's commands"
    )]
    async fn run(&self, program: &Path, arguments: &[&str]) -> io::Result<Option<ExitStatus>> {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let limit = Duration::from_millis(self.programs.timeout_ms);
        let mut child = command.spawn()?;
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(status) => Ok(Some(status?)),
            Err(_) => Ok(None),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Stop,
    Start,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
        }
    }
}

/// Names become file names and arguments.
fn check_name(holder: &Holder) -> Result<(), HolderError> {
    let (Holder::Service(name) | Holder::Interface(name)) = holder;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let fits =
        (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.']);
    if fits { Ok(()) } else { Err(HolderError::Name(shared::limits::cut(name.clone()))) }
}

#[cfg(test)]
#[path = "holders/tests.rs"]
mod tests;
