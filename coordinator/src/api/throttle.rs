//! How often one user or device may ask: a fixed count a minute, or a day.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// From here on, those whose window is over are forgotten, once a window.
const MANY: usize = 65_536;
/// From here on nobody else gets in.
const FULL: usize = 16 * MANY;

#[derive(Debug)]
pub struct Throttle {
    limit: u32,
    window_ms: u64,
    windows: Mutex<Windows>,
}

#[derive(Debug, Default)]
struct Windows {
    of: HashMap<Uuid, Window>,
    swept: u64,
}

#[derive(Debug)]
struct Window {
    ends: u64,
    requests: u32,
}

impl Throttle {
    /// `limit` requests a minute.
    pub fn new(limit: u32) -> Self {
        Self { limit, window_ms: MINUTE_MS, windows: Mutex::default() }
    }

    /// `limit` requests a day, from the first of them on.
    pub fn daily(limit: u32) -> Self {
        Self { window_ms: DAY_MS, ..Self::new(limit) }
    }

    /// Counts a request at `now` (unix milliseconds).
    ///
    /// # Errors
    /// Seconds to wait.
    pub fn take(&self, who: Uuid, now: u64) -> Result<(), u64> {
        self.take_of(self.limit, who, now)
    }

    /// As [`Throttle::take`], with a limit of its own.
    ///
    /// # Errors
    /// Seconds to wait.
    pub fn take_of(&self, limit: u32, who: Uuid, now: u64) -> Result<(), u64> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let length = self.window_ms;
        windows.sweep(now, length);
        if windows.of.len() >= FULL && !windows.of.contains_key(&who) {
            return Err(length / 1000);
        }
        let fresh = || Window { ends: now + length, requests: 0 };
        let window = windows.of.entry(who).or_insert_with(fresh);
        // A clock set back must not lock anybody out for longer than a window.
        if window.ends <= now || window.ends > now + length {
            *window = fresh();
        }
        if window.requests >= limit {
            return Err((window.ends - now).div_ceil(1000));
        }
        window.requests += 1;
        Ok(())
    }
}

impl Windows {
    fn sweep(&mut self, now: u64, length: u64) {
        if self.of.len() > MANY && now.abs_diff(self.swept) >= length {
            self.swept = now;
            self.of.retain(|_, window| window.ends > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_over_is_forgotten_and_a_crowd_has_an_end() {
        let throttle = Throttle::new(1);
        for n in 0..FULL as u128 {
            assert_eq!(throttle.take(Uuid::from_u128(n), 100_000), Ok(()));
        }
        assert!(throttle.take(Uuid::from_u128(FULL as u128), 100_001).is_err());
        assert_eq!(throttle.take(Uuid::from_u128(FULL as u128), 160_000), Ok(()));
        assert_eq!(throttle.windows.lock().unwrap().of.len(), 1);
    }

    #[test]
    fn each_has_a_window_of_their_own() {
        let throttle = Throttle::new(2);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(throttle.take(one, 1000), Ok(()));
        assert_eq!(throttle.take(one, 31_000), Ok(()));
        assert_eq!(throttle.take(one, 31_001), Err(30));
        assert_eq!(throttle.take(other, 31_001), Ok(()));
        assert_eq!(throttle.take(one, 61_000), Ok(()));
        assert_eq!(throttle.take(one, 5), Ok(()), "the clock was set back");
    }

    #[test]
    fn a_day_is_a_window_too() {
        let throttle = Throttle::daily(1);
        let one = Uuid::from_u128(1);
        assert_eq!(throttle.take(one, 1000), Ok(()));
        assert_eq!(throttle.take(one, 3_601_000), Err(23 * 3600));
        assert_eq!(throttle.take(one, 1000 + DAY_MS), Ok(()));
    }
}
