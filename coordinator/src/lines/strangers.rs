//! Peers that have not said who they are: how many places they may take, all together and from one
//! address, and how much of the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::limits::{Bucket, Limits};

/// The connections that have not authenticated yet.
pub(super) struct Strangers {
    all: usize,
    of_one_peer: usize,
    log: Mutex<Log>,
    present: Mutex<Present>,
}

/// How much of their refusals is logged; the counters have them all.
struct Log {
    bucket: Bucket,
    unlogged: u64,
}

#[derive(Default)]
struct Present {
    count: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One of them; leaves by being dropped.
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    peer: IpAddr,
}

impl Strangers {
    pub(super) fn new(limits: &Limits) -> Self {
        let (all, of_one_peer) = (limits.strangers, limits.strangers_of_one_peer);
        let bucket = Bucket::full(limits, Instant::now());
        let log = Mutex::new(Log { bucket, unlogged: 0 });
        Strangers { all, of_one_peer, log, present: Mutex::default() }
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
        let peer = neighbourhood(peer);
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = present.by_peer.get(&peer).copied().unwrap_or(0);
        if present.count >= self.all || of_peer >= self.of_one_peer {
            return None;
        }
        present.count += 1;
        present.by_peer.insert(peer, of_peer + 1);
        drop(present);
        Some(Stranger { strangers: self, peer })
    }
}

impl Stranger {
    pub(super) fn strangers(&self) -> &Arc<Strangers> {
        &self.strangers
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut present = self.strangers.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.count -= 1;
        match present.by_peer.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                present.by_peer.remove(&self.peer);
            }
        }
    }
}

/// One subscriber holds a whole /64 of IPv6.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_bounded_by_peer_and_in_all() {
        let limits = Limits { strangers: 3, strangers_of_one_peer: 2, ..Limits::default() };
        let strangers = Arc::new(Strangers::new(&limits));
        let enter = |text: &str| strangers.clone().enter(text.parse().unwrap());
        let (first, second) = (enter("2001:db8::1"), enter("2001:db8::2:3"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("2001:db8::4").is_none(), "the same /64");
        let third = enter("192.0.2.1");
        assert!(third.is_some());
        assert!(enter("192.0.2.2").is_none(), "all places taken");
        drop((first, second, third));
        assert!(enter("2001:db8::4").is_some());
        assert!(strangers.present.lock().unwrap().by_peer.is_empty());
    }

    #[test]
    fn a_flood_of_refusals_does_not_fill_the_log() {
        let limits = Limits { packets_per_second: 1, packets_at_once: 3, ..Limits::default() };
        let strangers = Strangers::new(&limits);
        let logged = (0..1000).filter_map(|_| strangers.may_log()).count();
        assert!((3..100).contains(&logged), "{logged}");
    }
}
