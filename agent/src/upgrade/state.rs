//! The states of one upgrade and the transitions between them. Pure: no clock, no disk, no tokio.
//!
//! A journaled state names exactly one pending [`Action`]; its [`Outcome`] gives the next state.
//!
//! ```text
//! Inspecting → Waiting → Downloading → Verifying → Waiting → Baselining → Committing ══ grant
//!     ▲                                                                        │
//!     │                                             Preparing → Installing{n} ─┤
//!     │                                                 │            │         ▼
//!  Backoff ◄──────────────── Releasing ◄────────────────┴──────── Probing ◄── Recovering
//!  Postponed                   │  ▲                                 │  └───────▲  │
//!                              │  └── Confirming ◄─ Restoring ◄────────┘         Held
//!                              ▼
//!                           Finished
//! ```
//!
//! - Up to `Committing` nothing touches the modem; a fresh process starts over at `Inspecting`, and
//!   what is staged is not fetched twice.
//! - `Committing` asks for the grant of attempt `attempts + 1` until it has an answer. It cannot be
//!   cancelled locally: the answer may be under way, and only the coordinator knows.
//! - From `Preparing` on, something may be held: every way out leads through `Releasing`.
//! - `Preparing` and `Installing` are journaled before anything is done, so a lost attempt counts. A fresh process
//!   only ever attaches to it.
//! - `Preparing` ends with the modem's own word: ModemManager, while it had the modem, knew less. The tool
//!   starts once that is journaled, and not at all if the modem is not as it should be.
//! - What it tells may be a closed gate: everything is given back, the grant as well, and `Postponed` is
//!   like the waiting before it. The attempt does not count and is asked for anew.
//! - `Probing` looks at the modem and decides; the tool's word only says whether the old version is a
//!   failure worth another attempt or a lie.
//! - `Recovering` has a budget of its own: it becomes slow and never gives up.
//! - `Releasing` runs the router's post-flash hooks once, if a tool may have been started, and then
//!   gives back what is held.

#![deny(clippy::wildcard_enum_match_arm)]

mod kinds;
mod table;

pub use kinds::{
    Action, Before, Gates, Next, Outcome, Record, Run, Sighting, Step, Target, ToolEnd,
};

use crate::upgrade::policy::Policy;
use serde::{Deserialize, Serialize};
use shared::{event::Outcome as Ending, failure::ModemCondition, stages::Phase};

/// One upgrade: the pending step, and what is known so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub step: Step,
    pub record: Record,
    /// How often the step's action was tried without a result. Not journaled: a fresh process
    /// starts patient again, and waiting costs no flash writes.
    #[serde(skip)]
    pub tries: u32,
    /// How often the coordinator said "not now" to this attempt. Not journaled.
    #[serde(skip)]
    pub refusals: u32,
    /// How often what was staged was not what had been written, in a row. Not journaled.
    #[serde(skip)]
    pub lost: u32,
}

