//! Which transitions are milestones, and what they say.

use crate::{
    environment::Environment,
    upgrade::{
        results::{Ended, Installed},
        state::{Next, Outcome, State, Step},
    },
};
use shared::{
    event::{EventBody, Outcome as Ending},
    stages::Phase,
};

/// Puts what a transition means to others into the outbox.
pub fn transition(before: &State, outcome: &Outcome, after: &State, env: &mut Environment) {
    if let Outcome::Granted = outcome {
        env.report(after, EventBody::Granted);
    }
    match (outcome, &after.step) {
        (Outcome::Again { reason }, Step::Waiting { .. }) => postponed(after, reason, env),
        (Outcome::Refused(refusal), Step::Waiting { .. }) => {
            env.retry_after_s = refusal.retry_after_s;
            postponed(after, &refusal.detail, env);
        }
        (_, Step::Releasing { next: Next::Backoff { delay_s } }) if entered(before, after) => {
            retrying(after, *delay_s, env);
        }
        (_, Step::Recovering { tries, .. }) if entered(before, after) => {
            let detail = "the modem is in download mode".to_owned();
            env.report(after, EventBody::Recovering { tries: *tries, detail });
        }
        (_, Step::Held { reason }) => {
            env.report(after, EventBody::Held { reason: reason.clone() });
        }
        (_, Step::Finished(ending)) => finished(after, ending.clone(), env),
        _ => {}
    }
    let phase = after.phase();
    let silent = matches!(phase, Phase::Finished | Phase::Held | Phase::Recovering);
    if before.phase() != phase && !silent {
        env.report(after, EventBody::Entered { phase });
    }
    let reason = if let Outcome::Again { reason } = outcome { Some(reason.clone()) } else { None };
    env.tick(after, 0, reason, false);
}

fn entered(before: &State, after: &State) -> bool {
    before.step != after.step
}

/// A closed gate is said once, not at every look.
fn postponed(state: &State, reason: &str, env: &mut Environment) {
    if env.last_reason.as_deref() != Some(reason) {
        env.last_reason = Some(reason.to_owned());
        let reason = shared::limits::cut(reason.to_owned());
        env.report(state, EventBody::Postponed { reason });
    }
}

fn retrying(state: &State, delay_s: u64, env: &mut Environment) {
    if let Some(failure) = state.record.last_failure.clone() {
        env.report(state, EventBody::Retrying { failure, delay_s });
    }
}

/// The result is remembered and in the outbox before the journal says that it is over: a crash in
/// between says it again, which changes nothing.
fn finished(state: &State, ending: Ending, env: &mut Environment) {
    let installed = match (&ending, env.manifest()) {
        (Ending::Succeeded { .. } | Ending::AlreadyInstalled { .. }, Some(manifest)) => {
            state.record.before.as_ref().map(|before| Installed {
                vendor: manifest.vendor.clone(),
                model: before.model.clone(),
                sequence: manifest.sequence,
            })
        }
        _ => None,
    };
    let ended = Ended {
        operation: state.record.job.operation,
        slot: state.record.job.slot.clone(),
        stream: state.record.stream,
        attempt: state.record.starts,
        outcome: ending.clone(),
        at: env.clock_ms(),
        flashed: state.record.starts,
    };
    if let Err(error) = env.results.add(ended, installed) {
        log::error!("the result cannot be kept: {error}");
    }
    env.report(state, EventBody::Finished { outcome: ending });
}
