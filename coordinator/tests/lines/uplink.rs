//! What a device says: committed first, acknowledged then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::lines::InboundBody;
use coordinator::lines::limits::Limits;
use coordinator::lines::reason::Reason;
use coordinator::tokens::{Audience, Kind};
use rumqttd::protocol::Packet;
use tokio::time::timeout;

use crate::scene::{VICTIM, up};
use crate::stand::{SOON, Stand, acks_of, commit, device, limits, organization};

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
