//! The grant: the coordinator's leave to pass the point of no return.
//!
//! `POST operations/{id}/start` with a [`StartRequest`]; 200 with a [`Grant`], or 409 with a
//! [`Refusal`]. The same `(operation, attempt, stream)` asked twice counts once.
//!
//! A grant that turns out to be of no use now, with no tool started, is handed back by
//! [`crate::event::EventBody::Returned`]: the operation can be cancelled again, and the attempt is asked
//! for anew with [`StartRequest::returned`] raised by one. The two may arrive in any order.

use crate::ids::StreamId;
use serde::{Deserialize, Serialize};

/// Asks for leave to flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// From 1.
    pub attempt: u32,
    pub stream: StreamId,
    /// Seconds the device will usually be unreachable; 0 when the modem is not its uplink.
    pub dark_expected_s: u64,
    /// Seconds after which its silence is a failure.
    pub dark_longest_s: u64,
    /// How many grants of this operation its journal has handed back, their tools not started. A number
    /// above that of the open grant says that this is another grant of the same attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub returned: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Leave is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub attempt: u32,
    pub stream: StreamId,
}

/// Leave is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: RefusalCode,
    /// For people.
    pub detail: String,
    /// Seconds after which asking again may help, for those refusals that pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The operator cancelled the operation.
    Cancelled,
    /// A newer operation took its place.
    Superseded,
    /// The operation's deadline passed.
    Expired,
    /// The operation has ended.
    Finished,
    /// All attempts are used up.
    Attempts,
    /// Its batch is paused; ask again.
    Paused,
    /// As many as allowed are being flashed; ask again.
    Concurrency,
    /// The device is held; ask again.
    Quarantined,
    /// Of a newer version: ask again, the modem stays untouched.
    #[serde(other)]
    Unknown,
}

impl RefusalCode {
    /// Whether asking again later may help.
    #[must_use]
    pub fn passes(self) -> bool {
        match self {
            Self::Paused | Self::Concurrency | Self::Quarantined | Self::Unknown => true,
            Self::Cancelled
            | Self::Superseded
            | Self::Expired
            | Self::Finished
            | Self::Attempts => false,
        }
    }
}
