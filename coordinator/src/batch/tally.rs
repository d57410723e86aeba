//! The arithmetic of a batch. Every operation is counted once, under its status.

use crate::operation::Status;

/// How many operations have which status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub idle: u64,
    pub in_progress: u64,
    pub success: u64,
    pub failed: u64,
    pub aborted: u64,
    pub cancelled: u64,
    /// Of the failed and aborted those that speak against the build or its tool.
    pub charged: u64,
    /// Of the successes those by a script's word alone, and of modems that ran the version before anybody
    /// flashed them: they count, and open no gate.
    pub unproved: u64,
}

impl Counts {
    pub fn total(&self) -> u64 {
        self.undecided() + self.done()
    }

    pub fn undecided(&self) -> u64 {
        self.idle + self.in_progress
    }

    pub fn done(&self) -> u64 {
        self.success + self.failed + self.aborted + self.cancelled
    }

    /// Successes of modems that were flashed, and that the new version was read back from.
    pub fn proved(&self) -> u64 {
        self.success.saturating_sub(self.unproved)
    }

    /// The batch's status as the predecessor's users know it.
    pub fn status(&self) -> Status {
        if self.undecided() > 0 {
            return if self.idle == self.total() { Status::Idle } else { Status::InProgress };
        }
        match self {
            Self { failed: 1.., .. } => Status::Failed,
            Self { aborted: 1.., .. } => Status::Aborted,
            Self { cancelled: 1.., .. } => Status::Cancelled,
            Self { success: 1.., .. } => Status::Success,
            Self { .. } => Status::Idle,
        }
    }

    /// `"3 out of 10"`: how many have ended.
    pub fn progress_report(&self) -> String {
        format!("{} out of {}", self.done(), self.total())
    }

    /// Of all operations those with this status, in percent, rounded down to hundredths: 100 is all
    /// of them.
    pub fn rate(&self, of: Status) -> f64 {
        let count = match of {
            Status::Idle => self.idle,
            Status::InProgress => self.in_progress,
            Status::Success => self.success,
            Status::Failed => self.failed,
            Status::Aborted => self.aborted,
            Status::Cancelled => self.cancelled,
        };
        let hundredths = (count * 10_000).checked_div(self.total()).unwrap_or(0);
        u32::try_from(hundredths).map_or(100.0, |hundredths| f64::from(hundredths) / 100.0)
    }
}

/// Silence that is none: whoever talks, talks more often.
pub const DARK_AFTER_MS: u64 = 30_000;
/// Clocks, reconnections and delivery take their time: added to what the device said of its dark
/// window.
pub const GRACE_MS: u64 = 120_000;

/// Modems in an attempt's hands, by how long they have been silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silence {
    /// All of them, also those that talk.
    pub granted: u64,
    /// Silent as expected while the uplink is being flashed.
    pub dark: u64,
    /// For longer than usual: the next wave does not open.
    pub suspect: u64,
    /// For longer than ever, or in recovery: counts as a failure until the device says otherwise.
    pub overdue: u64,
    /// Of the overdue those that somebody has accepted by resuming: for the attempt that they are in
    /// they count no more.
    pub forgiven: u64,
}

impl Silence {
    /// Those that count as failures.
    pub fn charged(&self) -> u64 {
        self.overdue.saturating_sub(self.forgiven)
    }
}

/// A wave that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wave {
    /// From 0, the canary.
    pub n: u32,
    pub counts: Counts,
    /// Unix milliseconds.
    pub opened_at: u64,
    /// When the last of its operations ended.
    pub last_result: Option<u64>,
}

/// What is known of a batch when a decision is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub all: Counts,
    pub silence: Silence,
    /// The newest wave.
    pub wave: Option<Wave>,
    /// Undecided and in no wave.
    pub pool: u64,
    /// Of the pool those whose device was heard of lately; counted up to what is needed.
    pub present: u64,
    /// Of the newest wave those without any grant so far whose device was not heard of for long.
    pub offline: u64,
    /// Of the newest wave all of those without any grant so far.
    pub stragglers: u64,
    /// Between two attempts, their devices not heard of for long; counted up to what is ended at a time.
    pub stalled: u64,
    /// The most that a wave has proved.
    pub best: u64,
}
