//! The vocabulary of the machine: steps, actions, outcomes, and what is recorded on the way.

use crate::{guardian::holders::Holder, modem::Baseline};
use serde::{Deserialize, Serialize};
use shared::{
    desired::Job,
    event::{Outcome as Ending, VersionLine},
    failure::{Failure, FailureKind},
    grant::Refusal,
    ids::StreamId,
};

/// What is to be done next, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Inspecting,
    Waiting {
        gates: Gates,
    },
    Downloading,
    Verifying,
    Baselining,
    Committing,
    Preparing,
    Installing {
        run: Run,
    },
    /// `silent`: how often it was there and did not answer.
    Probing {
        end: ToolEnd,
        recoveries: u32,
        silent: u32,
    },
    Restoring,
    Confirming,
    Releasing {
        next: Next,
    },
    Backoff {
        delay_s: u64,
    },
    /// A gate was closed that only the modem itself could tell of; its grant is handed back.
    Postponed {
        delay_s: u64,
        reason: String,
    },
    RecoveryPause {
        tries: u32,
        delay_s: u64,
    },
    Recovering {
        tries: u32,
        run: Run,
    },
    Held {
        reason: String,
    },
    Finished(Ending),
}

/// Which gates are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gates {
    /// Before bytes are fetched: room, a durable place.
    Download,
    /// Before the grant: the same again, the clock, the deadline, the tool.
    Commit,
}

/// Whether this process starts the tool or finds out what became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    Start,
    Attach,
}

/// What follows when everything is given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    Finish {
        ending: Ending,
    },
    Backoff {
        delay_s: u64,
    },
    Hold {
        reason: String,
    },
    /// The same attempt again, with another grant.
    Postpone {
        delay_s: u64,
        reason: String,
    },
}

/// What the tool, or its absence, says. A hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolEnd {
    Success,
    Failed {
        kind: FailureKind,
        detail: String,
    },
    /// No exit record: a crash or a power cut.
    Lost,
}

/// What is known of the upgrade so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub job: Job,
    pub stream: StreamId,
    /// Attempts that were granted; at most three. One that was lost before the tool was reached
    /// counts as well, so that its grant is closed and never used later.
    pub attempts: u32,
    /// Whether something may be held: `Releasing` is due.
    pub holding: bool,
    /// Whether a tool may have been started since the post-flash hooks ran last.
    #[serde(default)]
    pub post_flash_due: bool,
    /// Who had to let go of the modem: after a power cut nothing else may tell who uses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Holder>,
    /// What is to be reached, by the signed manifest: probing needs nothing that is staged.
    pub target: Option<Target>,
    /// The modem before the first attempt; the last look before its grant, and never changed after it.
    pub before: Option<Before>,
    /// Why the last attempt failed.
    #[serde(default)]
    pub last_failure: Option<Failure>,
    /// Grants that were handed back with no tool started: their attempts do not count, and the next
    /// request is told from a repeated one by this number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub returned: u32,
    /// How often the modem, flashed, was lost while it was restored or compared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vanished: u32,
    /// How often in a row somebody else's device was in the place of the modem that is recovered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strangers: u32,
    /// How the tool ended, while its modem is away or is recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_end: Option<ToolEnd>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Record {
    #[must_use]
    pub fn new(job: Job, stream: StreamId) -> Self {
        Self {
            job,
            stream,
            attempts: 0,
            holding: false,
            post_flash_due: false,
            held: Vec::new(),
            target: None,
            before: None,
            last_failure: None,
            returned: 0,
            vanished: 0,
            strangers: 0,
            tool_end: None,
        }
    }
}

/// The end that the signed manifest describes, for the modem that was inspected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub vendor: String,
    pub model: String,
    pub sequence: u64,
    /// All of these must be read back.
    pub reaches: Vec<VersionLine>,
    /// The tool profile's name.
    pub profile: String,
    /// By the profile: seconds to be back in the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_s: Option<u64>,
}

/// The modem as it was before anything touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub manufacturer: String,
    pub model: String,
    pub imei: String,
    pub versions: Vec<VersionLine>,
    /// SIM, network and settings, as far as they could be read.
    #[serde(default)]
    pub baseline: Baseline,
    /// Whether the modem itself has told all this. What ModemManager did not tell is read before any tool
    /// starts.
    #[serde(default = "yes")]
    pub by_modem: bool,
}

/// Nobody else was asked by earlier versions.
fn yes() -> bool {
    true
}

impl Before {
    /// Takes over what only the modem tells, unless it has told before: an earlier attempt may have changed
    /// it since.
    pub(super) fn complete(&mut self, read: Self) {
        if !self.by_modem {
            self.baseline.complete(read.baseline);
            let Self { manufacturer, model, versions, .. } = read;
            *self = Self { manufacturer, model, versions, by_modem: true, ..self.clone() };
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Inspect,
    CheckGates(Gates),
    Download,
    Verify,
    Baseline,
    RequestGrant {
        attempt: u32,
    },
    Prepare,
    Install,
    /// Wait for a tool that may run, and fetch its exit record.
    Attach,
    Probe,
    Restore,
    Confirm,
    PostFlash,
    Release,
    Pause {
        seconds: u64,
    },
    Recover,
    AwaitRelease,
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet (a network error, a closed gate, a silent modem): the same again, later.
    Again {
        reason: String,
    },
    /// The job is no longer wanted; only where [`super::State::is_cancellable`].
    Cancelled,
    /// This cannot go on.
    Failed(Failure),
    Inspected(Box<Target>),
    /// The target runs, and this process did not flash it.
    AlreadyInstalled(Box<Target>),
    GatesOpen,
    /// A gate that was open has closed before anything was granted.
    GatesClosed,
    Downloaded,
    Verified,
    /// The staged image is gone, not the manifest's any more, or not where it has to be by now.
    ImageLost,
    Baselined(Box<Before>),
    Granted,
    Refused(Refusal),
    /// The modem is ours, and this is its own word: versions, and the settings where they are not known yet.
    /// With those who let go.
    Prepared(Box<Before>, Vec<Holder>),
    /// A gate is closed that could not be looked at before the modem was ours; it is as it was.
    Postponed {
        reason: String,
    },
    /// The tool did not start; the modem is as it was.
    NotStarted(Failure),
    ToolEnded(ToolEnd),
    Probed(Sighting),
    Restored,
    /// `not_compared`: why SIM and network could not be held against those from before.
    Confirmed {
        not_compared: Option<String>,
        /// What is worse than before, and no failure.
        remark: Option<String>,
    },
    /// The modem that ran the target is not there or does not answer any more.
    Vanished {
        reason: String,
    },
    /// The router's post-flash hooks had their say.
    PostFlashed,
    Released,
    Paused,
    /// A person said: go on.
    OperatorReleased,
}

/// What the modem looks like after the tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// All versions of the manifest are read back from the same modem.
    Target,
    /// The versions from before, from the same modem.
    Old,
    OtherVersion {
        found: String,
    },
    WrongModem {
        imei: String,
    },
    CrashDump,
    /// Exactly one device in a download mode that the profile recovers from.
    DownloadMode,
    /// A download mode that the profile does not know.
    ForeignDownloadMode {
        usb: String,
    },
    /// More than one candidate, or a tool that is not ours.
    Ambiguous {
        reason: String,
    },
    /// Enumerated and mute.
    Silent,
    /// Not to be found.
    Absent,
}
