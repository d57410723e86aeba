//! Understanding a tool's output: lines, percentages and hints. Pure, and bounded whatever comes.
//!
//! Vendor tools redraw one line by ending it in CR alone, so CR and LF both end a line. Patterns
//! are those of [`shared::profile::Output`]: literal text that may stand anywhere in the line,
//! `*` for anything, `{percent}` for a number from 0 to 100. What they find are hints; only the
//! versions read back decide.

use shared::profile::Output;

/// Longest line kept, in bytes; the rest of a longer one is dropped.
pub const LINE: usize = 1024;

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// CR alone: the next line is drawn over it.
    Redrawn,
    /// LF, or the end of the output.
    Kept,
}

/// Cuts bytes into lines, across reads.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    /// A CR was the last byte: LF makes it an ordinary line's end, anything else a redraw.
    after_cr: bool,
}

impl Lines {
    /// Takes the next bytes and hands out each line that is complete with them.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&str, End)) {
        for &byte in bytes {
            if std::mem::take(&mut self.after_cr) {
                self.end(if byte == b'\n' { End::Kept } else { End::Redrawn }, &mut line);
                if byte == b'\n' {
                    continue;
                }
            }
            match byte {
                b'\r' => self.after_cr = true,
                b'\n' => self.end(End::Kept, &mut line),
                _ if self.pending.len() < LINE => self.pending.push(byte),
                _ => {}
            }
        }
    }

    /// A line drawn so far and not ended yet; tools wait for long with the cursor after a CR.
    #[must_use]
    pub fn unfinished(&self) -> Option<String> {
        let text = printable(&self.pending);
        (!text.is_empty()).then_some(text)
    }

    /// Hands out what is left when the output is over.
    pub fn finish(&mut self, mut line: impl FnMut(&str, End)) {
        self.after_cr = false;
        self.end(End::Kept, &mut line);
    }

    fn end(&mut self, end: End, line: &mut impl FnMut(&str, End)) {
        let text = printable(&self.pending);
        self.pending.clear();
        if !text.is_empty() {
            line(&text, end);
        }
    }
}

/// Text without control characters and sequences (ECMA-48, ESC [ ... letter): it goes to logs,
/// terminals and JSON.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' && chars.next_if_eq(&'[').is_some() {
            while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
            chars.next_if(|c| matches!(c, '@'..='~'));
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain.trim_end().to_owned()
}

/// What a line said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// Whole percent, rounded down.
    Percent(u8),
    /// The profile's pattern that matched.
    Success(&'a str),
    Failure(&'a str),
    /// A failure that another attempt cannot mend.
    Refusal(&'a str),
    Nothing,
}

/// A profile's patterns, ready to be matched.
#[derive(Debug)]
pub struct Patterns {
    progress: Vec<Pattern>,
    success: Vec<Pattern>,
    failure: Vec<Pattern>,
    refusal: Vec<Pattern>,
}

impl Patterns {
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let all = |texts: &[String]| texts.iter().map(|text| Pattern::parse(text)).collect();
        Self {
            progress: all(&output.progress),
            success: all(&output.success),
            failure: all(&output.failure),
            refusal: all(&output.refusal),
        }
    }

    /// The strongest meaning of a line: a refusal before a failure before a success.
    #[must_use]
    pub fn read(&self, line: &str) -> Meaning<'_> {
        let first = |patterns: &'_ [Pattern]| {
            patterns.iter().position(|pattern| pattern.find(line).is_some())
        };
        if let Some(i) = first(&self.refusal) {
            return Meaning::Refusal(&self.refusal[i].text);
        }
        if let Some(i) = first(&self.failure) {
            return Meaning::Failure(&self.failure[i].text);
        }
        if let Some(i) = first(&self.success) {
            return Meaning::Success(&self.success[i].text);
        }
        match self.progress.iter().find_map(|pattern| pattern.find(line)?.percent) {
            Some(percent) => Meaning::Percent(percent),
            None => Meaning::Nothing,
        }
    }
}

/// One pattern: runs of pieces with `*` between them, found from left to right.
#[derive(Debug)]
struct Pattern {
    text: String,
    runs: Vec<Vec<Piece>>,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Percent,
}

/// Where a run or a pattern matched.
#[derive(Debug, Clone, Copy)]
struct Found {
    end: usize,
    percent: Option<u8>,
}

const PERCENT: &str = "{percent}";

impl Pattern {
    fn parse(text: &str) -> Self {
        let runs = text.split('*').map(parse_run).filter(|run| !run.is_empty()).collect();
        Self { text: text.to_owned(), runs }
    }

    fn find(&self, line: &str) -> Option<Found> {
        let mut found = Found { end: 0, percent: None };
        if self.runs.is_empty() {
            return None;
        }
        for run in &self.runs {
            let next = (found.end..=line.len())
                .filter(|&at| line.is_char_boundary(at))
                .find_map(|at| match_run(run, line, at))?;
            found = Found { end: next.end, percent: next.percent.or(found.percent) };
        }
        Some(found)
    }
}

