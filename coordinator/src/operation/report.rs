//! A device script's own report over the operator's API (`PATCH upgrade-operation/{id}/`).
//!
//! It is a script's word: it may move an operation that no agent has taken up, and proves nothing.

use super::{Evidence, Operation, Status};

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
        return Err(ReportRefused::Finished(op.status));
    }
    if op.batch.is_some() && op.wave.is_none() {
        return Err(ReportRefused::NotYet);
    }
    if op.granted.is_some() || op.stream.is_some() {
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
        None | Some(Status::Idle | Status::InProgress) => op.status = Status::InProgress,
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
