//! A batch: one build for many modems, rolled out in waves. Pure: values in, values out.
//!
//! ```text
//!  preparing ──▶ open ◀──▶ paused           every operation terminal
//!                 │  │        │ ───────────────────────────────────────▶ finished
//!                 │  └────────┴──▶ cancelling (taken back) ────────────▶
//!                 └──────────────▶ expiring   (its time is over) ──────▶
//! ```
//! - [`decide`] says what is to be done next; `pilot` does it, and the store's verbs check once more
//!   that it may be done.
//! - Operations without a wave are the pool: nobody is given leave to flash there. A wave takes
//!   members out of the pool; who stays silent goes back, to its end.
//! - [`tally`] is the arithmetic that people see. What the words mean to them: docs/batches.md.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod awaited;
pub mod charge;
pub mod decide;
pub mod left_out;
pub mod phase;
pub mod strategy;
pub mod tally;
pub mod verdict;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::ids::{BatchId, BuildId, OrganizationId, OrganizationSlug};
use uuid::Uuid;

pub use left_out::LeftOut;
pub use phase::Phase;
pub use strategy::Strategy;
pub use tally::{Counts, Silence, Tally, Wave};

/// Where a batch stands by what was decided about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Course {
    /// Its operations are being made.
    Preparing,
    Open,
    /// No grants; what was granted finishes.
    Paused,
    /// Taken back; what was granted finishes.
    Cancelling,
    /// Its time is over; what was granted finishes.
    Expiring,
    Finished,
}

impl Course {
    const ALL: [Self; 6] = [
        Self::Preparing,
        Self::Open,
        Self::Paused,
        Self::Cancelling,
        Self::Expiring,
        Self::Finished,
    ];

    /// As in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Expiring => "expiring",
            Self::Finished => "finished",
        }
    }
}

impl std::str::FromStr for Course {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|course| course.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no course of a batch"))
    }
}

/// Why a batch is paused, or was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    Operator {
        by: String,
    },
    /// Too many failures, silent devices past their longest dark time among them.
    Threshold {
        failures: u64,
        decided: u64,
    },
    /// The wave ended and did not succeed often enough.
    Gate {
        wave: u32,
        success: u64,
        failures: u64,
    },
    Expired,
    /// Something failed before all operations were made; no device was told of the batch.
    Unfinished,
    /// What it had come to since the backup is forgotten: it may have stopped itself.
    Restored,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator { by } => write!(f, "by {by}"),
            Self::Threshold { failures, decided } => {
                write!(f, "the failure threshold is reached: {failures} of {decided} failed")
            }
            Self::Gate { wave: 0, success, failures } => write!(
                f,
                "the canary did not pass its gate: {success} succeeded, {failures} failed"
            ),
            Self::Gate { wave, success, failures } => write!(
                f,
                "wave {wave} did not pass its gate: {success} succeeded, {failures} failed"
            ),
            Self::Expired => f.write_str("its time is over"),
            Self::Unfinished => f.write_str("it could not be made to its end"),
            Self::Restored => f.write_str("restored from a backup"),
        }
    }
}

/// Failures that an operator has seen and accepted by resuming: they count no more. Those that were
/// overdue then are told apart ([`Silence::forgiven`]): whoever of them comes back well is no credit for
/// others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgiven {
    /// Of those that have ended.
    pub failures: u64,
    /// With the successes of that time.
    pub decided: u64,
    /// The wave whose gate is taken as passed.
    pub wave: Option<u32>,
}

impl Forgiven {
    /// Whether the gate of wave `n` is taken as passed.
    pub fn has_wave(&self, n: u32) -> bool {
        self.wave.is_some_and(|forgiven| forgiven >= n)
    }
}

/// One batch, without its operations.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub id: BatchId,
    pub organization: OrganizationId,
    pub organization_slug: OrganizationSlug,
    /// None once the build was deleted.
    pub build: Option<BuildId>,
    /// As asked for, where they were.
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    pub upgrade_options: Map<String, Value>,
    pub strategy: Strategy,
    pub retry_of: Option<BatchId>,
    pub course: Course,
    pub reason: Option<Reason>,
    /// Unix milliseconds, as the other times.
    pub start_at: Option<u64>,
    pub expires_at: u64,
    /// The newest wave that was opened.
    pub wave: Option<u32>,
    pub forgiven: Forgiven,
    /// Of all its operations.
    pub counts: Counts,
    /// In an attempt's hands.
    pub granted: u64,
    /// Members that are no operations yet: each is to take the place of an older one.
    pub takeovers: u64,
    /// Modems that were chosen for it, and are no members.
    pub left_out: u64,
    pub created: u64,
    pub modified: u64,
    pub finished_at: Option<u64>,
}

impl Batch {
    /// Of all its members: who is no operation yet waits as the idle ones do.
    pub fn members(&self) -> Counts {
        Counts { idle: self.counts.idle + self.takeovers, ..self.counts }
    }

    /// Every operation has ended, and so has the batch, whether that was written down or not.
    pub fn has_ended(&self) -> bool {
        match self.course {
            Course::Finished => true,
            Course::Preparing => false,
            Course::Open | Course::Paused | Course::Cancelling | Course::Expiring => {
                self.counts.undecided() == 0 && self.takeovers == 0
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
