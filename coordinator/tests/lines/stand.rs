//! A listener on a port of its own with everything it needs, and a client that says exactly the
//! bytes it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use coordinator::clock::Clock;
use coordinator::feed::Feed;
use coordinator::lines::acl::Admission;
use coordinator::lines::limits::Limits;
use coordinator::lines::listener::{self, Lines};
use coordinator::lines::reason::{Counters, Reason};
use coordinator::lines::registry::Registry;
use coordinator::lines::{Inbound, InboundBody};
use coordinator::tls::{Identity, Source, default_names};
use coordinator::tokens::{Audience, Bearer, Epoch, Kind, Tokens};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::{
    Connect, Error, Filter, LastWill, Login, Packet, PingReq, Protocol as _, QoS,
    RetainForwardRule, Subscribe,
};
use rustls::pki_types::ServerName;
use shared::ack::{Ack, Acks, Verdict};
use shared::ids::{DeviceId, OperationId, OrganizationSlug, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

/// Long enough for a loaded machine; nothing waits this long where the code is right.
pub const SOON: Duration = Duration::from_secs(20);
pub const HOUR: Duration = Duration::from_secs(3600);

pub type Said = (DeviceId, InboundBody);

pub struct Stand {
    pub address: SocketAddr,
    pub lines: Arc<Lines>,
    pub said: Arc<Mutex<Vec<Said>>>,
    _folder: tempfile::TempDir,
    pub trust: Arc<rustls::ClientConfig>,
}

pub fn limits() -> Limits {
    Limits {
        handshake: Duration::from_secs(2),
        connect: Duration::from_secs(2),
        write: Duration::from_secs(2),
        grace: Duration::ZERO,
        ..Limits::default()
    }
}

pub fn organization() -> OrganizationSlug {
    "acme".parse().unwrap()
}

pub fn device(n: u128) -> DeviceId {
    DeviceId(Uuid::from_u128(n))
}

impl Stand {
    /// With an ingest that commits at once and acknowledges an event `<n>` as seq n.
    pub async fn new(limits: Limits) -> Self {
        let (stand, mut queue) = Self::with_queue(limits, 256).await;
        let said = stand.said.clone();
        tokio::spawn(async move {
            while let Some(inbound) = queue.recv().await {
                commit(&said, inbound);
            }
        });
        stand
    }

    /// With an ingest that the test plays itself.
    pub async fn with_queue(limits: Limits, queue: usize) -> (Self, mpsc::Receiver<Inbound>) {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Own {
            folder: folder.path().to_owned(),
            names: default_names([127, 0, 0, 1].into()),
        };
        let identity = Identity::load(&source).unwrap();
        let (sender, receiver) = mpsc::channel(queue);
        let lines = Arc::new(Lines {
            tls: identity.mqtt().unwrap(),
            tokens: Arc::new(Tokens::load(folder.path(), Clock::System).unwrap()),
            admission: Arc::new(Admission::default()),
            registry: Arc::new(Registry::default()),
            feed: Feed::new(&Clock::System),
            inbound: sender,
            counters: Arc::new(Counters::default()),
            limits,
        });
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(listener::serve(lines.clone(), socket));
        let trust = trust(&identity);
        (Stand { address, lines, said: Arc::default(), _folder: folder, trust }, receiver)
    }

    pub fn token(&self, audience: Audience, kind: Kind, n: u128, epoch: Epoch) -> String {
        self.token_for(audience, kind, n, epoch, HOUR)
    }

    pub fn token_for(
        &self,
        audience: Audience,
        kind: Kind,
        n: u128,
        epoch: Epoch,
        lifetime: Duration,
    ) -> String {
        let subject = Uuid::from_u128(n);
        let bearer = Bearer { subject, organization: organization(), kind, epoch };
        self.lines.tokens.issue(audience, &bearer, lifetime).unwrap()
    }

    /// An accepted device's client, connected and subscribed.
    pub async fn device(&self, n: u128) -> Client {
        self.lines.admission.set_epoch(device(n).0, 1);
        let token = self.token(Audience::Mqtt, Kind::Device, n, 1);
        let mut client = self.client().await;
        assert_eq!(client.connect(&device(n).to_string(), &token, None).await, Some(0));
        for down in ["wake", "ack"] {
            let filter = format!("mu/acme/{}/down/{down}", device(n));
            assert_eq!(client.subscribe(&filter).await, 0);
        }
        client
    }

    /// A user's client of the organization, connected.
    pub async fn dashboard(&self, n: u128, client_id: &str) -> Client {
        self.lines.admission.set_epoch(Uuid::from_u128(n), 1);
        let token = self.token(Audience::Mqtt, Kind::User, n, 1);
        let mut client = self.client().await;
        assert_eq!(client.connect(client_id, &token, None).await, Some(0));
        client
    }

    /// A TLS connection that has said nothing yet.
    pub async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(self.trust.clone());
        let stream = timeout(SOON, connector.connect(name, stream)).await.unwrap().unwrap();
        Client { stream, input: BytesMut::new() }
    }

    pub async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_counted(&self, reason: Reason, count: u64) {
        self.until(reason.label(), |stand| stand.lines.counters.of(reason) >= count).await;
    }

    pub fn heard_of(&self, n: u128) -> Vec<InboundBody> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|(id, _)| *id == device(n)).map(|(_, body)| body.clone()).collect()
    }
}