impl State {
    /// A new upgrade, nothing known yet.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { step: Step::Inspecting, record, tries: 0, refusals: 0, lost: 0 }
    }

    /// The one pending action; none when finished.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        Some(match &self.step {
            Step::Inspecting => Action::Inspect,
            Step::Waiting { gates } => Action::CheckGates(*gates),
            Step::Downloading => Action::Download,
            Step::Verifying => Action::Verify,
            Step::Baselining => Action::Baseline,
            Step::Committing => Action::RequestGrant { attempt: self.next_attempt() },
            Step::Preparing => Action::Prepare,
            Step::Installing { run: Run::Start } => Action::Install,
            Step::Installing { run: Run::Attach } => Action::Attach,
            Step::Probing { .. } => Action::Probe,
            Step::Restoring => Action::Restore,
            Step::Confirming => Action::Confirm,
            Step::Releasing { .. } if self.record.post_flash_due => Action::PostFlash,
            Step::Releasing { .. } => Action::Release,
            Step::Backoff { delay_s } | Step::Postponed { delay_s, .. } => {
                Action::Pause { seconds: *delay_s }
            }
            Step::RecoveryPause { delay_s, .. } => Action::Pause { seconds: *delay_s },
            Step::Recovering { run: Run::Start, .. } => Action::Recover,
            Step::Recovering { run: Run::Attach, .. } => Action::Attach,
            Step::Held { .. } => Action::AwaitRelease,
            Step::Finished(_) => return None,
        })
    }

    /// The state after the pending action's outcome: the whole transition table.
    #[must_use]
    pub fn apply(self, outcome: Outcome, policy: &Policy) -> Self {
        table::apply(self, outcome, policy)
    }

    /// What a journaled state means to a fresh process.
    #[must_use]
    pub fn resume(mut self) -> Self {
        self.tries = 0;
        self.refusals = 0;
        self.lost = 0;
        // What was asked for may have been granted, and stands for as long as nobody hands it back.
        self.record.returned += u32::from(self.step == Step::Committing);
        self.step = match self.step {
            Step::Inspecting
            | Step::Waiting { .. }
            | Step::Downloading
            | Step::Verifying
            | Step::Baselining
            | Step::Committing => {
                // Inspecting finds it anew, and the last look before a first grant is yet to come.
                self.record.target = None;
                if self.record.attempts == 0 {
                    self.record.before = None;
                }
                Step::Inspecting
            }
            // Whether the tool was reached or not, the attempt is lost and its grant used up: an
            // order of last week must not flash today.
            Step::Preparing | Step::Installing { .. } => Step::Installing { run: Run::Attach },
            Step::Recovering { tries, .. } => Step::Recovering { tries, run: Run::Attach },
            step @ (Step::Probing { .. }
            | Step::Restoring
            | Step::Confirming
            | Step::Releasing { .. }
            | Step::Backoff { .. }
            | Step::Postponed { .. }
            | Step::RecoveryPause { .. }
            | Step::Held { .. }
            | Step::Finished(_)) => step,
        };
        self
    }

    /// How often a flashed modem is asked whether it is back in its network, and how often it is restored: there
    /// each setting that restarts it is a look of its own.
    fn acceptances(&self, policy: &Policy) -> u32 {
        let network_s = self.record.target.as_ref().and_then(|target| target.network_s);
        policy.acceptances(network_s.filter(|_| self.step == Step::Confirming))
    }

    /// Whether the journal must be written before going on from `saved`: only when a fresh process
    /// would do something else than it would now. Waiting and retrying cost no flash writes.
    #[must_use]
    pub fn differs_after_restart(&self, saved: &Self) -> bool {
        // Nothing was granted, so nobody has what a fresh process hands back for it: as long as the batch is
        // paused, or full.
        if self.refusals > 0 && saved.step == Step::Committing && self.is_cancellable() {
            return false;
        }
        self.clone().resume() != saved.clone().resume()
    }

    /// Whether a job that is no longer wanted may simply be dropped here. From the request for the
    /// grant on, it may not.
    #[must_use]
    pub fn is_cancellable(&self) -> bool {
        match self.step {
            Step::Inspecting
            | Step::Waiting { .. }
            | Step::Downloading
            | Step::Verifying
            | Step::Baselining
            | Step::Backoff { .. }
            | Step::Postponed { .. } => true,
            Step::Committing
            | Step::Preparing
            | Step::Installing { .. }
            | Step::Probing { .. }
            | Step::Restoring
            | Step::Confirming
            | Step::Releasing { .. }
            | Step::RecoveryPause { .. }
            | Step::Recovering { .. }
            | Step::Held { .. }
            | Step::Finished(_) => false,
        }
    }

    /// Whether the modem may have been touched and not been looked after since: it comes before all
    /// that only waits.
    #[must_use]
    pub fn has_touched(&self) -> bool {
        match self.step {
            Step::Preparing
            | Step::Installing { .. }
            | Step::Probing { .. }
            | Step::Restoring
            | Step::Confirming
            | Step::Releasing { .. }
            | Step::RecoveryPause { .. }
            | Step::Recovering { .. }
            | Step::Held { .. } => true,
            Step::Inspecting
            | Step::Waiting { .. }
            | Step::Downloading
            | Step::Verifying
            | Step::Baselining
            | Step::Backoff { .. }
            | Step::Postponed { .. }
            | Step::Committing
            | Step::Finished(_) => false,
        }
    }

    /// Whether an agent has to go on with it, whatever the settings have become: the modem may have been touched, or
    /// what was asked for may have been granted, which whoever asked has to hand back.
    #[must_use]
    pub fn must_go_on(&self) -> bool {
        self.has_touched() || self.step == Step::Committing
    }

    /// Whether the router's other modems wait even through a long rest: the end is near, the tries
    /// are counted, and what is held would be given back under another's tool.
    #[must_use]
    pub fn keeps_its_turn(&self) -> bool {
        match self.step {
            Step::Preparing
            | Step::Installing { .. }
            | Step::Restoring
            | Step::Confirming
            | Step::Releasing { .. } => true,
            Step::Inspecting
            | Step::Waiting { .. }
            | Step::Downloading
            | Step::Verifying
            | Step::Baselining
            | Step::Backoff { .. }
            | Step::Postponed { .. }
            | Step::Committing
            | Step::Probing { .. }
            | Step::RecoveryPause { .. }
            | Step::Recovering { .. }
            | Step::Held { .. }
            | Step::Finished(_) => false,
        }
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        if let Step::Finished(ending) = &self.step { Some(ending) } else { None }
    }

    /// The attempt a grant is asked for: one more than were granted.
    #[must_use]
    pub fn next_attempt(&self) -> u32 {
        self.record.attempts + 1
    }

    /// Whether what is staged may still be needed: until the end, and after an end that leaves the
    /// modem in any condition but a working one.
    #[must_use]
    pub fn may_need_image(&self) -> bool {
        match self.ending() {
            None | Some(Ending::Unknown) => true,
            Some(
                Ending::Succeeded { .. } | Ending::AlreadyInstalled { .. } | Ending::Cancelled,
            ) => false,
            Some(Ending::Failed { failure }) => {
                !matches!(failure.condition, ModemCondition::Untouched | ModemCondition::OldVersion)
            }
        }
    }

    /// The phase as reported.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.step {
            Step::Inspecting => Phase::Inspecting,
            Step::Waiting { .. } | Step::Postponed { .. } => Phase::Waiting,
            Step::Downloading => Phase::Downloading,
            Step::Verifying => Phase::Verifying,
            Step::Baselining => Phase::Baselining,
            Step::Committing => Phase::Committing,
            Step::Preparing => Phase::Preparing,
            Step::Installing { .. } => Phase::Installing,
            Step::Probing { .. } => Phase::Probing,
            Step::Restoring => Phase::Restoring,
            Step::Confirming => Phase::Confirming,
            Step::Releasing { .. } => Phase::Releasing,
            Step::Backoff { .. } => Phase::Backoff,
            Step::RecoveryPause { .. } | Step::Recovering { .. } => Phase::Recovering,
            Step::Held { .. } => Phase::Held,
            Step::Finished(_) => Phase::Finished,
        }
    }
}

#[cfg(test)]
mod enumeration;
#[cfg(test)]
pub(crate) mod tests;
