//! A device's line: what it says goes to ingest and is acknowledged after the COMMIT, what it is to
//! hear comes from its seat in the registry.
//!
//! One uplink is in the store's hands at a time. Until it is committed nothing more is read, so a
//! slow store slows the devices down and fills no queue. Ticks do not wait: the latest is kept until
//! ingest has room.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;

use shared::ack::Acks;
use shared::ids::{DeviceId, OrganizationSlug};
use shared::limits::MQTT_PACKET;
use shared::topics::{Down, Topic, Up};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{self, Answer, Delivery, Incoming, Uplink};
use super::limits::Bucket;
use super::listener::{Line, Lines, Stream};
use super::reason::{Reason, Refusals};
use super::registry::Seat;
use super::wire::Wire;
use super::{Inbound, InboundBody, acl};
use crate::tokens::Epoch;

/// From the queue to the answer of ingest.
type Commit = Pin<Box<dyn Future<Output = Result<Option<Acks>, Reason>> + Send>>;

struct Device<'a> {
    lines: &'a Lines,
    wire: Wire<Stream>,
    seat: Seat,
    device: DeviceId,
    organization: OrganizationSlug,
    epoch: Epoch,
    will: Option<Vec<u8>>,
    hears_wake: bool,
    hears_ack: bool,
    bucket: Bucket,
    silence: std::time::Duration,
    /// When it has been silent for too long.
    silent: Instant,
    lapses: Instant,
    /// The uplink in the store's hands, with the packet id to acknowledge.
    commit: Option<(Commit, Option<u16>)>,
    /// When the store has taken too long.
    overdue: Instant,
    /// The latest tick, when ingest has no room.
    tick: Option<Inbound>,
    refusals: Refusals,
}

/// What a line woke up for.
enum Step<'a> {
    Mail,
    Committed(Result<Option<Acks>, Reason>),
    Room(Option<mpsc::Permit<'a, Inbound>>),
    Packet(Result<Incoming, Reason>),
    Late,
}