/// What the store does with an uplink, in a word.
pub fn commit(said: &Mutex<Vec<Said>>, inbound: Inbound) {
    let acks = match &inbound.body {
        InboundBody::Events(payload) => Some(acks_of(payload)),
        _ => None,
    };
    said.lock().unwrap().push((inbound.device, inbound.body));
    let _ = inbound.done.send(acks);
}

pub fn acks_of(payload: &[u8]) -> Acks {
    let seq = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (operation, stream) = (OperationId(Uuid::nil()), StreamId(Uuid::nil()));
    Acks::new(vec![Ack { operation, stream, seq, verdict: Verdict::Accepted }])
}

fn trust(identity: &Identity) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.chain()[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub struct Client {
    pub stream: TlsStream<TcpStream>,
    input: BytesMut,
}

impl Client {
    pub async fn say(&mut self, bytes: &[u8]) {
        // The listener may have hung up already; what it did is asserted by what comes back.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    pub async fn send(&mut self, packet: Packet) {
        let mut buffer = BytesMut::new();
        V4.write(packet, &mut buffer).unwrap();
        self.say(&buffer).await;
    }

    /// The next packet, or `None` where the listener hung up.
    pub async fn next(&mut self) -> Option<Packet> {
        timeout(SOON, self.read()).await.expect("neither a packet nor the end")
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            match V4.read_mut(&mut self.input, 1 << 20) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Asserts that nothing comes for a moment.
    pub async fn is_quiet(&mut self) {
        if let Ok(packet) = timeout(Duration::from_millis(200), self.read()).await {
            panic!("{packet:?}");
        }
    }

    /// The return code of the CONNACK; `None` = hung up without one.
    pub async fn connect(&mut self, id: &str, token: &str, will: Option<LastWill>) -> Option<u8> {
        self.connect_as(id, id, token, 60, will).await
    }

    pub async fn connect_as(
        &mut self,
        id: &str,
        username: &str,
        token: &str,
        keep_alive: u16,
        will: Option<LastWill>,
    ) -> Option<u8> {
        let client_id = id.to_owned();
        let login = Login { username: username.to_owned(), password: token.to_owned() };
        let connect = Connect { keep_alive, client_id, clean_session: true };
        self.send(Packet::Connect(connect, None, will, None, Some(login))).await;
        match self.next().await {
            Some(Packet::ConnAck(answer, _)) => Some(code(answer.code)),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    /// The return code of the SUBACK.
    pub async fn subscribe(&mut self, filter: &str) -> u8 {
        let filter = Filter {
            path: filter.to_owned(),
            qos: QoS::AtLeastOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        self.send(Packet::Subscribe(Subscribe { pkid: 1, filters: vec![filter] }, None)).await;
        match self.next().await {
            Some(Packet::SubAck(answer, _)) => {
                let mut bytes = BytesMut::new();
                V4.write(Packet::SubAck(answer, None), &mut bytes).unwrap();
                bytes[4]
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], pkid: Option<u16>) {
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend(pkid.into_iter().flat_map(u16::to_be_bytes));
        body.extend_from_slice(payload);
        let mut packet = BytesMut::from(&[if pkid.is_some() { 0x32 } else { 0x30 }][..]);
        rumqttd::protocol::v4::write_remaining_length(&mut packet, body.len()).unwrap();
        packet.extend_from_slice(&body);
        self.say(&packet).await;
    }

    /// Topic and payload of the next packet, which must be a PUBLISH.
    pub async fn hear(&mut self) -> (String, String, bool) {
        match self.next().await {
            Some(Packet::Publish(publish, _)) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(&publish.topic), text(&publish.payload), publish.retain)
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn is_hung_up_on(&mut self) {
        while let Some(packet) = self.next().await {
            // What was under way when the listener decided.
            assert!(!matches!(packet, Packet::ConnAck(..)), "{packet:?}");
        }
    }

    /// Says PINGREQ and waits for the PINGRESP.
    pub async fn is_alive(&mut self) {
        self.send(Packet::PingReq(PingReq)).await;
        assert_eq!(self.next().await, Some(Packet::PingResp(rumqttd::protocol::PingResp)));
    }
}

fn code(code: rumqttd::protocol::ConnectReturnCode) -> u8 {
    let mut bytes = BytesMut::new();
    let answer = rumqttd::protocol::ConnAck { session_present: false, code };
    V4.write(Packet::ConnAck(answer, None), &mut bytes).unwrap();
    bytes[3]
}

/// A well-behaved device says something and is answered, and a wake reaches it.
pub async fn serves(stand: &Stand, client: &mut Client, n: u128, seq: u16) {
    let base = format!("mu/acme/{}", device(n));
    client.publish(&format!("{base}/up/event"), seq.to_string().as_bytes(), Some(seq)).await;
    match client.next().await {
        Some(Packet::PubAck(ack, _)) => assert_eq!(ack.pkid, seq),
        other => panic!("{other:?}"),
    }
    let (topic, payload, _) = client.hear().await;
    assert_eq!(topic, format!("{base}/down/ack"));
    let acks: Acks = serde_json::from_str(&payload).unwrap();
    assert_eq!(acks.acks[0].seq, u64::from(seq));
    assert!(stand.lines.registry.wake(device(n)));
    assert_eq!(client.hear().await, (format!("{base}/down/wake"), "{}".to_owned(), false));
}
