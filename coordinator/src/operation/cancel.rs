//! Taking an operation back: at once and exactly, or not at all.

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
    operation.finish(Status::Cancelled, now);
    Ok(())
}

/// Takes it back for a reason that is nobody's wish.
pub fn skip(operation: &mut Operation, why: &str, now: u64) -> Result<(), CannotCancel> {
    check(operation)?;
    operation.note(now, &format!("cancelled: {why}"));
    operation.finish(Status::Cancelled, now);
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
    operation.finish(Status::Cancelled, now);
    Ok(())
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
