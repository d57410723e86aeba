//! Which failures speak against the build or its tool, and which against one router.

use shared::failure::{Failure, FailureKind as Kind};

use crate::operation::Status;

/// Whether an end counts as a failure of the batch: a modem that was touched and did not come out
/// with the new version always does; one that was left untouched only where the image, its signature
/// or the tool is at fault. Cancelled and postponed never do.
pub fn counts(status: Status, failure: Option<&Failure>) -> bool {
    match status {
        Status::Failed => true,
        Status::Aborted => failure.is_some_and(|failure| at_fault(failure.kind)),
        Status::Idle | Status::InProgress | Status::Success | Status::Cancelled => false,
    }
}

/// Whether every other router would meet the same.
fn at_fault(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::BadManifest
            | Kind::NotSigned
            | Kind::BadSignature
            | Kind::KeyRevoked
            | Kind::ManifestExpired
            | Kind::SequenceTooLow
            | Kind::OptionRefused
            | Kind::ChecksumMismatch
            | Kind::ToolNotStarted
            | Kind::ToolFailed
            | Kind::ToolRefused
            | Kind::ToolTimeout
            | Kind::VersionMismatch
            | Kind::Internal
            | Kind::Unknown
    )
}
