//! Drives one upgrade: save, report, act, apply, again. A fresh upgrade and one found in the
//! journal take the same path.
//!
//! ```text
//! ┌► save  (if a restart would otherwise do something else)
//! │  rest  (before the same action is tried again; a long rest ends the turn)
//! │  act   (raced with "no longer wanted" while the state is cancellable)
//! │  apply
//! └─ report (milestones into the outbox)
//! ```

use crate::{
    environment::Environment,
    random,
    upgrade::{
        journal::Journal,
        perform::{release_word, take_release_word},
        policy::Policy,
        report,
        state::{Action, Outcome, Run, State, Step},
    },
};
use shared::{
    desired::Desired,
    failure::{Failure, FailureKind},
    ids::OperationId,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// The longest pause a coordinator may ask for.
const LONGEST_PAUSE_S: u64 = 24 * 3600;

/// An upgrade under way, and the journal that remembers it.
#[derive(Debug)]
pub struct Upgrade {
    pub state: State,
    journal: Journal,
    /// What the journal holds, as far as this process knows.
    saved: Option<State>,
    /// The turn was given up in this rest, which is over when it is driven again.
    parked: bool,
    /// It was said that the work goes on in memory.
    told_unwritten: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stint {
    /// The upgrade is over; its state says how.
    Ended,
    /// It rests until then, and others may go on; `None`: until a person says "go on".
    Parked(Option<Instant>),
}

/// What came of a rest.
enum Rest {
    Over,
    Withdrawn,
    Parked(Option<Instant>),
}

impl Upgrade {
    /// `state`: new, or as a fresh process resumes it.
    #[must_use]
    pub fn new(state: State, journal: Journal) -> Self {
        Self { state, journal, saved: None, parked: false, told_unwritten: false }
    }

    #[must_use]
    pub fn into_parts(self) -> (State, Journal) {
        (self.state, self.journal)
    }

    /// Drives the upgrade from wherever it is to its end, or to a rest so long that others should
    /// have their turn. Driven again, it takes that rest for over.
    ///
    /// Cancelling the future (a shutdown) loses nothing: the journal says what is pending, and a
    /// running tool belongs to its guardian.
    pub async fn drive(&mut self, env: &mut Environment) -> Stint {
        let policy = env.policy.clone();
        let mut rested = std::mem::take(&mut self.parked);
        loop {
            let written = self.save(env);
            crate::failpoint::at!("driver.{}.before", self.state.phase());
            let Some(action) = self.state.action() else { return Stint::Ended };
            let outcome = match self.rest(action, rested, &policy, env).await {
                Rest::Over => self.act(action, written, env).await,
                Rest::Withdrawn => Outcome::Cancelled,
                Rest::Parked(until) => {
                    self.parked = true;
                    return Stint::Parked(until);
                }
            };
            rested = false;
            if let Outcome::Again { reason } = &outcome {
                log::info!("{}: {reason}; again later", self.state.phase());
            }
            crate::failpoint::at!("driver.{}.acted", self.state.phase());
            let before = self.state.clone();
            self.state = before.clone().apply(outcome.clone(), &policy);
            report::transition(&before, &outcome, &self.state, env);
            crate::failpoint::at!("driver.{}.reported", before.phase());
        }
    }

    fn save(&mut self, env: &Environment) -> io::Result<()> {
        let (state, saved) = (&self.state, &self.saved);
        if saved.as_ref().is_some_and(|saved| !state.differs_after_restart(saved)) {
            return Ok(());
        }
        let written = self.journal.save(state);
        if written.is_ok() {
            self.saved = Some(state.clone());
        }
        let trouble = written.as_ref().err().map(|e| format!("the journal cannot be written: {e}"));
        env.status.update(|status| status.storage_trouble = trouble);
        written
    }

    async fn rest(
        &self,
        action: Action,
        rested: bool,
        policy: &Policy,
        env: &mut Environment,
    ) -> Rest {
        if action == Action::AwaitRelease {
            return await_release(rested, env);
        }
        let asked = env.retry_after_s.unwrap_or(0).min(LONGEST_PAUSE_S);
        let opens =
            env.opens_in_s.take().filter(|_| matches!(self.state.step, Step::Waiting { .. }));
        let seconds = opens.unwrap_or_else(|| policy.rest(&self.state, asked));
        if rested || seconds == 0 {
            return Rest::Over;
        }
        let rest = opens.map_or_else(|| jittered(seconds), Duration::from_secs);
        if seconds > policy.longest_stay_s && !self.state.keeps_its_turn() {
            env.park(policy.is_slow(&self.state)).await;
            return Rest::Parked(Some(Instant::now() + rest));
        }
        let sleep = tokio::time::sleep(rest);
        match unless_withdrawn(&self.state, env.uplink.desired(), sleep).await {
            Some(()) => Rest::Over,
            None => Rest::Withdrawn,
        }
    }

    /// The action's outcome, if the state is written down: at the latest now.
    async fn act(
        &mut self,
        action: Action,
        written: io::Result<()>,
        env: &mut Environment,
    ) -> Outcome {
        if let Err(error) = written.or_else(|_| self.save(env)) {
            if let Some(outcome) = unwritten(&self.state, &error) {
                return outcome;
            }
            if !std::mem::replace(&mut self.told_unwritten, true) {
                report::unwritten(&self.state, &error, env);
            }
        }
        let desired = env.uplink.desired();
        let acted = unless_withdrawn(&self.state, desired, env.perform(action, &self.state)).await;
        acted.unwrap_or(Outcome::Cancelled)
    }
}

/// Held: not the sleep but a person ends it.
fn await_release(rested: bool, env: &Environment) -> Rest {
    let (run_dir, slot) = (&env.settings.paths.run_dir, env.slot.slot.as_str());
    if !rested {
        // A word from before was about something else.
        let _ = std::fs::remove_file(release_word(run_dir, slot));
        Rest::Parked(None)
    } else if take_release_word(run_dir, slot) {
        Rest::Over
    } else {
        Rest::Parked(None)
    }
}

/// What comes of a state that cannot be written down, instead of its action. Before the point of
/// no return: wait. With a grant and the tool not started: not to start it. Behind that the work
/// goes on in memory, for a tool has run and stopping would help nobody.
fn unwritten(state: &State, error: &io::Error) -> Option<Outcome> {
    log::error!("the journal cannot be written: {error}");
    let reason = format!("the journal cannot be written: {error}");
    match state.step {
        Step::Preparing | Step::Installing { run: Run::Start } => {
            let kind = FailureKind::ToolNotStarted;
            Some(Outcome::NotStarted(Failure::untouched(state.phase(), kind, reason)))
        }
        _ if state.record.holding => None,
        _ => Some(Outcome::Again { reason }),
    }
}

/// What `work` comes to; `None`: the job was withdrawn first, and the state may simply be dropped.
async fn unless_withdrawn<T>(
    state: &State,
    desired: watch::Receiver<Option<Arc<Desired>>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    if !state.is_cancellable() {
        return Some(work.await);
    }
    tokio::select! {
        biased;
        () = withdrawn(desired, state.record.job.operation) => None,
        done = work => Some(done),
    }
}

/// Ends when the coordinator has answered without `operation` among the jobs. Without any answer
/// the last word counts, and that was to do it.
async fn withdrawn(mut desired: watch::Receiver<Option<Arc<Desired>>>, operation: OperationId) {
    let gone = |desired: &Option<Arc<Desired>>| {
        desired.as_ref().is_some_and(|d| d.jobs.iter().all(|job| job.operation != operation))
    };
    if desired.wait_for(gone).await.is_err() {
        // The uplink ends only with the agent.
        std::future::pending::<()>().await;
    }
}

/// Three quarters to five quarters of `seconds`, so that a fleet does not come back as one.
fn jittered(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(0.75 + random::share() / 2.0)
}
