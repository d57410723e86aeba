//! From accept to an authenticated line: sockets, TLS, CONNECT, token. One peer's silence or garbage costs only its own
//! task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use uuid::Uuid;

use super::acl::{self, Admission};
use super::codec::{self, Connect, Incoming};
use super::limits::Limits;
use super::reason::{Counters, Reason};
use super::registry::Registry;
use super::strangers::{Stranger, Strangers};
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
            refuse(&lines, &strangers, peer, Reason::Full.into());
            continue;
        };
        let Some(stranger) = strangers.clone().enter(peer.ip()) else {
            refuse(&lines, &strangers, peer, Reason::Crowded.into());
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
    let strangers = stranger.strangers().clone();
    // Boxed, so that an idle line does not keep the room of its handshake.
    let greeted = Box::pin(greet(&lines, stream, peer)).await;
    drop(stranger);
    match greeted {
        Err(refused) => refuse(&lines, &strangers, peer, refused),
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

/// A refusal, with the name that was claimed where it came so far.
struct Refused {
    reason: Reason,
    claimed: Option<String>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Refused { reason, claimed: None }
    }
}

fn refuse(lines: &Lines, strangers: &Strangers, peer: SocketAddr, refused: Refused) {
    let Refused { reason, claimed } = refused;
    lines.counters.count(reason);
    let Some(unlogged) = strangers.may_log() else { return };
    match claimed {
        Some(claimed) => tracing::warn!(%peer, ?claimed, %reason, unlogged, "CONNECT refused"),
        None => tracing::info!(%peer, %reason, unlogged, "refused"),
    }
}

/// TLS, CONNECT and who it is; the CONNACK of a refusal is sent here, that of an acceptance by the
/// line once it has its seat.
async fn greet(lines: &Lines, stream: TcpStream, peer: SocketAddr) -> Result<Line, Refused> {
    // Latency only; a socket without it works.
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(lines.tls.clone()).accept(stream);
    let stream = match timeout(lines.limits.handshake, handshake).await {
        Err(_) => return Err(Reason::HandshakeTimeout.into()),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "handshake");
            return Err(Reason::Handshake.into());
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
    let known =
        first.map_err(Refused::from).and_then(|connect| match authenticate(lines, &connect) {
            Ok(claims) => Ok((claims, connect)),
            Err(reason) => Err(Refused { reason, claimed: Some(connect.client_id) }),
        });
    match known {
        Ok((claims, mut connect)) => {
            if connect.client_id.is_empty() {
                connect.client_id = Uuid::new_v4().to_string();
            }
            let lapses = Instant::now() + lines.tokens.left(&claims) + lines.limits.grace;
            Ok(Line { wire, claims, connect, lapses })
        }
        Err(refused) => {
            if let Some(answer) = refused.reason.answer() {
                codec::put_connack(wire.output(), answer);
            }
            wire.close().await;
            Err(refused)
        }
    }
}

fn authenticate(lines: &Lines, connect: &Connect) -> Result<Claims, Reason> {
    if !acl::is_named(connect) {
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
