//! Whom the newest wave waits for, and why: what holds a batch up must have a name.

use shared::ids::{DeviceId, OperationId, Slot};
use shared::stages::Phase;

use super::tally::{DARK_AFTER_MS, GRACE_MS};

/// A member that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    pub device: DeviceId,
    pub name: String,
    pub slot: Slot,
    pub operation: OperationId,
    /// For people.
    pub why: String,
}

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    pub phase: Option<Phase>,
    /// What the device last said for people.
    pub detail: Option<String>,
    /// An attempt was granted before.
    pub begun: bool,
    /// In an attempt's hands, silent for so long.
    pub granted: Option<Quiet>,
    /// Its device was not heard of for long.
    pub away: bool,
    pub duplicate: bool,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quiet {
    pub since: u64,
    pub expected: u64,
    pub longest: u64,
}

/// Why it is waited for.
pub fn why(standing: &Standing) -> String {
    let text = match (standing.granted, standing.phase) {
        (Some(_), Some(Phase::Recovering | Phase::Held)) => "its modem is not well",
        (Some(quiet), _) => quiet.told(),
        (None, _) if standing.duplicate => "two boards use its identity",
        (None, _) if standing.away => "it was not heard of for long",
        // What it says there changes all the time.
        (None, Some(phase @ (Phase::Downloading | Phase::Verifying))) => phase.as_str(),
        (None, phase) => match (&standing.detail, phase) {
            (Some(detail), _) => detail,
            (None, _) if standing.begun => "an attempt failed, and it tries again",
            (None, Some(phase)) => phase.as_str(),
            (None, None) => "it has not begun",
        },
    };
    text.to_owned()
}

impl Quiet {
    fn told(self) -> &'static str {
        let limit = |dark: u64| dark.max(DARK_AFTER_MS).saturating_add(GRACE_MS);
        if self.since > limit(self.longest) {
            "silent for longer than its modem should ever take"
        } else if self.since > limit(self.expected) {
            "silent for longer than expected"
        } else {
            "its modem is being flashed"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_holds_it_up_is_said() {
        let minute = 60_000;
        let flashing = |since| {
            let quiet = Quiet { since, expected: minute, longest: 10 * minute };
            Standing { granted: Some(quiet), begun: true, ..Standing::default() }
        };
        let said = |text: &str| Some(text.to_owned());
        for (standing, expected) in [
            (Standing::default(), "it has not begun"),
            (Standing { away: true, ..Standing::default() }, "it was not heard of for long"),
            (
                Standing { detail: said("the window opens at 02:00"), ..Standing::default() },
                "the window opens at 02:00",
            ),
            (
                Standing {
                    phase: Some(Phase::Downloading),
                    detail: said("3 MiB"),
                    ..Standing::default()
                },
                "downloading",
            ),
            (
                Standing { phase: Some(Phase::Backoff), begun: true, ..Standing::default() },
                "an attempt failed, and it tries again",
            ),
            (Standing { duplicate: true, ..Standing::default() }, "two boards use its identity"),
            (flashing(3 * minute), "its modem is being flashed"),
            (flashing(3 * minute + 1), "silent for longer than expected"),
            (flashing(12 * minute + 1), "silent for longer than its modem should ever take"),
            (Standing { phase: Some(Phase::Recovering), ..flashing(0) }, "its modem is not well"),
        ] {
            assert_eq!(why(&standing), expected, "{standing:?}");
        }
    }
}