/// Serves the device until its line ends, and publishes its will where that is due.
pub(super) async fn run(lines: &Lines, line: Line, peer: SocketAddr) {
    let device = DeviceId(line.claims.sub);
    let (seat, old) = lines.registry.seat_device(device);
    if let Some(old) = old {
        // What the old line still said is then in the queue before anything of this one.
        let _ = timeout(lines.limits.takeover, old.gone()).await;
    }
    let mut device = Device::new(lines, line, seat);
    tracing::debug!(device = %device.device, %peer, "line up");
    let reason = match device.serve().await {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    device.end(reason, peer).await;
}

impl<'a> Device<'a> {
    fn new(lines: &'a Lines, line: Line, seat: Seat) -> Self {
        let now = Instant::now();
        let silence = lines.limits.silence(line.connect.keep_alive);
        let mut wire = line.wire;
        wire.set_limit(MQTT_PACKET);
        Device {
            lines,
            wire,
            seat,
            device: DeviceId(line.claims.sub),
            organization: line.claims.org,
            epoch: line.claims.epoch,
            will: line.connect.will.map(|will| will.payload),
            hears_wake: false,
            hears_ack: false,
            bucket: Bucket::full(&lines.limits, now),
            silence,
            silent: now + silence,
            lapses: line.lapses,
            commit: None,
            overdue: now,
            tick: None,
            refusals: Refusals::default(),
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Reason> {
        // Seated now: a revocation since the CONNECT was checked has kicked nobody.
        self.lines.admission.check(self.device.0, self.epoch)?;
        codec::put_connack(self.wire.output(), Answer::Accepted);
        loop {
            self.wire.flush().await?;
            match self.step().await {
                Step::Mail => self.deliver()?,
                Step::Committed(done) => self.committed(done)?,
                Step::Room(room) => match (room, self.tick.take()) {
                    (Some(permit), Some(tick)) => permit.send(tick),
                    _ => return Err(Reason::Uncommitted),
                },
                Step::Packet(packet) => self.packet(packet?)?,
                Step::Late => return Err(self.late()),
            }
        }
    }

    async fn step(&mut self) -> Step<'a> {
        let deadline = match self.commit {
            Some(_) => self.overdue,
            None => self.silent,
        };
        tokio::select! {
            biased;
            () = self.seat.arrived() => Step::Mail,
            done = answer(&mut self.commit), if self.commit.is_some() => Step::Committed(done),
            permit = self.lines.inbound.reserve(), if self.tick.is_some() => {
                Step::Room(permit.ok())
            }
            packet = self.wire.packet(), if self.commit.is_none() => Step::Packet(packet),
            () = sleep_until(deadline.min(self.lapses)) => Step::Late,
        }
    }

    fn late(&self) -> Reason {
        match self.commit {
            _ if Instant::now() >= self.lapses => Reason::Lapsed,
            Some(_) => Reason::Uncommitted,
            None => Reason::KeepAlive,
        }
    }

    fn packet(&mut self, packet: Incoming) -> Result<(), Reason> {
        let now = Instant::now();
        self.silent = now + self.silence;
        let length = match &packet {
            Incoming::Publish(uplink) => uplink.payload.len(),
            _ => 0,
        };
        if !self.bucket.take(length, now) {
            return Err(Reason::Flood);
        }
        match packet {
            Incoming::Publish(uplink) => self.uplink(uplink),
            Incoming::Subscribe { pkid, filters } => self.subscribe(pkid, &filters),
            Incoming::Unsubscribe { pkid, filters } => {
                filters.iter().for_each(|filter| self.hear(filter, false));
                codec::put_unsuback(self.wire.output(), pkid);
                Ok(())
            }
            Incoming::Ping => {
                codec::put_pingresp(self.wire.output());
                Ok(())
            }
            Incoming::Disconnect => Err(Reason::Left),
            // Everything goes out with QoS 0: there is nothing to acknowledge.
            Incoming::PubAck => Err(Reason::StrayAck),
            Incoming::Connect(_) | Incoming::Unexpected => Err(Reason::Unexpected),
        }
    }

    fn uplink(&mut self, uplink: Uplink) -> Result<(), Reason> {
        let pkid = match uplink.delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce(pkid) => Some(pkid),
            Delivery::ExactlyOnce => return Err(Reason::ExactlyOnce),
        };
        let up = acl::uplink(&self.organization, self.device, &uplink.topic)
            .ok_or(Reason::ForeignPublish)?;
        if uplink.payload.len() > acl::largest(up) {
            return Err(Reason::Oversized);
        }
        self.lines.counters.uplinks.fetch_add(1, Ordering::Relaxed);
        match up {
            Up::Progress => self.progress(uplink.payload, pkid),
            Up::Event => self.commit(InboundBody::Events(uplink.payload), pkid),
            Up::Presence => self.commit(InboundBody::Presence(uplink.payload), pkid),
            Up::Inventory => self.commit(InboundBody::Inventory(uplink.payload), pkid),
        }
        Ok(())
    }

    fn commit(&mut self, body: InboundBody, pkid: Option<u16>) {
        let (inbound, done) = self.inbound(body);
        let queue = self.lines.inbound.clone();
        let commit = async move {
            queue.send(inbound).await.map_err(|_| Reason::Uncommitted)?;
            done.await.map_err(|_| Reason::Uncommitted)
        };
        self.commit = Some((Box::pin(commit), pkid));
        self.overdue = Instant::now() + self.lines.limits.commit;
    }

    fn progress(&mut self, payload: Vec<u8>, pkid: Option<u16>) {
        let (tick, _) = self.inbound(InboundBody::Tick(payload));
        if self.tick.replace(tick).is_some() {
            self.lines.counters.dropped_ticks.fetch_add(1, Ordering::Relaxed);
        }
        if let Ok(permit) = self.lines.inbound.try_reserve()
            && let Some(tick) = self.tick.take()
        {
            permit.send(tick);
        }
        // A tick is promised nothing, so its PUBACK waits for nothing.
        pkid.into_iter().for_each(|pkid| codec::put_puback(self.wire.output(), pkid));
    }

    fn inbound(&self, body: InboundBody) -> (Inbound, oneshot::Receiver<Option<Acks>>) {
        let (done, answer) = oneshot::channel();
        let (device, organization) = (self.device, self.organization.clone());
        (Inbound { device, organization, body, done }, answer)
    }

    fn committed(&mut self, done: Result<Option<Acks>, Reason>) -> Result<(), Reason> {
        let pkid = self.commit.take().and_then(|(_, pkid)| pkid);
        let acks = done?;
        pkid.into_iter().for_each(|pkid| codec::put_puback(self.wire.output(), pkid));
        if let Some(acks) = acks {
            self.acks(&acks);
        }
        // What was not read meanwhile does not count as silence.
        self.silent = Instant::now() + self.silence;
        Ok(())
    }

    fn subscribe(&mut self, pkid: u16, filters: &[String]) -> Result<(), Reason> {
        if filters.len() > self.lines.limits.filters_at_once {
            return Err(Reason::Flood);
        }
        let own =
            |filter: &String| acl::downlink(&self.organization, self.device, filter).is_some();
        let granted: Vec<bool> = filters.iter().map(own).collect();
        for (filter, _) in filters.iter().zip(&granted).filter(|(_, granted)| !**granted) {
            self.refusals.filter(self.lines, self.device.0, filter);
        }
        filters.iter().for_each(|filter| self.hear(filter, true));
        codec::put_suback(self.wire.output(), pkid, &granted);
        self.deliver()
    }

    fn hear(&mut self, filter: &str, hears: bool) {
        match acl::downlink(&self.organization, self.device, filter) {
            Some(Down::Wake) => self.hears_wake = hears,
            Some(Down::Ack) => self.hears_ack = hears,
            None => {}
        }
    }

    /// Takes from the mail what the device hears; the rest waits for its SUBSCRIBE.
    fn deliver(&mut self) -> Result<(), Reason> {
        let (hears_wake, hears_ack) = (self.hears_wake, self.hears_ack);
        let (close, wake, acks) = self.seat.mail(|mail| {
            let wake = hears_wake && std::mem::take(&mut mail.wake);
            let acks = if hears_ack { std::mem::take(&mut mail.acks) } else { Vec::new() };
            (mail.close, wake, acks)
        });
        if let Some(reason) = close {
            return Err(reason);
        }
        if wake {
            self.publish(Down::Wake, b"{}");
        }
        for some in acks.chunks(shared::limits::EVENTS_COUNT) {
            self.acks(&Acks::new(some.to_vec()));
        }
        Ok(())
    }

    fn acks(&mut self, acks: &Acks) {
        // A device that does not listen for acks sends its events again.
        if self.hears_ack && !acks.acks.is_empty() {
            match serde_json::to_vec(acks) {
                Ok(payload) => self.publish(Down::Ack, &payload),
                Err(error) => tracing::error!(device = %self.device, %error, "acks"),
            }
        }
    }

    fn publish(&mut self, down: Down, payload: &[u8]) {
        let topic = Topic::Down(self.organization.clone(), self.device, down).to_string();
        codec::put_publish(self.wire.output(), &topic, payload, false);
    }

    async fn end(mut self, reason: Reason, peer: SocketAddr) {
        self.lines.counters.count(reason);
        if reason.is_ordinary() {
            tracing::debug!(device = %self.device, %peer, %reason, "line ended");
        } else {
            tracing::warn!(device = %self.device, %peer, %reason, "line ended");
        }
        let will = self.will.take().filter(|_| reason.publishes_will());
        if let Some(will) = will {
            // While the seat is still held: a newer line of the device waits for it.
            let (inbound, _) = self.inbound(InboundBody::Presence(will));
            let _ = timeout(self.lines.limits.takeover, self.lines.inbound.send(inbound)).await;
        }
        drop(self.seat);
        self.wire.close().await;
    }
}

async fn answer(commit: &mut Option<(Commit, Option<u16>)>) -> Result<Option<Acks>, Reason> {
    match commit {
        Some((commit, _)) => commit.await,
        None => std::future::pending().await,
    }
}
