//! Peers that have not said who they are: how many places they may take, all together and from one
//! address, and how much of the log.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::limits::{Bucket, Limits};
use crate::crowd::{Crowd, Place};

/// The connections that have not authenticated yet.
pub(super) struct Strangers {
    crowd: Arc<Crowd>,
    log: Mutex<Log>,
}

/// How much of their refusals is logged; the counters have them all.
struct Log {
    bucket: Bucket,
    unlogged: u64,
}

/// One of them; leaves by being dropped.
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    _place: Place,
}

impl Strangers {
    pub(super) fn new(limits: &Limits) -> Self {
        let crowd = Crowd::new(limits.strangers, limits.strangers_of_one_peer);
        let bucket = Bucket::full(limits, Instant::now());
        let log = Mutex::new(Log { bucket, unlogged: 0 });
        Strangers { crowd, log }
    }

    /// Whether a refusal may be logged now, so that strangers cannot fill the log; how many were
    /// not since the last that was.
    pub(super) fn may_log(&self) -> Option<u64> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.bucket.take(0, Instant::now()) {
            Some(std::mem::take(&mut log.unlogged))
        } else {
            log.unlogged += 1;
            None
        }
    }

    pub(super) fn enter(self: Arc<Self>, peer: IpAddr) -> Option<Stranger> {
        let place = self.crowd.enter(peer)?;
        Some(Stranger { strangers: self, _place: place })
    }
}

impl Stranger {
    pub(super) fn strangers(&self) -> &Arc<Strangers> {
        &self.strangers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_does_not_fill_the_log() {
        let limits = Limits { packets_per_second: 1, packets_at_once: 3, ..Limits::default() };
        let strangers = Strangers::new(&limits);
        let logged = (0..1000).filter_map(|_| strangers.may_log()).count();
        assert!((3..100).contains(&logged), "{logged}");
    }
}
