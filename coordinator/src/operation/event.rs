//! What a milestone does to its operation. Milestones may come late, twice or out of order.

use shared::event::{Event, EventBody, Outcome, VersionLine};
use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::stages::Phase;

use super::{Effects, Evidence, LateResult, Operation, Status, is_touched};

/// Why a milestone is kept as a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no such operation of this device")]
    UnknownOperation,
    #[error("the operation is for another slot")]
    OtherSlot,
    #[error("another journal of this device holds the grant")]
    OtherStream,
    #[error("the operation ended before this journal began")]
    TooLate,
    #[error("sequence numbers count from 1 and attempts to 3")]
    BadNumber,
    #[error("an attempt that was never granted")]
    NotGranted,
    #[error("larger than a milestone may be")]
    TooLarge,
    #[error("not a milestone as this version knows them")]
    Malformed,
    #[error("more milestones than any operation has")]
    TooMany,
}

impl Refused {
    /// Short, for acks and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownOperation => "unknown_operation",
            Self::OtherSlot => "other_slot",
            Self::OtherStream => "other_stream",
            Self::TooLate => "too_late",
            Self::BadNumber => "bad_number",
            Self::NotGranted => "not_granted",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::TooMany => "too_many",
        }
    }
}

/// Applies one milestone that was not seen before.
///
/// `reaches` are the versions that the image's manifest names: a success is one only if the device
/// read all of them back.
///
/// # Errors
/// The operation is unchanged, the milestone is not its own.
pub fn apply(
    operation: &mut Operation,
    event: &Event,
    reaches: &[VersionLine],
    now: u64,
) -> Result<Effects, Refused> {
    check(operation, event)?;
    let before = operation.is_wanted();
    adopt(operation, event);
    operation.heard_at = Some(now);
    operation.modified = now;
    let newest = event.seq > operation.last_seq;
    operation.last_seq = operation.last_seq.max(event.seq);
    let mut installed = None;
    if let EventBody::Finished { outcome } = &event.body {
        installed = finished(operation, event.attempt, outcome, reaches, now);
    } else if !operation.status.is_terminal() {
        progressed(operation, event.attempt, &event.body, newest, now);
    }
    Ok(Effects { installed, desired: before != operation.is_wanted() })
}

fn check(operation: &Operation, event: &Event) -> Result<(), Refused> {
    if event.slot != operation.slot {
        return Err(Refused::OtherSlot);
    }
    if event.seq == 0 || event.attempt > super::MAX_ATTEMPTS {
        return Err(Refused::BadNumber);
    }
    match (operation.granted, operation.stream) {
        // A closed grant binds nobody: a reinstalled agent's journal begins anew.
        (Some(granted), _) if granted.stream != event.stream => {
            if granted.open || operation.status.is_terminal() {
                return Err(Refused::OtherStream);
            }
            if event.attempt > 0 {
                return Err(Refused::NotGranted);
            }
        }
        (Some(granted), _) if event.attempt > granted.attempt => return Err(Refused::NotGranted),
        (Some(_), _) => {}
        (None, _) if event.attempt > 0 => return Err(Refused::NotGranted),
        (None, Some(stream)) if stream == event.stream => {}
        (None, _) if operation.status.is_terminal() => return Err(Refused::TooLate),
        (None, _) => {}
    }
    Ok(())
}

/// Before any grant the newest journal speaks for the device.
fn adopt(operation: &mut Operation, event: &Event) {
    if operation.stream != Some(event.stream) {
        operation.stream = Some(event.stream);
        operation.last_seq = 0;
        operation.tick_attempt = 0;
        operation.tick_n = 0;
    }
}

