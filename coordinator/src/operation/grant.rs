//! The grant: the only way past the point of no return.

use shared::grant::{Refusal, RefusalCode, StartRequest};

use super::{Granted, MAX_ATTEMPTS, Operation, Status};

/// What the rule needs to know of the device, and of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Pending, revoked or deactivated.
    Quarantined,
    /// Two boards use its identity, until somebody has looked.
    Doubtful,
    /// Its batch's wave has not opened.
    NotYet,
    /// Its batch is paused, or about to be.
    Paused,
    /// A batch that was launched is about to take its place.
    GivesWay,
    /// As many of its batch as may be are in an attempt's hands.
    Crowded,
    /// Its batch was taken back or is over.
    Withdrawn,
}

/// How leave was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    New,
    /// The same request was granted before: nothing is counted again.
    Repeated,
}

/// The dark window an agent may claim at most: a modem that takes longer is lost.
pub(super) const LONGEST_DARK_MS: u64 = 24 * 3600 * 1000;
/// Seconds after which to ask again, at least; see [`spread`].
const ASK_AGAIN_S: u64 = 3600;
/// A place in a batch may be free soon.
const ASK_SOON_S: u64 = 60;
/// A pause lasts until somebody has looked.
const ASK_LATER_S: u64 = 300;

/// Counts the attempt and stores its dark window, or says why not.
///
/// # Errors
/// The refusal as it goes over the wire; the operation is unchanged then.
pub fn start(
    operation: &mut Operation,
    standing: Standing,
    request: &StartRequest,
    now: u64,
) -> Result<Leave, Refusal> {
    check_status(operation)?;
    // Before the standing: whoever lost the answer has its leave all the same.
    if is_same(operation, request) {
        return Ok(Leave::Repeated);
    }
    check_standing(standing).map_err(|refusal| spread(refusal, operation))?;
    if operation.deadline.is_some_and(|deadline| now >= deadline) {
        return Err(refusal(RefusalCode::Expired, "the operation's deadline has passed"));
    }
    check_stream(operation, request).map_err(|refusal| spread(refusal, operation))?;
    let used = used(operation, request)?;
    if operation.granted.is_none() {
        // It is of no attempt.
        operation.failure = None;
    }
    operation.attempts_granted = (used + 1).max(request.attempt);
    operation.granted = Some(Granted {
        attempt: request.attempt,
        stream: request.stream,
        at: now,
        dark_expected_ms: dark(request.dark_expected_s),
        dark_longest_ms: dark(request.dark_longest_s.max(request.dark_expected_s)),
        open: true,
        returned: request.returned,
        unused: false,
    });
    adopt(operation, request, now);
    Ok(Leave::New)
}

fn check_standing(standing: Standing) -> Result<(), Refusal> {
    let again = |seconds, refusal| Refusal { retry_after_s: Some(seconds), ..refusal };
    match standing {
        Standing::Good => Ok(()),
        Standing::Quarantined => {
            Err(refusal(RefusalCode::Quarantined, "the device is not accepted"))
        }
        Standing::Doubtful => Err(again(
            ASK_LATER_S,
            refusal(RefusalCode::Quarantined, "two boards use the device's identity"),
        )),
        Standing::NotYet => Err(again(
            ASK_LATER_S,
            refusal(RefusalCode::Paused, "the batch's next wave has not opened"),
        )),
        Standing::Paused => {
            Err(again(ASK_LATER_S, refusal(RefusalCode::Paused, "the batch is paused")))
        }
        Standing::GivesWay => Err(again(
            ASK_SOON_S,
            refusal(RefusalCode::Paused, "another upgrade is about to take its place"),
        )),
        Standing::Crowded => Err(again(
            ASK_SOON_S,
            refusal(RefusalCode::Concurrency, "as many as allowed are being flashed"),
        )),
        Standing::Withdrawn => {
            Err(refusal(RefusalCode::Cancelled, "the batch was taken back or is over"))
        }
    }
}

