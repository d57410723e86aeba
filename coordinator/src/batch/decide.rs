//! The planner: what is to be done with a batch next. The same question gets the same answer.
//!
//! A wave opens on evidence only: every member of the one before has ended, enough of them with the
//! versions read back, and it has soaked. Who is in nobody's hands and holds the wave up goes to the
//! tail; whoever may be being flashed is waited for.

use super::strategy::Then;
use super::tally::{Tally, Wave};
use super::{Batch, Course, Reason};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing before something changes, or this time comes (unix milliseconds).
    Wait {
        until: Option<u64>,
    },
    /// Take so many members that are there and were in no wave yet.
    Open {
        wave: u32,
        members: u64,
    },
    /// Take everybody who is left.
    OpenTail {
        wave: u32,
    },
    /// Take so many more members into the newest wave: it has shown too little.
    Draft {
        wave: u32,
        members: u64,
    },
    /// Put those back into the pool, to the end of it.
    Defer {
        wave: u32,
        whom: Whom,
    },
    Pause(Reason),
    Abort(Reason),
    /// Its time is over.
    Expire,
    /// End what is in nobody's hands.
    Withdraw,
    Finish,
}

/// Who holds a wave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Not granted, and not heard of for long.
    Offline,
    /// Not granted, in a wave that has its evidence and in which nothing has happened for long.
    Stragglers,
}

const NOTHING: Decision = Decision::Wait { until: None };

/// Decides.
pub fn decide(batch: &Batch, tally: &Tally, now: u64) -> Decision {
    match batch.course {
        Course::Preparing | Course::Finished => return NOTHING,
        Course::Open | Course::Paused | Course::Cancelling | Course::Expiring => {}
    }
    if tally.all.undecided() == 0 {
        return Decision::Finish;
    }
    match batch.course {
        Course::Cancelling | Course::Expiring => withdraw(tally),
        _ if now >= batch.expires_at => Decision::Expire,
        Course::Paused => Decision::Wait { until: Some(batch.expires_at) },
        Course::Open | Course::Preparing | Course::Finished => roll_out(batch, tally, now),
    }
}

fn withdraw(tally: &Tally) -> Decision {
    if tally.all.undecided() > tally.silence.granted { Decision::Withdraw } else { NOTHING }
}

fn roll_out(batch: &Batch, tally: &Tally, now: u64) -> Decision {
    if let Some(start) = batch.start_at.filter(|start| now < *start) {
        return Decision::Wait { until: Some(start) };
    }
    let tripped = batch.strategy.tripped(&tally.all, tally.silence.overdue, &batch.forgiven);
    if let Some(reason) = tripped {
        return stop(batch, reason);
    }
    let Some(wave) = tally.wave else {
        return take(tally, 0, batch.strategy.size(0));
    };
    if tally.pool == 0 {
        // The last wave holds nobody up.
        return NOTHING;
    }
    if wave.counts.undecided() > 0 {
        return unsettled(batch, tally, &wave, now);
    }
    settled(batch, tally, &wave, now)
}

fn stop(batch: &Batch, reason: Reason) -> Decision {
    match batch.strategy.failure_threshold.then {
        Then::Pause => Decision::Pause(reason),
        Then::Abort => Decision::Abort(reason),
    }
}

/// The canary: only who is there now.
fn take(tally: &Tally, wave: u32, members: u64) -> Decision {
    if tally.present == 0 {
        return NOTHING;
    }
    Decision::Open { wave, members: members.min(tally.present) }
}

fn unsettled(batch: &Batch, tally: &Tally, wave: &Wave, now: u64) -> Decision {
    if tally.offline > 0 {
        return Decision::Defer { wave: wave.n, whom: Whom::Offline };
    }
    let strategy = &batch.strategy;
    if tally.silence.granted > 0 || strategy.passes(&wave.counts) != Some(true) {
        return NOTHING;
    }
    let quiet_since = wave.last_result.unwrap_or(wave.opened_at);
    let quiet_enough = quiet_since.saturating_add(strategy.offline_after_ms());
    if now < quiet_enough {
        return Decision::Wait { until: Some(quiet_enough) };
    }
    Decision::Defer { wave: wave.n, whom: Whom::Stragglers }
}

fn settled(batch: &Batch, tally: &Tally, wave: &Wave, now: u64) -> Decision {
    let strategy = &batch.strategy;
    let forgiven = batch.forgiven.wave.is_some_and(|forgiven| forgiven >= wave.n);
    match strategy.passes(&wave.counts) {
        Some(true) => {}
        _ if forgiven => {}
        Some(false) => {
            let counts = &wave.counts;
            let (success, failures) = (counts.success, counts.charged);
            return stop(batch, Reason::Gate { wave: wave.n, success, failures });
        }
        None => {
            let proved = wave.counts.success.saturating_sub(wave.counts.unproved);
            let missing = u64::from(strategy.gate.minimum).saturating_sub(proved);
            let members = missing.min(tally.present);
            return if members == 0 { NOTHING } else { Decision::Draft { wave: wave.n, members } };
        }
    }
    if tally.silence.suspect + tally.silence.overdue + tally.silence.granted > 0 {
        return NOTHING;
    }
    let soaked = wave.last_result.unwrap_or(wave.opened_at);
    let soaked = soaked.saturating_add(strategy.gate.soak_s.saturating_mul(1000));
    if now < soaked {
        return Decision::Wait { until: Some(soaked) };
    }
    let next = wave.n.saturating_add(1);
    match tally.ready {
        0 => Decision::OpenTail { wave: next },
        ready => Decision::Open { wave: next, members: strategy.size(next).min(ready) },
    }
}
