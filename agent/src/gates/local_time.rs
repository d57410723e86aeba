//! The router's local time: unix seconds and a POSIX `TZ` text, as OpenWrt keeps it in `/etc/TZ`.

use tz::{DateTime, TimeZone, timezone::TimeZoneSettings};

/// Days of a week, Sunday first, as in [`Moment::week_day`].
pub const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A place's rule for offset and daylight saving.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

/// A moment as clocks on the wall show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 = Sunday.
    pub week_day: u8,
    /// Since midnight, 0 to 1439.
    pub minute: u16,
}

/// Why a text is no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a POSIX time zone such as CET-1CEST,M3.5.0,M10.5.0/3")]
pub struct NoZone(String);

impl Zone {
    /// `CET-1CEST,M3.5.0,M10.5.0/3`, `<-03>3`, `UTC`. Names of zone files are not read: OpenWrt
    /// does not have them.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, NoZone> {
        let text = text.trim();
        // musl takes these for zones although POSIX wants an offset.
        if matches!(text, "" | "UTC" | "GMT") {
            return Ok(Self(TimeZone::utc()));
        }
        let no_files = TimeZoneSettings::new(&[], |_| Err("no zone files here".into()));
        no_files.parse_posix_tz(text).map(Self).map_err(|_| NoZone(text.chars().take(64).collect()))
    }

    /// What clocks show at `unix_s`; none beyond the years that a clock can show.
    #[must_use]
    pub fn at(&self, unix_s: u64) -> Option<Moment> {
        let time = DateTime::from_timespec(i64::try_from(unix_s).ok()?, 0, self.0.as_ref()).ok()?;
        Some(Moment {
            year: time.year(),
            month: time.month(),
            day: time.month_day(),
            week_day: time.week_day(),
            minute: u16::from(time.hour()) * 60 + u16::from(time.minute()),
        })
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let day = DAYS.get(usize::from(self.week_day)).unwrap_or(&"?");
        let (hour, minute) = (self.minute / 60, self.minute % 60);
        write!(f, "{day} {}-{:02}-{:02} {hour:02}:{minute:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(zone: &str, unix_s: u64) -> String {
        Zone::parse(zone).unwrap().at(unix_s).unwrap().to_string()
    }

    #[test]
    fn daylight_saving_begins_and_ends_by_the_rule() {
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        // 2026-03-29: 01:59:59 UTC+1 is followed by 03:00 UTC+2.
        assert_eq!(shown(berlin, 1_774_745_999), "sun 2026-03-29 01:59");
        assert_eq!(shown(berlin, 1_774_746_000), "sun 2026-03-29 03:00");
        // 2026-10-25: 02:59:59 UTC+2 is followed by 02:00 UTC+1.
        assert_eq!(shown(berlin, 1_792_889_999), "sun 2026-10-25 02:59");
        assert_eq!(shown(berlin, 1_792_890_000), "sun 2026-10-25 02:00");
    }

    #[test]
    fn texts_as_openwrt_writes_them() {
        assert_eq!(shown("UTC\n", 0), "thu 1970-01-01 00:00");
        assert_eq!(shown("<-03>3", 86_400), "thu 1970-01-01 21:00");
        assert_eq!(shown("<+0545>-5:45", 0), "thu 1970-01-01 05:45");
        for wrong in ["Europe/Berlin", "CET", ":/etc/passwd", "\u{1f552}", "CET-1CEST,M13.5.0"] {
            assert!(Zone::parse(wrong).is_err(), "{wrong}");
        }
    }
}
