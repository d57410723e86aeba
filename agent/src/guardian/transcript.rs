//! The tool's output as a person would have seen it: redrawn lines drawn over, the beginning and
//! the end kept, the middle dropped.

use super::progress::End;
use std::collections::VecDeque;

/// Bytes kept of the beginning.
const HEAD: usize = 32 * 1024;
/// Bytes kept of the end.
const TAIL: usize = 96 * 1024;

#[derive(Debug, Default)]
pub struct Transcript {
    head: Vec<String>,
    head_bytes: usize,
    tail: VecDeque<String>,
    tail_bytes: usize,
    dropped: u64,
    /// The last line may be drawn over.
    redrawn: bool,
}

impl Transcript {
    pub fn add(&mut self, line: &str, end: End) {
        if self.redrawn {
            self.remove_last();
        }
        self.redrawn = end == End::Redrawn;
        let cost = line.len() + 1;
        if self.tail.is_empty() && self.dropped == 0 && self.head_bytes + cost <= HEAD {
            self.head.push(line.to_owned());
            self.head_bytes += cost;
            return;
        }
        self.tail.push_back(line.to_owned());
        self.tail_bytes += cost;
        while self.tail_bytes > TAIL {
            let Some(first) = self.tail.pop_front() else { break };
            self.tail_bytes -= first.len() + 1;
            self.dropped += 1;
        }
    }

    fn remove_last(&mut self) {
        if let Some(line) = self.tail.pop_back() {
            self.tail_bytes -= line.len() + 1;
        } else if let Some(line) = self.head.pop() {
            self.head_bytes -= line.len() + 1;
        }
    }

    /// The last lines, together at most `limit` bytes, for a person who reads one message.
    #[must_use]
    pub fn last_lines(&self, limit: usize) -> Vec<String> {
        let mut room = limit;
        let mut lines: Vec<String> = self
            .tail
            .iter()
            .rev()
            .chain(self.head.iter().rev())
            .take_while(|line| {
                let fits = line.len() < room;
                room = room.saturating_sub(line.len() + 1);
                fits
            })
            .cloned()
            .collect();
        lines.reverse();
        lines
    }

    /// All that was kept, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.head_bytes + self.tail_bytes + 64);
        for line in &self.head {
            text.push_str(line);
            text.push('\n');
        }
        if self.dropped > 0 {
            text.push_str(&format!("... {} lines left out ...\n", self.dropped));
        }
        for line in &self.tail {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrawn_line_is_kept_once() {
        let mut transcript = Transcript::default();
        transcript.add("start", End::Kept);
        for n in 0..1000 {
            transcript.add(&format!("{n}%"), End::Redrawn);
        }
        transcript.add("1000%", End::Kept);
        transcript.add("done", End::Kept);
        assert_eq!(transcript.text(), "start\n1000%\ndone\n");
    }

    #[test]
    fn beginning_and_end_survive_a_flood() {
        let mut transcript = Transcript::default();
        for n in 0..100_000 {
            transcript.add(&format!("line {n}"), End::Kept);
        }
        let text = transcript.text();
        assert!(text.len() <= HEAD + TAIL + 64);
        assert!(text.starts_with("line 0\n") && text.ends_with("line 99999\n"));
        assert!(text.contains("lines left out"));
        assert_eq!(transcript.last_lines(25), ["line 99998", "line 99999"]);
    }
}
