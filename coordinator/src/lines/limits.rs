//! How much a peer may ask of us before and after it has said who it is.

use std::time::Duration;

use tokio::time::Instant;

/// The limits of a listener. [`Limits::default`] is what a fleet gets; tests shorten the times.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections, all together.
    pub connections: usize,
    /// Connections that have not authenticated yet: all together, and from one address (IPv6: one
    /// /64; twice that from one /48). Few peers must not take all places; a fleet behind one carrier
    /// NAT that comes back after a restart is through in its turn, for a place is held for a second.
    pub strangers: usize,
    pub strangers_of_one_peer: usize,
    /// Dashboards of one user.
    pub dashboards_of_one_user: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From there to a whole CONNECT.
    pub connect: Duration,
    /// For one write to be taken.
    pub write: Duration,
    /// For the store to commit one uplink.
    pub commit: Duration,
    /// For an old line to end when its device comes again.
    pub takeover: Duration,
    /// Longest keep-alive; also for those who promise none.
    pub keep_alive: Duration,
    /// How long a line outlives its token.
    pub grace: Duration,
    /// Packets per second and at once; each 4 KiB of a packet count as one more.
    pub packets_per_second: u32,
    pub packets_at_once: u32,
    /// Subscriptions of one dashboard.
    pub filters: usize,
    /// Filters in one packet.
    pub filters_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 50_000,
            strangers: 4_096,
            strangers_of_one_peer: 128,
            dashboards_of_one_user: 32,
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            write: Duration::from_secs(10),
            commit: Duration::from_secs(30),
            takeover: Duration::from_secs(5),
            keep_alive: Duration::from_secs(20 * 60),
            grace: Duration::from_secs(5 * 60),
            packets_per_second: 50,
            packets_at_once: 200,
            filters: 16,
            filters_at_once: 8,
        }
    }
}

impl Limits {
    /// How long a line may be silent: one and a half times its keep-alive (MQTT 3.1.1, section
    /// 3.1.2.10).
    #[must_use]
    pub fn silence(&self, keep_alive_s: u16) -> Duration {
        let promised = match keep_alive_s {
            0 => self.keep_alive,
            seconds => Duration::from_secs(u64::from(seconds)).min(self.keep_alive),
        };
        promised * 3 / 2
    }
}

/// A bucket of packets that fills by the time.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    room: f64,
    left: f64,
    seen: Instant,
}

impl Bucket {
    #[must_use]
    pub fn full(limits: &Limits, now: Instant) -> Self {
        let room = f64::from(limits.packets_at_once);
        Bucket { per_second: f64::from(limits.packets_per_second), room, left: room, seen: now }
    }

    /// Takes a packet with a payload of `length` bytes; false = there were too many.
    pub fn take(&mut self, length: usize, now: Instant) -> bool {
        let filled = now.duration_since(self.seen).as_secs_f64() * self.per_second;
        self.seen = now;
        self.left = (self.left + filled).min(self.room);
        let weight = 1.0 + f64::from(u32::try_from(length / 4096).unwrap_or(u32::MAX));
        let fits = self.left >= weight;
        if fits {
            self.left -= weight;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { packets_per_second: 10, packets_at_once: 3, ..Limits::default() }
    }

    #[test]
    fn a_bucket_empties_and_fills_with_time() {
        let start = Instant::now();
        let mut bucket = Bucket::full(&limits(), start);
        let taken: Vec<_> = (0..4).map(|_| bucket.take(0, start)).collect();
        assert_eq!(taken, [true, true, true, false]);
        let mut bucket = Bucket::full(&limits(), start);
        assert!((0..100).all(|n| bucket.take(0, start + Duration::from_millis(100 * n))));
    }

    #[test]
    fn large_packets_weigh_more() {
        let start = Instant::now();
        assert!(Bucket::full(&limits(), start).take(2 * 4096, start));
        assert!(!Bucket::full(&limits(), start).take(3 * 4096, start));
    }

    #[test]
    fn few_peers_do_not_take_all_places() {
        let limits = Limits::default();
        assert!(limits.strangers_of_one_peer * 32 <= limits.strangers);
    }

    #[test]
    fn silence_is_bounded_even_for_those_who_promise_nothing() {
        let limits = Limits::default();
        assert_eq!(limits.silence(60), Duration::from_secs(90));
        assert_eq!(limits.silence(0), Duration::from_secs(30 * 60));
        assert_eq!(limits.silence(u16::MAX), Duration::from_secs(30 * 60));
    }
}
