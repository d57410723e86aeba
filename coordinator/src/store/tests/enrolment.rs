//! Who a device is.

use shared::hex::{Hex, sha256};
use shared::identity::Claims;

use super::*;
use crate::store::device::DeviceRefusal;
use crate::store::enrolment::Enrolment;
use crate::store::fixture::TOKEN;

#[tokio::test]
async fn the_same_key_is_the_same_device_and_a_known_mac_waits() {
    let f = Fixture::new().await;
    let mac = Some("00:11:22:33:44:55");
    let (first, new) = f.enrol(1, mac).await.unwrap();
    assert!(new && first.state == DeviceState::Accepted);
    let (again, new) = f.enrol(1, mac).await.unwrap();
    assert!(!new && again == first);
    let (taker, _) = f.enrol(2, Some("001122334455")).await.unwrap();
    assert_eq!(taker.state, DeviceState::Pending, "also with a token that accepts");
    let waiting = f.store.device(Scope::Everything, taker.device).await.unwrap().unwrap();
    assert_eq!(waiting.replacement_of, Some(first.device));
    for key in 3..6 {
        f.enrol(key, mac).await.unwrap();
    }
    let flood = f.enrol(6, mac).await;
    assert!(matches!(flood, Err(Rejection::Refused(EnrolRefusal::TooManyReplacements))));

    let accepted = f.store.accept_device(Scope::Everything, taker.device).await.unwrap();
    assert_eq!(accepted.state, DeviceState::Accepted);
    let replaced = f.store.device(Scope::Everything, first.device).await.unwrap().unwrap();
    assert_eq!((replaced.state, replaced.epoch), (DeviceState::Revoked, 2));
    let back = f.enrol(1, mac).await;
    assert!(matches!(back, Err(Rejection::Refused(EnrolRefusal::Revoked))));
    assert_eq!(f.store.admitted_devices().await.unwrap(), [(taker.device, 1)]);
}

#[tokio::test]
async fn a_router_has_one_key_at_a_time_and_none_gets_back_in_by_itself() {
    let f = Fixture::new().await;
    let mac = Some("00:11:22:33:44:55");
    let state = async |id| f.store.device(Scope::Everything, id).await.unwrap().unwrap().state;
    let (first, _) = f.enrol(1, mac).await.unwrap();
    let (second, _) = f.enrol(2, mac).await.unwrap();
    let (third, _) = f.enrol(3, mac).await.unwrap();
    f.store.accept_device(Scope::Everything, second.device).await.unwrap();
    assert_eq!(state(third.device).await, DeviceState::Revoked, "it waited for the same place");

    f.pass(1);
    let (fourth, _) = f.enrol(4, mac).await.unwrap();
    assert_eq!(fourth.state, DeviceState::Pending);
    f.store.accept_device(Scope::Everything, fourth.device).await.unwrap();
    assert_eq!(f.store.admitted_devices().await.unwrap(), [(fourth.device, 1)]);

    f.store.revoke_device(Scope::Everything, fourth.device).await.unwrap();
    let (fifth, _) = f.enrol(5, mac).await.unwrap();
    assert_eq!(fifth.state, DeviceState::Pending, "revoked hardware waits under any key");
    let fifth = f.store.device(Scope::Everything, fifth.device).await.unwrap().unwrap();
    assert_eq!(fifth.replacement_of, Some(first.device));
}

#[tokio::test]
async fn hardware_of_two_devices_is_nobodys_replacement_until_one_is_revoked() {
    let f = Fixture::new().await;
    let enrol = async |key: u8, mac: Option<&str>, serial: Option<&str>| {
        let claims = Claims {
            mac: mac.map(str::to_owned),
            serial: serial.map(str::to_owned),
            ..Claims::default()
        };
        let token = sha256(TOKEN.as_bytes());
        let asked = Enrolment { public_key: Hex([key; 32]), token, claims, peer: None };
        f.store.enrol(asked).await.unwrap().0.device
    };
    let state = async |id| f.store.device(Scope::Everything, id).await.unwrap().unwrap().state;
    let one = enrol(1, Some("00:11:22:33:44:55"), Some("GLX3000A1077")).await;
    let other = enrol(2, Some("00:11:22:33:44:66"), Some("GLX3000A2088")).await;
    let taker = enrol(3, Some("00:11:22:33:44:55"), Some("GLX3000A2088")).await;
    let refused = f.store.accept_device(Scope::Everything, taker).await;
    assert!(
        matches!(refused, Err(Rejection::Refused(DeviceRefusal::SeveralRivals))),
        "{refused:?}"
    );
    assert_eq!([state(one).await, state(other).await], [DeviceState::Accepted; 2]);

    f.store.revoke_device(Scope::Everything, one).await.unwrap();
    f.store.accept_device(Scope::Everything, taker).await.unwrap();
    assert_eq!(state(other).await, DeviceState::Revoked);
    let log = f.store.audit(10).await.unwrap();
    let told = log.iter().find(|entry| entry.entry.action == "revoke").unwrap();
    assert_eq!(told.entry.subject, other.to_string());
    assert_eq!(told.after.as_ref().unwrap()["for"], taker.to_string());
}

#[tokio::test]
async fn an_old_sessions_will_does_not_hide_a_newer_one() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let session = |n| SessionId(Uuid::from_u128(n));
    let said = |n, online| Sign::Presence(device, Presence { v: 1, session: session(n), online });
    f.store.record_signs(vec![said(1, true), said(2, true), said(1, false)]).await.unwrap();
    let online = async || f.store.device(Scope::Everything, device).await.unwrap().unwrap().online;
    assert!(online().await);
    f.store.record_signs(vec![said(2, false)]).await.unwrap();
    assert!(!online().await);
}
