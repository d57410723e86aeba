//! A device's seat: how it is taken, and how it is lost.

use std::time::Duration;

use coordinator::lines::reason::Reason;
use coordinator::tokens::{Audience, Kind};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};

use crate::scene::{VICTIM, VILLAIN, presence, up, will};
use crate::stand::{Stand, device, limits, serves};

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
