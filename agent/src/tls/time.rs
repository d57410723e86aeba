//! The time that certificates are judged at.

use std::time::Duration;

use rustls::pki_types::UnixTime;

use crate::clock::{Clock, Trust};

/// Unix seconds of the build, as packaging sets it; before it no clock is right.
const BUILT: Option<&str> = option_env!("SOURCE_DATE_EPOCH");

/// The time to judge at, and whether it is certain.
pub(super) fn judge_at(clock: &Clock) -> (UnixTime, bool) {
    let (unix_ms, trust) = clock.now();
    (at((unix_ms / 1000).max(built())), trust != Trust::Unset)
}

pub(super) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn built() -> u64 {
    BUILT.and_then(|text| text.parse().ok()).unwrap_or(0)
}
