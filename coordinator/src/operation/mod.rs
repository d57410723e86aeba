//! An upgrade operation and the rules of its life. Pure: values in, values out.
//!
//! ```text
//!           request                first word of the device          Finished
//!  (nothing) ─────▶ idle ──────────────────────────────▶ in-progress ────────▶ success
//!                    │  ▲                                 │   ▲   │            failed
//!             cancel │  │ start: granted ── grant open ───┘   │   │            aborted
//!                    ▼  └──── Retrying, old version seen ─────┘   │ cancel, no grant open
//!                cancelled ◀──────────────────────────────────────┘ (failed after a failed attempt)
//! ```
//! - Only [`grant::start`] opens a grant, and [`restored::adopt`] one that a backup has forgotten; while one is open
//!   nothing but the device ends the operation, save [`expiry`] after a long silence. `Returned` closes it and
//!   uncounts its attempt.
//! - A terminal status never changes. What comes later is kept as [`LateResult`].
//! - An operation listens to one journal (stream): the newest before the first grant, the granted
//!   one from then on.
//! - Once an attempt has touched the modem and failed, the operation ends in success or failed: it is
//!   never said to have left the modem untouched.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod cancel;
pub mod event;
pub mod expiry;
pub mod grant;
pub mod log;
pub mod options;
pub mod report;
pub mod restored;
pub mod tick;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::event::{Outcome, VersionLine};
use shared::failure::{Failure, ModemCondition};
use shared::ids::{BatchId, DeviceId, ImageId, OperationId, OrganizationSlug, Slot, StreamId};
use shared::stages::{Phase, Stage};

/// Granted attempts an operation may have.
pub const MAX_ATTEMPTS: u32 = 3;

/// The status as the predecessor's users know it: no other value is ever shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Requested; nothing heard of the device yet.
    Idle,
    InProgress,
    Success,
    /// It failed after the modem was touched, or nobody knows; also where it was taken back then.
    Failed,
    /// It was given up with the modem untouched.
    Aborted,
    /// An operator, or a newer operation, took it back before the modem was touched.
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::InProgress, Self::Success, Self::Failed, Self::Aborted, Self::Cancelled];

    /// As in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::InProgress => "in-progress",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn is_terminal(self) -> bool {
        match self {
            Self::Idle | Self::InProgress => false,
            Self::Success | Self::Failed | Self::Aborted | Self::Cancelled => true,
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a status")]
pub struct NotAStatus(String);

impl std::str::FromStr for Status {
    type Err = NotAStatus;
    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let known = Self::ALL.into_iter().find(|status| status.as_str() == text);
        known.ok_or_else(|| NotAStatus(text.chars().take(40).collect()))
    }
}

/// What a terminal status rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The versions that the agent read back from the modem.
    Versions,
    /// A script's word, over the API.
    Reported,
}

impl Evidence {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Versions => "versions",
            Self::Reported => "reported",
        }
    }
}

/// The coordinator's leave to flash, given to one attempt of one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    pub attempt: u32,
    pub stream: StreamId,
    /// Unix milliseconds.
    pub at: u64,
    pub dark_expected_ms: u64,
    pub dark_longest_ms: u64,
    /// False once the device has said that the attempt is over and the old version runs.
    pub open: bool,
    /// How many grants the journal had handed back when it asked for this one.
    pub returned: u32,
    /// It was handed back, its tool not started: the attempt may be granted anew.
    pub unused: bool,
}

/// What the device said after the operation had been given up or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateResult {
    pub outcome: Outcome,
    /// Unix milliseconds.
    pub received: u64,
}