fn parse_run(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (i, literal) in text.split(PERCENT).enumerate() {
        if i > 0 {
            pieces.push(Piece::Percent);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
    }
    pieces
}

fn match_run(run: &[Piece], line: &str, start: usize) -> Option<Found> {
    let mut found = Found { end: start, percent: None };
    for piece in run {
        let rest = &line[found.end..];
        match piece {
            Piece::Literal(literal) => {
                rest.strip_prefix(literal.as_str())?;
                found.end += literal.len();
            }
            Piece::Percent => {
                // In the middle of a number there is no number.
                if line[..found.end].ends_with(|c: char| c.is_ascii_digit() || c == '.') {
                    return None;
                }
                let (percent, length) = number(rest)?;
                found = Found { end: found.end + length, percent: Some(percent) };
            }
        }
    }
    Some(found)
}

/// A number from 0 to 100, perhaps after blanks and with decimals, and the bytes it takes.
fn number(text: &str) -> Option<(u8, usize)> {
    let blanks = text.len() - text.trim_start_matches(' ').len();
    let rest = &text[blanks..];
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let value: u8 = rest.get(..digits)?.parse().ok().filter(|&value| value <= 100)?;
    let decimals = match rest[digits..].strip_prefix('.') {
        Some(tail) => {
            let count = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if count > 0 { count + 1 } else { 0 }
        }
        None => 0,
    };
    Some((value, blanks + digits + decimals))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::profile::{BUILT_IN, ToolProfile};

    fn lines(chunks: &[&[u8]]) -> Vec<(String, End)> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |text, end| out.push((text.to_owned(), end)));
        }
        lines.finish(|text, end| out.push((text.to_owned(), end)));
        out
    }

    fn uxfp() -> Patterns {
        Patterns::of(&ToolProfile::parse(BUILT_IN[0].1).unwrap().output)
    }

    fn percent(pattern: &str, line: &str) -> Option<u8> {
        Pattern::parse(pattern).find(line).and_then(|found| found.percent)
    }

    #[test]
    fn cr_and_lf_both_end_lines_whatever_the_reads() {
        let output = b"[+] uploading firmware\r\n 1%\r 2%\rdone\n\n\r\nlast";
        let whole = lines(&[output]);
        let expected = [
            ("[+] uploading firmware", End::Kept),
            (" 1%", End::Redrawn),
            (" 2%", End::Redrawn),
            ("done", End::Kept),
            ("last", End::Kept),
        ];
        assert_eq!(whole, expected.map(|(text, end)| (text.to_owned(), end)));
        let bytes: Vec<&[u8]> = output.chunks(1).collect();
        assert_eq!(lines(&bytes), whole);
    }

    #[test]
    fn a_line_without_end_stays_bounded() {
        let mut all = Lines::default();
        for _ in 0..100 {
            all.feed(&[b'x'; 4096], |_, _| panic!("no line ended"));
        }
        assert_eq!(all.unfinished().unwrap().len(), LINE);
        all.feed(b"\x1b[2Jtail\ny\x07z\n", |text, _| assert!(!text.chars().any(char::is_control)));
    }

    #[test]
    fn what_only_moves_the_cursor_is_no_text() {
        let out = lines(&[b"\x1b[2K\r 37.5%\x1b[2K\r\x1b[1;31merror:\x1b[0m x\n\x1b[", b"\x1b\n"]);
        assert_eq!(out, [(" 37.5%".to_owned(), End::Redrawn), ("error: x".to_owned(), End::Kept)]);
    }

    #[test]
    fn uxfp_text_is_understood() {
        let patterns = uxfp();
        let bar = "[+] flashing [#####     ]  42%, transferred 123456/999999 B";
        assert_eq!(patterns.read(bar), Meaning::Percent(42));
        assert_eq!(
            patterns.read("[+] flashing [####] 100%, transferred 9/9 B"),
            Meaning::Percent(100)
        );
        assert!(matches!(
            patterns.read("[+] firmware uploaded successfully!"),
            Meaning::Success("firmware uploaded successfully!")
        ));
        assert!(matches!(patterns.read("[+] could not complete boot mode"), Meaning::Failure(_)));
        assert!(matches!(patterns.read("Invalid model 3 VS 2"), Meaning::Refusal("Invalid model")));
        let retry = "boot mode failed, retrying to address possible temporary enumeration issues";
        assert_eq!(patterns.read(retry), Meaning::Nothing);
    }

    #[test]
    fn uxfp_json_is_understood_by_a_plain_pattern() {
        let pattern = r#""type":"PROGRESS"*"percent":{percent}*"description""#;
        let line = r#"{"timestamp":"1","type":"PROGRESS","current":7,"max":20,"percent":35,"description":"x"}"#;
        assert_eq!(percent(pattern, line), Some(35));
        assert_eq!(percent(pattern, &line.replace("PROGRESS", "LOG")), None);
    }

    #[test]
    fn percentages_are_numbers_from_0_to_100() {
        assert_eq!(percent("{percent}%", "block 7 of 9: 37.5% done"), Some(37));
        assert_eq!(percent("{percent}%", "0%"), Some(0));
        assert_eq!(percent("{percent}%", "1100% sure"), None);
        assert_eq!(percent("{percent}%", "99.9.5%"), None);
        assert_eq!(percent("{percent}%", "%"), None);
        assert_eq!(percent("upgrade progress {percent}%", "upgrade progress 37% 3/8"), Some(37));
        assert_eq!(percent("ü*{percent}%", "ü ß 5%"), Some(5));
        assert_eq!(percent("*", "5%"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_survived(chunks: Vec<Vec<u8>>, pattern in "[a%*{}prcent ]{0,20}") {
            let pattern = Pattern::parse(&pattern);
            let mut all = Lines::default();
            for chunk in &chunks {
                all.feed(chunk, |line, _| {
                    assert!(line.len() <= 3 * LINE);
                    let _ = pattern.find(line);
                });
            }
        }
    }
}
