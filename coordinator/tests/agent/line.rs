//! The fast path through the whole coordinator: a wake, an event and its ack, and a dashboard.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use rumqttc::{AsyncClient, Event as Mqtt, EventLoop, MqttOptions, Packet, QoS, Transport};
use serde_json::{Value, json};
use shared::ack::{Acks, Verdict};
use shared::event::{EventBody, Events, Presence};
use shared::identity::Tokens;
use shared::ids::SessionId;
use shared::stages::Phase;
use uuid::Uuid;

use crate::api::{Stand, event};
use crate::peer::tls;

const SOON: Duration = Duration::from_secs(20);

/// The coordinator may only be reached under the name in its certificate.
fn connect(stand: &Stand, id: &str, token: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", stand.running.mqtt.port());
    options.set_credentials(id, token);
    let tls = rumqttc::TlsConfiguration::Rustls(Arc::new(tls(stand.dir.path())));
    options.set_transport(Transport::tls_with_config(tls));
    options.set_max_packet_size(1 << 20, 1 << 20);
    AsyncClient::new(options, 16)
}

/// The payload of the next message on a topic that ends so.
async fn hear(events: &mut EventLoop, end: &str) -> Value {
    let heard = async {
        loop {
            if let Mqtt::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap()
                && publish.topic.ends_with(end)
            {
                return serde_json::from_slice(&publish.payload).unwrap();
            }
        }
    };
    tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("nothing on {end}"))
}

/// Until a SUBACK or PUBACK.
async fn answered(events: &mut EventLoop) {
    let is_answer = |packet: &Packet| matches!(packet, Packet::SubAck(_) | Packet::PubAck(_));
    let answered = async {
        while !matches!(events.poll().await.unwrap(), Mqtt::Incoming(packet) if is_answer(&packet))
        {
        }
    };
    tokio::time::timeout(SOON, answered).await.unwrap();
}

#[tokio::test]
async fn a_wake_goes_out_an_ack_comes_back_and_a_dashboard_sees_it() {
    let stand = Stand::new().await;
    let (device, id) = stand.ready(1).await;
    let image = stand.operator.upload().await;
    let tokens: Tokens = device.token().await.json().await.unwrap();
    assert_eq!(tokens.mqtt_port, stand.running.mqtt.port());
    let (line, mut events) = connect(&stand, &id.to_string(), &tokens.mqtt.token);
    for down in ["wake", "ack"] {
        line.subscribe(format!("mu/default/{id}/down/{down}"), QoS::AtLeastOnce).await.unwrap();
        answered(&mut events).await;
    }
    let online = Presence { v: 1, session: SessionId(Uuid::from_u128(1)), online: true };
    let up = |what| format!("mu/default/{id}/up/{what}");
    let payload = serde_json::to_vec(&online).unwrap();
    line.publish(up("presence"), QoS::AtLeastOnce, false, payload).await.unwrap();
    answered(&mut events).await;

    let operation = stand.operator.upgrade(id, &image).await;
    assert_eq!(hear(&mut events, "/down/wake").await, json!({}));
    let shown = stand.operator.get(&format!("device/{id}/")).await;
    assert_eq!(shown["online"], true, "{shown}");
    let entered = event(operation, 1, 0, EventBody::Entered { phase: Phase::Downloading });
    let payload = serde_json::to_vec(&Events::new(vec![entered])).unwrap();
    line.publish(up("event"), QoS::AtLeastOnce, false, payload).await.unwrap();
    let acks: Acks = serde_json::from_value(hear(&mut events, "/down/ack").await).unwrap();
    assert_eq!((acks.acks[0].operation, &acks.acks[0].verdict), (operation, &Verdict::Accepted));

    let request = stand.operator.request(Method::POST, "users/mqtt-token/").json(&json!({}));
    let token: Value = request.send().await.unwrap().json().await.unwrap();
    let token = token["token"].as_str().unwrap();
    let (dashboard, mut seen) = connect(&stand, "dashboard", token);
    dashboard.subscribe("mu/default/+/+/operation", QoS::AtMostOnce).await.unwrap();
    let retained = hear(&mut seen, "/main/operation").await;
    assert_eq!((&retained["id"], &retained["phase"]), (&json!(operation), &json!("downloading")));
    assert_eq!(stand.operator.cancel(operation).await, 200);
    assert_eq!(hear(&mut seen, "/main/operation").await["status"], "cancelled");
    hear(&mut events, "/down/wake").await;

    let revoke = stand.operator.request(Method::POST, &format!("device/{id}/revoke/"));
    assert_eq!(revoke.send().await.unwrap().status(), 200);
    let thrown_out = async { while events.poll().await.is_ok() {} };
    tokio::time::timeout(SOON, thrown_out).await.unwrap();
}
