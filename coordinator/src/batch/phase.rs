//! What a batch is doing, for people: finer than its status.

use serde::{Deserialize, Serialize};

use super::decide::{Decision, decide};
use super::tally::Tally;
use super::{Batch, Course};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its operations are being made.
    Preparing,
    /// Its start time has not come.
    Scheduled,
    /// Nothing can be opened: nobody is there to show whether the build is good.
    Waiting,
    /// The first wave is under way.
    Canary,
    /// A later wave is under way.
    Wave,
    /// The wave is over, and the next one opens after a while.
    Soaking,
    /// No grants.
    Paused,
    /// Taken back or expired; what was granted finishes.
    Cancelling,
    Finished,
}

/// The phase at `now` (unix milliseconds).
pub fn phase(batch: &Batch, tally: &Tally, now: u64) -> Phase {
    match batch.course {
        Course::Preparing => Phase::Preparing,
        // Whether that was written down or not.
        _ if tally.all.undecided() == 0 && batch.takeovers == 0 => Phase::Finished,
        Course::Paused => Phase::Paused,
        Course::Cancelling | Course::Expiring => Phase::Cancelling,
        Course::Finished => Phase::Finished,
        Course::Open if batch.takeovers > 0 => Phase::Preparing,
        Course::Open if batch.start_at.is_some_and(|start| now < start) => Phase::Scheduled,
        Course::Open => open(batch, tally, now),
    }
}

fn open(batch: &Batch, tally: &Tally, now: u64) -> Phase {
    let Some(wave) = &tally.wave else { return Phase::Waiting };
    if wave.counts.undecided() > 0 || tally.pool == 0 {
        return if wave.n == 0 { Phase::Canary } else { Phase::Wave };
    }
    let soaks = matches!(decide(batch, tally, now), Decision::Wait { until: Some(_) });
    if soaks { Phase::Soaking } else { Phase::Waiting }
}
