//! How often and how long: the numbers of the machine. Pure: the same question gets the same answer.

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
    /// How often giving back is tried before it is reported and left.
    pub max_releases: u32,
    /// First pause before another attempt, in seconds; doubles.
    pub backoff_s: u64,
    /// First pause before another recovery, in seconds; doubles up to [`Policy::slowest_s`].
    pub recovery_s: u64,
    /// The slowest pace of recovery, in seconds.
    pub slowest_s: u64,
    /// First pause before an action is tried again, in seconds; doubles.
    pub again_s: u64,
    /// Longest pause before an action is tried again, in seconds.
    pub again_longest_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            max_rounds: 3,
            max_acceptance: 8,
            max_releases: 8,
            backoff_s: 60,
            recovery_s: 30,
            slowest_s: 6 * 3600,
            again_s: 5,
            again_longest_s: 15 * 60,
        }
    }
}

impl Policy {
    /// Seconds after attempt number `attempts`.
    #[must_use]
    pub fn backoff(&self, attempts: u32) -> u64 {
        doubled(self.backoff_s, attempts.saturating_sub(1), 3600)
    }

    /// Seconds before recovery number `tries` (from 1): quick at first, then slow, for ever.
    #[must_use]
    pub fn recovery(&self, tries: u32) -> u64 {
        doubled(self.recovery_s, tries.saturating_sub(1), self.slowest_s)
    }

    /// Seconds before the same action is tried again, for the `tries`-th time (from 1).
    #[must_use]
    pub fn again(&self, tries: u32) -> u64 {
        doubled(self.again_s, tries.saturating_sub(1), self.again_longest_s)
    }
}

fn doubled(first: u64, times: u32, longest: u64) -> u64 {
    first.saturating_mul(1_u64.checked_shl(times.min(32)).unwrap_or(u64::MAX)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_becomes_slow_and_stays_so() {
        let policy = Policy::default();
        assert_eq!(policy.recovery(1), 30);
        assert_eq!(policy.recovery(3), 120);
        assert_eq!(policy.recovery(1000), policy.slowest_s);
    }
}
