//! The one table of stages: the phases of the upgrade machine, the five stages that users know, and
//! the percentage of an attempt that each of them spans.
//!
//! | stage | percent |
//! |---|---|
//! | transfer | 0-10 |
//! | verify | 10-20 |
//! | execute | 20-90 |
//! | reboot | 90-95 |
//! | confirm | 95-100 |

use crate::names::wire_names;
use serde::{Deserialize, Serialize};

/// A stage as users of the predecessor know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Transfer,
    Verify,
    Execute,
    Reboot,
    Confirm,
    /// A stage of a newer version.
    #[serde(other)]
    Unknown,
}

impl Stage {
    /// First and last percent of this stage in an attempt.
    #[must_use]
    pub fn range(self) -> (u8, u8) {
        match self {
            Self::Transfer | Self::Unknown => (0, 10),
            Self::Verify => (10, 20),
            Self::Execute => (20, 90),
            Self::Reboot => (90, 95),
            Self::Confirm => (95, 100),
        }
    }

    /// Percent of the attempt when `within` percent (0 to 100) of this stage are done.
    ///
    /// ```
    /// use shared::stages::Stage;
    /// assert_eq!(Stage::Execute.percent(0), 20);
    /// assert_eq!(Stage::Execute.percent(50), 55);
    /// assert_eq!(Stage::Confirm.percent(200), 100);
    /// ```
    #[must_use]
    pub fn percent(self, within: u8) -> u8 {
        let (first, last) = self.range();
        let share = u16::from(last - first) * u16::from(within.min(100)) / 100;
        u8::try_from(u16::from(first) + share).unwrap_or(last)
    }
}

wire_names! {
    /// A phase of the upgrade machine: what the agent is doing right now.
    Phase {
        Inspecting = "inspecting",
        Waiting = "waiting",
        Downloading = "downloading",
        Verifying = "verifying",
        Baselining = "baselining",
        Committing = "committing",
        Preparing = "preparing",
        Installing = "installing",
        Probing = "probing",
        /// Said by no agent so far: vendors' tools restart the modem themselves.
        Restarting = "restarting",
        Restoring = "restoring",
        Confirming = "confirming",
        Releasing = "releasing",
        Backoff = "backoff",
        Recovering = "recovering",
        Held = "held",
        Finished = "finished",
    }
}

impl Phase {
    /// The users' stage of this phase.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::Inspecting | Self::Waiting | Self::Downloading | Self::Unknown => Stage::Transfer,
            Self::Verifying | Self::Baselining | Self::Committing => Stage::Verify,
            Self::Preparing | Self::Installing | Self::Backoff | Self::Recovering | Self::Held => {
                Stage::Execute
            }
            Self::Probing | Self::Restarting | Self::Restoring => Stage::Reboot,
            Self::Confirming | Self::Releasing | Self::Finished => Stage::Confirm,
        }
    }

    /// Whether the phase lies behind the point of no return of its attempt.
    #[must_use]
    pub fn is_granted(self) -> bool {
        match self {
            Self::Preparing
            | Self::Installing
            | Self::Probing
            | Self::Restarting
            | Self::Restoring
            | Self::Confirming
            | Self::Releasing
            | Self::Recovering => true,
            Self::Inspecting
            | Self::Waiting
            | Self::Downloading
            | Self::Verifying
            | Self::Baselining
            | Self::Committing
            | Self::Backoff
            | Self::Held
            | Self::Finished
            | Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_without_gap() {
        let stages =
            [Stage::Transfer, Stage::Verify, Stage::Execute, Stage::Reboot, Stage::Confirm];
        assert_eq!(stages[0].range().0, 0);
        assert_eq!(stages[4].range().1, 100);
        assert!(stages.windows(2).all(|w| w[0].range().1 == w[1].range().0));
    }

    #[test]
    fn names_are_those_on_the_wire() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
        assert_eq!(serde_json::from_str::<Phase>("\"teleporting\"").unwrap(), Phase::Unknown);
        assert_eq!(serde_json::from_str::<Stage>("\"x\"").unwrap(), Stage::Unknown);
    }
}
