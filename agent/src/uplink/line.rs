//! The MQTT connection: the fast path.
//!
//! Client and event loop are made anew for every connection. rumqttc keeps what was not
//! acknowledged from one connection to the next, drops it when the session is gone, and can
//! livelock on a packet id then; the outbox does all of that better. So a connection ends at the
//! first error, at the end of its token's life, or when it stays without acknowledgement.
//!
//! Nothing here waits for the broker: what does not fit into the queue stays in the outbox, and
//! after a while goes over HTTPS.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ClientError, ConnectReturnCode, ConnectionError, Event as MqttEvent, EventLoop,
    LastWill, MqttOptions, Packet, QoS, SubscribeFilter, TlsConfiguration, Transport,
};
use serde::Serialize;
use shared::ack::Acks;
use shared::event::{Events, Presence, VERSION};
use shared::ids::SessionId;
use shared::limits;
use shared::topics::{Down, Topic, Up};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::backoff::Backoff;
use super::causes;
use super::pending::{Key, Pending, key};
use super::rest::Rest;
use super::sign_in::{Credentials, SignIn};
use super::state::StateCell;
use super::ticks::Ticks;
use crate::tls::Tls;
use crate::{random, settings};

const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Connecting over a congested cell takes its time.
const CONNECT_SECONDS: u64 = 30;
/// Requests in rumqttc's queue.
const QUEUE: usize = 32;
/// Packets without PUBACK.
const INFLIGHT: u16 = 16;
/// Events in a message.
const BATCH: usize = 16;
/// Between two looks at the ticks.
const TICK_INTERVAL: Duration = Duration::from_millis(250);
/// A connection on which events stay unanswered for so long is given up.
const SILENCE: Duration = Duration::from_secs(120);
/// A connection that stood so long was a good one.
const STOOD: Duration = Duration::from_secs(30);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("the connection broke")]
    Connection(#[source] Box<ConnectionError>),
    #[error("the coordinator refused the token ({0:?})")]
    Refused(ConnectReturnCode),
    #[error("the token's life is over")]
    TokenOver,
    #[error("events stay unanswered")]
    Silent,
    #[error("no session id could be made")]
    NoSession(#[from] random::NoRandomness),
    #[error("a message cannot be queued")]
    Queue(#[source] Box<ClientError>),
    #[error("a message cannot be written")]
    Json(#[from] serde_json::Error),
}

impl From<ConnectionError> for LineError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(
                code @ (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized),
            ) => Self::Refused(code),
            error => Self::Connection(Box::new(error)),
        }
    }
}

impl From<ClientError> for LineError {
    fn from(error: ClientError) -> Self {
        Self::Queue(Box::new(error))
    }
}

/// The task that keeps the connection.
pub struct Line {
    pub host: String,
    pub tls: Tls,
    pub sign_in: Arc<SignIn>,
    pub settings: settings::Uplink,
    pub pending: Pending,
    pub ticks: Ticks,
    /// Told of every wake and every new connection.
    pub wake: Arc<Notify>,
    pub rest: Rest,
    pub up: watch::Sender<bool>,
    pub state: StateCell,
}

impl Line {
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.retry, self.settings.retry_max);
        loop {
            let credentials = self.sign_in.credentials().await;
            let began = Instant::now();
            let ended = self.connection(&credentials).await;
            self.show(false);
            if began.elapsed() > STOOD {
                backoff.reset();
            }
            if let Err(error) = ended {
                log::info!("line: {}", causes(&error));
                match error {
                    LineError::Refused(_) => self.sign_in.doubt(credentials.number),
                    // Nothing failed: the next token should be there already.
                    LineError::TokenOver if began.elapsed() > STOOD => continue,
                    _ => {}
                }
            }
            if self.rest.pause(backoff.next(random::share()), None).await {
                backoff.reset();
            }
        }
    }

    /// One connection from CONNECT to its end.
    async fn connection(&self, credentials: &Credentials) -> Result<(), LineError> {
        let session = SessionId::from_random(random::bytes()?);
        let (client, mut events) = self.client(credentials, session)?;
        let mut talk = Talk {
            line: self,
            client,
            credentials,
            session,
            standing: false,
            published: HashSet::new(),
            unanswered: None,
        };
        let (mut outbox, mut ticks) = (self.pending.watch(), self.ticks.watch());
        let mut look = tokio::time::interval(TICK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = true;
        loop {
            // Never dropped half-way: a packet under way would be lost.
            let mut poll = pin!(events.poll());
            let event = loop {
                tokio::select! {
                    event = &mut poll => break event?,
                    _ = outbox.changed() => talk.publish_events()?,
                    _ = ticks.changed() => progress = true,
                    _ = look.tick(), if progress || talk.unanswered.is_some() => {
                        progress = !talk.publish_ticks();
                        talk.publish_events()?;
                        talk.check_silence()?;
                    }
                    () = sleep_until(credentials.mqtt_until) => return Err(LineError::TokenOver),
                }
            };
            talk.handle(event)?;
        }
    }

    fn client(
        &self,
        credentials: &Credentials,
        session: SessionId,
    ) -> Result<(AsyncClient, EventLoop), LineError> {
        let id = credentials.device.to_string();
        let mut options = MqttOptions::new(&id, &self.host, credentials.mqtt_port);
        let tls = TlsConfiguration::Rustls(Arc::new(self.tls.config()));
        let will = presence(session, false)?;
        let topic = topic(credentials, Up::Presence);
        options
            .set_transport(Transport::tls_with_config(tls))
            .set_credentials(&id, &credentials.mqtt_token)
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(true)
            .set_inflight(INFLIGHT)
            .set_max_packet_size(limits::MQTT_PACKET, limits::MQTT_PACKET)
            .set_last_will(LastWill::new(topic, will, QoS::AtLeastOnce, false));
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        events.network_options.set_connection_timeout(CONNECT_SECONDS);
        events.network_options.set_tcp_nodelay(true);
        Ok((client, events))
    }

    fn show(&self, up: bool) {
        self.up.send_if_modified(|before| std::mem::replace(before, up) != up);
        self.state.update(|state| state.line = up);
    }
}

