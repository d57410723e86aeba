//! Drives one upgrade: save, report, act, apply, again. A fresh upgrade and one found in the
//! journal take the same path.
//!
//! ```text
//! ┌► save (if a restart would otherwise do something else)
//! │  report (milestones into the outbox)
//! │  act    (raced with "no longer wanted" while the state is cancellable)
//! └─ apply
//! ```

use crate::{
    environment::Environment,
    random,
    upgrade::{
        journal::Journal,
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
use tokio::sync::watch;

/// The longest pause a coordinator may ask for.
const LONGEST_PAUSE_S: u64 = 24 * 3600;

/// Drives `state` to its end, from wherever it is. Returns the finished state.
///
/// Cancelling the future (a shutdown) loses nothing: the journal says what is pending, and a
/// running tool belongs to its guardian.
pub async fn drive(mut state: State, journal: &mut Journal, env: &mut Environment) -> State {
    let policy = env.policy.clone();
    let mut saved: Option<State> = None;
    loop {
        let written = save(&state, &mut saved, journal, env);
        let Some(action) = state.action() else { return state };
        let outcome = match written.err().and_then(|error| unwritten(&state, &error)) {
            None => step(Some(action), &state, &policy, env).await,
            Some(outcome @ Outcome::NotStarted(_)) => outcome,
            Some(outcome) => match step(None, &state, &policy, env).await {
                Outcome::Cancelled => Outcome::Cancelled,
                _ => outcome,
            },
        };
        if let Outcome::Again { reason } = &outcome {
            log::info!("{}: {reason}; again later", state.phase());
        }
        let before = state.clone();
        state = state.apply(outcome.clone(), &policy);
        report::transition(&before, &outcome, &state, env);
    }
}

fn save(
    state: &State,
    saved: &mut Option<State>,
    journal: &mut Journal,
    env: &Environment,
) -> io::Result<()> {
    if saved.as_ref().is_some_and(|saved| !state.differs_after_restart(saved)) {
        return Ok(());
    }
    let written = journal.save(state);
    if written.is_ok() {
        *saved = Some(state.clone());
    }
    let trouble = written.as_ref().err().map(|e| format!("the journal cannot be written: {e}"));
    env.status.update(|status| status.storage_trouble = trouble);
    written
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

/// The outcome of the action, or of waiting alone, unless the job is withdrawn meanwhile.
async fn step(
    action: Option<Action>,
    state: &State,
    policy: &Policy,
    env: &mut Environment,
) -> Outcome {
    let desired = env.uplink.desired();
    let act = async {
        match action {
            Some(action) => {
                pause(state, policy, env).await;
                env.perform(action, state).await
            }
            None => {
                tokio::time::sleep(jittered(policy.again(state.tries + 1))).await;
                Outcome::Paused
            }
        }
    };
    if !state.is_cancellable() {
        return act.await;
    }
    tokio::select! {
        biased;
        () = withdrawn(desired, state.record.job.operation) => Outcome::Cancelled,
        outcome = act => outcome,
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

/// Before the same action is tried again.
async fn pause(state: &State, policy: &Policy, env: &Environment) {
    let mut seconds = 0;
    if state.tries > 0 {
        seconds = policy.again(state.tries);
    }
    if state.refusals > 0 && matches!(state.step, Step::Waiting { .. }) {
        let asked = env.retry_after_s.unwrap_or(0).min(LONGEST_PAUSE_S);
        seconds = seconds.max(policy.again(state.refusals)).max(asked);
    }
    if seconds > 0 {
        tokio::time::sleep(jittered(seconds)).await;
    }
}

/// Three quarters to five quarters of `seconds`, so that a fleet does not come back as one.
fn jittered(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(0.75 + random::share() / 2.0)
}
