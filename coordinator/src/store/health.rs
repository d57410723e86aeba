//! Whether writes get through to the disk, as the writer last found it.
//!
//! While they do not, everything that matters is tried and refused with the reason; signs of life are
//! dropped before they are tried, but for one now and then, which finds out whether there is room again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Unavailable;
use super::listening::GAP_MS;

/// While writes fail, what may be lost is tried this often.
const PROBE: Duration = Duration::from_secs(1);
/// A disk that is nearly full takes small writes and refuses larger ones: for so long it is in trouble.
const FRESH: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
    /// The last failure.
    last: Option<(Unavailable, Instant)>,
    /// Writes failed for long since somebody asked last.
    was_deaf: bool,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    groups: u64,
}

impl Health {
    /// A group of writes did not get to the disk.
    pub(super) fn failed(&self, reason: Unavailable) {
        if !reason.is_of_the_disk() {
            return;
        }
        let mut state = self.lock();
        let now = Instant::now();
        let said = state.last.replace((reason, now));
        let failing = state.failing.get_or_insert_with(|| {
            tracing::error!(%reason, "writes fail; they are refused until there is room again");
            Failing { since: now, groups: 0 }
        });
        failing.groups += 1;
        if failing.groups > 1 && said.is_some_and(|(before, _)| before != reason) {
            tracing::error!(%reason, "writes still fail");
        }
    }

    /// One did.
    pub(super) fn worked(&self) {
        let mut state = self.lock();
        if let Some(Failing { since, groups }) = state.failing.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, groups, "writes work again");
            state.was_deaf |= is_long(since);
        }
    }

    /// Whether nothing that was heard was written for long, until now or at some time since this was asked
    /// last.
    pub(super) fn was_deaf(&self) -> bool {
        let mut state = self.lock();
        let still = state.failing.as_ref().is_some_and(|failing| is_long(failing.since));
        std::mem::take(&mut state.was_deaf) || still
    }

    /// Whether what may be lost is worth a try.
    pub(super) fn try_low(&self) -> Result<(), Unavailable> {
        let mut state = self.lock();
        let failing = state.failing.is_some();
        match &mut state.last {
            Some((reason, at)) if failing && at.elapsed() < PROBE => Err(*reason),
            Some((_, at)) if failing => {
                // One at a time.
                *at = Instant::now();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.lock().failing.is_some()
    }

    /// What was in the way of a write just now.
    pub(super) fn trouble(&self) -> Option<Unavailable> {
        let state = self.lock();
        state.last.filter(|(_, at)| at.elapsed() < FRESH).map(|(reason, _)| reason)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_long(since: Instant) -> bool {
    since.elapsed() > Duration::from_millis(GAP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_are_dropped_while_writes_fail() {
        let health = Health::default();
        assert_eq!((health.try_low(), health.trouble()), (Ok(()), None));
        health.failed(Unavailable::QueueFull);
        assert_eq!(health.try_low(), Ok(()), "that says nothing of the disk");
        health.failed(Unavailable::DiskFull);
        assert_eq!(health.try_low(), Err(Unavailable::DiskFull));
        assert!(health.is_failing());
        health.worked();
        assert_eq!(health.try_low(), Ok(()));
        assert_eq!(health.trouble(), Some(Unavailable::DiskFull), "it was just now");
    }

    #[test]
    fn whatever_was_said_while_writes_failed_for_long_was_not_heard() {
        let health = Health::default();
        health.failed(Unavailable::DiskFull);
        assert!(!health.was_deaf(), "for a moment");
        let long_ago = Instant::now().checked_sub(Duration::from_millis(GAP_MS + 1)).unwrap();
        health.lock().failing.as_mut().unwrap().since = long_ago;
        assert!(health.was_deaf() && health.was_deaf(), "as long as it lasts");
        health.worked();
        assert!(health.was_deaf(), "and once more, for what came last");
        assert!(!health.was_deaf());
    }

    #[test]
    fn one_now_and_then_finds_out() {
        let health = Health::default();
        health.failed(Unavailable::Disk);
        let long_ago = Instant::now().checked_sub(PROBE).unwrap();
        health.lock().last = Some((Unavailable::Disk, long_ago));
        assert_eq!((health.try_low(), health.try_low()), (Ok(()), Err(Unavailable::Disk)));
    }
}
