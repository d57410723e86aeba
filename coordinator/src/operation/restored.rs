//! A grant that a backup knows nothing of: it was given after the backup, and its device acts on it.

use shared::ids::StreamId;

use super::grant::LONGEST_DARK_MS;
use super::{Granted, MAX_ATTEMPTS, Operation};

/// Whether this is the word of an attempt that was granted, but not that anybody remembers.
pub fn is_forgotten(op: &Operation, stream: StreamId, attempt: u32) -> bool {
    (1..=MAX_ATTEMPTS).contains(&attempt)
        && match op.granted {
            None => true,
            Some(granted) if granted.stream == stream => attempt > granted.attempt,
            // Nobody else is given leave while a grant is open.
            Some(granted) => !granted.open && !op.status.is_terminal(),
        }
}

/// Takes the device's word for its grant. How long it may be dark is forgotten as well, so it may be for as
/// long as anybody. What has ended stays so, and only hears the rest.
pub fn adopt(op: &mut Operation, stream: StreamId, attempt: u32, now: u64) {
    op.attempts_granted = op.attempts_granted.max(attempt);
    op.granted = Some(Granted {
        attempt,
        stream,
        at: now,
        dark_expected_ms: LONGEST_DARK_MS,
        dark_longest_ms: LONGEST_DARK_MS,
        open: !op.status.is_terminal(),
        returned: 0,
        unused: false,
    });
    // Its wave opened after the backup, too.
    op.held = false;
    op.note(now, &format!("attempt {attempt} was granted after the backup that was restored"));
}

/// Whether its device may be flashing without the coordinator's knowledge: it was there before the database
/// was restored, and nothing was heard of it since.
pub fn is_uncertain(op: &Operation, restored: Option<u64>) -> bool {
    let Some(restored) = restored else { return false };
    op.created < restored && op.heard_at.is_none_or(|heard| heard < restored)
}
