//! How an upgrade fails: where, in what way, and in what condition it leaves the modem.

use crate::{limits, names::wire_names, stages::Phase};
use serde::{Deserialize, Serialize};

/// The end of an attempt or an operation that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The phase in which it was found out.
    pub stage: Phase,
    pub kind: FailureKind,
    /// What is known of the modem afterwards.
    pub condition: ModemCondition,
    /// For people: the chain of causes, at most [`limits::DETAIL`] bytes.
    #[serde(default)]
    pub detail: String,
}

impl Failure {
    /// A failure before anything touched the modem.
    pub fn untouched(stage: Phase, kind: FailureKind, detail: impl Into<String>) -> Self {
        Self::new(stage, kind, ModemCondition::Untouched, detail)
    }

    pub fn new(
        stage: Phase,
        kind: FailureKind,
        condition: ModemCondition,
        detail: impl Into<String>,
    ) -> Self {
        Self { stage, kind, condition, detail: limits::cut(detail.into()) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}: {} (modem {})", self.kind, self.stage, self.detail, self.condition)
    }
}

wire_names! {
    /// What went wrong.
    FailureKind {
        // The job and the trust in it; the modem is untouched.
        /// The job requires a capability this agent does not have.
        AgentTooOld = "agent_too_old",
        /// The image has no manifest.
        NoManifest = "no_manifest",
        /// The manifest is larger than allowed, no valid JSON, has duplicate keys or impossible values.
        BadManifest = "bad_manifest",
        /// The manifest has no signature.
        NotSigned = "not_signed",
        /// The signature does not fit the manifest's bytes.
        BadSignature = "bad_signature",
        /// Signed by a key that the router does not know.
        UnknownKey = "unknown_key",
        /// Signed by a key that the router has revoked.
        KeyRevoked = "key_revoked",
        /// The manifest's sequence is lower than one already installed, without leave to roll back.
        SequenceTooLow = "sequence_too_low",
        /// The manifest's `not_after` has passed.
        ManifestExpired = "manifest_expired",
        /// The manifest is for another model.
        WrongModel = "wrong_model",
        /// The manifest may not start from the version that runs.
        WrongStartVersion = "wrong_start_version",
        /// No tool profile of that name on the router, or it does not fit the modem.
        NoProfile = "no_profile",
        /// An option that the profile does not allow.
        OptionRefused = "option_refused",
        /// The vendor's tool or its kernel driver is not there.
        ToolMissing = "tool_missing",
        /// The modem was flashed as often as the router allows in 30 days.
        TooManyFlashes = "too_many_flashes",
        // The transfer; the modem is untouched.
        /// The image on the server is not the one of the manifest (length or digest).
        ChecksumMismatch = "checksum_mismatch",
        /// Not enough room for the image and the reserve.
        NoSpace = "no_space",
        /// The modem is the sole uplink and no staging directory survives a power cut.
        NoDurableStaging = "no_durable_staging",
        /// The journal lies on storage that does not survive a power cut, or cannot be written.
        Storage = "storage",
        /// The coordinator refused the image or the job for good.
        Refused = "refused",
        /// The job's deadline passed.
        Expired = "expired",
        // The tool.
        /// The tool could not be started.
        ToolNotStarted = "tool_not_started",
        /// The tool ended with an error.
        ToolFailed = "tool_failed",
        /// The tool refused the image for good.
        ToolRefused = "tool_refused",
        /// The tool ran longer than its profile allows and was ended.
        ToolTimeout = "tool_timeout",
        /// The attempt was lost to a crash or a power cut.
        AttemptLost = "attempt_lost",
        // The modem afterwards.
        /// The versions read back are not those of the manifest.
        VersionMismatch = "version_mismatch",
        /// Another modem answers in this slot.
        WrongModem = "wrong_modem",
        /// No modem to be found.
        ModemAbsent = "modem_absent",
        /// The modem is there and does not answer.
        ModemSilent = "modem_silent",
        /// The modem sits in its crash-dump mode.
        ModemCrashed = "modem_crashed",
        /// The modem sits in a download mode that no profile of ours can recover.
        StuckInDownloadMode = "stuck_in_download_mode",
        /// The new version runs, but the network did not come back.
        Acceptance = "acceptance",
        /// The agent contradicts itself: a bug, reported rather than hidden.
        Internal = "internal",
    }
}

impl FailureKind {
    /// Whether another attempt may help. This is the only retry rule.
    #[must_use]
    pub fn is_recoverable(self) -> bool {
        match self {
            Self::ToolNotStarted
            | Self::ToolFailed
            | Self::ToolTimeout
            | Self::AttemptLost
            | Self::ModemAbsent
            | Self::ModemSilent => true,
            Self::AgentTooOld
            | Self::NoManifest
            | Self::BadManifest
            | Self::NotSigned
            | Self::BadSignature
            | Self::UnknownKey
            | Self::KeyRevoked
            | Self::SequenceTooLow
            | Self::ManifestExpired
            | Self::WrongModel
            | Self::WrongStartVersion
            | Self::NoProfile
            | Self::OptionRefused
            | Self::ToolMissing
            | Self::TooManyFlashes
            | Self::ChecksumMismatch
            | Self::NoSpace
            | Self::NoDurableStaging
            | Self::Storage
            | Self::Refused
            | Self::Expired
            | Self::ToolRefused
            | Self::VersionMismatch
            | Self::WrongModem
            | Self::ModemCrashed
            | Self::StuckInDownloadMode
            | Self::Acceptance
            | Self::Internal
            | Self::Unknown => false,
        }
    }
}

wire_names! {
    /// What is known of the modem after a failure.
    ModemCondition {
        /// Nothing of ours touched it.
        Untouched = "untouched",
        /// The version from before runs.
        OldVersion = "old_version",
        /// A version runs that is neither the old nor the new one.
        OtherVersion = "other_version",
        /// The new version runs.
        Updated = "updated",
        /// It waits in its download mode.
        InDownloadMode = "in_download_mode",
        /// It sits in its crash-dump mode.
        CrashDump = "crash_dump",
        /// It is there and says nothing, or is not to be found.
        Silent = "silent",
    }
}