/// One upgrade of the modem in one slot of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub id: OperationId,
    pub organization: OrganizationSlug,
    pub device: DeviceId,
    pub slot: Slot,
    /// None once the image was deleted.
    pub image: Option<ImageId>,
    pub batch: Option<BatchId>,
    /// The batch's wave that it is in; none while it waits in the batch's pool.
    pub wave: Option<u32>,
    /// Its device is not to know of it yet: its wave has not opened.
    pub held: bool,
    pub retry_of: Option<OperationId>,
    pub superseded_by: Option<OperationId>,
    /// As the operator wrote them; see [`options`].
    pub upgrade_options: Map<String, Value>,
    pub allow_volatile_staging: bool,
    pub status: Status,
    /// None until something was heard.
    pub phase: Option<Phase>,
    /// The last attempt heard of; 0 before the first grant.
    pub attempt: u32,
    /// 0 to 100, of the attempt.
    pub progress_percent: u8,
    /// What the device last said for people.
    pub detail: Option<String>,
    /// The tool has said nothing for longer than usual.
    pub stalled: bool,
    /// Bytes of the image fetched over the network.
    pub fetched: u64,
    /// Of the attempts the last one that touched the modem; where none has, the last failure.
    pub failure: Option<Failure>,
    pub evidence: Option<Evidence>,
    /// A success that says nothing of the build: by a script's word, or nobody flashed it here.
    pub unproved: bool,
    pub late_result: Option<LateResult>,
    pub log: String,
    pub stream: Option<StreamId>,
    pub last_seq: u64,
    pub tick_attempt: u32,
    pub tick_n: u64,
    pub attempts_granted: u32,
    pub granted: Option<Granted>,
    /// The last word of its stream, unix milliseconds; likewise all times below.
    pub heard_at: Option<u64>,
    pub deadline: Option<u64>,
    pub finished_at: Option<u64>,
    pub created: u64,
    pub modified: u64,
}

/// What is known of an operation when it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Requested {
    pub id: OperationId,
    pub organization: OrganizationSlug,
    pub device: DeviceId,
    pub slot: Slot,
    pub image: ImageId,
    /// The batch that it is made for: then it waits in its pool.
    pub batch: Option<BatchId>,
    pub retry_of: Option<OperationId>,
    pub upgrade_options: Map<String, Value>,
    pub allow_volatile_staging: bool,
    /// Unix milliseconds.
    pub deadline: u64,
}

impl Operation {
    /// A new one, of which nothing was heard yet.
    pub fn requested(wanted: Requested, by: &str, now: u64) -> Self {
        let mut operation = Self {
            id: wanted.id,
            organization: wanted.organization,
            device: wanted.device,
            slot: wanted.slot,
            image: Some(wanted.image),
            batch: wanted.batch,
            wave: None,
            held: wanted.batch.is_some(),
            retry_of: wanted.retry_of,
            superseded_by: None,
            upgrade_options: wanted.upgrade_options,
            allow_volatile_staging: wanted.allow_volatile_staging,
            status: Status::Idle,
            phase: None,
            attempt: 0,
            progress_percent: 0,
            detail: None,
            stalled: false,
            fetched: 0,
            failure: None,
            evidence: None,
            unproved: false,
            late_result: None,
            log: String::new(),
            stream: None,
            last_seq: 0,
            tick_attempt: 0,
            tick_n: 0,
            attempts_granted: 0,
            granted: None,
            heard_at: None,
            deadline: Some(wanted.deadline),
            finished_at: None,
            created: now,
            modified: now,
        };
        operation.note(now, &format!("requested by {by}"));
        operation
    }

    /// The stage as users of the predecessor know it.
    pub fn stage(&self) -> Option<Stage> {
        self.phase.map(Phase::stage)
    }

    /// Whether the modem may be in an attempt's hands: past the point of no return.
    pub fn is_granted(&self) -> bool {
        self.granted.is_some_and(|granted| granted.open)
    }

    /// What an attempt that failed has left, if one has touched the modem.
    pub fn left(&self) -> Option<Failure> {
        self.granted?;
        self.failure.clone().filter(is_touched)
    }

    /// Whether the device's agent should be given this job: not beside a script that does it.
    pub fn is_wanted(&self) -> bool {
        !self.status.is_terminal() && !self.held && !report::is_under_way(self)
    }

    /// Takes it out of the batch's pool, into a wave that is open.
    pub fn join(&mut self, wave: u32, now: u64) {
        self.wave = Some(wave);
        self.held = false;
        self.modified = now;
    }

    fn finish(&mut self, status: Status, now: u64) {
        self.status = status;
        self.finished_at = Some(now);
        self.modified = now;
        self.stalled = false;
        if let Some(granted) = &mut self.granted {
            granted.open = false;
        }
    }
}

/// Whether the modem is not as nobody had come near it.
fn is_touched(failure: &Failure) -> bool {
    failure.condition != ModemCondition::Untouched
}

/// What an applied rule changes beside the operation itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// The versions that were read back from the modem and prove the image installed.
    pub installed: Option<Vec<VersionLine>>,
    /// The device's jobs are not what they were.
    pub desired: bool,
}

#[cfg(test)]
pub(crate) mod tests;