fn adopt(operation: &mut Operation, request: &StartRequest, now: u64) {
    if operation.stream != Some(request.stream) {
        operation.last_seq = 0;
        operation.tick_n = 0;
        operation.tick_attempt = 0;
        operation.attempt = 0;
        operation.stream = Some(request.stream);
    }
    operation.status = Status::InProgress;
    operation.heard_at = Some(now);
    operation.modified = now;
    operation.note(now, &format!("attempt {} may start", request.attempt));
}

fn check_status(operation: &Operation) -> Result<(), Refusal> {
    let (code, detail) = match operation.status {
        Status::Idle | Status::InProgress => return Ok(()),
        Status::Cancelled if operation.superseded_by.is_some() => {
            (RefusalCode::Superseded, "a newer operation took its place")
        }
        Status::Cancelled => (RefusalCode::Cancelled, "the operation was cancelled"),
        Status::Success | Status::Failed | Status::Aborted => {
            (RefusalCode::Finished, "the operation has ended")
        }
    };
    Err(refusal(code, detail))
}

fn is_same(operation: &Operation, request: &StartRequest) -> bool {
    operation.granted.is_some_and(|granted| {
        granted.open
            && granted.attempt == request.attempt
            && granted.stream == request.stream
            && granted.returned == request.returned
    })
}

/// Whether the attempt's last grant came back unused, by this very request or before it.
fn is_anew(granted: Granted, request: &StartRequest) -> bool {
    granted.stream == request.stream
        && granted.attempt == request.attempt
        && granted.returned < request.returned
        && (granted.open || granted.unused)
}

/// An open grant belongs to one journal. Another one is a reinstalled agent or a cloned router:
/// neither may flash while the first may be flashing. A closed grant binds nobody.
fn check_stream(operation: &Operation, request: &StartRequest) -> Result<(), Refusal> {
    match operation.granted {
        Some(granted) if granted.open && granted.stream != request.stream => Err(Refusal {
            retry_after_s: Some(ASK_AGAIN_S),
            ..refusal(RefusalCode::Quarantined, "another journal of this device holds the grant")
        }),
        Some(_) | None => Ok(()),
    }
}

/// Attempts before this one.
fn used(operation: &Operation, request: &StartRequest) -> Result<u32, Refusal> {
    let anew = operation.granted.filter(|granted| is_anew(*granted, request));
    let of_journal = operation.granted.filter(|granted| granted.stream == request.stream);
    let last = of_journal.map_or(0, |granted| granted.attempt);
    if request.attempt <= last && anew.is_none() {
        return Err(refusal(RefusalCode::Attempts, "this attempt is over"));
    }
    let uncounted = anew.is_some_and(|granted| granted.open);
    let used = operation.attempts_granted.saturating_sub(uncounted.into());
    if used >= MAX_ATTEMPTS || request.attempt > MAX_ATTEMPTS {
        return Err(refusal(RefusalCode::Attempts, "all attempts are used up"));
    }
    Ok(used)
}

/// Takes the open grant of `attempt` back, unless it is a later one than the device speaks of; says
/// whether it did. `returned`: how many the device has handed back, with this one.
pub fn hand_back(operation: &mut Operation, attempt: u32, returned: u32) -> bool {
    let meant = |granted: &&mut Granted| {
        granted.open && granted.attempt == attempt && granted.returned < returned
    };
    let Some(granted) = operation.granted.as_mut().filter(meant) else { return false };
    granted.open = false;
    granted.unused = true;
    operation.attempts_granted = operation.attempts_granted.saturating_sub(1);
    true
}

fn dark(seconds: u64) -> u64 {
    seconds.saturating_mul(1000).min(LONGEST_DARK_MS)
}

/// Of a fleet that was refused at once not everybody comes back at once: up to half as late again, each by its
/// own.
fn spread(refusal: Refusal, operation: &Operation) -> Refusal {
    let own = operation.id.0.as_fields().0;
    let later = |seconds: u64| seconds + u64::from(own) % (seconds / 2).max(1);
    Refusal { retry_after_s: refusal.retry_after_s.map(later), ..refusal }
}

fn refusal(code: RefusalCode, detail: &str) -> Refusal {
    Refusal { code, detail: detail.into(), retry_after_s: None }
}
