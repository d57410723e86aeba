//! What a device reports about its operations: milestones, which must not be lost, and ticks, of
//! which only the latest counts.

use crate::{
    failure::Failure,
    fields::{Missing, needed},
    ids::{OperationId, SessionId, Slot, StreamId},
    stages::Phase,
};
use serde::{Deserialize, Serialize};

/// The version of [`Events`], [`Tick`] and [`Presence`].
pub const VERSION: u8 = 1;

/// A batch of milestones: the payload of `up/event` and the body of `POST events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    pub v: u8,
    /// At most [`crate::limits::EVENTS_COUNT`].
    pub events: Vec<Event>,
}

impl Events {
    #[must_use]
    pub fn new(events: Vec<Event>) -> Self {
        Self { v: VERSION, events }
    }
}

/// A milestone. `(operation, stream, seq)` is its key: the same key is the same milestone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub operation: OperationId,
    pub slot: Slot,
    pub stream: StreamId,
    /// Counts from 1 within the stream and operation.
    pub seq: u64,
    /// The attempt it belongs to; 0 before the first grant.
    pub attempt: u32,
    /// The device's clock in unix milliseconds, if it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "BodyFields")]
pub enum EventBody {
    /// The machine entered a phase.
    Entered { phase: Phase },
    /// Not now: a gate is closed, with the reason for people.
    Postponed { reason: String },
    /// The coordinator's leave was received; the modem may be touched from here on.
    Granted,
    /// The grant is handed back, its tool not started: a gate is closed that could not be looked at
    /// before, with the reason for people. `returned`: how many were handed back with this one.
    Returned { reason: String, returned: u32 },
    /// An attempt failed and another will follow after `delay_s`.
    Retrying { failure: Failure, delay_s: u64 },
    /// The modem is in download mode; recovery number `tries` follows.
    Recovering { tries: u32, detail: String },
    /// Waits for a person.
    Held { reason: String },
    /// The end.
    Finished { outcome: Outcome },
    /// Of a newer version.
    Unknown,
}

#[derive(Deserialize)]
struct BodyFields {
    r#type: String,
    phase: Option<Phase>,
    reason: Option<String>,
    returned: Option<u32>,
    failure: Option<Failure>,
    delay_s: Option<u64>,
    tries: Option<u32>,
    detail: Option<String>,
    outcome: Option<Outcome>,
}

impl TryFrom<BodyFields> for EventBody {
    type Error = Missing;

    fn try_from(found: BodyFields) -> Result<Self, Missing> {
        let reason = needed("reason", found.reason);
        let delay_s = needed("delay_s", found.delay_s);
        Ok(match found.r#type.as_str() {
            "entered" => Self::Entered { phase: needed("phase", found.phase)? },
            "postponed" => Self::Postponed { reason: reason? },
            "granted" => Self::Granted,
            "returned" => {
                Self::Returned { reason: reason?, returned: needed("returned", found.returned)? }
            }
            "retrying" => {
                Self::Retrying { failure: needed("failure", found.failure)?, delay_s: delay_s? }
            }
            "recovering" => Self::Recovering {
                tries: needed("tries", found.tries)?,
                detail: needed("detail", found.detail)?,
            },
            "held" => Self::Held { reason: reason? },
            "finished" => Self::Finished { outcome: needed("outcome", found.outcome)? },
            _ => Self::Unknown,
        })
    }
}

impl EventBody {
    /// Grants, their ends and terminals are never evicted from an outbox.
    #[must_use]
    pub fn must_be_kept(&self) -> bool {
        match self {
            Self::Granted | Self::Returned { .. } | Self::Finished { .. } | Self::Held { .. } => {
                true
            }
            Self::Entered { .. }
            | Self::Postponed { .. }
            | Self::Retrying { .. }
            | Self::Recovering { .. }
            | Self::Unknown => false,
        }
    }
}

/// One line of an AT command's reply, as a manifest names it and a modem gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionLine {
    /// The command without `AT`, for instance `#SWPKGV`.
    pub command: String,
    /// The line of the reply, from 1.
    pub line: u8,
    pub value: String,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case", try_from = "OutcomeFields")]
pub enum Outcome {
    /// The versions of the manifest were read back from the same modem.
    Succeeded {
        versions: Vec<VersionLine>,
        /// Why SIM and network could not be held against those from before; absent = they were.
        #[serde(skip_serializing_if = "Option::is_none")]
        not_compared: Option<String>,
        /// What is worse than before without being a failure, such as a slower network.
        #[serde(skip_serializing_if = "Option::is_none")]
        remark: Option<String>,
    },
    /// They ran already; nothing was done.
    AlreadyInstalled {
        versions: Vec<VersionLine>,
    },
    /// Cancelled before the point of no return; the modem is untouched by this attempt.
    Cancelled,
    Failed {
        failure: Failure,
    },
    /// Of a newer version.
    Unknown,
}

#[derive(Deserialize)]
struct OutcomeFields {
    result: String,
    versions: Option<Vec<VersionLine>>,
    not_compared: Option<String>,
    remark: Option<String>,
    failure: Option<Failure>,
}

impl TryFrom<OutcomeFields> for Outcome {
    type Error = Missing;

    fn try_from(found: OutcomeFields) -> Result<Self, Missing> {
        let OutcomeFields { result, versions, not_compared, remark, failure } = found;
        let versions = needed("versions", versions);
        Ok(match result.as_str() {
            "succeeded" => Self::Succeeded { versions: versions?, not_compared, remark },
            "already_installed" => Self::AlreadyInstalled { versions: versions? },
            "cancelled" => Self::Cancelled,
            "failed" => Self::Failed { failure: needed("failure", failure)? },
            _ => Self::Unknown,
        })
    }
}

/// Progress: only the latest counts. Ordered by `(attempt, n)` within a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    pub v: u8,
    pub operation: OperationId,
    pub slot: Slot,
    pub stream: StreamId,
    pub attempt: u32,
    /// Counts the ticks of the stream.
    pub n: u64,
    pub phase: Phase,
    /// Percent of the attempt, by [`crate::stages`].
    pub percent: u8,
    /// The tool has said nothing for longer than its profile expects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// The tool's last line, or the bytes fetched; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Bytes of the image fetched over the network so far, resumptions included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<u64>,
}

/// Whether a device is connected. An old session's will must not hide a newer session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    pub v: u8,
    pub session: SessionId,
    pub online: bool,
}
