//! The data budget: how many image bytes a router may fetch in one billing period, counted on disk.
//!
//! The count on disk runs ahead by up to [`AHEAD`], so that a crash counts too much rather than too
//! little, and flash is written seldom.

use super::local_time::Moment;
use crate::files;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Bytes counted before they are fetched.
pub const AHEAD: u64 = 4 * 1024 * 1024;
const LIMIT: usize = 4096;

/// What the router's owner allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a period.
    pub bytes: u64,
    /// Day of the month on which a period begins, 1 to 28.
    pub day: u8,
}

/// The month in which a period began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    pub year: i32,
    pub month: u8,
}

impl Period {
    fn of(moment: Moment, day: u8) -> Self {
        let (year, month) = (moment.year, moment.month);
        match month {
            _ if moment.day >= day => Self { year, month },
            ..=1 => Self { year: year - 1, month: 12 },
            _ => Self { year, month: month - 1 },
        }
    }

    fn next(self) -> Self {
        match self.month {
            12.. => Self { year: self.year + 1, month: 1 },
            month => Self { month: month + 1, ..self },
        }
    }
}

/// Not enough is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    #[error(
        "the data budget has {left} of {budget} bytes left, {needed} are needed; the next period \
         begins {next}"
    )]
    Used { left: u64, budget: u64, needed: u64, next: String },
    #[error("what was used of the data budget is not known: {0}")]
    Unknown(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    version: Version,
    period: Option<Period>,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "1")]
    V1,
}

/// The count of this router.
#[derive(Debug)]
pub struct Budget {
    path: PathBuf,
    limits: Limits,
    used: Used,
    /// Bytes that the disk has counted already.
    on_disk: u64,
    trouble: Option<String>,
}

impl Budget {
    /// Reads the count at `path`. One that cannot be read allows nothing, see [`OverBudget`].
    ///
    /// `now` as far as somebody proved the time: it begins a new period, for whoever spends as well
    /// as for whoever asks. With an unproved clock the last known period goes on.
    #[must_use]
    pub fn open(path: &Path, limits: Limits, now: Option<Moment>) -> Self {
        let (used, trouble) = match read(path) {
            Ok(used) => (used, None),
            Err(error) => (Used::default(), Some(format!("{}: {error}", path.display()))),
        };
        let mut budget = Self { path: path.to_owned(), limits, on_disk: used.bytes, used, trouble };
        budget.turn(now);
        budget
    }

    /// Whether `needed` bytes may be fetched.
    ///
    /// # Errors
    /// See [`OverBudget`].
    pub fn allows(&self, needed: u64) -> Result<(), OverBudget> {
        if let Some(trouble) = &self.trouble {
            return Err(OverBudget::Unknown(trouble.clone()));
        }
        let left = self.limits.bytes.saturating_sub(self.used.bytes);
        if needed <= left {
            return Ok(());
        }
        let next = match self.used.period.map(Period::next) {
            Some(next) => format!("{}-{:02}-{:02}", next.year, next.month, self.limits.day),
            None => "once the clock is set".into(),
        };
        Err(OverBudget::Used { left, budget: self.limits.bytes, needed, next })
    }

    /// Counts what came; on disk first, in steps of [`AHEAD`].
    ///
    /// # Errors
    /// It cannot be written.
    pub fn spend(&mut self, bytes: u64) -> io::Result<()> {
        self.used.bytes = self.used.bytes.saturating_add(bytes);
        if self.used.bytes > self.on_disk {
            self.save(self.used.bytes.saturating_add(AHEAD))?;
        }
        Ok(())
    }

    /// Takes back what was counted ahead.
    ///
    /// # Errors
    /// It cannot be written; then it stays counted.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.on_disk == self.used.bytes { Ok(()) } else { self.save(self.used.bytes) }
    }

    fn turn(&mut self, now: Option<Moment>) {
        let Some(now) = now.map(|now| Period::of(now, self.limits.day)) else { return };
        if self.used.period.replace(now).is_some_and(|before| before != now) {
            (self.used.bytes, self.on_disk) = (0, 0);
        }
    }

    fn save(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(trouble) = &self.trouble {
            // What cannot be read may say more than is known here.
            return Err(io::Error::other(trouble.clone()));
        }
        let used = Used { bytes, ..self.used };
        files::write_atomic(&self.path, &serde_json::to_vec(&used)?)?;
        self.on_disk = bytes;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Used> {
    match files::read_limited(path, LIMIT) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Used::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gates::local_time::Zone;

    const LIMITS: Limits = Limits { bytes: 100 << 20, day: 5 };
    /// 2026-11-04 and -05, 12:00 UTC.
    const LAST_DAY: u64 = 1_793_793_600;
    const FIRST_DAY: u64 = LAST_DAY + 86_400;

    fn moment(unix_s: u64) -> Option<Moment> {
        Zone::parse("UTC").unwrap().at(unix_s)
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data-budget.json");
        (directory, path)
    }

    #[test]
    fn a_count_that_cannot_be_read_is_not_replaced_by_a_smaller_one() {
        let (_directory, path) = file();
        std::fs::write(&path, "{").unwrap();
        let mut budget = Budget::open(&path, LIMITS, moment(LAST_DAY));
        assert!(budget.allows(1).is_err() && budget.spend(1).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"{");
    }

    #[test]
    fn a_period_ends_on_its_day_and_the_count_begins_anew() {
        let (_directory, path) = file();
        // Whoever asks and whoever spends open the count each for themselves.
        let open = |now| Budget::open(&path, LIMITS, now);
        open(moment(LAST_DAY)).allows(100 << 20).unwrap();
        let mut spending = open(moment(LAST_DAY));
        spending.spend(90 << 20).unwrap();
        spending.settle().unwrap();
        let refused = open(moment(LAST_DAY)).allows(20 << 20).unwrap_err().to_string();
        assert!(refused.contains("10485760 of 104857600") && refused.contains("2026-11-05"));
        open(None).allows(10 << 20).unwrap();
        assert!(open(None).allows(20 << 20).is_err(), "an unset clock begins no period");
        open(moment(FIRST_DAY)).allows(100 << 20).unwrap();
        let mut spending = open(moment(FIRST_DAY));
        spending.spend(30 << 20).unwrap();
        spending.settle().unwrap();
        assert!(open(moment(FIRST_DAY)).allows(80 << 20).is_err());
        open(moment(FIRST_DAY)).allows(70 << 20).unwrap();
        open(moment(FIRST_DAY + 30 * 86_400)).allows(100 << 20).unwrap();
    }

    #[test]
    fn the_turn_of_the_year() {
        let january = Period::of(moment(1_767_268_800).unwrap(), 5);
        assert_eq!(january, Period { year: 2025, month: 12 });
        assert_eq!(january.next(), Period { year: 2026, month: 1 });
    }

    #[test]
    fn a_crash_counts_too_much_rather_than_too_little() {
        let (_directory, path) = file();
        Budget::open(&path, LIMITS, moment(FIRST_DAY)).spend(1).unwrap();
        // No settle: the process is gone.
        let after = Budget::open(&path, LIMITS, moment(FIRST_DAY));
        assert_eq!(after.used.bytes, 1 + AHEAD);
    }

    #[test]
    fn an_unreadable_count_allows_nothing() {
        let (_directory, path) = file();
        std::fs::write(&path, "{").unwrap();
        let refused = Budget::open(&path, LIMITS, moment(FIRST_DAY)).allows(1);
        assert!(matches!(refused, Err(OverBudget::Unknown(_))));
    }
}
