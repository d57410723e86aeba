//! Who does not get in, beside somebody who notices nothing of it.

use std::time::Duration;

use coordinator::lines::limits::Limits;
use coordinator::lines::reason::Reason;
use coordinator::tokens::{Audience, Kind, Tokens};
use rumqttd::protocol::{LastWill, Packet, QoS};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::log::Log;
use crate::scene::{VICTIM, VILLAIN, up, will};
use crate::stand::{HOUR, Stand, device, limits, organization, serves};

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
async fn places_are_counted_and_given_back() {
    let full = Limits { connections: 2, handshake: Duration::from_secs(60), ..limits() };
    let stand = Stand::new(full).await;
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

    let few = Limits { strangers_of_one_peer: 1, ..limits() };
    let stand = Stand::new(few).await;
    let _silent = TcpStream::connect(stand.address).await.unwrap();
    let _crowded = TcpStream::connect(stand.address).await.unwrap();
    stand.until_counted(Reason::Crowded, 1).await;
}

fn accepted(stand: &Stand) -> u64 {
    stand.lines.counters.accepted.load(std::sync::atomic::Ordering::Relaxed)
}
