//! Dashboards: what is retained, what changes, and nothing that is not theirs.

use bytes::Bytes;
use coordinator::feed::{Change, Subject};
use coordinator::lines::reason::Reason;
use coordinator::tokens::{Audience, Kind};
use rumqttd::protocol::{ConnectReturnCode, Packet};
use shared::ids::{OperationId, Slot};
use uuid::Uuid;

use crate::scene::{USER, VICTIM, up, will};
use crate::stand::{Stand, device, limits, organization, serves};

pub fn state(n: u128, payload: &str) -> Change {
    let (device, slot) = (device(n), Slot::default());
    let operation = OperationId(Uuid::from_u128(n));
    Change {
        organization: organization(),
        subject: Subject::Operation { device, slot, operation, created: 1, has_ended: false },
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
    // The late word of an operation before the slot's last one.
    let mut late = state(1, "late");
    let Subject::Operation { operation, created, has_ended, .. } = &mut late.subject else {
        panic!("no operation")
    };
    (*operation, *created, *has_ended) = (OperationId(Uuid::from_u128(99)), 0, true);
    stand.lines.feed.publish(late);
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
