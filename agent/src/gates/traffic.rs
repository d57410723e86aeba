//! What flows through interfaces, by the kernel's counters
//! (`/sys/class/net/*/statistics/{rx,tx}_bytes`).

use std::time::Duration;

/// Bytes through the modem's interfaces until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub received: u64,
    pub sent: u64,
}

impl std::ops::Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            received: self.received.saturating_add(other.received),
            sent: self.sent.saturating_add(other.sent),
        }
    }
}

/// Kilobits a second in both directions together, between two readings. A counter that went back
/// began anew at 0.
#[must_use]
pub fn kbit_s(before: Counters, after: Counters, between: Duration) -> u64 {
    let grown = |before: u64, after: u64| after.checked_sub(before).unwrap_or(after);
    let bytes =
        grown(before.received, after.received).saturating_add(grown(before.sent, after.sent));
    let millis = u64::try_from(between.as_millis()).unwrap_or(u64::MAX).max(1);
    // Bits a millisecond are kilobits a second.
    bytes.saturating_mul(8) / millis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_count_and_a_reset_counter_is_no_flood() {
        let reading = |received, sent| Counters { received, sent };
        let second = Duration::from_secs(1);
        assert_eq!(kbit_s(reading(0, 0), reading(125_000, 125_000), second), 2000);
        assert_eq!(kbit_s(reading(1 << 40, 5), reading(125_000, 5), second), 1000);
        assert_eq!(kbit_s(reading(0, 0), reading(1, 0), Duration::ZERO), 8);
    }
}
