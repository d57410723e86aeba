//! Ends by time: what was never started in time, and what fell silent for good.

use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::stages::Phase;

use super::{Operation, Status};

/// Silence beyond the attempt's longest dark window after which a granted operation is lost. A
/// modem in recovery reports rarely, so this is generous; a result that still comes is kept as a
/// late one.
pub const PATIENCE_MS: u64 = 24 * 3600 * 1000;

/// Ends the operation if its time has come; says whether it did.
pub fn expire(operation: &mut Operation, now: u64) -> bool {
    if operation.status.is_terminal() {
        return false;
    }
    if operation.is_granted() { lose(operation, now) } else { overdue(operation, now) }
}

fn overdue(operation: &mut Operation, now: u64) -> bool {
    if operation.deadline.is_none_or(|deadline| now < deadline) {
        return false;
    }
    let phase = operation.phase.unwrap_or(Phase::Waiting);
    let detail = "the deadline passed before the modem was touched";
    end(operation, Failure::untouched(phase, FailureKind::Expired, detail), Status::Aborted, now);
    true
}

fn lose(operation: &mut Operation, now: u64) -> bool {
    let Some(granted) = operation.granted else { return false };
    let heard = operation.heard_at.unwrap_or(granted.at).max(granted.at);
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
