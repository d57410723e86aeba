//! `[gates]`: when and in what state of the router a modem may be flashed; and the limits on what
//! an image may cost. All of it is the router's own say: no job can change it.

use super::merged::Reader;
use crate::gates::{
    budget,
    local_time::Zone,
    window::{self, Span},
};

/// What must hold before the grant is asked for.
#[derive(Debug, Clone)]
pub struct Gates {
    /// The maintenance window; empty = always.
    pub window: Vec<Span>,
    /// The router's time zone; `None`: as `paths.timezone` says when it is asked.
    pub timezone: Option<Zone>,
    /// Bytes of memory that must be available once the image is staged; 0 = not asked.
    pub min_free_memory_bytes: u64,
    /// The weakest signal in dBm (RSRP) on which a modem that is the only uplink is flashed.
    pub min_rsrp_dbm: Option<i32>,
    /// Kilobits a second through the modem above which the router is in use.
    pub max_traffic_kbit_s: Option<u64>,
}

pub(super) fn gates(section: &mut Reader<'_>) -> Gates {
    let rsrp = section.number("min_rsrp_dbm", 0, -140..=0);
    let traffic = section.number("max_traffic_kbit_s", 0, 0..=100_000_000);
    Gates {
        window: section.list("window", &[], window::parse),
        timezone: section
            .parsed("timezone", None, |text| Zone::parse(text).map_err(|e| e.to_string())),
        min_free_memory_bytes: section.number("min_free_memory_bytes", 16 << 20, 0..=1 << 40),
        min_rsrp_dbm: i32::try_from(rsrp).ok().filter(|dbm| *dbm > 0).map(|dbm| -dbm),
        max_traffic_kbit_s: Some(traffic).filter(|limit| *limit > 0),
    }
}

/// What fetching an image may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Kilobits a second that an image is fetched with at most.
    pub bandwidth_kbit_s: Option<u64>,
    /// Bytes of images in one billing period.
    pub data_budget: Option<budget::Limits>,
}

/// Of the section `image`.
pub(super) fn cost(section: &mut Reader<'_>) -> Cost {
    let bandwidth = section.number("bandwidth_kbit_s", 0, 0..=10_000_000);
    let bytes = section.number("data_budget_bytes", 0, 0..=i64::MAX);
    let day = u8::try_from(section.number("billing_day", 1, 1..=28)).unwrap_or(1);
    Cost {
        bandwidth_kbit_s: Some(bandwidth).filter(|limit| *limit > 0),
        data_budget: (bytes > 0).then_some(budget::Limits { bytes, day }),
    }
}
