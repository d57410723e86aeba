//! The operation's log: a line a milestone, for people.

use super::Operation;

/// Bytes after which the log takes no more; the milestones themselves are all kept.
pub const LIMIT: usize = 16 * 1024;
const FULL: &str = "(the log is full)\n";

impl Operation {
    /// Appends a line, stamped with the coordinator's time.
    pub(super) fn note(&mut self, now: u64, text: &str) {
        if self.log.len() >= LIMIT {
            return;
        }
        let text = shared::limits::cut(text.replace(char::is_control, " "));
        self.log.push_str(&format!("{} {text}\n", rfc3339(now)));
        if self.log.len() >= LIMIT {
            self.log.push_str(FULL);
        }
    }
}

/// Unix milliseconds as RFC 3339 in UTC, to the second.
fn rfc3339(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}
