//! Who is here, counted by address, so that one peer cannot take all the places.
//!
//! One subscriber holds a whole /64 of IPv6, and many a site a /48 of such: both are counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// A /48 may hold this many times what one peer may: it is more than one, but not any number.
const SITE: usize = 2;

/// The places there are, and who has them.
#[derive(Debug)]
pub struct Crowd {
    all: usize,
    of_one_peer: usize,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    count: usize,
    by_peer: HashMap<Ipv6Addr, usize>,
    by_site: HashMap<Ipv6Addr, usize>,
}

/// One place taken; given back by being dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    peer: Ipv6Addr,
    site: Option<Ipv6Addr>,
}

impl Crowd {
    /// `all` places, `of_one_peer` for one IPv4 address or one /64.
    #[must_use]
    pub fn new(all: usize, of_one_peer: usize) -> Arc<Self> {
        Arc::new(Crowd { all, of_one_peer, present: Mutex::default() })
    }

    /// A place, if there is one for this peer.
    #[must_use]
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let (peer, site) = neighbourhood(address);
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = present.by_peer.get(&peer).copied().unwrap_or(0);
        let of_site = site.and_then(|site| present.by_site.get(&site)).copied().unwrap_or(0);
        if present.count >= self.all
            || of_peer >= self.of_one_peer
            || of_site >= self.of_one_peer.saturating_mul(SITE)
        {
            return None;
        }
        present.count += 1;
        present.by_peer.insert(peer, of_peer + 1);
        if let Some(site) = site {
            present.by_site.insert(site, of_site + 1);
        }
        drop(present);
        Some(Place { crowd: self.clone(), peer, site })
    }
}

impl Crowd {
    /// Whether more than half of the places are taken.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).count > self.all / 2
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut present = self.crowd.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.count -= 1;
        leave(&mut present.by_peer, self.peer);
        if let Some(site) = self.site {
            leave(&mut present.by_site, site);
        }
    }
}

fn leave(counts: &mut HashMap<Ipv6Addr, usize>, key: Ipv6Addr) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// The address or /64, and the /48 around the latter.
pub(crate) fn neighbourhood(address: IpAddr) -> (Ipv6Addr, Option<Ipv6Addr>) {
    match address.to_canonical() {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), None),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            ((bits & (u128::MAX << 64)).into(), Some((bits & (u128::MAX << 80)).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_peer_by_site_and_in_all() {
        let crowd = Crowd::new(5, 2);
        let enter = |text: &str| crowd.enter(text.parse().unwrap());
        let one = (enter("2001:db8::1"), enter("2001:db8::2:3"));
        assert!(one.0.is_some() && one.1.is_some());
        assert!(enter("2001:db8::4").is_none(), "the same /64");
        let two = (enter("2001:db8:0:1::1"), enter("2001:db8:0:2::1"));
        assert!(two.0.is_some() && two.1.is_some());
        assert!(enter("2001:db8:0:3::1").is_none(), "the same /48");
        let three = enter("192.0.2.1");
        assert!(three.is_some());
        assert!(enter("192.0.2.2").is_none(), "all places taken");
        assert!(crowd.is_dense());
        drop((one, two, three));
        assert!(enter("2001:db8::4").is_some() && !crowd.is_dense());
        let present = crowd.present.lock().unwrap();
        assert!(present.by_peer.is_empty() && present.by_site.is_empty() && present.count == 0);
    }

    #[test]
    fn an_ipv4_peer_is_one_however_it_is_written() {
        let crowd = Crowd::new(9, 1);
        let _one = crowd.enter("192.0.2.1".parse().unwrap()).unwrap();
        assert!(crowd.enter("::ffff:192.0.2.1".parse().unwrap()).is_none());
        assert!(crowd.enter("::ffff:192.0.2.2".parse().unwrap()).is_some());
    }
}
