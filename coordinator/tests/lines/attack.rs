//! Every attack we know of from within, beside a second device that must notice nothing.

use coordinator::lines::reason::Reason;

use crate::dashboard::state;
use crate::log::Log;
use crate::scene::{VICTIM, VILLAIN, up};
use crate::stand::{Client, Stand, device, limits, serves};

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
