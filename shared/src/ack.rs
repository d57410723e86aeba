//! The coordinator's answer to milestones. Only this lets an outbox forget; a PUBACK does not.

use crate::{
    fields::{Missing, needed},
    ids::{OperationId, StreamId},
};
use serde::{Deserialize, Serialize};

/// The version of [`Acks`].
pub const VERSION: u8 = 1;

/// The payload of `down/ack` and the answer of `POST events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acks {
    pub v: u8,
    pub acks: Vec<Ack>,
}

impl Acks {
    #[must_use]
    pub fn new(acks: Vec<Ack>) -> Self {
        Self { v: VERSION, acks }
    }
}

/// The answer to one milestone, by its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AckFields")]
pub struct Ack {
    pub operation: OperationId,
    pub stream: StreamId,
    pub seq: u64,
    #[serde(flatten)]
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Verdict {
    /// Committed.
    Accepted,
    /// Was committed before.
    Duplicate,
    /// Kept as a dead letter on the server; sending it again changes nothing.
    Refused { reason: String },
    /// Of a newer version: treated as no answer.
    Unknown,
}

#[derive(Deserialize)]
struct AckFields {
    operation: OperationId,
    stream: StreamId,
    seq: u64,
    result: String,
    reason: Option<String>,
}

impl TryFrom<AckFields> for Ack {
    type Error = Missing;

    fn try_from(found: AckFields) -> Result<Self, Missing> {
        let AckFields { operation, stream, seq, result, reason } = found;
        let verdict = match result.as_str() {
            "accepted" => Verdict::Accepted,
            "duplicate" => Verdict::Duplicate,
            "refused" => Verdict::Refused { reason: needed("reason", reason)? },
            _ => Verdict::Unknown,
        };
        Ok(Self { operation, stream, seq, verdict })
    }
}
