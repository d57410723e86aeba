//! How long to wait: pure, the share of chance is given.

use std::time::Duration;

/// Never asks again sooner than this after a failure.
const LEAST: Duration = Duration::from_millis(100);

/// Exponential back-off with full jitter: a fleet that lost its coordinator does not come back
/// in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The pause after one more failure; `share` from 0 to 1 is chance.
    pub fn next(&mut self, share: f64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(share.clamp(0.0, 1.0)).max(LEAST)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `pause`, longer or shorter by up to `percent`.
#[must_use]
pub fn jittered(pause: Duration, percent: u32, share: f64) -> Duration {
    let swing = f64::from(percent) / 100.0;
    pause.mul_f64((1.0 + swing * (2.0 * share - 1.0)).max(0.0))
}

/// When to renew a token: at 70 to 90 % of its life.
#[must_use]
pub fn renewal(life: Duration, share: f64) -> Duration {
    life.mul_f64(0.7 + 0.2 * share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_the_most_and_start_again() {
        let mut backoff = Backoff::new(s(2), s(10));
        let pauses: Vec<_> = (0..4).map(|_| backoff.next(1.0)).collect();
        assert_eq!(pauses, [s(2), s(4), s(8), s(10)]);
        backoff.reset();
        assert_eq!(backoff.next(0.5), s(1));
        assert_eq!(backoff.next(0.0), LEAST);
        assert!((0..100).all(|_| backoff.next(1.0) <= s(10)));
    }

    #[test]
    fn jitter_goes_both_ways() {
        assert_eq!(jittered(s(100), 20, 0.0), s(80));
        assert_eq!(jittered(s(100), 20, 0.5), s(100));
        assert_eq!(jittered(s(100), 20, 1.0), s(120));
        assert_eq!(jittered(s(100), 0, 1.0), s(100));
    }

    #[test]
    fn tokens_are_renewed_at_70_to_90_percent() {
        assert_eq!(renewal(s(1000), 0.0), s(700));
        assert!(renewal(s(1000), 1.0) <= s(900));
    }
}
