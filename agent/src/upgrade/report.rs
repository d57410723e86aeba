//! Which transitions are milestones, and what they say.

use crate::{
    environment::Environment,
    upgrade::{
        results::{Ended, Installed},
        state::{Gates, Next, Outcome, State, Step},
    },
};
use shared::{
    event::{EventBody, Outcome as Ending},
    failure::ModemCondition,
    stages::Phase,
};

/// Puts what a transition means to others into the outbox.
pub fn transition(before: &State, outcome: &Outcome, after: &State, env: &mut Environment) {
    if let Outcome::Granted = outcome {
        env.report(after, EventBody::Granted);
    }
    match (outcome, &after.step) {
        (Outcome::Refused(refusal), Step::Waiting { .. }) => {
            env.retry_after_s = refusal.retry_after_s;
            postponed(after, &refusal.detail, env);
        }
        // Without a network a report would not arrive, and each costs a write.
        (Outcome::Again { .. }, Step::Downloading | Step::Committing) => {}
        (Outcome::Again { reason } | Outcome::Vanished { reason }, _)
            if !entered(before, after) =>
        {
            postponed(after, reason, env);
        }
        (_, Step::Releasing { next: Next::Backoff { delay_s } }) if entered(before, after) => {
            retrying(after, *delay_s, env);
        }
        (_, Step::Recovering { tries, .. } | Step::RecoveryPause { tries, .. })
            if entered(before, after) =>
        {
            recovering(outcome, after, *tries, env);
        }
        (Outcome::GatesClosed, Step::Waiting { gates: Gates::Commit })
            if after.record.returned > before.record.returned =>
        {
            handed_back(after, env);
        }
        (_, Step::Held { reason }) if entered(before, after) => {
            env.report(after, EventBody::Held { reason: reason.clone() });
        }
        (_, Step::Finished(ending)) => finished(after, ending.clone(), env),
        _ => {}
    }
    if let (Step::Releasing { next }, Outcome::Again { reason }) = (&before.step, outcome)
        && after.step != before.step
    {
        log::error!("not everything was given back before {next:?}: {reason}");
    }
    let waits_for = match &after.step {
        Step::Postponed { reason, .. } if entered(before, after) => Some(reason),
        _ => None,
    };
    let phase = after.phase();
    let asks_again = before.refusals > 0
        && matches!(phase, Phase::Waiting | Phase::Baselining | Phase::Committing);
    let silent = asks_again || matches!(phase, Phase::Finished | Phase::Held | Phase::Recovering);
    if before.phase() != phase && !silent {
        env.report(after, EventBody::Entered { phase });
    }
    if let Some(reason) = waits_for {
        // The last word on this attempt, whose number it bears.
        let returned = after.record.returned;
        env.report(before, EventBody::Returned { reason: reason.clone(), returned });
    }
    let reason = if let Outcome::Again { reason } = outcome { Some(reason) } else { waits_for };
    env.tick(after, 0, reason.cloned(), false);
}

/// A grant that may have been given to a request whose answer never came is not used: the operator may
/// have changed their mind by the time the gates open again.
pub fn handed_back(after: &State, env: &Environment) {
    let mut asked = after.clone();
    asked.record.attempts = after.next_attempt();
    let reason = "no answer came before the gates closed or the agent was restarted".to_owned();
    env.report(&asked, EventBody::Returned { reason, returned: after.record.returned });
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

/// The work goes on in memory: with the next power cut it would go on from what is on disk.
pub fn unwritten(state: &State, error: &std::io::Error, env: &Environment) {
    let reason = format!("the journal cannot be written ({error}); the upgrade goes on in memory");
    env.report(state, EventBody::Postponed { reason: shared::limits::cut(reason) });
}

fn retrying(state: &State, delay_s: u64, env: &mut Environment) {
    if let Some(failure) = state.record.last_failure.clone() {
        env.report(state, EventBody::Retrying { failure, delay_s });
    }
}

/// Each try of a recovery says why it is needed again.
fn recovering(outcome: &Outcome, state: &State, tries: u32, env: &mut Environment) {
    let detail = match (outcome, &state.record.last_failure) {
        (Outcome::NotStarted(failure) | Outcome::Failed(failure), _) => failure.detail.clone(),
        (Outcome::Probed(sighting), _) => format!("the modem is seen as {sighting:?}"),
        (_, Some(failure)) => failure.detail.clone(),
        (_, None) => "the modem is in download mode".to_owned(),
    };
    if env.last_reason.as_deref() != Some(detail.as_str()) || tries == 1 {
        env.last_reason = Some(detail.clone());
        let detail = shared::limits::cut(detail);
        env.report(state, EventBody::Recovering { tries, detail });
    }
}

/// The result is remembered and in the outbox before the journal says that it is over: a crash in
/// between says it again, which changes nothing.
fn finished(state: &State, ending: Ending, env: &mut Environment) {
    let runs = match &ending {
        Ending::Succeeded { .. } | Ending::AlreadyInstalled { .. } => true,
        Ending::Failed { failure } => failure.condition == ModemCondition::Updated,
        Ending::Cancelled | Ending::Unknown => false,
    };
    let installed = state.record.target.as_ref().filter(|_| runs).map(|target| Installed {
        vendor: target.vendor.clone(),
        model: target.model.clone(),
        sequence: target.sequence,
    });
    let ended = Ended {
        operation: state.record.job.operation,
        slot: state.record.job.slot.clone(),
        stream: state.record.stream,
        attempt: state.record.attempts,
        outcome: ending.clone(),
        at: env.clock_ms(),
    };
    crate::failpoint::at!("results.before");
    if let Err(error) = env.results.add(ended, installed) {
        log::error!("the result cannot be kept: {error}");
    }
    crate::failpoint::at!("results.added");
    env.report(state, EventBody::Finished { outcome: ending });
}
