//! Those who hold the modem or its ports while it works, and must let go while it is flashed:
//! services under `/etc/init.d`, netifd's interfaces, and ModemManager for one modem alone.
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

mod holder;
mod inhibition;
mod programs;

use crate::{clock, files};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::record::{self, RunDir};
pub use holder::Holder;
use inhibition::Inhibition;
pub use programs::Programs;

/// Why a holder did not let go or could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    #[error("{0:?} is not the name of a service, an interface or a modem")]
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
    inhibition: Inhibition,
    record: PathBuf,
    lock: PathBuf,
}

impl Holders {
    #[must_use]
    pub fn new(run_dir: &Path, programs: Programs) -> Self {
        let run = RunDir::new(run_dir);
        let inhibition = Inhibition::new(run_dir);
        Self { programs, inhibition, record: run.holders(), lock: run.holders_lock() }
    }

    /// netifd's interfaces on one of the modem's network devices (`wwan0`), as far as they are up or would
    /// come up by themselves; none where ubus does not answer.
    pub async fn interfaces_on(&self, devices: &[String]) -> Vec<Holder> {
        let names = self.programs.interfaces_on(devices).await;
        let holders = names.into_iter().map(Holder::Interface);
        holders.filter(|holder| check_name(holder).is_ok()).collect()
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
            if !self.programs.is_running(holder).await {
                continue;
            }
            if !taken.contains(holder) {
                taken.push(holder.clone());
                crate::failpoint::at!("holders.take.before");
                self.remember(&taken).map_err(HolderError::Record)?;
            }
            crate::failpoint::at!("holders.take.recorded");
            self.programs.act(holder, Action::Stop, &self.inhibition).await?;
            crate::failpoint::at!("holders.take.stopped");
        }
        Ok(())
    }

    /// Writes down `holders` as taken, for whoever gives back, where somebody else keeps them from
    /// starting. What is on record already stays.
    ///
    /// # Errors
    /// The record cannot be kept.
    pub fn note(&self, holders: &[Holder]) -> Result<(), HolderError> {
        let mut taken = self.taken().map_err(HolderError::Record)?;
        for holder in holders {
            check_name(holder)?;
            if !taken.contains(holder) {
                taken.push(holder.clone());
            }
        }
        if let Some(directory) = self.record.parent() {
            files::create_private_dir(directory).map_err(HolderError::Record)?;
        }
        self.remember(&taken).map_err(HolderError::Record)
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
            crate::failpoint::at!("holders.give_back.before");
            match self.programs.act(&left[index], Action::Start, &self.inhibition).await {
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
            None => {
                crate::failpoint::at!("holders.give_back.started");
                files::remove_if_present(&self.record).map_err(HolderError::Record)
            }
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
    let fits = match holder {
        Holder::Service(name) | Holder::Interface(name) => is_name(name),
        Holder::Modem(uid) => is_uid(uid),
    };
    let (Holder::Service(name) | Holder::Interface(name) | Holder::Modem(name)) = holder;
    if fits { Ok(()) } else { Err(HolderError::Name(shared::limits::cut(name.clone()))) }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.'])
}

/// A path in sysfs, or whatever udev called the device.
fn is_uid(uid: &str) -> bool {
    (1..=256).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
#[path = "holders/tests.rs"]
mod tests;
