//! From accept to an authenticated line: sockets, TLS, CONNECT, token. Owns the places that
//! strangers take and how long they may take them. One peer's silence or garbage costs only its own
//! task.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::acl::{self, Admission};
use super::codec::{self, Answer, Connect, Incoming};
use super::limits::Limits;
use super::reason::{Counters, Reason};
use super::registry::Registry;
use super::wire::Wire;
use super::{Inbound, dashboard, device};
use crate::feed::Feed;
use crate::tokens::{Audience, Claims, Kind, Tokens};

/// A CONNECT: an id, a token, a will.
const LARGEST_CONNECT: usize = 2048;

/// TLS streams are large; in a box they are not copied from phase to phase of a task.
pub(super) type Stream = Box<TlsStream<TcpStream>>;

/// What the lines need from outside. Share it behind an `Arc`; [`serve`] runs it.
pub struct Lines {
    pub tls: Arc<ServerConfig>,
    pub tokens: Arc<Tokens>,
    pub admission: Arc<Admission>,
    pub registry: Arc<Registry>,
    pub feed: Arc<Feed>,
    pub inbound: mpsc::Sender<Inbound>,
    pub counters: Arc<Counters>,
    pub limits: Limits,
}

/// A connection that has shown who it is.
pub(super) struct Line {
    pub wire: Wire<Stream>,
    pub claims: Claims,
    pub connect: Connect,
    /// When the token's time and the grace are over.
    pub lapses: Instant,
}

/// Takes connections for ever. Dropping it stops taking new ones; those that are open end by
/// [`Registry::close_all`].
pub async fn serve(lines: Arc<Lines>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(lines.limits.connections));
    let strangers = Arc::new(Strangers::new(&lines.limits));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: others must end before more can come.
                tracing::error!(%error, "accept");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        lines.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse(&lines, peer, Reason::Full);
            continue;
        };
        let Some(stranger) = strangers.clone().enter(peer.ip()) else {
            refuse(&lines, peer, Reason::Crowded);
            continue;
        };
        tokio::spawn(connection(lines.clone(), stream, peer, place, stranger));
    }
}

async fn connection(
    lines: Arc<Lines>,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    stranger: Stranger,
) {
    // Boxed, so that an idle line does not keep the room of its handshake.
    let greeted = Box::pin(greet(&lines, stream, peer)).await;
    drop(stranger);
    match greeted {
        Err(reason) => refuse(&lines, peer, reason),
        Ok(line) => {
            lines.counters.authenticated.fetch_add(1, Ordering::Relaxed);
            match line.claims.kind {
                Kind::Device => device::run(&lines, line, peer).await,
                Kind::User => dashboard::run(&lines, line, peer).await,
            }
        }
    }
    drop(place);
}

fn refuse(lines: &Lines, peer: SocketAddr, reason: Reason) {
    lines.counters.count(reason);
    tracing::info!(%peer, %reason, "refused");
}

/// TLS, CONNECT and who it is; the CONNACK of a refusal is sent here, that of an acceptance by the
/// line once it has its seat.
async fn greet(lines: &Lines, stream: TcpStream, peer: SocketAddr) -> Result<Line, Reason> {
    // Latency only; a socket without it works.
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(lines.tls.clone()).accept(stream);
    let stream = match timeout(lines.limits.handshake, handshake).await {
        Err(_) => return Err(Reason::HandshakeTimeout),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "handshake");
            return Err(Reason::Handshake);
        }
        Ok(Ok(stream)) => Box::new(stream),
    };
    let mut wire = Wire::new(stream, LARGEST_CONNECT, lines.limits.write);
    let first = match timeout(lines.limits.connect, wire.packet()).await {
        Err(_) => Err(Reason::ConnectTimeout),
        Ok(Ok(Incoming::Connect(connect))) => Ok(connect),
        Ok(Ok(_)) => Err(Reason::NotConnect),
        Ok(Err(reason)) => Err(reason),
    };
    let known = first.and_then(|connect| {
        let claims =
            authenticate(lines, &connect).inspect_err(|reason| suspect(peer, &connect, *reason))?;
        Ok((claims, connect))
    });
    match known {
        Ok((claims, connect)) => {
            let lapses = Instant::now() + lines.tokens.left(&claims) + lines.limits.grace;
            Ok(Line { wire, claims, connect, lapses })
        }
        Err(reason) => {
            if let Some(answer) = reason.answer() {
                codec::put_connack(wire.output(), answer);
            }
            wire.close().await;
            Err(reason)
        }
    }
}

fn authenticate(lines: &Lines, connect: &Connect) -> Result<Claims, Reason> {
    if !acl::is_client_id(&connect.client_id) {
        return Err(Reason::ClientId);
    }
    let token = connect.password.as_deref().filter(|token| !token.is_empty());
    let claims = lines.tokens.verify(Audience::Mqtt, token.ok_or(Reason::NoCredentials)?)?;
    lines.admission.check(claims.sub, claims.epoch)?;
    acl::connect(&claims, connect)?;
    let is_many =
        || lines.registry.dashboards_of(claims.sub) >= lines.limits.dashboards_of_one_user;
    if claims.kind == Kind::User && is_many() { Err(Reason::Crowded) } else { Ok(claims) }
}

/// A refused CONNECT named somebody: that name, as far as it is printable, helps to find them.
fn suspect(peer: SocketAddr, connect: &Connect, reason: Reason) {
    let name = connect.client_id.chars().take(64).collect::<String>();
    tracing::warn!(%peer, claimed = ?name, %reason, "CONNECT refused");
}

pub(super) fn accept(output: &mut bytes::BytesMut) {
    codec::put_connack(output, Answer::Accepted);
}

/// The connections that have not authenticated yet.
struct Strangers {
    all: usize,
    of_one_peer: usize,
    present: Mutex<Present>,
}

#[derive(Default)]
struct Present {
    count: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One of them; leaves by being dropped.
struct Stranger {
    strangers: Arc<Strangers>,
    peer: IpAddr,
}

impl Strangers {
    fn new(limits: &Limits) -> Self {
        let (all, of_one_peer) = (limits.strangers, limits.strangers_of_one_peer);
        Strangers { all, of_one_peer, present: Mutex::default() }
    }

    fn enter(self: Arc<Self>, peer: IpAddr) -> Option<Stranger> {
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
}
