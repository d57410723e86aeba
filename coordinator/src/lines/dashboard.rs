//! A user's line: read-only, within one organization. Each subscription is answered with the
//! retained states it matches, then with what the feed brings.
//!
//! Nothing queues here. The line is a cursor in the feed: one that is too slow skips to the latest
//! states, and one that takes nothing for the write limit is ended.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until, timeout};

use super::acl::Filter;
use super::codec::{self, Answer, Incoming};
use super::limits::Bucket;
use super::listener::{Line, Lines, Stream};
use super::reason::{Reason, Refusals};
use super::registry::Seat;
use super::wire::{FULL, Wire};
use crate::feed::{Interest, Published, Subscription};
use crate::tokens::Claims;

/// SUBSCRIBE is the largest thing a dashboard says.
const LARGEST_PACKET: usize = 4096;

struct Dashboard<'a> {
    lines: &'a Lines,
    wire: Wire<Stream>,
    seat: Seat,
    claims: Claims,
    filters: Vec<Heard>,
    changes: Subscription,
    bucket: Bucket,
    silence: std::time::Duration,
    silent: Instant,
    lapses: Instant,
    refusals: Refusals,
}

/// A subscription. What is not newer than `since` came with its retained states.
struct Heard {
    text: String,
    filter: Filter,
    since: u64,
}

enum Step {
    Mail,
    Packet(Result<Incoming, Reason>),
    Changes(Vec<Arc<Published>>),
    Late,
}

/// Serves the dashboard until its line ends.
pub(super) async fn run(lines: &Lines, line: Line, peer: SocketAddr) {
    let (seat, old) = lines.registry.seat_dashboard(line.claims.sub, &line.connect.client_id);
    if let Some(old) = old {
        let _ = timeout(lines.limits.takeover, old.gone()).await;
    }
    let mut dashboard = Dashboard::new(lines, line, seat);
    let user = dashboard.claims.sub;
    tracing::debug!(%user, %peer, "dashboard up");
    let reason = match dashboard.serve().await {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    lines.counters.count(reason);
    if reason.is_ordinary() {
        tracing::debug!(%user, %peer, %reason, "dashboard ended");
    } else {
        tracing::warn!(%user, %peer, %reason, "dashboard ended");
    }
    drop(dashboard.seat);
    dashboard.wire.close().await;
}

impl<'a> Dashboard<'a> {
    fn new(lines: &'a Lines, line: Line, seat: Seat) -> Self {
        let now = Instant::now();
        let silence = lines.limits.silence(line.connect.keep_alive);
        let interest = Interest::in_organization(line.claims.org.clone());
        let mut wire = line.wire;
        wire.set_limit(LARGEST_PACKET);
        Dashboard {
            lines,
            wire,
            seat,
            claims: line.claims,
            filters: Vec::new(),
            changes: lines.feed.subscribe(interest),
            bucket: Bucket::full(&lines.limits, now),
            silence,
            silent: now + silence,
            lapses: line.lapses,
            refusals: Refusals::default(),
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Reason> {
        // Seated now: a revocation since the CONNECT was checked has kicked nobody.
        self.lines.admission.check(self.claims.sub, self.claims.epoch)?;
        codec::put_connack(self.wire.output(), Answer::Accepted);
        loop {
            self.wire.flush().await?;
            match self.step().await {
                Step::Mail => {
                    if let Some(reason) = self.seat.mail(|mail| mail.close) {
                        return Err(reason);
                    }
                }
                Step::Packet(packet) => self.packet(packet?).await?,
                Step::Changes(changes) => self.live(&changes).await?,
                Step::Late if Instant::now() >= self.lapses => return Err(Reason::Lapsed),
                Step::Late => return Err(Reason::KeepAlive),
            }
        }
    }

    async fn step(&mut self) -> Step {
        tokio::select! {
            biased;
            () = self.seat.arrived() => Step::Mail,
            packet = self.wire.packet() => Step::Packet(packet),
            read = self.changes.next() => Step::Changes(read.changes),
            () = sleep_until(self.silent.min(self.lapses)) => Step::Late,
        }
    }

    async fn packet(&mut self, packet: Incoming) -> Result<(), Reason> {
        let now = Instant::now();
        self.silent = now + self.silence;
        if !self.bucket.take(0, now) {
            return Err(Reason::Flood);
        }
        match packet {
            Incoming::Subscribe { pkid, filters } => self.subscribe(pkid, filters).await,
            Incoming::Unsubscribe { pkid, filters } => {
                self.filters.retain(|heard| !filters.contains(&heard.text));
                codec::put_unsuback(self.wire.output(), pkid);
                Ok(())
            }
            Incoming::Ping => {
                codec::put_pingresp(self.wire.output());
                Ok(())
            }
            Incoming::Disconnect => Err(Reason::Left),
            Incoming::Publish(_) => Err(Reason::ForeignPublish),
            Incoming::PubAck => Err(Reason::StrayAck),
            Incoming::Connect(_) | Incoming::Unexpected => Err(Reason::Unexpected),
        }
    }

    async fn subscribe(&mut self, pkid: u16, filters: Vec<String>) -> Result<(), Reason> {
        if filters.len() > self.lines.limits.filters_at_once {
            return Err(Reason::Flood);
        }
        let mut granted = Vec::with_capacity(filters.len());
        let mut fresh = Vec::new();
        let (states, since) = self.lines.feed.retained(&self.claims.org);
        for text in filters {
            let filter = Filter::parse(&self.claims.org, &text);
            granted.push(match filter {
                Some(filter) if self.has_room(&text) => {
                    self.filters.retain(|heard| heard.text != text);
                    self.filters.push(Heard { text, filter: filter.clone(), since });
                    fresh.push(filter);
                    true
                }
                _ => {
                    self.refusals.filter(self.lines, self.claims.sub, &text);
                    false
                }
            });
        }
        codec::put_suback(self.wire.output(), pkid, &granted);
        let matching =
            |state: &&Arc<Published>| fresh.iter().any(|f| f.matches(&state.change.subject));
        for state in states.iter().filter(matching) {
            self.send(state, true).await?;
        }
        Ok(())
    }

    fn has_room(&self, text: &str) -> bool {
        self.filters.len() < self.lines.limits.filters
            || self.filters.iter().any(|heard| heard.text == text)
    }

    async fn live(&mut self, changes: &[Arc<Published>]) -> Result<(), Reason> {
        for change in changes {
            let wanted = |heard: &Heard| {
                heard.since < change.id && heard.filter.matches(&change.change.subject)
            };
            // The topic is the slot's.
            if !change.outlived && self.filters.iter().any(wanted) {
                self.send(change, false).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, published: &Published, retained: bool) -> Result<(), Reason> {
        let topic = published.change.topic().to_string();
        codec::put_publish(self.wire.output(), &topic, &published.change.payload, retained);
        if self.wire.output().len() < FULL { Ok(()) } else { self.wire.flush().await }
    }
}