fn progressed(op: &mut Operation, attempt: u32, body: &EventBody, newest: bool, now: u64) {
    op.status = Status::InProgress;
    let of_attempt = |text: &str| match attempt {
        0 => text.to_owned(),
        n => format!("attempt {n}: {text}"),
    };
    match body {
        EventBody::Entered { phase } => {
            op.note(now, &of_attempt(phase.as_str()));
            if newest {
                op.enter(attempt, *phase);
                op.detail = None;
            }
        }
        EventBody::Postponed { reason } => {
            op.note(now, &of_attempt(&format!("postponed: {reason}")));
            op.say(newest, reason);
        }
        EventBody::Granted => op.note(now, &of_attempt("past the point of no return")),
        EventBody::Returned { reason, returned } => {
            op.note(now, &of_attempt(&format!("postponed, its grant is handed back: {reason}")));
            if super::grant::hand_back(op, attempt, *returned) {
                op.begin_anew(attempt);
            }
            op.say(newest, reason);
        }
        EventBody::Retrying { failure, delay_s } => {
            op.note(now, &of_attempt(&format!("{failure}; again in {delay_s} s")));
            op.remember(attempt, failure, newest);
            close_grant(op, attempt, failure);
            if newest {
                op.enter(attempt, Phase::Backoff);
            }
        }
        EventBody::Recovering { tries, detail } => {
            op.note(now, &of_attempt(&format!("recovery {tries}: {detail}")));
            if newest {
                op.enter(attempt, Phase::Recovering);
            }
            op.say(newest, detail);
        }
        EventBody::Held { reason } => {
            op.note(now, &of_attempt(&format!("held: {reason}")));
            if newest {
                op.enter(attempt, Phase::Held);
            }
            op.say(newest, reason);
        }
        EventBody::Finished { .. } => {}
        EventBody::Unknown => {
            op.note(now, &of_attempt("said something this version does not know"))
        }
    }
}

/// A lost attempt is over only where the device saw the old version run; in download mode the
/// modem stays in its hands.
fn close_grant(op: &mut Operation, attempt: u32, failure: &Failure) {
    let over = matches!(failure.condition, ModemCondition::Untouched | ModemCondition::OldVersion);
    if let Some(granted) = &mut op.granted
        && granted.attempt == attempt
        && over
    {
        granted.open = false;
    }
}

fn finished(
    op: &mut Operation,
    attempt: u32,
    outcome: &Outcome,
    reaches: &[VersionLine],
    now: u64,
) -> Option<Vec<VersionLine>> {
    let result = judge(outcome, reaches);
    if op.status.is_terminal() {
        let expected = (*outcome == Outcome::Cancelled && is_taken_back(op))
            || is_repeated(op, attempt, &result);
        if !expected && op.late_result.is_none() {
            op.note(now, &format!("a late result: {}", describe(outcome)));
            op.late_result = Some(LateResult { outcome: bounded(outcome), received: now });
        }
        return result.installed;
    }
    let result = result.after(op.left());
    op.attempt = op.attempt.max(attempt);
    op.note(now, &describe(outcome));
    op.phase = Some(Phase::Finished);
    op.detail = None;
    op.failure = result.failure;
    op.evidence = result.installed.is_some().then_some(Evidence::Versions);
    if result.status == Status::Success {
        op.progress_percent = 100;
        op.unproved = !is_proof(op, outcome);
    }
    op.finish(result.status, now);
    result.installed
}

/// Whether it ended with the same word of the same attempt. The word comes under another number where the router
/// was cut off before it had noted that it gave it, or could not keep the number.
fn is_repeated(op: &Operation, attempt: u32, result: &Verdict) -> bool {
    let result = result.clone().after(op.left());
    op.phase == Some(Phase::Finished)
        && op.attempt == attempt
        && (op.status, &op.failure) == (result.status, &result.failure)
}

/// Whether it was flashed here, and not found: only that shows that the build can be.
fn is_proof(op: &Operation, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Succeeded { .. })
        && op.granted.is_some_and(|granted| !granted.unused)
}

/// Whether it is no news that the device ends it with the old version running.
fn is_taken_back(op: &Operation) -> bool {
    let known = |failure: &Failure| failure.condition == ModemCondition::OldVersion;
    op.status == Status::Cancelled || op.failure.as_ref().is_some_and(known)
}

#[derive(Debug, Clone)]
struct Verdict {
    status: Status,
    failure: Option<Failure>,
    installed: Option<Vec<VersionLine>>,
}

