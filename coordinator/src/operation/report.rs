//! A device script's own report over the operator's API (`PATCH upgrade-operation/{id}/`).
//!
//! It is a script's word: it may move an operation that no agent has taken up, and proves nothing. A script asks
//! for no grant, and looks at nothing once it has begun: from its first word on it is taken to hold one all the
//! same. The operation is not taken back under its hands, and nobody else gets leave.

use shared::event::Outcome;
use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::ids::StreamId;
use shared::stages::Phase;
use uuid::Uuid;

use super::{Evidence, Granted, LateResult, Operation, Status};

/// In place of a journal.
const SCRIPT: StreamId = StreamId(Uuid::nil());
/// What a flash takes, and more than the predecessor's longest waits taken together.
const DARK_EXPECTED_MS: u64 = 1_200_000;
const DARK_LONGEST_MS: u64 = 3_600_000;

/// What the script says; absent fields stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// 0 to 100.
    pub progress_percent: Option<u8>,
    pub status: Option<Status>,
}

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefused {
    #[error("the operation has ended with status {0}")]
    Finished(Status),
    #[error("the device's agent reports on this operation itself")]
    AgentReports,
    #[error("its batch has not come to it yet")]
    NotYet,
    #[error("progress_percent goes from 0 to 100")]
    Percent,
    #[error("it says neither progress_percent nor status")]
    Nothing,
    #[error("what has begun is not idle again")]
    Begun,
}

/// Takes the report over.
pub fn apply(op: &mut Operation, report: Report, now: u64) -> Result<(), ReportRefused> {
    if op.status.is_terminal() {
        return late(op, report, now);
    }
    if op.batch.is_some() && op.wave.is_none() {
        return Err(ReportRefused::NotYet);
    }
    if is_of_an_agent(op) {
        return Err(ReportRefused::AgentReports);
    }
    if report.progress_percent.is_some_and(|percent| percent > 100) {
        return Err(ReportRefused::Percent);
    }
    match (report.status, report.progress_percent) {
        (None, None) => return Err(ReportRefused::Nothing),
        (Some(Status::Idle), _) if op.status != Status::Idle => return Err(ReportRefused::Begun),
        // As it stands.
        (Some(Status::Idle), None | Some(0)) => return Ok(()),
        (Some(_), _) | (None, Some(_)) => {}
    }
    op.progress_percent = report.progress_percent.unwrap_or(op.progress_percent);
    op.evidence = Some(Evidence::Reported);
    op.heard_at = Some(now);
    op.modified = now;
    match report.status {
        None | Some(Status::Idle | Status::InProgress) => {
            op.status = Status::InProgress;
            if op.granted.is_none() {
                take_leave(op, now);
            }
        }
        Some(status) => {
            if status == Status::Success {
                op.progress_percent = 100;
                op.unproved = true;
            }
            op.note(now, &format!("a device script reports: {status}"));
            op.finish(status, now);
        }
    }
    Ok(())
}

/// Whether a script may be flashing the modem.
pub(super) fn is_under_way(op: &Operation) -> bool {
    op.granted.is_some_and(|granted| granted.open && granted.stream == SCRIPT)
}

fn is_of_an_agent(op: &Operation) -> bool {
    op.stream.is_some() || op.granted.is_some_and(|granted| granted.stream != SCRIPT)
}

fn take_leave(op: &mut Operation, now: u64) {
    op.attempt = 1;
    op.attempts_granted = 1;
    op.granted = Some(Granted {
        attempt: 1,
        stream: SCRIPT,
        at: now,
        dark_expected_ms: DARK_EXPECTED_MS,
        dark_longest_ms: DARK_LONGEST_MS,
        open: true,
        returned: 0,
        unused: false,
    });
    op.note(now, "a device script may be flashing the modem");
}

/// A result after the operation was given up or taken back is kept beside its status. One that a script ended has
/// no failure, and stays as it is.
fn late(op: &mut Operation, report: Report, now: u64) -> Result<(), ReportRefused> {
    let refused = ReportRefused::Finished(op.status);
    let given_up = op.failure.is_some();
    if !given_up && (op.status != Status::Cancelled || op.evidence.is_some()) {
        return Err(refused);
    }
    let status = report.status.filter(|status| given_up || *status != op.status).ok_or(refused)?;
    let said = "by a device script's word";
    let failed = |condition| {
        let failure = Failure::new(Phase::Finished, FailureKind::Unknown, condition, said);
        Outcome::Failed { failure }
    };
    let outcome = match status {
        Status::Idle | Status::InProgress => return Err(refused),
        Status::Success => Outcome::Succeeded {
            versions: Vec::new(),
            not_compared: Some(said.to_owned()),
            remark: None,
        },
        Status::Failed => failed(ModemCondition::Unknown),
        Status::Aborted => failed(ModemCondition::Untouched),
        Status::Cancelled => Outcome::Cancelled,
    };
    if op.late_result.is_some() || is_of_an_agent(op) {
        return Err(refused);
    }
    op.note(now, &format!("a late result: a device script reports {status}"));
    op.late_result = Some(LateResult { outcome, received: now });
    op.modified = now;
    Ok(())
}
