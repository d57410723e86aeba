//! Taking an operation back: at once and exactly, or not at all. What an attempt has left of the modem
//! is not undone by it: such an operation has failed.

use shared::ids::OperationId;

use super::{Operation, Status};

/// Why an operation cannot be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotCancel {
    #[error("the operation has ended with status {0}")]
    Finished(Status),
    #[error("attempt {0} has passed the point of no return: the modem may be being flashed")]
    PastPointOfNoReturn(u32),
}

/// Cancels: no grant will follow.
pub fn cancel(operation: &mut Operation, by: &str, now: u64) -> Result<(), CannotCancel> {
    check(operation)?;
    operation.note(now, &format!("cancelled by {by}"));
    end(operation, now);
    Ok(())
}

/// Takes it back for a reason that is nobody's wish.
pub fn skip(operation: &mut Operation, why: &str, now: u64) -> Result<(), CannotCancel> {
    check(operation)?;
    operation.note(now, &format!("cancelled: {why}"));
    end(operation, now);
    Ok(())
}

/// Gives way to a newer operation for the same slot.
pub fn supersede(
    operation: &mut Operation,
    newer: OperationId,
    now: u64,
) -> Result<(), CannotCancel> {
    check(operation)?;
    operation.superseded_by = Some(newer);
    operation.note(now, &format!("superseded by {newer}"));
    end(operation, now);
    Ok(())
}

/// No attempt follows.
fn end(operation: &mut Operation, now: u64) {
    let left = operation.left();
    let status = if left.is_some() { Status::Failed } else { Status::Cancelled };
    operation.failure = left.or(operation.failure.take());
    operation.finish(status, now);
}

fn check(operation: &Operation) -> Result<(), CannotCancel> {
    if operation.status.is_terminal() {
        return Err(CannotCancel::Finished(operation.status));
    }
    match operation.granted {
        Some(granted) if granted.open => Err(CannotCancel::PastPointOfNoReturn(granted.attempt)),
        Some(_) | None => Ok(()),
    }
}