/// One standing connection.
struct Talk<'a> {
    line: &'a Line,
    client: AsyncClient,
    credentials: &'a Credentials,
    session: SessionId,
    /// CONNACK came.
    standing: bool,
    /// Sent on this connection, and not settled yet.
    published: HashSet<Key>,
    /// Since when events stay unanswered on this connection.
    unanswered: Option<Instant>,
}

impl Talk<'_> {
    fn handle(&mut self, event: MqttEvent) -> Result<(), LineError> {
        match event {
            MqttEvent::Incoming(Packet::ConnAck(_)) => self.begin(),
            MqttEvent::Incoming(Packet::Publish(publish)) => {
                self.hear(&publish.topic, &publish.payload);
                Ok(())
            }
            // There is room in the queue again.
            MqttEvent::Incoming(Packet::PubAck(_)) => self.publish_events(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self) -> Result<(), LineError> {
        let down = [Down::Wake, Down::Ack].map(|down| {
            let (org, device) = (self.credentials.organization.clone(), self.credentials.device);
            let topic = Topic::Down(org, device, down).to_string();
            SubscribeFilter::new(topic, QoS::AtMostOnce)
        });
        self.client.try_subscribe_many(down)?;
        let online = presence(self.session, true)?;
        let topic = topic(self.credentials, Up::Presence);
        self.client.try_publish(topic, QoS::AtLeastOnce, false, online)?;
        self.standing = true;
        self.line.show(true);
        log::info!("line: connected");
        // A wake may have been lost while there was no connection.
        self.line.wake.notify_one();
        self.publish_events()
    }

    fn hear(&mut self, topic: &str, payload: &[u8]) {
        match topic.parse() {
            Ok(Topic::Down(_, device, Down::Wake)) if device == self.credentials.device => {
                self.line.wake.notify_one();
            }
            Ok(Topic::Down(_, device, Down::Ack)) if device == self.credentials.device => {
                match serde_json::from_slice::<Acks>(payload) {
                    Ok(acks) => self.settle(&acks),
                    Err(error) => log::warn!("acks that cannot be understood: {error}"),
                }
            }
            _ => log::debug!("a message on {topic:?} that nobody asked for"),
        }
    }

    fn settle(&mut self, acks: &Acks) {
        for ack in &acks.acks {
            self.published.remove(&(ack.operation, ack.stream, ack.seq));
        }
        self.line.pending.settle(&acks.acks);
        self.unanswered = (!self.published.is_empty()).then(Instant::now);
    }

    /// Publishes what was not published on this connection, as far as the queue takes it.
    fn publish_events(&mut self) -> Result<(), LineError> {
        while self.standing {
            let published = &self.published;
            let batch = self.line.pending.batch(BATCH, |event| !published.contains(&key(event)));
            if batch.is_empty() {
                return Ok(());
            }
            let keys: Vec<_> = batch.iter().map(key).collect();
            if !self.publish(Up::Event, QoS::AtLeastOnce, &Events::new(batch))? {
                return Ok(());
            }
            self.published.extend(keys);
            self.unanswered.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Returns whether the ticks are on their way; a tick that finds no room is gone.
    fn publish_ticks(&self) -> bool {
        if self.standing {
            for tick in self.line.ticks.take() {
                if let Err(error) = self.publish(Up::Progress, QoS::AtMostOnce, &tick) {
                    log::debug!("tick: {}", causes(&error));
                }
            }
        }
        self.standing
    }

    /// Events that were settled over HTTPS meanwhile count as unanswered here, too: that is how a
    /// broker that takes everything and answers nothing is found out.
    fn check_silence(&self) -> Result<(), LineError> {
        match self.unanswered {
            Some(since) if since.elapsed() > SILENCE => Err(LineError::Silent),
            _ => Ok(()),
        }
    }

    /// False if there is no room in the queue.
    fn publish(&self, up: Up, qos: QoS, message: &impl Serialize) -> Result<bool, LineError> {
        let payload = serde_json::to_vec(message)?;
        match self.client.try_publish(topic(self.credentials, up), qos, false, payload) {
            Ok(()) => Ok(true),
            Err(ClientError::TryRequest(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn topic(credentials: &Credentials, up: Up) -> String {
    Topic::Up(credentials.organization.clone(), credentials.device, up).to_string()
}

fn presence(session: SessionId, online: bool) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Presence { v: VERSION, session, online })
}
