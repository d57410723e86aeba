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
        state::{Action, Outcome, State, Step},
    },
};
use shared::{desired::Desired, ids::OperationId};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Drives `state` to its end, from wherever it is. Returns the finished state.
///
/// Cancelling the future (a shutdown) loses nothing: the journal says what is pending, and a
/// running tool belongs to its guardian.
pub async fn drive(mut state: State, journal: &mut Journal, env: &mut Environment) -> State {
    let policy = env.policy.clone();
    let mut saved: Option<State> = None;
    loop {
        if !save(&state, &mut saved, journal, env) {
            // Nothing was touched yet, and nothing will be until it can be written down.
            tokio::time::sleep(Duration::from_secs(policy.again(1))).await;
            continue;
        }
        let Some(action) = state.action() else { return state };
        let outcome = step(action, &state, &policy, env).await;
        if let Outcome::Again { reason } = &outcome {
            log::info!("{}: {reason}; again later", state.phase());
        }
        let before = state.clone();
        state = state.apply(outcome.clone(), &policy);
        report::transition(&before, &outcome, &state, env);
    }
}

/// Whether to go on. Before the point of no return a state that cannot be written stops it; behind
/// it the work goes on in memory, and says so.
fn save(
    state: &State,
    saved: &mut Option<State>,
    journal: &mut Journal,
    env: &mut Environment,
) -> bool {
    if saved.as_ref().is_some_and(|saved| !state.differs_after_restart(saved)) {
        return true;
    }
    match journal.save(state) {
        Ok(()) => {
            *saved = Some(state.clone());
            env.status.update(|status| status.storage_trouble = None);
            true
        }
        Err(error) => {
            log::error!("the journal cannot be written: {error}");
            env.status.update(|status| status.storage_trouble = Some(error.to_string()));
            let granted = state.record.holding || matches!(state.step, Step::Finished(_));
            // Preparing is granted but has touched nothing: it must not go on unwritten.
            granted && state.step != Step::Preparing
        }
    }
}

async fn step(action: Action, state: &State, policy: &Policy, env: &mut Environment) -> Outcome {
    let desired = env.uplink.desired();
    let act = async {
        pause(state, policy, env).await;
        env.perform(action, state).await
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
        seconds = seconds.max(policy.again(state.refusals)).max(env.retry_after_s.unwrap_or(0));
    }
    if seconds > 0 {
        tokio::time::sleep(jittered(seconds)).await;
    }
}

/// Three quarters to five quarters of `seconds`, so that a fleet does not come back as one.
fn jittered(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(0.75 + random::share() / 2.0)
}
