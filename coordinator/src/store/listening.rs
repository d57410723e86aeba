//! Since when the coordinator has heard whoever spoke: before that nobody was silent.
//!
//! It begins with the start, and anew after a gap: the disk took nothing for long, the machine slept, or
//! its clock was set. Whoever asks first notices.

use std::sync::{Mutex, PoisonError};

/// What lasts no longer makes no difference to anybody.
pub(super) const GAP_MS: u64 = 30_000;

#[derive(Debug)]
pub(super) struct Listening(Mutex<State>);

#[derive(Debug, Clone, Copy)]
struct State {
    since: u64,
    now: u64,
    awake: u64,
}

impl Listening {
    /// `now` in unix milliseconds, `awake` as of [`Clock::awake`](crate::clock::Clock::awake).
    pub(super) fn start(now: u64, awake: u64) -> Self {
        Self(Mutex::new(State { since: now, now, awake }))
    }

    /// Since when, in unix milliseconds. `was_deaf` says whether nothing that was heard could be written for
    /// long, lately.
    pub(super) fn since(&self, now: u64, awake: u64, was_deaf: impl FnOnce() -> bool) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = awake.saturating_sub(state.awake);
        let stepped = now.abs_diff(state.now.saturating_add(passed)) > GAP_MS;
        if stepped {
            tracing::warn!(
                clock = state.now,
                now,
                passed,
                "the clock was set, or the machine slept: devices are given their time anew"
            );
        }
        let since = if stepped || was_deaf() { now } else { state.since };
        *state = State { since, now, awake };
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_anew_after_a_gap() {
        let listening = Listening::start(1_000_000, 50_000);
        let since = |now, awake, deaf| listening.since(now, awake, || deaf);
        assert_eq!(since(9_000_000, 8_050_000, false), 1_000_000, "time passes");
        assert_eq!(since(9_010_000, 8_050_000, false), 1_000_000, "the clock is corrected");
        assert_eq!(since(12_610_000, 8_050_001, false), 12_610_000, "it slept for an hour");
        assert_eq!(since(5_000_000, 8_050_002, false), 5_000_000, "it was set back");
        assert_eq!(since(6_000_000, 9_050_002, false), 5_000_000);
        assert_eq!(since(6_000_000, 9_050_002, true), 6_000_000, "the disk was full");
        assert_eq!(since(7_000_000, 10_050_002, false), 6_000_000, "it is not any more");
    }
}
