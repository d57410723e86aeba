//! How a batch is rolled out. Every field has a default, so that nobody rolls out to everybody at
//! once by leaving something out.

use serde::{Deserialize, Serialize};

use super::tally::Counts;
use super::{Forgiven, Reason};

/// More waves than this are a strategy that nobody meant.
pub const MOST_WAVES: u32 = 200;

/// See docs/batches.md.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Strategy {
    /// Members of the first wave, from 1.
    pub canary: u32,
    /// Each wave is this many times as large as the one before, from 1.
    pub growth: f64,
    pub gate: Gate,
    /// Modems that may be in an attempt's hands at a time; `None`: any number.
    pub max_concurrent: Option<u32>,
    pub failure_threshold: Threshold,
    /// A device that was not heard of for so long does not hold its wave up, seconds.
    pub offline_after_s: u64,
    /// Members that only postpone for so long while their wave lacks its evidence give their places to
    /// others, seconds.
    pub patience_s: u64,
}

/// What a wave has to show before the next one opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// Of the wave's successes and failures, 1 to 100.
    pub success_percent: u8,
    /// Successes without which nothing is proved, from 1.
    pub minimum: u32,
    /// Seconds between the wave's last result and the next wave.
    pub soak_s: u64,
}

/// When the batch stops by itself, over all its waves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Threshold {
    /// So many failures.
    pub count: Option<u32>,
    /// Such a share of successes and failures, 1 to 100.
    pub percent: Option<u8>,
    /// Results before the share counts.
    pub minimum: u32,
    pub then: Then,
}

/// What happens when the threshold is reached, or a gate cannot be passed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// No more grants until an operator resumes it.
    Pause,
    /// What is not granted is cancelled.
    Abort,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            canary: 1,
            growth: 2.0,
            gate: Gate::default(),
            max_concurrent: None,
            failure_threshold: Threshold::default(),
            offline_after_s: 3600,
            // A nightly window comes by within it.
            patience_s: 25 * 3600,
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self { success_percent: 100, minimum: 1, soak_s: 600 }
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self { count: None, percent: Some(20), minimum: 5, then: Then::Pause }
    }
}

/// A strategy that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadStrategy {
    pub field: &'static str,
    pub problem: String,
}

impl Strategy {
    /// Whether its values make sense together.
    pub fn check(&self) -> Result<(), BadStrategy> {
        let percent = |percent: u8| (1..=100).contains(&percent);
        let year = 366 * 24 * 3600;
        for (fits, field, problem) in [
            (self.canary >= 1, "canary", "must be at least 1"),
            ((1.0..=100.0).contains(&self.growth), "growth", "must be from 1 to 100"),
            (percent(self.gate.success_percent), "gate.success_percent", "must be from 1 to 100"),
            (self.gate.minimum >= 1, "gate.minimum", "must be at least 1"),
            (
                self.gate.minimum <= self.canary,
                "gate.minimum",
                "is more than the canary wave can show: raise canary as well",
            ),
            (self.gate.soak_s <= year, "gate.soak_s", "is more than a year"),
            (self.max_concurrent != Some(0), "max_concurrent", "must be at least 1"),
            (
                self.failure_threshold.count != Some(0),
                "failure_threshold.count",
                "must be at least 1",
            ),
            (
                self.failure_threshold.percent.is_none_or(percent),
                "failure_threshold.percent",
                "must be from 1 to 100",
            ),
            (
                (60..=year).contains(&self.offline_after_s),
                "offline_after_s",
                "must be a minute to a year",
            ),
            ((60..=year).contains(&self.patience_s), "patience_s", "must be a minute to a year"),
        ] {
            if !fits {
                return Err(BadStrategy { field, problem: problem.to_owned() });
            }
        }
        Ok(())
    }

