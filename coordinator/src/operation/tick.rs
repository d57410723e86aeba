//! Ticks: only the latest counts, and none of them decides anything.

use shared::event::Tick;

use super::{Granted, Operation, Status};

/// Takes the tick's progress over; false if it is stale, foreign or too late.
pub fn apply(op: &mut Operation, tick: &Tick, now: u64) -> bool {
    if op.status.is_terminal() || tick.slot != op.slot || !speaks_for(op, tick) {
        return false;
    }
    let known = op.stream == Some(tick.stream);
    if known && is_stale(op, tick) {
        return false;
    }
    if !known {
        op.stream = Some(tick.stream);
        op.last_seq = 0;
    }
    let percent = tick.percent.min(100);
    op.progress_percent =
        if tick.attempt > op.attempt { percent } else { op.progress_percent.max(percent) };
    op.status = Status::InProgress;
    op.attempt = tick.attempt;
    op.phase = Some(tick.phase);
    op.tick_attempt = tick.attempt;
    op.tick_n = tick.n;
    op.stalled = tick.stalled;
    op.detail = tick.detail.clone().map(shared::limits::cut);
    op.fetched = tick.fetched.map_or(op.fetched, |fetched| fetched.max(op.fetched));
    op.heard_at = Some(now);
    op.modified = now;
    true
}

fn speaks_for(op: &Operation, tick: &Tick) -> bool {
    match op.granted {
        Some(granted) if granted.stream == tick.stream => {
            tick.attempt <= granted.attempt && !is_over(granted, tick)
        }
        Some(granted) if granted.open => false,
        Some(_) | None => tick.attempt == 0,
    }
}

/// Whether it was said before its grant was closed: a milestone may overtake it.
fn is_over(granted: Granted, tick: &Tick) -> bool {
    !granted.open && tick.attempt == granted.attempt && (granted.unused || tick.phase.is_granted())
}

fn is_stale(op: &Operation, tick: &Tick) -> bool {
    let earlier_stage = op.stage().is_some_and(|stage| tick.phase.stage() < stage);
    tick.attempt < op.attempt
        || (tick.attempt == op.attempt && earlier_stage)
        || (tick.attempt, tick.n) <= (op.tick_attempt, op.tick_n)
}
