//! Which bytes a `Range` header asks for (RFC 9110, section 14). Pure.

use std::ops::Range;

/// What to send of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// No range, or one that may be ignored: another unit, several ranges, broken syntax.
    Whole,
    Part(Range<u64>),
    /// Begins past the end: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes.
pub fn asked(header: &str, size: u64) -> Asked {
    let Some((unit, spec)) = header.split_once('=') else {
        return Asked::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Asked::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    match (number(first), number(last)) {
        (Some(Some(first)), Some(last)) => {
            if last.is_some_and(|last| last < first) {
                return Asked::Whole;
            }
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            if first < size { Asked::Part(first..end) } else { Asked::Unsatisfiable }
        }
        (Some(None), Some(Some(suffix))) => {
            if suffix == 0 || size == 0 {
                return Asked::Unsatisfiable;
            }
            Asked::Part(size.saturating_sub(suffix)..size)
        }
        _ => Asked::Whole,
    }
}

/// `None` is broken, `Some(None)` is absent. A number past u64 is past every file.
fn number(text: &str) -> Option<Option<u64>> {
    match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked::*, *};

    #[test]
    fn table() {
        for (header, expected) in [
            ("bytes=0-0", Part(0..1)),
            ("bytes=0-99", Part(0..100)),
            ("bytes=90-", Part(90..100)),
            ("bytes=90-1000", Part(90..100)),
            ("Bytes = 5-9", Part(5..10)),
            ("bytes=-10", Part(90..100)),
            ("bytes=-1000", Part(0..100)),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=100-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=9-5", Whole),
            ("bytes=0-1,5-6", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-5", Whole),
            ("bytes", Whole),
            ("blocks=0-1", Whole),
        ] {
            assert_eq!(asked(header, 100), expected, "{header}");
        }
        assert_eq!(asked("bytes=0-", 0), Unsatisfiable);
        assert_eq!(asked("bytes=-5", 0), Unsatisfiable);
    }
}
