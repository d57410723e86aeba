//! The coordinator's wall clock: the one place that asks the machine for the time.
//!
//! Unix milliseconds, as the agents' protocol and the database have them. The operator's API writes
//! RFC 3339 at its edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

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
}
