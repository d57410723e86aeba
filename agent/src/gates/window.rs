//! The maintenance window: when a modem of this router may be flashed, in the router's local time.
//!
//! ```text
//! 01:00-05:00            every day        sat,sun 22:00-06:00    over midnight into the next day
//! mon-fri 02:30-04:00    these days       fri 20:00-24:00        to midnight, as 20:00-00:00 is
//! ```
//! Open means: open now and for as long as an upgrade may take at most, minute for minute on the
//! wall. So a night in which clocks jump is as short or long as it really is.

use super::local_time::{DAYS, Moment, Zone};

const MINUTES_A_DAY: u16 = 24 * 60;
/// How far ahead the next opening is looked for.
const AHEAD_MINUTES: u64 = 8 * 24 * 60;

/// One entry of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// By [`Moment::week_day`]: whether it begins on that day.
    days: [bool; 7],
    /// Minute of the day, 0 to 1439.
    from: u16,
    /// Minute of the day, 1 to 1440; not above `from`: on the next day.
    to: u16,
}

/// Whether an upgrade may begin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Open,
    /// Not now; when it may, in unix seconds; none within a week.
    Closed {
        opens_s: Option<u64>,
    },
}

/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Span, String> {
    let wrong = || format!("{text:?}: expected a window such as mon-fri 01:00-05:00");
    let (days, times) = match text.trim().split_once(' ') {
        Some((days, times)) => (parse_days(days).ok_or_else(wrong)?, times.trim()),
        None => ([true; 7], text.trim()),
    };
    let (from, to) = times.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
    if from == to {
        let whole = "a window without length; the whole day is 00:00-24:00";
        return Err(format!("{text:?}: {whole}"));
    }
    if from == MINUTES_A_DAY {
        return Err(format!("{text:?}: a window may end at 24:00 and not begin there"));
    }
    let to = if to == 0 { MINUTES_A_DAY } else { to };
    Ok(Span { days, from, to })
}

/// `mon`, `mon,wed`, `fri-mon`; `daily`.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    if text == "daily" {
        return Some([true; 7]);
    }
    let number = |name: &str| DAYS.iter().position(|day| name.eq_ignore_ascii_case(day));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            days[(first + step) % 7] = true;
        }
    }
    Some(days)
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let digits = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    let whole = hour * 60 + minute;
    (minute < 60 && whole <= MINUTES_A_DAY).then_some(whole)
}

impl Span {
    fn contains(&self, moment: Moment) -> bool {
        let today = usize::from(moment.week_day) % 7;
        let (begins_today, began_yesterday) = (self.days[today], self.days[(today + 6) % 7]);
        if self.from < self.to {
            begins_today && (self.from..self.to).contains(&moment.minute)
        } else {
            (begins_today && moment.minute >= self.from)
                || (began_yesterday && moment.minute < self.to)
        }
    }
}

/// Whether something that takes `needed_s` at most may begin at `now_s` (unix seconds). Without
/// any span it may always.
#[must_use]
pub fn judge(spans: &[Span], zone: &Zone, now_s: u64, needed_s: u64) -> Verdict {
    if spans.is_empty() {
        return Verdict::Open;
    }
    let open_at = |unix_s| {
        let moment = zone.at(unix_s);
        moment.is_some_and(|moment| spans.iter().any(|span| span.contains(moment)))
    };
    let needed = needed_s.div_ceil(60);
    let mut open_since = None;
    for minute in 0..=AHEAD_MINUTES + needed {
        let unix_s = now_s + minute * 60;
        if !open_at(unix_s) {
            open_since = None;
            continue;
        }
        let since = *open_since.get_or_insert(minute);
        if minute - since < needed {
            continue;
        }
        if since == 0 {
            return Verdict::Open;
        }
        return Verdict::Closed { opens_s: Some(now_s + since * 60) };
    }
    Verdict::Closed { opens_s: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    /// Monday, 2026-11-23, 00:00 UTC.
    const MONDAY: u64 = 1_795_392_000;

    fn judged(spans: &[&str], zone: &str, now_s: u64, needed_s: u64) -> Verdict {
        let spans: Vec<_> = spans.iter().map(|text| parse(text).unwrap()).collect();
        judge(&spans, &Zone::parse(zone).unwrap(), now_s, needed_s)
    }

    fn next(verdict: Verdict) -> String {
        match verdict {
            Verdict::Closed { opens_s: Some(opens_s) } => {
                Zone::parse("UTC").unwrap().at(opens_s).unwrap().to_string()
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn it_is_open_only_with_room_for_the_longest() {
        let at = |hours| judged(&["01:00-05:00"], "UTC", MONDAY + hours, 2 * HOUR);
        assert_eq!(at(HOUR), Verdict::Open);
        assert_eq!(at(3 * HOUR - 60), Verdict::Open);
        // Two hours and a bit are left, but not for the whole minute that has begun.
        assert_eq!(next(at(3 * HOUR + 60)), "tue 2026-11-24 01:00");
        assert_eq!(next(at(0)), "mon 2026-11-23 01:00");
        assert_eq!(
            judged(&["01:00-02:00"], "UTC", MONDAY, 2 * HOUR),
            Verdict::Closed { opens_s: None }
        );
        assert_eq!(judged(&[], "UTC", MONDAY, 99 * HOUR), Verdict::Open);
    }

    #[test]
    fn days_are_those_on_which_it_begins() {
        let at = |hours| judged(&["sat,sun 22:00-06:00"], "UTC", MONDAY + hours * HOUR, HOUR);
        assert_eq!(at(4), Verdict::Open, "Monday morning belongs to Sunday's night");
        assert_eq!(next(at(6)), "sat 2026-11-28 22:00");
        let fridays = |hours| judged(&["fri-mon 20:00-24:00"], "UTC", MONDAY + hours * HOUR, HOUR);
        assert_eq!(fridays(20), Verdict::Open);
        assert_eq!(next(fridays(24)), "fri 2026-11-27 20:00");
    }

    #[test]
    fn midnight_has_two_names() {
        assert_eq!(parse("fri 20:00-00:00"), parse("fri 20:00-24:00"));
        assert_eq!(next(judged(&["22:00-00:00"], "UTC", MONDAY, HOUR)), "mon 2026-11-23 22:00");
    }

    #[test]
    fn spans_that_meet_are_one() {
        let spans = &["mon 22:00-24:00", "tue 00:00-02:00"];
        assert_eq!(judged(spans, "UTC", MONDAY + 23 * HOUR, 2 * HOUR), Verdict::Open);
    }

    #[test]
    fn local_time_decides_and_a_jump_of_the_clock_shortens_the_night() {
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        // 2026-03-29 00:30 UTC is 01:30 local; 02:00 to 03:00 does not exist.
        let night = 1_774_744_200;
        assert_eq!(judged(&["01:00-03:30"], berlin, night, 59 * 60), Verdict::Open);
        assert_ne!(judged(&["01:00-03:30"], berlin, night, 61 * 60), Verdict::Open);
        // 2026-10-25 00:30 UTC is 02:30 local, for the first time; the hour comes twice.
        let long = 1_792_888_200;
        assert_eq!(judged(&["01:00-03:30"], berlin, long, 2 * HOUR - 60), Verdict::Open);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for wrong in [
            "",
            "01:00",
            "1:00-2:00",
            "25:00-26:00",
            "01:60-02:00",
            "05:00-05:00",
            "24:00-01:00",
            "00:00-00:00",
            "someday 01:00-02:00",
            "mon- 01:00-02:00",
            "mon 01:00-02:00 x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
