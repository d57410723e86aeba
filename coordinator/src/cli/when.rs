//! Spans and times as people type them: `90s`, `10m`, `2h`, `30d`; a time is RFC 3339, or a span
//! from now with a plus: `+2h`.

use jiff::Timestamp;

use crate::clock::Clock;

/// Seconds of a span; a bare number is seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    let unit = |end: char| match end {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(24 * 3600),
        _ => None,
    };
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, end)) if !end.is_ascii_digit() => (&text[..at], unit(end)),
        _ => (text, Some(1)),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit?));
    seconds.ok_or_else(|| "expected a number with s, m, h or d behind it: 90s, 10m, 2h, 30d".into())
}

/// Seconds as people type them.
pub fn span(seconds: u64) -> String {
    let units = [(24 * 3600, 'd'), (3600, 'h'), (60, 'm')];
    match units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// A time as the API takes it.
pub fn time(text: &str) -> Result<String, String> {
    let at = match text.strip_prefix('+') {
        Some(span) => after(seconds(span)?),
        None => text.parse::<Timestamp>().ok(),
    };
    let at = at.ok_or("expected a time (2026-11-23T01:00:00Z) or a span from now (+2h)")?;
    Ok(format!("{at:.0}"))
}

/// A time that so many days are left to.
pub fn in_days(days: u32) -> Option<String> {
    Some(format!("{:.0}", after(u64::from(days) * 24 * 3600)?))
}

fn after(seconds: u64) -> Option<Timestamp> {
    let ms = Clock::System.now().checked_add(seconds.checked_mul(1000)?)?;
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("2h"), Ok(7200));
        assert_eq!(seconds("30d"), Ok(30 * 86400));
        for text in ["0s", "59s", "90m", "2h", "30d", "601s"] {
            assert_eq!(span(seconds(text).unwrap()), text);
        }
        for bad in ["", "m", "-1s", "1w", "1.5h", "99999999999999999999d", "10ü"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_absolute_or_from_now() {
        assert_eq!(time("2026-11-23T01:00:00+01:00"), Ok("2026-11-23T00:00:00Z".into()));
        assert!(time("+2h").unwrap() < time("+3h").unwrap());
        assert!(time("tomorrow").is_err());
        assert!(time("+99999999999999999d").is_err());
    }
}