impl Verdict {
    /// The last word of a device whose attempts have left this: the modem is not untouched.
    fn after(self, left: Option<Failure>) -> Self {
        let (Status::Cancelled | Status::Aborted, Some(left)) = (self.status, left) else {
            return self;
        };
        let failure = match self.failure {
            Some(last) => Failure { condition: left.condition, ..last },
            None => left,
        };
        Self { status: Status::Failed, failure: Some(failure), ..self }
    }
}

fn judge(outcome: &Outcome, reaches: &[VersionLine]) -> Verdict {
    let failed = |failure: Failure| {
        let untouched = failure.condition == ModemCondition::Untouched;
        let status = if untouched { Status::Aborted } else { Status::Failed };
        Verdict { status, failure: Some(failure), installed: None }
    };
    let unknown = |kind, detail: &str| {
        failed(Failure::new(Phase::Finished, kind, ModemCondition::Unknown, detail))
    };
    match outcome {
        Outcome::Succeeded { versions, .. } | Outcome::AlreadyInstalled { versions } => {
            if reaches.is_empty() || !reaches.iter().all(|line| versions.contains(line)) {
                let detail = "a success was reported without the manifest's versions";
                return unknown(FailureKind::VersionMismatch, detail);
            }
            let installed = Some(versions.iter().take(VERSION_LINES).cloned().collect());
            Verdict { status: Status::Success, failure: None, installed }
        }
        Outcome::Cancelled => Verdict { status: Status::Cancelled, failure: None, installed: None },
        Outcome::Failed { failure } => failed(cut(failure)),
        Outcome::Unknown => {
            unknown(FailureKind::Unknown, "the result is of a newer version than this coordinator")
        }
    }
}

/// A modem's versions are a handful of lines; an event's size bounds each.
const VERSION_LINES: usize = 32;

fn bounded(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Failed { failure } => Outcome::Failed { failure: cut(failure) },
        Outcome::Succeeded { versions, not_compared, remark } => Outcome::Succeeded {
            versions: versions.clone(),
            not_compared: not_compared.clone().map(shared::limits::cut),
            remark: remark.clone().map(shared::limits::cut),
        },
        Outcome::AlreadyInstalled { .. } | Outcome::Cancelled | Outcome::Unknown => outcome.clone(),
    }
}

fn cut(failure: &Failure) -> Failure {
    Failure { detail: shared::limits::cut(failure.detail.clone()), ..failure.clone() }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded { not_compared: Some(reason), .. } => {
            format!("the new version runs; SIM and network were not compared: {reason}")
        }
        Outcome::Succeeded { remark: Some(remark), .. } => {
            format!("the new version runs, with a difference: {remark}")
        }
        Outcome::Succeeded { .. } => "the new version runs".into(),
        Outcome::AlreadyInstalled { .. } => "this version ran already".into(),
        Outcome::Cancelled => "cancelled, the modem is untouched".into(),
        Outcome::Failed { failure } => failure.to_string(),
        Outcome::Unknown => "ended in a way this version does not know".into(),
    }
}

impl Operation {
    /// Moves to a phase; within an attempt the percentage never falls.
    fn enter(&mut self, attempt: u32, phase: Phase) {
        let percent = phase.stage().percent(0);
        self.progress_percent =
            if attempt > self.attempt { percent } else { self.progress_percent.max(percent) };
        self.attempt = self.attempt.max(attempt);
        self.phase = Some(phase);
        self.stalled = false;
    }

    /// Before `attempt`, which is not over but has not begun.
    fn begin_anew(&mut self, attempt: u32) {
        self.phase = Some(Phase::Waiting);
        self.attempt = attempt.saturating_sub(1);
        self.tick_attempt = self.attempt;
        self.progress_percent = Phase::Waiting.stage().percent(0);
    }

    /// A failure of an attempt that touched the modem is not forgotten over one that did not.
    fn remember(&mut self, attempt: u32, failure: &Failure, newest: bool) {
        let touched = attempt > 0 && is_touched(failure);
        let replaces = match &self.failure {
            None => true,
            Some(_) if self.left().is_some() => touched && newest,
            Some(_) => touched || newest,
        };
        if replaces {
            self.failure = Some(cut(failure));
        }
    }

    fn say(&mut self, newest: bool, text: &str) {
        if newest {
            self.detail = Some(shared::limits::cut(text.to_owned()));
        }
    }
}
