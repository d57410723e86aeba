//! Opening a slot's journal, and what keeps it closed: damage waits for a person, a disk that refuses
//! for better times, a newer version's journal for a newer agent. Other slots go on meanwhile.

use super::{DISK_AGAIN, Slot, Work};
use crate::upgrade::{
    journal::{Journal, JournalError, Loaded, Reading, aside},
    perform::{release_word, take_release_word},
    report,
};
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// Refusals of the disk, a minute apart, before half a journal has to do.
const UNTIL_HALF: u32 = 10;

impl Slot {
    /// Opens the journal as soon as that can be done.
    pub fn look(&mut self) {
        if let Work::Unreadable(corrupt) = &self.work {
            let corrupt = corrupt.clone();
            if !self.is_released(&corrupt) {
                return;
            }
            self.work = Work::Closed;
        }
        if matches!(self.work, Work::Closed) && self.not_before <= Instant::now() {
            self.work = self.open();
        }
    }

    fn open(&mut self) -> Work {
        let path = self.journal_path();
        let left = aside(&path);
        if left.exists() {
            return self.hold(left);
        }
        let reading = if self.refused < UNTIL_HALF { Reading::Whole } else { Reading::Half };
        match Journal::open(&path, &self.ports.boot_id, reading) {
            Ok((journal, Loaded::Empty)) => Work::Idle { journal, last: None },
            Ok((journal, Loaded::State { state, .. })) if state.ending().is_some() => {
                Work::Idle { journal, last: Some(state) }
            }
            Ok((journal, Loaded::State { state, same_boot })) => {
                let boot = if same_boot { "this boot" } else { "an earlier boot" };
                let operation = state.record.job.operation;
                log::info!("operation {operation} found in {}, from {boot}", state.phase());
                let handed_back = state.record.returned;
                let state = state.resume();
                let handed_back = state.record.returned > handed_back;
                match self.busy(state, journal) {
                    Ok(work) => {
                        if let Work::Busy { upgrade, env, .. } = &work
                            && handed_back
                        {
                            report::handed_back(&upgrade.state, env);
                        }
                        work
                    }
                    Err(error) => self.closed(&error),
                }
            }
            Err(JournalError::Corrupt { aside }) => self.hold(aside),
            Err(error @ JournalError::Newer { .. }) => {
                log::error!("slot {}: {error}", self.place.slot);
                Work::Newer
            }
            Err(error) => self.closed(&error),
        }
    }

    /// The disk refused.
    pub(super) fn closed(&mut self, error: &dyn std::error::Error) -> Work {
        self.refused = self.refused.saturating_add(1);
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.trouble = format!("{error}{cause}");
        log::error!("slot {}: {}", self.place.slot, self.trouble);
        self.not_before = Instant::now() + DISK_AGAIN;
        Work::Closed
    }

    fn hold(&self, corrupt: PathBuf) -> Work {
        let slot = &self.place.slot;
        // A word from before was about something else.
        let _ = std::fs::remove_file(release_word(&self.settings.paths.run_dir, slot.as_str()));
        log::error!(
            "slot {slot} is held: its journal was unreadable and is kept as {}; look at the modem, \
             then run `modem-upgrader-agent recover --slot {slot}`",
            corrupt.display()
        );
        Work::Unreadable(corrupt)
    }

    /// Takes a person's word, and keeps the unreadable journal under another name.
    fn is_released(&self, corrupt: &Path) -> bool {
        if !take_release_word(&self.settings.paths.run_dir, self.place.slot.as_str()) {
            return false;
        }
        match std::fs::rename(corrupt, self.released()) {
            Ok(()) => true,
            Err(error) => {
                log::error!("{} cannot be moved: {error}", corrupt.display());
                false
            }
        }
    }

    /// Where an unreadable journal is kept once a person has said "go on".
    pub(super) fn released(&self) -> PathBuf {
        self.journal_path().with_extension("released")
    }
}
