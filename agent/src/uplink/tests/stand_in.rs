//! A coordinator small enough to see through: HTTPS and MQTT over real TLS, with a memory of what
//! it was told and a switch for every way to be difficult.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use shared::ack::{Ack, Acks, Verdict};
use shared::event::{Event, Events};
use shared::hex::Hex;
use shared::hex::sha256;
use shared::identity::{Enrol, TokenRequest, enrol_message, token_message, verify};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

use crate::settings::SpkiPin;

pub const AUDIENCE: &str = "stand-in";
pub const ENROLMENT_TOKEN: &str = "let-me-in";
pub const DEVICE: &str = "6f9619ff-8b86-4011-b42d-00c04fc964ff";

/// What the coordinator thinks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    Pending,
    Accepted,
}

/// How the broker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    Answers,
    /// PUBACKs, and says nothing more.
    TakesOnly,
    RefusesTokens,
}

/// Everything it was told, and how it is to answer.
pub struct World {
    pub standing: Standing,
    /// What enrolling makes of it.
    pub enrolled_as: Standing,
    pub broker: Broker,
    /// Answers everything by this status.
    pub broken: Option<u16>,
    /// Answers `start`.
    pub start: (u16, Value),
    /// The sequence number that no request may hold.
    pub poison: Option<u64>,
    /// Whether it is a proxy on the way that will not let it pass.
    pub poison_by_proxy: bool,
    pub generation: u32,
    nonces: BTreeMap<String, bool>,
    pub tokens_given: u32,
    /// Only this token is good.
    pub good_token: String,
    pub enrolments: u32,
    pub desired_asked: u32,
    pub unchanged_said: u32,
    pub events: Vec<Event>,
    pub over_https: usize,
    pub ticks: usize,
    pub inventories: usize,
    pub connects: Vec<Connect>,
    pub subscribed: Vec<String>,
    pub published: Vec<(String, Value)>,
    mqtt_port: u16,
}

/// The running stand-in.
#[derive(Clone)]
pub struct StandIn {
    world: Arc<Mutex<World>>,
    down: broadcast::Sender<Down>,
    pub port: u16,
    pub pin: SpkiPin,
}

#[derive(Clone)]
enum Down {
    Publish(String, Vec<u8>),
    Break,
}

impl StandIn {
    pub async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let pin = SpkiPin(sha256(&key.subject_public_key_info()).0);
        let certificate =
            CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let https = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mqtt = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stand_in = Self {
            port: https.local_addr().unwrap().port(),
            world: Arc::new(Mutex::new(World::new(mqtt.local_addr().unwrap().port()))),
            down: broadcast::channel(64).0,
            pin,
        };
        tokio::spawn(stand_in.clone().serve_https(https, acceptor.clone()));
        tokio::spawn(stand_in.clone().serve_mqtt(mqtt, acceptor));
        stand_in
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn wake(&self) {
        let topic = format!("mu/acme/{DEVICE}/down/wake");
        let _ = self.down.send(Down::Publish(topic, b"{}".to_vec()));
    }

    pub fn break_lines(&self) {
        let _ = self.down.send(Down::Break);
    }

