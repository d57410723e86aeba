//! The lines over real sockets: the way of a well-behaved device and of a dashboard, and every
//! attack we know of beside a second device that must notice nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml lets tests use them, but does not see helpers of tests as tests"
)]

mod stand;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use coordinator::feed::{Change, Subject};
use coordinator::lines::InboundBody;
use coordinator::lines::limits::Limits;
use coordinator::lines::reason::Reason;
use coordinator::tokens::{Audience, Kind, Tokens};
use rumqttd::protocol::{
    ConnectReturnCode, Disconnect, DisconnectReasonCode, LastWill, Packet, QoS,
};
use shared::ids::{OperationId, Slot};
use stand::{Client, HOUR, SOON, Stand, acks_of, commit, device, limits, organization, serves};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;

const VICTIM: u128 = 1;
const VILLAIN: u128 = 2;
const USER: u128 = 77;

fn up(n: u128, what: &str) -> String {
    format!("mu/acme/{}/up/{what}", device(n))
}

fn will(n: u128, payload: &str) -> LastWill {
    LastWill {
        topic: up(n, "presence").into(),
        message: payload.to_owned().into(),
        qos: QoS::AtLeastOnce,
        retain: false,
    }
}

fn presence(text: &str) -> InboundBody {
    InboundBody::Presence(text.as_bytes().to_vec())
}

