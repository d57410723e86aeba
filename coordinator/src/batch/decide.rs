//! The planner: what is to be done with a batch next. The same question gets the same answer.
//!
//! A wave opens on evidence only: every member of the one before has ended, enough of them with the
//! versions read back, and it has soaked. It is never larger than what was proved allows, and takes only
//! devices that are there: whoever is away keeps. Members who were never granted and hold their wave up
//! go back to the end of the pool; whoever has begun is waited for, as long as it is heard of.

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
    /// Have members take the places of older operations: the batch was launched with them.
    TakeOver,
    /// Take so many members that are there, those first who were in no wave yet.
    Open {
        wave: u32,
        members: u64,
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
    /// End those who had an attempt that failed and were not heard of since: they count as failed.
    GiveUp,
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
    /// Never granted, and not heard of for long.
    Offline,
    /// Never granted, in a wave in which nothing has happened for long: one that has its evidence without
    /// them, or one that others may bring to it.
    Stragglers,
    /// An attempt failed, and not heard of for long since: given up, not put back.
    Stalled,
}

const NOTHING: Decision = Decision::Wait { until: None };

/// A batch that takes longer to be made will not be: whoever made it has given up, and failed to say
/// so.
const MAKING_MS: u64 = 15 * 60 * 1000;

/// Decides.
pub fn decide(batch: &Batch, tally: &Tally, now: u64) -> Decision {
    match batch.course {
        Course::Preparing => return unfinished(batch, now),
        Course::Finished => return NOTHING,
        Course::Open | Course::Paused | Course::Cancelling | Course::Expiring => {}
    }
    if tally.all.undecided() == 0 && batch.takeovers == 0 {
        return Decision::Finish;
    }
    match batch.course {
        Course::Cancelling | Course::Expiring => withdraw(batch, tally),
        _ if now >= batch.expires_at => Decision::Expire,
        Course::Paused => Decision::Wait { until: Some(batch.expires_at) },
        Course::Open if batch.takeovers > 0 => Decision::TakeOver,
        Course::Open | Course::Preparing | Course::Finished => roll_out(batch, tally, now),
    }
}

fn unfinished(batch: &Batch, now: u64) -> Decision {
    let late = batch.created.saturating_add(MAKING_MS);
    if now < late {
        Decision::Wait { until: Some(late) }
    } else {
        Decision::Abort(Reason::Unfinished)
    }
}

fn withdraw(batch: &Batch, tally: &Tally) -> Decision {
    let left = batch.takeovers > 0 || tally.all.undecided() > tally.silence.granted;
    if left { Decision::Withdraw } else { NOTHING }
}

fn roll_out(batch: &Batch, tally: &Tally, now: u64) -> Decision {
    if let Some(start) = batch.start_at.filter(|start| now < *start) {
        return Decision::Wait { until: Some(start) };
    }
    let tripped = batch.strategy.tripped(&tally.all, tally.silence.charged(), &batch.forgiven);
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

/// Only who is there now: nobody else could begin.
fn take(tally: &Tally, wave: u32, members: u64) -> Decision {
    if tally.present == 0 {
        return NOTHING;
    }
    Decision::Open { wave, members: members.min(tally.present) }
}

fn unsettled(batch: &Batch, tally: &Tally, wave: &Wave, now: u64) -> Decision {
    let strategy = &batch.strategy;
    if !batch.forgiven.has_wave(wave.n) && strategy.is_lost(&wave.counts) {
        return stop(batch, gate(wave));
    }
    if tally.stalled > 0 {
        return Decision::GiveUp;
    }
    if tally.offline > 0 {
        return Decision::Defer { wave: wave.n, whom: Whom::Offline };
    }
    if tally.stragglers == 0 || tally.silence.granted > 0 {
        return NOTHING;
    }
    let quiet_since = wave.opened_at.max(wave.last_result.unwrap_or(0));
    let patience = if strategy.passes(&wave.counts) == Some(true) {
        strategy.offline_after_ms()
    } else if tally.present > 0 {
        // By day, a whole wave may wait for its maintenance window.
        strategy.patience_ms()
    } else {
        return NOTHING;
    };
    let quiet_enough = quiet_since.saturating_add(patience);
    if now < quiet_enough {
        return Decision::Wait { until: Some(quiet_enough) };
    }
    Decision::Defer { wave: wave.n, whom: Whom::Stragglers }
}

fn settled(batch: &Batch, tally: &Tally, wave: &Wave, now: u64) -> Decision {
    let strategy = &batch.strategy;
    match strategy.passes(&wave.counts) {
        Some(true) => {}
        _ if batch.forgiven.has_wave(wave.n) => {}
        Some(false) => return stop(batch, gate(wave)),
        None => {
            let missing = u64::from(strategy.gate.minimum).saturating_sub(wave.counts.proved());
            let members = missing.min(tally.present);
            return if members == 0 { NOTHING } else { Decision::Draft { wave: wave.n, members } };
        }
    }
    if tally.silence.suspect + tally.silence.overdue + tally.silence.granted > 0 {
        return NOTHING;
    }
    let soaked = soaked(batch, wave);
    if now < soaked {
        return Decision::Wait { until: Some(soaked) };
    }
    let next = wave.n.saturating_add(1);
    take(tally, next, strategy.next_size(next, tally.best))
}

/// Whether the answer depends on who of the pool is there, once nobody in the newest wave is undecided: else
/// nobody has to be looked for.
pub fn asks_who_is_there(batch: &Batch, wave: Option<&Wave>, now: u64) -> bool {
    let open = batch.course == Course::Open && batch.takeovers == 0;
    if !open || batch.start_at.is_some_and(|start| now < start) {
        return false;
    }
    let Some(wave) = wave else { return true };
    match batch.strategy.passes(&wave.counts) {
        None if !batch.forgiven.has_wave(wave.n) => true,
        Some(_) | None => now >= soaked(batch, wave),
    }
}

fn soaked(batch: &Batch, wave: &Wave) -> u64 {
    let over = wave.last_result.unwrap_or(wave.opened_at);
    over.saturating_add(batch.strategy.gate.soak_s.saturating_mul(1000))
}

fn gate(wave: &Wave) -> Reason {
    Reason::Gate { wave: wave.n, success: wave.counts.proved(), failures: wave.counts.charged }
}