    /// Waits until the world is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&World) -> bool) {
        let waited = async {
            while !wanted(&self.world()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), waited).await.is_ok(), "{what}");
    }

    async fn serve_https(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((socket, _)) = listener.accept().await {
            let (stand_in, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(socket).await {
                    let mut buffer = Vec::new();
                    while let Some(request) = read_request(&mut stream, &mut buffer).await {
                        let (status, headers, body) = stand_in.world().answer(&request);
                        let head = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n",
                            body.len()
                        );
                        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    }

    async fn serve_mqtt(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((socket, _)) = listener.accept().await {
            let (stand_in, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    stand_in.mqtt_connection(stream).await;
                }
            });
        }
    }

    async fn mqtt_connection(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut down = self.down.subscribe();
        let mut buffer = BytesMut::new();
        loop {
            while let Ok(packet) = Packet::read(&mut buffer, 1 << 20) {
                for answer in self.world().hear(packet) {
                    let mut bytes = BytesMut::new();
                    answer.write(&mut bytes, 1 << 20).unwrap();
                    // In a test the socket's buffer takes it at once.
                    if futures_util::future::FutureExt::now_or_never(stream.write_all(&bytes))
                        .is_none_or(|written| written.is_err())
                    {
                        return;
                    }
                }
            }
            tokio::select! {
                read = stream.read_buf(&mut buffer) => {
                    if read.unwrap_or(0) == 0 {
                        return;
                    }
                }
                Ok(order) = down.recv() => match order {
                    Down::Break => return,
                    Down::Publish(topic, payload) => {
                        let packet = Packet::Publish(Publish::new(topic, QoS::AtMostOnce, payload));
                        let mut bytes = BytesMut::new();
                        packet.write(&mut bytes, 1 << 20).unwrap();
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                },
            }
        }
    }
}

struct Request {
    line: String,
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<Request> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let line = head.lines().next().unwrap().to_owned();
            let request = Request { line, head, body: Vec::new() };
            let length = request.header("content-length").map_or(0, |n| n.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let rest = buffer.split_off(end + 4 + length);
                let body = std::mem::replace(buffer, rest).split_off(end + 4);
                return Some(Request { body, ..request });
            }
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

type Answer = (u16, String, Vec<u8>);

fn answer(status: u16, body: &Value) -> Answer {
    (status, "content-type: application/json\r\n".to_owned(), body.to_string().into_bytes())
}

fn refusal(status: u16, code: &str) -> Answer {
    answer(status, &json!({"code": code, "detail": "says the stand-in"}))
}

impl World {
    fn new(mqtt_port: u16) -> Self {
        Self {
            standing: Standing::Accepted,
            enrolled_as: Standing::Accepted,
            broker: Broker::Answers,
            broken: None,
            start: (409, json!({"code": "paused", "detail": "not now", "retry_after_s": 7})),
            poison: None,
            poison_by_proxy: false,
            generation: 1,
            nonces: BTreeMap::new(),
            tokens_given: 0,
            good_token: String::new(),
            enrolments: 0,
            desired_asked: 0,
            unchanged_said: 0,
            events: Vec::new(),
            over_https: 0,
            ticks: 0,
            inventories: 0,
            connects: Vec::new(),
            subscribed: Vec::new(),
            published: Vec::new(),
            mqtt_port,
        }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        if let Some(status) = self.broken {
            return refusal(status, "broken");
        }
        let line = request.line.strip_suffix(" HTTP/1.1").unwrap();
        let (method, path) = line.split_once(" /api/v1/agent/").unwrap();
        match (method, path) {
            ("POST", "nonce") => self.nonce(),
            ("POST", "enrol") => self.enrol(&serde_json::from_slice(&request.body).unwrap()),
            ("POST", "token") => self.token(&serde_json::from_slice(&request.body).unwrap()),
            _ if request.header("authorization")
                != Some(&format!("Bearer {}", self.good_token)) =>
            {
                refusal(401, "expired")
            }
            ("GET", "desired") => self.desired(request.header("if-none-match")),
            ("POST", "events") => self.take(&serde_json::from_slice(&request.body).unwrap()),
            ("POST", "ticks") => {
                self.ticks += 1;
                (204, String::new(), Vec::new())
            }
            ("PUT", "inventory") => {
                self.inventories += 1;
                (204, String::new(), Vec::new())
            }
            ("POST", path) if path.ends_with("/start") => answer(self.start.0, &self.start.1),
            _ => refusal(404, "not_found"),
        }
    }

    fn nonce(&mut self) -> Answer {
        let nonce = Hex([u8::try_from(self.nonces.len()).unwrap(); 32]);
        self.nonces.insert(nonce.to_string(), true);
        let time = crate::clock::system_unix_ms();
        let nonce = nonce.to_string();
        answer(200, &json!({"nonce": nonce, "expires_in": 60, "audience": AUDIENCE, "time": time}))
    }

    fn enrol(&mut self, ask: &Enrol) -> Answer {
        let message = enrol_message(AUDIENCE, &ask.nonce, &ask.public_key, &ask.token, &ask.claims);
        let fresh = self.nonces.remove(&ask.nonce.to_string()).is_some();
        let proven = verify(&ask.public_key, &message, &ask.signature);
        if !fresh || !proven || ask.token != ENROLMENT_TOKEN {
            return refusal(401, "malformed");
        }
        self.enrolments += 1;
        self.standing = self.enrolled_as;
        let state = if self.standing == Standing::Accepted { "accepted" } else { "pending" };
        answer(201, &json!({"device": DEVICE, "organization": "acme", "state": state}))
    }

    fn token(&mut self, ask: &TokenRequest) -> Answer {
        let message = token_message(AUDIENCE, &ask.nonce, &ask.public_key);
        let fresh = self.nonces.remove(&ask.nonce.to_string()).is_some();
        if !fresh || !verify(&ask.public_key, &message, &ask.signature) {
            return refusal(401, "malformed");
        }
        match self.standing {
            Standing::Unknown => return refusal(401, "unknown"),
            Standing::Pending => return refusal(403, "pending"),
            Standing::Accepted => {}
        }
        self.tokens_given += 1;
        self.good_token = format!("api-{}", self.tokens_given);
        answer(
            200,
            &json!({
                "device": DEVICE, "organization": "acme", "mqtt_port": self.mqtt_port,
                "api": {"token": self.good_token, "expires_in": 3600},
                "mqtt": {"token": format!("mqtt-{}", self.tokens_given), "expires_in": 3600},
                "time": crate::clock::system_unix_ms(),
            }),
        )
    }

    fn desired(&mut self, etag: Option<&str>) -> Answer {
        self.desired_asked += 1;
        let tag = format!("\"g{}\"", self.generation);
        if etag == Some(&tag) {
            self.unchanged_said += 1;
            return (304, format!("etag: {tag}\r\n"), Vec::new());
        }
        let body = json!({"v": 1, "generation": tag, "time": 0, "jobs": []});
        (200, format!("etag: {tag}\r\n"), body.to_string().into_bytes())
    }

    fn take(&mut self, events: &Events) -> Answer {
        if events.events.iter().any(|event| Some(event.seq) == self.poison) {
            return if self.poison_by_proxy {
                (413, "content-type: text/html\r\n".to_owned(), b"<h1>No</h1>".to_vec())
            } else {
                refusal(400, "malformed")
            };
        }
        self.over_https += events.events.len();
        let acks = self.commit(events);
        answer(200, &serde_json::to_value(acks).unwrap())
    }

    fn commit(&mut self, events: &Events) -> Acks {
        let acks = events.events.iter().map(|event| {
            let verdict = if self.events.contains(event) {
                Verdict::Duplicate
            } else {
                self.events.push(event.clone());
                Verdict::Accepted
            };
            Ack { operation: event.operation, stream: event.stream, seq: event.seq, verdict }
        });
        Acks::new(acks.collect())
    }

    fn hear(&mut self, packet: Packet) -> Vec<Packet> {
        match packet {
            Packet::Connect(connect) => {
                let refused = self.broker == Broker::RefusesTokens;
                self.connects.push(connect);
                let code = if refused {
                    ConnectReturnCode::NotAuthorized
                } else {
                    ConnectReturnCode::Success
                };
                vec![Packet::ConnAck(ConnAck::new(code, false))]
            }
            Packet::Subscribe(subscribe) => {
                let codes = vec![SubscribeReasonCode::Success(QoS::AtMostOnce); 2];
                self.subscribed.extend(subscribe.filters.into_iter().map(|filter| filter.path));
                vec![Packet::SubAck(SubAck::new(subscribe.pkid, codes))]
            }
            Packet::Publish(publish) => self.hear_publish(publish),
            Packet::PingReq => vec![Packet::PingResp],
            _ => Vec::new(),
        }
    }

    fn hear_publish(&mut self, publish: Publish) -> Vec<Packet> {
        let payload: Value = serde_json::from_slice(&publish.payload).unwrap();
        self.published.push((publish.topic.clone(), payload.clone()));
        let mut answers = Vec::new();
        if publish.qos == QoS::AtLeastOnce {
            answers.push(Packet::PubAck(PubAck::new(publish.pkid)));
        }
        if publish.topic.ends_with("/up/event") && self.broker == Broker::Answers {
            let acks = self.commit(&serde_json::from_value(payload).unwrap());
            let topic = format!("mu/acme/{DEVICE}/down/ack");
            let acks = serde_json::to_vec(&acks).unwrap();
            answers.push(Packet::Publish(Publish::new(topic, QoS::AtMostOnce, acks)));
        }
        answers
    }

    /// What was published on a topic of the device.
    pub fn published_on(&self, end: &str) -> Vec<&Value> {
        let topic = format!("mu/acme/{DEVICE}/up/{end}");
        self.published.iter().filter(|(t, _)| *t == topic).map(|(_, payload)| payload).collect()
    }
}
