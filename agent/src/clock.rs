//! Time as the agent may trust it: durations on CLOCK_BOOTTIME, which neither jumps nor stops in
//! suspend; wall-clock time only with the knowledge whether it was ever set.
//!
//! OpenWrt sets the clock at boot from the newest file, so a plausible year proves nothing. The
//! clock counts as set when NTP said so this boot (its hotplug script leaves a marker on tmpfs) or
//! when the coordinator proved a time over an authenticated connection. NTP goes first: the coordinator's word
//! would move the router into its maintenance window at noon.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Time since boot, suspend included.
#[must_use]
pub fn boottime() -> Duration {
    // The clock id is valid on every kernel since 2.6.39, so the fallback is never seen there.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// [`boottime`] in whole milliseconds, as it stands in files.
#[must_use]
pub fn boottime_ms() -> u64 {
    millis(boottime())
}

/// The kernel's random name of this boot, from `<proc>/sys/kernel/random/boot_id`.
///
/// # Errors
/// It cannot be read or is empty.
pub fn boot_id(proc_root: &Path) -> io::Result<String> {
    let text = crate::files::read_text(&proc_root.join("sys/kernel/random/boot_id"))?;
    let id = text.trim();
    if id.is_empty() || id.len() > 64 {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(id.to_owned())
}

/// Minutes by which two clocks that somebody looks after never differ.
const DIFFERENT_MIN: u64 = 5;

/// Where the time of day comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The system's clock, after NTP reached a server in this boot.
    Ntp,
    /// The coordinator's authenticated answer, carried on by CLOCK_BOOTTIME.
    Coordinator,
    /// The system's clock, which nobody set in this boot: good for log lines only.
    Unset,
}

/// The wall clock together with what is known about it.
#[derive(Debug)]
pub struct Clock {
    ntp_marker: PathBuf,
    proven: Mutex<Option<Proven>>,
}

#[derive(Debug, Clone, Copy)]
struct Proven {
    unix_ms: u64,
    at_boottime: Duration,
}

impl Clock {
    /// `ntp_marker`: a file on tmpfs that exists once NTP has set the clock in this boot.
    #[must_use]
    pub fn new(ntp_marker: PathBuf) -> Self {
        Self { ntp_marker, proven: Mutex::new(None) }
    }

    /// Takes over a time the coordinator told in an authenticated answer, in unix milliseconds.
    pub fn prove(&self, unix_ms: u64) {
        *self.lock() = Some(Proven { unix_ms, at_boottime: boottime() });
    }

    /// Unix milliseconds now, and how far they can be trusted.
    #[must_use]
    pub fn now(&self) -> (u64, Trust) {
        if self.ntp_marker.exists() {
            return (system_unix_ms(), Trust::Ntp);
        }
        match self.proven() {
            Some(proven) => (proven, Trust::Coordinator),
            None => (system_unix_ms(), Trust::Unset),
        }
    }

    /// What the coordinator's time is now, if it has told one.
    fn proven(&self) -> Option<u64> {
        let proven = (*self.lock())?;
        let since = boottime().saturating_sub(proven.at_boottime);
        Some(proven.unix_ms.saturating_add(millis(since)))
    }

    /// What is wrong if NTP and the coordinator tell very different times.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let (ntp, Trust::Ntp) = self.now() else { return None };
        let minutes = self.proven()?.abs_diff(ntp) / 60_000;
        (minutes >= DIFFERENT_MIN).then(|| {
            format!("the coordinator's time differs from NTP's, which counts, by {minutes} minutes")
        })
    }

    /// Whether a deadline or a window may be judged at all.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.now().1 != Trust::Unset
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Proven>> {
        self.proven.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The system's clock in unix milliseconds, trusted or not.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
pub fn system_unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plausible_year_is_not_a_set_clock() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::new(directory.path().join("clock-set"));
        assert!(!clock.is_set());
        std::fs::write(directory.path().join("clock-set"), "").unwrap();
        assert_eq!(clock.now().1, Trust::Ntp);
    }

    #[test]
    fn a_proven_time_goes_on_by_itself() {
        let clock = Clock::new(PathBuf::from("/nonexistent"));
        clock.prove(1_800_000_000_000);
        let (now, trust) = clock.now();
        assert_eq!(trust, Trust::Coordinator);
        assert!((1_800_000_000_000..1_800_000_060_000).contains(&now));
    }

    #[test]
    fn ntp_goes_before_the_coordinator_and_a_large_difference_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let marker = directory.path().join("clock-set");
        let clock = Clock::new(marker.clone());
        clock.prove(1_000_000_000_000);
        assert_eq!((clock.now().1, clock.trouble()), (Trust::Coordinator, None));
        std::fs::write(&marker, "").unwrap();
        let (now, trust) = clock.now();
        assert_eq!(trust, Trust::Ntp);
        assert!(now.abs_diff(system_unix_ms()) < 60_000, "not what the coordinator says");
        assert!(clock.trouble().unwrap().contains("differs from NTP's"));
        clock.prove(system_unix_ms());
        assert_eq!(clock.trouble(), None);
    }

    #[test]
    fn reads_the_boot_id_of_the_given_root() {
        let root = tempfile::tempdir().unwrap();
        assert!(boot_id(root.path()).is_err());
        let random = root.path().join("sys/kernel/random");
        std::fs::create_dir_all(&random).unwrap();
        std::fs::write(random.join("boot_id"), "b2f0\n").unwrap();
        assert_eq!(boot_id(root.path()).unwrap(), "b2f0");
    }
}
