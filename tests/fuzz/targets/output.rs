//! A tool's output under the patterns of every built-in profile, or of one made of the input's
//! first line.

#![no_main]

use fuzz::guardian::progress::{End, LINE, Lines, Patterns};
use libfuzzer_sys::fuzz_target;
use shared::profile::{BUILT_IN, Output, ToolProfile};
use std::sync::LazyLock;

static KNOWN: LazyLock<Vec<Patterns>> = LazyLock::new(|| {
    let parse = |text| Patterns::of(&ToolProfile::parse(text).expect("built in").output);
    BUILT_IN.iter().map(|(_, text)| parse(text)).collect()
});

fn lines(bytes: &[u8], read: usize) -> Vec<(String, End)> {
    let (mut lines, mut found) = (Lines::default(), Vec::new());
    for part in bytes.chunks(read) {
        lines.feed(part, |line, end| found.push((line.to_owned(), end)));
        if read > 1 {
            // After each byte it would be most of the time.
            let _ = lines.unfinished();
        }
    }
    lines.finish(|line, end| found.push((line.to_owned(), end)));
    found
}

fuzz_target!(|input: &[u8]| {
    let cut = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let pattern = String::from_utf8_lossy(&input[..cut.min(64)]).into_owned();
    let made =
        Output { progress: vec![pattern.clone()], failure: vec![pattern], ..Output::default() };
    let made = Patterns::of(&made);
    let whole = lines(input, input.len().max(1));
    for read in [1, 61] {
        assert_eq!(whole, lines(input, read), "reads must not matter");
    }
    for (line, _) in &whole {
        assert!(line.len() <= 3 * LINE && !line.chars().any(char::is_control));
        for patterns in KNOWN.iter().chain([&made]) {
            let _ = patterns.read(line);
        }
    }
});