/// The log of this thread, which in a current-thread test is everybody's.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn a_puback_comes_after_the_commit_and_not_before() {
    let (stand, mut queue) = Stand::with_queue(limits(), 8).await;
    let mut client = stand.device(VICTIM).await;
    client.publish(&up(VICTIM, "event"), b"5", Some(9)).await;
    let inbound = timeout(SOON, queue.recv()).await.unwrap().unwrap();
    assert_eq!((inbound.device, &inbound.organization), (device(VICTIM), &organization()));
    assert_eq!(inbound.body, InboundBody::Events(b"5".to_vec()));
    client.is_quiet().await;
    inbound.done.send(Some(acks_of(b"5"))).unwrap();
    match client.next().await {
        Some(Packet::PubAck(ack, _)) => assert_eq!(ack.pkid, 9),
        other => panic!("{other:?}"),
    }
    assert!(client.hear().await.1.contains(r#""seq":5"#));
}

#[tokio::test]
async fn an_uplink_that_was_not_committed_gets_no_puback_and_ends_the_line() {
    let (stand, mut queue) = Stand::with_queue(limits(), 8).await;
    let mut client = stand.device(VICTIM).await;
    client.publish(&up(VICTIM, "event"), b"5", Some(9)).await;
    drop(timeout(SOON, queue.recv()).await.unwrap().unwrap());
    assert_eq!(client.next().await, None);
    assert_eq!(stand.lines.counters.of(Reason::Uncommitted), 1);
}

#[tokio::test]
async fn a_store_that_takes_for_ever_ends_the_line_without_a_puback() {
    let limits = Limits { commit: Duration::from_millis(200), ..limits() };
    let (stand, mut queue) = Stand::with_queue(limits, 8).await;
    let mut client = stand.device(VICTIM).await;
    client.publish(&up(VICTIM, "inventory"), b"{}", Some(9)).await;
    let held = timeout(SOON, queue.recv()).await.unwrap();
    assert_eq!(client.next().await, None);
    assert_eq!(stand.lines.counters.of(Reason::Uncommitted), 1);
    drop(held);
}

#[tokio::test]
async fn ticks_wait_for_nobody_and_the_latest_wins() {
    let (stand, mut queue) = Stand::with_queue(limits(), 1).await;
    let mut client = stand.device(VICTIM).await;
    for n in 0..20 {
        client.publish(&up(VICTIM, "progress"), n.to_string().as_bytes(), None).await;
    }
    client.is_alive().await;
    let mut next = async || timeout(SOON, queue.recv()).await.unwrap().unwrap().body;
    assert_eq!(next().await, InboundBody::Tick(b"0".to_vec()));
    assert_eq!(next().await, InboundBody::Tick(b"19".to_vec()));
    assert_eq!(stand.lines.counters.dropped_ticks.load(std::sync::atomic::Ordering::Relaxed), 18);
}

#[tokio::test]
async fn wakes_and_acks_that_came_before_the_subscription_are_kept() {
    let stand = Stand::new(limits()).await;
    stand.lines.admission.set_epoch(device(VICTIM).0, 1);
    let token = stand.token(Audience::Mqtt, Kind::Device, VICTIM, 1);
    let mut client = stand.client().await;
    assert_eq!(client.connect(&device(VICTIM).to_string(), &token, None).await, Some(0));
    assert!(stand.lines.registry.wake(device(VICTIM)));
    assert!(stand.lines.registry.send_ack(device(VICTIM), acks_of(b"3")));
    client.is_quiet().await;
    assert_eq!(client.subscribe(&format!("mu/acme/{}/down/ack", device(VICTIM))).await, 0);
    assert!(client.hear().await.1.contains(r#""seq":3"#));
    assert_eq!(client.subscribe(&format!("mu/acme/{}/down/wake", device(VICTIM))).await, 0);
    assert_eq!(client.hear().await.1, "{}");
}

#[tokio::test]
async fn a_will_is_said_after_a_loss_and_not_after_a_goodbye() {
    let stand = Stand::new(limits()).await;
    stand.lines.admission.set_epoch(device(VICTIM).0, 1);
    let token = stand.token(Audience::Mqtt, Kind::Device, VICTIM, 1);
    let id = device(VICTIM).to_string();

    let mut polite = stand.client().await;
    assert_eq!(polite.connect(&id, &token, Some(will(VICTIM, "polite"))).await, Some(0));
    let disconnect = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
    polite.send(Packet::Disconnect(disconnect, None)).await;
    stand.until_counted(Reason::Left, 1).await;

    let mut lost = stand.client().await;
    assert_eq!(lost.connect(&id, &token, Some(will(VICTIM, "lost"))).await, Some(0));
    drop(lost);
    stand.until("the will", |stand| !stand.heard_of(VICTIM).is_empty()).await;
    assert_eq!(stand.heard_of(VICTIM), [presence("lost")]);
    stand.until("the seat is free", |stand| stand.lines.registry.connected() == 0).await;
}

#[tokio::test]
async fn a_device_that_comes_again_takes_its_seat_and_the_old_will_is_not_said() {
    let stand = Stand::new(limits()).await;
    stand.lines.admission.set_epoch(device(VICTIM).0, 1);
    let token = stand.token(Audience::Mqtt, Kind::Device, VICTIM, 1);
    let id = device(VICTIM).to_string();
    let mut old = stand.client().await;
    assert_eq!(old.connect(&id, &token, Some(will(VICTIM, "old offline"))).await, Some(0));
    old.publish(&up(VICTIM, "presence"), b"old online", Some(1)).await;
    assert!(matches!(old.next().await, Some(Packet::PubAck(..))));

    let mut new = stand.device(VICTIM).await;
    old.is_hung_up_on().await;
    new.publish(&up(VICTIM, "presence"), b"new online", Some(1)).await;
    assert!(matches!(new.next().await, Some(Packet::PubAck(..))));
    serves(&stand, &mut new, VICTIM, 2).await;
    let said = stand.heard_of(VICTIM);
    assert_eq!(said[..2], [presence("old online"), presence("new online")]);
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(stand.lines.registry.connected(), 1);
    assert_eq!(stand.lines.counters.of(Reason::TakenOver), 1);
}

#[tokio::test]
async fn tokens_that_are_not_good_for_mqtt_are_refused() {
    let (log, _guard) = Log::start();
    let stand = Stand::new(limits()).await;
    let mut victim = stand.device(VICTIM).await;
    let id = device(VILLAIN).to_string();
    stand.lines.admission.set_epoch(device(VILLAIN).0, 5);
    let elsewhere = tempfile::tempdir().unwrap();
    let forger = Tokens::load(elsewhere.path(), coordinator::clock::Clock::System).unwrap();
    let bearer = coordinator::tokens::Bearer {
        subject: device(VILLAIN).0,
        organization: organization(),
        kind: Kind::Device,
        epoch: 5,
    };
    let device_token = |audience, n, epoch| stand.token(audience, Kind::Device, n, epoch);
    let expired = stand.token_for(Audience::Mqtt, Kind::Device, VILLAIN, 5, Duration::ZERO);
    let cases = [
        (device_token(Audience::Api, VILLAIN, 5), 5, Reason::TokenAudience),
        (device_token(Audience::Mqtt, VILLAIN, 4), 5, Reason::Revoked),
        (device_token(Audience::Mqtt, 99, 5), 5, Reason::Unknown),
        (device_token(Audience::Mqtt, VICTIM, 1), 2, Reason::ClientId),
        (expired, 5, Reason::TokenExpired),
        (forger.issue(Audience::Mqtt, &bearer, HOUR).unwrap(), 4, Reason::TokenSignature),
        ("password".to_owned(), 4, Reason::TokenMalformed),
        (String::new(), 4, Reason::NoCredentials),
    ];
    for (token, answer, reason) in cases {
        let mut villain = stand.client().await;
        assert_eq!(villain.connect(&id, &token, None).await, Some(answer), "{reason}");
        assert_eq!(villain.next().await, None);
        stand.until_counted(reason, 1).await;
        let log = log.text();
        assert!(log.contains(&id) && log.contains(&format!("reason={reason}")), "{log}");
    }
    serves(&stand, &mut victim, VICTIM, 1).await;
    assert_eq!(stand.lines.registry.connected(), 1);
}

#[tokio::test]
async fn a_revoked_device_is_kicked_and_its_token_is_worth_nothing() {
    let stand = Stand::new(limits()).await;
    let mut victim = stand.device(VICTIM).await;
    let mut villain = stand.device(VILLAIN).await;
    stand.lines.admission.set_epoch(device(VILLAIN).0, 2);
    stand.lines.registry.kick(device(VILLAIN));
    villain.is_hung_up_on().await;
    let token = stand.token(Audience::Mqtt, Kind::Device, VILLAIN, 1);
    let mut again = stand.client().await;
    assert_eq!(again.connect(&device(VILLAIN).to_string(), &token, None).await, Some(5));
    serves(&stand, &mut victim, VICTIM, 1).await;
}

#[tokio::test]
async fn a_line_ends_when_its_token_has_lapsed() {
    let stand = Stand::new(limits()).await;
    stand.lines.admission.set_epoch(device(VILLAIN).0, 1);
    let short = Duration::from_secs(4);
    let token = stand.token_for(Audience::Mqtt, Kind::Device, VILLAIN, 1, short);
    let mut client = stand.client().await;
    assert_eq!(client.connect(&device(VILLAIN).to_string(), &token, None).await, Some(0));
    assert_eq!(client.next().await, None);
    assert_eq!(stand.lines.counters.of(Reason::Lapsed), 1);
}

#[tokio::test]
async fn a_silent_device_is_lost_after_one_and_a_half_keep_alives() {
    let stand = Stand::new(limits()).await;
    stand.lines.admission.set_epoch(device(VILLAIN).0, 1);
    let token = stand.token(Audience::Mqtt, Kind::Device, VILLAIN, 1);
    let id = device(VILLAIN).to_string();
    let mut client = stand.client().await;
    let will = Some(will(VILLAIN, "offline"));
    assert_eq!(client.connect_as(&id, &id, &token, 2, will).await, Some(0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.is_alive().await;
    assert_eq!(client.next().await, None);
    assert_eq!(stand.lines.counters.of(Reason::KeepAlive), 1);
    assert_eq!(stand.heard_of(VILLAIN), [presence("offline")]);
}

/// What a villain does once it is connected, and how its line must end.
enum Attack {
    Bytes(Vec<u8>),
    Publish(String, usize, Option<u16>),
    Flood,
}

fn attacks() -> Vec<(&'static str, Attack, Reason)> {
    use Attack::{Bytes, Flood, Publish};
    let oversized = vec![0x30, 0xff, 0xff, 0xff, 0x7f];
    let mut exactly_once = vec![0x34, 0];
    let topic = up(VILLAIN, "event");
    exactly_once.extend([0, u8::try_from(topic.len()).unwrap()]);
    exactly_once.extend(topic.as_bytes());
    exactly_once.extend([0, 1]);
    exactly_once[1] = u8::try_from(exactly_once.len() - 2).unwrap();
    vec![
        ("another's topic", Publish(up(VICTIM, "event"), 1, Some(1)), Reason::ForeignPublish),
        (
            "another's downlink",
            Publish(format!("mu/acme/{}/down/wake", device(VICTIM)), 2, None),
            Reason::ForeignPublish,
        ),
        (
            "another organization",
            Publish(format!("mu/other/{}/up/event", device(VILLAIN)), 1, Some(1)),
            Reason::ForeignPublish,
        ),
        ("a dollar topic", Publish("$SYS/x".to_owned(), 1, None), Reason::ForeignPublish),
        ("a wildcard", Publish("mu/acme/+/up/event".to_owned(), 1, None), Reason::ForeignPublish),
        ("no topic", Publish(String::new(), 1, None), Reason::ForeignPublish),
        ("a large presence", Publish(up(VILLAIN, "presence"), 257, Some(1)), Reason::Oversized),
        ("a large tick", Publish(up(VILLAIN, "progress"), 1025, None), Reason::Oversized),
        ("a packet of 256 MB", Bytes(oversized), Reason::Oversized),
        ("garbage", Bytes(b"\xf0\x02\xfd\xfc\x00\x00".to_vec()), Reason::Malformed),
        (
            "a topic that is not UTF-8",
            Bytes(b"\x30\x04\x00\x02\xff\xfe".to_vec()),
            Reason::Malformed,
        ),
        ("packet id 0", Bytes(b"\x32\x05\x00\x01t\x00\x00".to_vec()), Reason::Malformed),
        ("an empty SUBSCRIBE", Bytes(b"\x82\x02\x00\x01".to_vec()), Reason::Malformed),
        ("an empty UNSUBSCRIBE", Bytes(b"\xa2\x01\x00".to_vec()), Reason::Malformed),
        ("QoS 2", Bytes(exactly_once), Reason::ExactlyOnce),
        ("a stray PUBACK", Bytes(b"\x40\x02\x00\x01".to_vec()), Reason::StrayAck),
        ("a stray PUBREL", Bytes(b"\x62\x02\x00\x01".to_vec()), Reason::Unexpected),
        ("a CONNACK", Bytes(b"\x20\x02\x00\x00".to_vec()), Reason::Unexpected),
        (
            "a second CONNECT",
            Bytes(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a".to_vec()),
            Reason::Unexpected,
        ),
        ("a flood", Flood, Reason::Flood),
    ]
}

async fn attack(villain: &mut Client, attack: Attack) {
    match attack {
        Attack::Bytes(bytes) => villain.say(&bytes).await,
        Attack::Publish(topic, size, pkid) => {
            villain.publish(&topic, &vec![b'0'; size], pkid).await
        }
        Attack::Flood => {
            let mut bytes = b"\xc0\x00".repeat(1000);
            bytes.extend(b"\x40\x02\x00\x01".repeat(100));
            villain.say(&bytes).await;
        }
    }
}

#[tokio::test]
async fn attacks_cost_the_attacker_its_line_and_nobody_else_anything() {
    let (log, _guard) = Log::start();
    let stand = Stand::new(limits()).await;
    let mut victim = stand.device(VICTIM).await;
    for (seq, (name, what, reason)) in (1..).zip(attacks()) {
        let before = stand.lines.counters.of(reason);
        let mut villain = stand.device(VILLAIN).await;
        attack(&mut villain, what).await;
        villain.is_hung_up_on().await;
        stand.until_counted(reason, before + 1).await;
        let line = format!("device={}", device(VILLAIN));
        let logged = |entry: &str| entry.contains(&line) && entry.contains(reason.label());
        assert!(log.text().lines().any(logged), "{name}: {}", log.text());
        serves(&stand, &mut victim, VICTIM, seq).await;
    }
    let heard = stand.heard_of(VICTIM);
    assert_eq!(heard.len(), attacks().len(), "only its own events: {heard:?}");
    assert_eq!(stand.heard_of(VILLAIN), []);
}

#[tokio::test]
async fn a_device_subscribes_to_its_own_two_and_to_nothing_else() {
    let stand = Stand::new(limits()).await;
    let mut victim = stand.device(VICTIM).await;
    let mut villain = stand.device(VILLAIN).await;
    let filters = [
        "#".to_owned(),
        "+/+/+/+/+".to_owned(),
        "$share/g/#".to_owned(),
        "$SYS/#".to_owned(),
        "mu/acme/#".to_owned(),
        format!("$share/g/mu/acme/{}/down/wake", device(VILLAIN)),
        format!("mu/acme/{}/down/wake", device(VICTIM)),
        format!("mu/acme/{}/up/event", device(VICTIM)),
        format!("mu/acme/{}/down/#", device(VILLAIN)),
        format!("mu/acme/{}/main/operation", device(VILLAIN)),
    ];
    for filter in &filters {
        assert_eq!(villain.subscribe(filter).await, 0x80, "{filter}");
    }
    assert_eq!(stand.lines.counters.of(Reason::ForeignFilter), filters.len() as u64);
    serves(&stand, &mut victim, VICTIM, 1).await;
    stand.lines.feed.publish(state(VICTIM, "{}"));
    villain.is_quiet().await;
    serves(&stand, &mut villain, VILLAIN, 1).await;
}

#[tokio::test]
async fn client_ids_and_wills_are_checked_before_anything_is_kept() {
    let stand = Stand::new(limits()).await;
    let mut victim = stand.device(VICTIM).await;
    stand.lines.admission.set_epoch(device(VILLAIN).0, 1);
    let token = stand.token(Audience::Mqtt, Kind::Device, VILLAIN, 1);
    let id = device(VILLAIN).to_string();
    for bad in ["a/b", "a/b", "", "+", "a b", &"x".repeat(65), &id.replace('-', "")] {
        let mut villain = stand.client().await;
        assert_eq!(villain.connect(bad, &token, None).await, Some(2), "{bad}");
    }
    let mut villain = stand.client().await;
    assert_eq!(villain.connect_as(&id, "somebody", &token, 60, None).await, Some(2));
    let large = "x".repeat(257);
    for foreign in [
        will(VICTIM, "gone"),
        will(VILLAIN, &large),
        LastWill { topic: up(VILLAIN, "event").into(), ..will(VILLAIN, "gone") },
        LastWill { topic: "#".into(), ..will(VILLAIN, "gone") },
        LastWill { qos: QoS::ExactlyOnce, ..will(VILLAIN, "gone") },
    ] {
        let mut villain = stand.client().await;
        assert_eq!(villain.connect(&id, &token, Some(foreign)).await, Some(5));
    }
    assert_eq!(stand.lines.counters.of(Reason::ForeignWill), 5);
    serves(&stand, &mut victim, VICTIM, 1).await;
    assert_eq!(stand.heard_of(VICTIM).len(), 1);
}

#[tokio::test]
async fn strangers_that_keep_silent_hold_up_nobody_and_are_thrown_out() {
    let stand = Stand::new(limits()).await;
    let mut half_open = Vec::new();
    for _ in 0..50 {
        half_open.push(TcpStream::connect(stand.address).await.unwrap());
    }
    let mut trickle = TcpStream::connect(stand.address).await.unwrap();
    trickle.write_all(b"\x16\x03\x01").await.unwrap();
    let silent = stand.client().await;
    let mut garbage = TcpStream::connect(stand.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut not_connect = stand.client().await;
    not_connect.say(b"\xc0\x00").await;
    assert_eq!(not_connect.next().await, None);
    let mut version_five = stand.client().await;
    version_five.say(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a").await;
    assert!(matches!(version_five.next().await, Some(Packet::ConnAck(..))));

    let mut victim = stand.device(VICTIM).await;
    serves(&stand, &mut victim, VICTIM, 1).await;
    stand.until_counted(Reason::HandshakeTimeout, 51).await;
    stand.until_counted(Reason::ConnectTimeout, 1).await;
    stand.until_counted(Reason::Handshake, 1).await;
    stand.until_counted(Reason::NotConnect, 1).await;
    stand.until_counted(Reason::Version, 1).await;
    serves(&stand, &mut victim, VICTIM, 2).await;
    drop((half_open, trickle, silent));
}

#[tokio::test]
async fn many_filters_in_one_packet_end_the_line() {
    let stand = Stand::new(limits()).await;
    let mut villain = stand.device(VILLAIN).await;
    let mut packet = vec![0, 1];
    for _ in 0..9 {
        packet.extend_from_slice(b"\x00\x01a\x00");
    }
    let length = u8::try_from(packet.len()).unwrap();
    villain.say(&[&[0x82, length][..], &packet].concat()).await;
    stand.until_counted(Reason::Flood, 1).await;
    assert_eq!(stand.lines.counters.of(Reason::ForeignFilter), 0);
}

#[tokio::test]
async fn places_are_counted_and_given_back() {
    let limits = Limits { connections: 2, handshake: Duration::from_secs(60), ..limits() };
    let stand = Stand::new(limits).await;
    let mut victim = stand.device(VICTIM).await;
    let silent = TcpStream::connect(stand.address).await.unwrap();
    stand.until("the stranger", |stand| accepted(stand) == 2).await;
    let _third = TcpStream::connect(stand.address).await.unwrap();
    stand.until_counted(Reason::Full, 1).await;
    serves(&stand, &mut victim, VICTIM, 1).await;
    drop(silent);
    stand.until_counted(Reason::Handshake, 1).await;
    let mut other = stand.device(VILLAIN).await;
    serves(&stand, &mut other, VILLAIN, 1).await;

    let few = Limits { strangers_of_one_peer: 1, ..stand::limits() };
    let stand = Stand::new(few).await;
    let _silent = TcpStream::connect(stand.address).await.unwrap();
    let _crowded = TcpStream::connect(stand.address).await.unwrap();
    stand.until_counted(Reason::Crowded, 1).await;
}

fn accepted(stand: &Stand) -> u64 {
    stand.lines.counters.accepted.load(std::sync::atomic::Ordering::Relaxed)
}

fn state(n: u128, payload: &str) -> Change {
    let (device, slot) = (device(n), Slot::default());
    let operation = OperationId(Uuid::from_u128(n));
    Change {
        organization: organization(),
        subject: Subject::Operation { device, slot, operation },
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

fn operation_topic(n: u128) -> String {
    format!("mu/acme/{}/main/operation", device(n))
}

#[tokio::test]
async fn a_dashboard_gets_what_is_retained_and_then_what_changes() {
    let stand = Stand::new(limits()).await;
    let other = Change { organization: "other".parse().unwrap(), ..state(9, "secret") };
    stand.lines.feed.publish(other.clone());
    stand.lines.feed.publish(state(1, "early"));
    stand.lines.feed.publish(state(1, "now"));
    let mut dashboard = stand.dashboard(USER, "mosqsub-1").await;
    assert_eq!(dashboard.subscribe("mu/acme/+/+/operation").await, 0);
    assert_eq!(dashboard.hear().await, (operation_topic(1), "now".to_owned(), true));
    stand.lines.feed.publish(other);
    stand.lines.feed.publish(state(2, "live"));
    assert_eq!(dashboard.hear().await, (operation_topic(2), "live".to_owned(), false));

    // A second, overlapping subscription brings the retained states again and doubles nothing.
    assert_eq!(dashboard.subscribe("mu/acme/#").await, 0);
    let mut again = [dashboard.hear().await, dashboard.hear().await];
    again.sort();
    assert_eq!(again[0], (operation_topic(1), "now".to_owned(), true));
    stand.lines.feed.publish(state(1, "done"));
    assert_eq!(dashboard.hear().await.1, "done");
    dashboard.is_quiet().await;
    dashboard.say(b"\xa2\x0d\x00\x07\x00\x09mu/acme/#").await;
    assert!(matches!(dashboard.next().await, Some(Packet::UnsubAck(ack, _)) if ack.pkid == 7));
    stand.lines.feed.publish(state(1, "after"));
    assert_eq!(dashboard.hear().await.1, "after");
}

#[tokio::test]
async fn dashboards_without_a_name_get_one_each() {
    let stand = Stand::new(limits()).await;
    stand.lines.feed.publish(state(1, "now"));
    let mut dashboards = [stand.dashboard(USER, "").await, stand.dashboard(USER, "").await];
    assert_eq!(stand.lines.registry.dashboards(), 2, "one has taken the other's seat");
    for dashboard in &mut dashboards {
        assert_eq!(dashboard.subscribe("mu/acme/#").await, 0);
        assert_eq!(dashboard.hear().await, (operation_topic(1), "now".to_owned(), true));
    }

    // Without a clean session the standard has no such CONNECT.
    let token = stand.token(Audience::Mqtt, Kind::User, USER, 1);
    let mut client = stand.client().await;
    let mut body = b"\0\x04MQTT\x04\xc0\0\x3c\0\0\0\x01u".to_vec();
    body.extend_from_slice(&u16::try_from(token.len()).unwrap().to_be_bytes());
    body.extend_from_slice(token.as_bytes());
    let byte = |part: usize| u8::try_from(part).unwrap();
    let length = [byte(body.len() % 128) | 0x80, byte(body.len() / 128)];
    client.say(&[&[0x10], &length[..], &body].concat()).await;
    let Some(Packet::ConnAck(answer, _)) = client.next().await else { panic!("no CONNACK") };
    assert_eq!(answer.code, ConnectReturnCode::ClientIdentifierNotValid);
}

#[tokio::test]
async fn a_dashboard_reads_its_organization_and_writes_nothing() {
    let stand = Stand::new(limits()).await;
    let mut victim = stand.device(VICTIM).await;
    let mut dashboard = stand.dashboard(USER, "a").await;
    let filters = ["#", "+/+/#", "$share/g/mu/acme/#", "$SYS/#", "mu/other/#", "mu/+/#", "mu/#"];
    for filter in filters {
        assert_eq!(dashboard.subscribe(filter).await, 0x80, "{filter}");
    }
    let device_topics = [format!("mu/acme/{}/up/event", device(VICTIM)), "mu/acme/+/up/+".into()];
    for filter in &device_topics {
        assert_eq!(dashboard.subscribe(filter).await, 0x80, "{filter}");
    }
    dashboard.publish(&up(VICTIM, "event"), b"1", None).await;
    dashboard.is_hung_up_on().await;
    assert_eq!(stand.lines.counters.of(Reason::ForeignPublish), 1);
    let mut willing = stand.client().await;
    let token = stand.token(Audience::Mqtt, Kind::User, USER, 1);
    assert_eq!(willing.connect("a", &token, Some(will(VICTIM, "gone"))).await, Some(5));
    let mut posing = stand.client().await;
    let id = device(VICTIM).to_string();
    assert_eq!(posing.connect(&id, &token, None).await, Some(0), "a name is only a name");
    serves(&stand, &mut victim, VICTIM, 1).await;

    stand.lines.admission.revoke(Uuid::from_u128(USER));
    stand.lines.registry.kick_user(Uuid::from_u128(USER));
    posing.is_hung_up_on().await;
}

#[tokio::test]
async fn a_dashboard_that_does_not_read_is_ended_and_others_are_not_held_up() {
    let stand = Stand::new(limits()).await;
    let mut slow = stand.dashboard(USER, "slow").await;
    assert_eq!(slow.subscribe("mu/acme/#").await, 0);
    let mut quick = stand.dashboard(USER, "quick").await;
    assert_eq!(quick.subscribe("mu/acme/#").await, 0);
    let large = "x".repeat(60_000);
    for n in 0..400 {
        stand.lines.feed.publish(state(n % 5, &large));
        tokio::task::yield_now().await;
    }
    stand.lines.feed.publish(state(VICTIM, "last"));
    while quick.hear().await.1 != "last" {}
    stand.until_counted(Reason::Stalled, 1).await;
    quick.is_alive().await;
}

#[tokio::test]
async fn the_agents_client_library_gets_along() {
    let (stand, mut queue) = Stand::with_queue(limits(), 8).await;
    let said = Arc::<Mutex<Vec<_>>>::default();
    stand.lines.admission.set_epoch(device(VICTIM).0, 1);
    let id = device(VICTIM).to_string();
    let mut options = rumqttc::MqttOptions::new(&id, "localhost", stand.address.port());
    options.set_credentials(&id, stand.token(Audience::Mqtt, Kind::Device, VICTIM, 1));
    let tls = rumqttc::TlsConfiguration::Rustls(stand.trust.clone());
    options.set_transport(rumqttc::Transport::tls_with_config(tls));
    let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
    let down = format!("mu/acme/{id}/down/ack");
    client.subscribe(&down, rumqttc::QoS::AtLeastOnce).await.unwrap();
    let payload = "4".to_owned();
    client.publish(up(VICTIM, "event"), rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
    let (mut puback, mut acks) = (false, false);
    while !(puback && acks) {
        tokio::select! {
            inbound = queue.recv() => commit(&said, inbound.unwrap()),
            event = timeout(SOON, events.poll()) => match event.unwrap().unwrap() {
                rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) => puback = true,
                rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => {
                    assert_eq!(publish.topic, down);
                    acks = true;
                }
                _ => {}
            },
        }
    }
    assert_eq!(said.lock().unwrap().len(), 1);
}
