//! How often one user or device may ask: a fixed count a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

const WINDOW_MS: u64 = 60_000;
/// From here on, those whose window is over are forgotten.
const MANY: usize = 65_536;

#[derive(Debug)]
pub struct Throttle {
    limit: u32,
    windows: Mutex<HashMap<Uuid, Window>>,
}

#[derive(Debug)]
struct Window {
    ends: u64,
    requests: u32,
}

impl Throttle {
    /// `limit` requests a minute.
    pub fn new(limit: u32) -> Self {
        Self { limit, windows: Mutex::default() }
    }

    /// Counts a request at `now` (unix milliseconds).
    ///
    /// # Errors
    /// Seconds to wait.
    pub fn take(&self, who: Uuid, now: u64) -> Result<(), u64> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() > MANY {
            windows.retain(|_, window| window.ends > now);
        }
        let fresh = || Window { ends: now + WINDOW_MS, requests: 0 };
        let window = windows.entry(who).or_insert_with(fresh);
        // A clock set back must not lock anybody out for longer than a window.
        if window.ends <= now || window.ends > now + WINDOW_MS {
            *window = fresh();
        }
        if window.requests >= self.limit {
            return Err((window.ends - now).div_ceil(1000));
        }
        window.requests += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
