//! What the guardian knows of its tool: pure, from bytes and the time they came.

use super::progress::{Lines, Meaning, Patterns};
use super::record::{FORMAT, Hints, Progress};
use super::transcript::Transcript;
use shared::profile::Output;
use uuid::Uuid;

/// Pattern names kept of each kind; a profile has a handful.
const HINTS: usize = 16;

#[derive(Debug)]
pub struct Watch {
    patterns: Patterns,
    lines: Lines,
    transcript: Transcript,
    hints: Hints,
    percent: Option<u8>,
    last_line: String,
    bytes: u64,
    idle_ms: u64,
    heard_ms: u64,
    started_ms: u64,
}

impl Watch {
    /// `now_ms` is CLOCK_BOOTTIME in milliseconds, here and below.
    #[must_use]
    pub fn new(output: &Output, idle_ms: u64, now_ms: u64) -> Self {
        Self {
            patterns: Patterns::of(output),
            lines: Lines::default(),
            transcript: Transcript::default(),
            hints: Hints::default(),
            percent: None,
            last_line: String::new(),
            bytes: 0,
            idle_ms,
            heard_ms: now_ms,
            started_ms: now_ms,
        }
    }

    /// Takes output that came now.
    pub fn hear(&mut self, bytes: &[u8], now_ms: u64) {
        if bytes.is_empty() {
            return;
        }
        self.heard_ms = now_ms;
        self.bytes += bytes.len() as u64;
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, |line, end| {
            self.understand(line);
            self.transcript.add(line, end);
        });
        // The percentage may already stand there, with the CR still to come.
        if let Some(line) = lines.unfinished() {
            self.understand(&line);
        }
        self.lines = lines;
    }

    /// The output is over.
    pub fn finish(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.finish(|line, end| {
            self.understand(line);
            self.transcript.add(line, end);
        });
    }

    fn understand(&mut self, line: &str) {
        line.clone_into(&mut self.last_line);
        let seen = match self.patterns.read(line) {
            Meaning::Nothing => return,
            Meaning::Percent(percent) => {
                self.percent = self.percent.max(Some(percent));
                return;
            }
            Meaning::Success(pattern) => (&mut self.hints.success, pattern),
            Meaning::Failure(pattern) => (&mut self.hints.failure, pattern),
            Meaning::Refusal(pattern) => (&mut self.hints.refusal, pattern),
        };
        let (hints, pattern) = seen;
        if hints.len() < HINTS && !hints.iter().any(|known| known == pattern) {
            hints.push(pattern.to_owned());
        }
    }

    #[must_use]
    pub fn is_stalled(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.heard_ms) >= self.idle_ms
    }

    #[must_use]
    pub fn progress(&self, plan: Uuid, now_ms: u64) -> Progress {
        Progress {
            format: FORMAT,
            plan,
            percent: self.percent,
            line: shared::limits::cut(self.last_line.clone()),
            stalled: self.is_stalled(now_ms),
            bytes: self.bytes,
            started_ms: self.started_ms,
        }
    }

    #[must_use]
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    #[must_use]
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    #[must_use]
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::profile::{BUILT_IN, ToolProfile};

    fn watch() -> Watch {
        Watch::new(&ToolProfile::parse(BUILT_IN[0].1).unwrap().output, 1_000, 5_000)
    }

    #[test]
    fn progress_is_seen_before_its_line_ends_and_never_falls() {
        let mut watch = watch();
        watch.hear(b"[+] flashing [###   ]  42%, trans", 5_100);
        assert_eq!(watch.progress(Uuid::nil(), 5_100).percent, Some(42));
        watch.hear(b"ferred 1/2 B\r[+] flashing [#     ]  7%, transferred 1/2 B\r", 5_200);
        assert_eq!(watch.progress(Uuid::nil(), 5_200).percent, Some(42));
    }

    #[test]
    fn silence_stalls_and_output_ends_it() {
        let mut watch = watch();
        assert!(!watch.is_stalled(5_999));
        assert!(watch.is_stalled(6_000));
        watch.hear(b".", 6_500);
        assert!(!watch.progress(Uuid::nil(), 7_000).stalled);
    }

    #[test]
    fn hints_are_named_once_and_the_last_line_counts_without_an_end() {
        let mut watch = watch();
        watch.hear(b"ack check failed!\nack check failed!\nInvalid model 3 VS 2", 1);
        watch.finish();
        assert_eq!(watch.hints().failure, ["ack check failed!"]);
        assert_eq!(watch.hints().refusal, ["Invalid model"]);
        assert_eq!(watch.transcript().text().lines().count(), 3);
    }
}
