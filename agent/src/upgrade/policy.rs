//! How often and how long: the numbers of the machine. Pure: the same question gets the same answer.

use crate::upgrade::state::{Action, State, Step};
use serde::{Deserialize, Serialize};

/// The limits of one upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Grants per operation.
    pub max_attempts: u32,
    /// How often a mute modem is asked again after a flash, each time for its boot time.
    pub max_rounds: u32,
    /// How often a flashed modem is asked whether it is back in its network, and restored: with
    /// the doubling pauses some twenty minutes.
    pub max_acceptance: u32,
    /// How often an image is fetched again because it was not what had been written.
    pub max_losses: u32,
    /// How often in a row a modem is looked for while somebody else's device is in its place: with the first doubling
    /// pauses some two hours. Then the slot waits for a person.
    pub max_strangers: u32,
    /// How often giving back is tried before it is reported and left.
    pub max_releases: u32,
    /// First pause before another attempt, failed or postponed, in seconds; doubles.
    pub backoff_s: u64,
    /// First pause before another recovery, in seconds; doubles up to [`Policy::slowest_s`].
    pub recovery_s: u64,
    /// The slowest pace of recovery, and of attempts that are postponed, in seconds.
    pub slowest_s: u64,
    /// First pause before an action is tried again, in seconds; doubles.
    pub again_s: u64,
    /// Longest pause before an action is tried again, in seconds.
    pub again_longest_s: u64,
    /// A longer rest than this, in seconds, gives the turn to the router's other modems.
    pub longest_stay_s: u64,
    /// From rests of this length on, in seconds, a recovery counts as slow.
    pub slow_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            max_rounds: 3,
            max_acceptance: 8,
            max_losses: 2,
            max_strangers: 8,
            max_releases: 8,
            backoff_s: 60,
            recovery_s: 30,
            slowest_s: 6 * 3600,
            again_s: 5,
            again_longest_s: 15 * 60,
            longest_stay_s: 30,
            slow_s: 15 * 60,
        }
    }
}

impl Policy {
    /// Seconds after attempt number `attempts`.
    #[must_use]
    pub fn backoff(&self, attempts: u32) -> u64 {
        doubled(self.backoff_s, attempts.saturating_sub(1), 3600)
    }

    /// Seconds before an attempt is asked for anew whose grant was handed back, for the `times`-th time
    /// (from 1): each look takes the modem from whoever uses it, so they become rare.
    #[must_use]
    pub fn postponement(&self, times: u32) -> u64 {
        doubled(self.backoff_s, times.saturating_sub(1), self.slowest_s)
    }

    /// Seconds before recovery number `tries` (from 1): quick at first, then slow, for ever.
    #[must_use]
    pub fn recovery(&self, tries: u32) -> u64 {
        doubled(self.recovery_s, tries.saturating_sub(1), self.slowest_s)
    }

    /// How often a flashed modem is asked whether it is back in its network, within `network_s` seconds where the
    /// profile names them: the pauses between are as long together, at least.
    #[must_use]
    pub fn acceptances(&self, network_s: Option<u64>) -> u32 {
        let Some(network_s) = network_s else { return self.max_acceptance };
        let (mut tries, mut seconds) = (0, 0_u64);
        while seconds < network_s {
            tries += 1;
            seconds = seconds.saturating_add(self.again(tries).max(1));
        }
        tries
    }

    /// Seconds before the same action is tried again, for the `tries`-th time (from 1).
    #[must_use]
    pub fn again(&self, tries: u32) -> u64 {
        doubled(self.again_s, tries.saturating_sub(1), self.again_longest_s)
    }
}

impl Policy {
    /// Seconds before the pending action of `state`; `asked`: what the coordinator asked for with
    /// its last refusal.
    #[must_use]
    pub fn rest(&self, state: &State, asked: u64) -> u64 {
        let mut seconds =
            if let Some(Action::Pause { seconds }) = state.action() { seconds } else { 0 };
        if state.tries > 0 {
            seconds = seconds.max(self.again(state.tries));
        }
        if state.refusals > 0 && matches!(state.step, Step::Waiting { .. }) {
            seconds = seconds.max(self.again(state.refusals)).max(asked);
        }
        seconds
    }

    /// Whether the recovery of `state` has become slow: hours may pass between its tries.
    #[must_use]
    pub fn is_slow(&self, state: &State) -> bool {
        matches!(state.step, Step::RecoveryPause { delay_s, .. } if delay_s >= self.slow_s)
    }
}

fn doubled(first: u64, times: u32, longest: u64) -> u64 {
    first.saturating_mul(1_u64.checked_shl(times.min(32)).unwrap_or(u64::MAX)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_the_longest_of_what_asks_for_one() {
        let policy = Policy::default();
        let mut state = State::new(crate::upgrade::state::tests::record());
        assert_eq!(policy.rest(&state, 900), 0);
        state.tries = 2;
        assert_eq!(policy.rest(&state, 900), 10);
        state.step = Step::RecoveryPause { tries: 9, delay_s: 3600 };
        assert_eq!(policy.rest(&state, 0), 3600);
        assert!(policy.is_slow(&state));
        state.step = Step::Waiting { gates: crate::upgrade::state::Gates::Commit };
        state.refusals = 1;
        assert_eq!(policy.rest(&state, 900), 900);
        assert!(!policy.is_slow(&state));
    }

    #[test]
    fn acceptance_takes_as_long_as_the_profile_gives_it() {
        let policy = Policy::default();
        let pauses = |tries| (1..=tries).map(|nth| policy.again(nth)).sum::<u64>();
        for network_s in [1, 5, 6, 60, 1200, 24 * 3600] {
            let tries = policy.acceptances(Some(network_s));
            assert!(pauses(tries) >= network_s && pauses(tries - 1) < network_s, "{network_s}");
        }
        assert_eq!(policy.acceptances(None), policy.acceptances(Some(1200)), "some twenty minutes");
        let hasty = Policy { again_s: 0, ..policy };
        assert_eq!(hasty.acceptances(Some(7)), 7, "no pause is no eternity");
    }

    #[test]
    fn recovery_becomes_slow_and_stays_so() {
        let policy = Policy::default();
        assert_eq!(policy.recovery(1), 30);
        assert_eq!(policy.recovery(3), 120);
        assert_eq!(policy.recovery(1000), policy.slowest_s);
        assert_eq!((policy.postponement(1), policy.postponement(2)), (60, 120));
        assert_eq!(policy.postponement(1000), policy.slowest_s);
    }
}
