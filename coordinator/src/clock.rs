//! The coordinator's clocks: the one place that asks the machine for the time of day.
//!
//! Unix milliseconds, as the agents' protocol and the database have them. The operator's API writes
//! RFC 3339 at its edge.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A wall clock; tests set theirs by hand.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands still at `now` (unix milliseconds) until somebody moves it.
    pub fn manual(now: u64) -> (Self, Arc<AtomicU64>) {
        let hand = Arc::new(AtomicU64::new(now));
        (Self::Manual(hand.clone()), hand)
    }

    /// Unix milliseconds.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    pub fn now(&self) -> u64 {
        match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Self::Manual(hand) => hand.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds that this process has run for, as far as the machine was awake. The clock of
    /// [`Clock::now`] may step, this one does not.
    pub fn awake(&self) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match self {
            Self::System => u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX),
            Self::Manual(hand) => hand.load(Ordering::Relaxed),
        }
    }
}