    /// As [`Strategy::check`], for a batch of so many members.
    pub fn check_for(&self, members: u64) -> Result<(), BadStrategy> {
        self.check()?;
        let waves = self.sizes(members).count();
        if u32::try_from(waves).is_ok_and(|waves| waves <= MOST_WAVES) {
            return Ok(());
        }
        let problem =
            format!("{members} modems make more than {MOST_WAVES} waves: raise canary or growth");
        Err(BadStrategy { field: "growth", problem })
    }

    /// Members of wave `n`, counted from 0, while there are enough.
    pub fn size(&self, n: u32) -> u64 {
        let grown = f64::from(self.canary) * self.growth.powi(i32::try_from(n).unwrap_or(i32::MAX));
        // Casts of floats saturate; a wave is never larger than the batch anyway.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let size = grown.ceil() as u64;
        size.max(1)
    }

    /// Members of wave `n`, after waves of which the best has proved so many: what few have shown is
    /// no ground for many, however many waves it took.
    pub fn next_size(&self, n: u32, proved: u64) -> u64 {
        let shown = u32::try_from(proved).unwrap_or(u32::MAX).max(self.canary);
        let grown = f64::from(shown) * self.growth;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let grown = grown.ceil() as u64;
        self.size(n).min(grown)
    }

    /// The planned waves of so many members; one more than allowed at most.
    pub fn sizes(&self, members: u64) -> impl Iterator<Item = u64> {
        self.planned(0, 0, members)
    }

    /// The waves from `next` on, of so many members, if all that come prove themselves; `proved` is the most
    /// that one has until then.
    pub fn planned(&self, next: u32, proved: u64, members: u64) -> impl Iterator<Item = u64> {
        let (mut left, mut best) = (members, proved);
        (next..=next.saturating_add(MOST_WAVES)).map_while(move |n| {
            let size = if n == 0 { self.size(0) } else { self.next_size(n, best) }.min(left);
            left -= size;
            best = best.max(size);
            (size > 0).then_some(size)
        })
    }

    pub fn patience_ms(&self) -> u64 {
        self.patience_s.saturating_mul(1000)
    }

    pub fn offline_after_ms(&self) -> u64 {
        self.offline_after_s.saturating_mul(1000)
    }

    /// Whether overdue modems can make a difference to [`Strategy::tripped`].
    pub fn has_threshold(&self) -> bool {
        self.failure_threshold.count.is_some() || self.failure_threshold.percent.is_some()
    }

    /// Whether the failure threshold is reached, beyond what was forgiven. `overdue` are modems in
    /// an attempt's hands that have been silent for longer than they ever should, without those that
    /// were forgiven.
    pub fn tripped(&self, counts: &Counts, overdue: u64, forgiven: &Forgiven) -> Option<Reason> {
        let failures = (counts.charged + overdue).saturating_sub(forgiven.failures);
        // A script's word that it went well dilutes no failures.
        let decided = (counts.proved() + counts.charged + overdue).saturating_sub(forgiven.decided);
        let threshold = &self.failure_threshold;
        let by_count = threshold.count.is_some_and(|count| failures >= u64::from(count));
        let by_share = failures > 0
            && decided >= u64::from(threshold.minimum)
            && threshold
                .percent
                .is_some_and(|percent| failures * 100 >= u64::from(percent) * decided);
        (by_count || by_share).then_some(Reason::Threshold { failures, decided })
    }

    /// Whether the wave has succeeded often enough; `None` while it has shown too little.
    pub fn passes(&self, wave: &Counts) -> Option<bool> {
        if !self.suffice(wave.proved(), wave.charged) {
            return Some(false);
        }
        (wave.proved() >= u64::from(self.gate.minimum)).then_some(true)
    }

    /// Whether it cannot succeed often enough any more, whatever becomes of its other members.
    pub fn is_lost(&self, wave: &Counts) -> bool {
        !self.suffice(wave.proved() + wave.undecided(), wave.charged)
    }

    fn suffice(&self, successes: u64, failures: u64) -> bool {
        successes * 100 >= u64::from(self.gate.success_percent) * (successes + failures)
    }
}
