//! Ends by time: what was never started in time, and what fell silent for good; and by a person who gives
//! up what would never end.

use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::stages::Phase;

use super::{Granted, Operation, Status, report};

/// Silence beyond the attempt's longest dark window after which a granted operation is lost. A
/// modem in recovery reports rarely, so this is generous; a result that still comes is kept as a
/// late one.
pub const PATIENCE_MS: u64 = 24 * 3600 * 1000;

/// Ends the operation if its time has come; says whether it did.
///
/// `listening_since` is when the coordinator began to hear anybody at all: while it was down the
/// device was not silent.
pub fn expire(operation: &mut Operation, listening_since: u64, now: u64) -> bool {
    if operation.status.is_terminal() {
        return false;
    }
    if operation.is_granted() {
        lose(operation, listening_since, now)
    } else {
        overdue(operation, now)
    }
}

/// Why an operation is not written off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotWriteOff {
    #[error("the operation has ended with status {0}")]
    Finished(Status),
    #[error("nobody is flashing its modem, so it can be cancelled")]
    NotGranted,
    #[error(
        "attempt {0} is under way: only one in recovery, one that waits for a person, or a script's that has been silent for an hour is \
         written off"
    )]
    UnderWay(u32),
}

/// Gives up an attempt that neither ends nor falls silent: its router talks on about a modem in recovery; or one
/// of a device's script that has fallen silent.
/// As with a lost one, nobody knows its modem's state, and what is still said is kept as a late result.
pub fn write_off(operation: &mut Operation, by: &str, now: u64) -> Result<(), CannotWriteOff> {
    if operation.status.is_terminal() {
        return Err(CannotWriteOff::Finished(operation.status));
    }
    let Some(granted) = operation.granted.filter(|granted| granted.open) else {
        return Err(CannotWriteOff::NotGranted);
    };
    let phase = match operation.phase {
        None if report::is_under_way(operation) && is_silent(operation, granted, now) => {
            Phase::Installing
        }
        Some(phase @ (Phase::Recovering | Phase::Held)) => phase,
        Some(_) | None => return Err(CannotWriteOff::UnderWay(granted.attempt)),
    };
    let detail = format!("given up by {by}; its modem's state is not known");
    let failure = Failure::new(phase, FailureKind::AttemptLost, ModemCondition::Unknown, detail);
    end(operation, failure, Status::Failed, now);
    Ok(())
}

/// For longer than it should ever take.
fn is_silent(operation: &Operation, granted: Granted, now: u64) -> bool {
    let heard = operation.heard_at.unwrap_or(granted.at).max(granted.at);
    now > heard.saturating_add(granted.dark_longest_ms)
}

/// Whether the operation was given up for silence and its device, heard of last at `seen`, is
/// silent still: another attempt could meet the first one at work.
pub fn is_lost(operation: &Operation, seen: u64) -> bool {
    operation.status == Status::Failed
        && operation.late_result.is_none()
        && operation.finished_at.is_some_and(|finished| seen <= finished)
        && operation.failure.as_ref().is_some_and(|failure| {
            failure.kind == FailureKind::AttemptLost && failure.condition == ModemCondition::Unknown
        })
}

/// Ends what nobody may be flashing, of a batch whose time is over, whatever the clock says by now.
pub fn run_out(operation: &mut Operation, now: u64) -> bool {
    if operation.status.is_terminal() || operation.is_granted() {
        return false;
    }
    end_late(operation, now);
    true
}

fn overdue(operation: &mut Operation, now: u64) -> bool {
    let late = operation.deadline.is_some_and(|deadline| now >= deadline);
    if late {
        end_late(operation, now);
    }
    late
}

fn end_late(operation: &mut Operation, now: u64) {
    let phase = operation.phase.unwrap_or(Phase::Waiting);
    let kind = FailureKind::Expired;
    let Some(left) = operation.left() else {
        let detail = "the deadline passed before the modem was touched";
        end(operation, Failure::untouched(phase, kind, detail), Status::Aborted, now);
        return;
    };
    let condition = left.condition;
    let detail = "the deadline passed after an attempt that failed";
    end(operation, Failure::new(phase, kind, condition, detail), Status::Failed, now);
}

fn lose(operation: &mut Operation, listening_since: u64, now: u64) -> bool {
    let Some(granted) = operation.granted else { return false };
    let heard = operation.heard_at.unwrap_or(granted.at).max(granted.at).max(listening_since);
    if now < heard.saturating_add(granted.dark_longest_ms).saturating_add(PATIENCE_MS) {
        return false;
    }
    let phase = operation.phase.unwrap_or(Phase::Installing);
    let failure = Failure::new(
        phase,
        FailureKind::AttemptLost,
        ModemCondition::Unknown,
        "the device has been silent since; its modem's state is not known",
    );
    end(operation, failure, Status::Failed, now);
    true
}

fn end(operation: &mut Operation, failure: Failure, status: Status, now: u64) {
    operation.note(now, &failure.to_string());
    operation.failure = Some(failure);
    operation.finish(status, now);
}
