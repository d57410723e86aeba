//! Ends by time, and what may follow them.

use super::*;
use crate::store::image::ImageRefusal;

#[tokio::test]
async fn deadlines_end_operations_and_are_told() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    assert_eq!(f.store.expire_operations().await.unwrap(), 0);
    f.pass(31 * 24 * 3600 * 1000);
    assert_eq!(f.store.expire_operations().await.unwrap(), 1);
    assert_eq!(f.operation(op.id).await.status, Status::Aborted);
    assert!(f.store.desired(device, None).await.unwrap().unwrap().jobs.is_empty());
}

#[tokio::test]
async fn silence_after_a_grant_is_lost_only_after_a_long_time() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.start(device, op.id, request(1)).await.unwrap();
    f.pass(24 * 3600 * 1000);
    assert_eq!(f.store.expire_operations().await.unwrap(), 0);
    f.pass(600 * 1000);
    assert_eq!(f.store.expire_operations().await.unwrap(), 1);
    assert_eq!(f.operation(op.id).await.status, Status::Failed);
    assert_eq!(tell(&f, device, op.id, 2, succeeded()).await, Verdict::Accepted);
    let late = f.operation(op.id).await;
    assert!(late.status == Status::Failed && late.late_result.is_some());
    assert!(installed(&f.store, device).await, "installed follows the evidence");
}

#[tokio::test]
async fn while_the_coordinator_is_down_nobody_is_silent() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.start(device, op.id, request(1)).await.unwrap();
    f.store.stop();
    f.pass(3 * 24 * 3600 * 1000);
    let store = Store::open(&f.dir.path().join("db"), f.store.clock().clone()).unwrap();
    assert_eq!(store.expire_operations().await.unwrap(), 0);
    f.pass(24 * 3600 * 1000 + 600 * 1000);
    assert_eq!(store.expire_operations().await.unwrap(), 1);
}

#[tokio::test]
async fn a_lost_modem_is_not_flashed_blindly_again() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.start(device, op.id, request(1)).await.unwrap();
    f.pass(2 * 24 * 3600 * 1000);
    assert_eq!(f.store.expire_operations().await.unwrap(), 1);
    let blind = f.ask(device, image).await;
    assert!(
        matches!(blind, Err(Rejection::Refused(UpgradeRefused::NotHeardSince(id))) if id == op.id)
    );
    f.pass(1);
    f.store.record_signs(vec![Sign::Seen(device, f.store.clock().now())]).await.unwrap();
    f.ask(device, image).await.unwrap();
}

#[tokio::test]
async fn who_was_given_up_may_fetch_its_image_until_it_has_said_how_it_ended() {
    let f = Fixture::new().await;
    let (silent, recovering) = (f.device(1).await, f.device(2).await);
    let (v2, v3) = (f.image("v2").await, f.image("v3").await);
    let lost = f.ask(silent, v2).await.unwrap().id;
    f.store.start(silent, lost, request(1)).await.unwrap();
    f.pass(2 * 24 * 3600 * 1000);
    assert_eq!(f.store.expire_operations().await.unwrap(), 1);
    let written_off = f.ask(recovering, v2).await.unwrap().id;
    f.store.start(recovering, written_off, request(1)).await.unwrap();
    let body = EventBody::Recovering { tries: 1, detail: "no port".into() };
    tell(&f, recovering, written_off, 2, body).await;
    let by = "admin".to_owned();
    f.store.write_off_operation(Scope::Everything, written_off, by).await.unwrap();

    let has = async |device| f.store.job_image(device, v2).await.unwrap().is_some();
    assert!(has(silent).await && has(recovering).await, "the modem has nothing else");
    assert!(!has(f.device(3).await).await);
    let refused = f.store.delete_image(v2).await;
    assert!(matches!(refused, Err(Rejection::Refused(ImageRefusal::InUse))), "{refused:?}");

    assert_eq!(tell(&f, silent, lost, 3, succeeded()).await, Verdict::Accepted);
    assert!(!has(silent).await, "it has said how it ended");
    f.pass(60_000);
    f.store.record_signs(vec![Sign::Seen(recovering, f.store.clock().now())]).await.unwrap();
    let later = f.ask(recovering, v3).await.unwrap().id;
    assert!(has(recovering).await, "it may be at the first one still");
    f.store.start(recovering, later, request(1)).await.unwrap();
    assert!(!has(recovering).await);
    f.store.delete_image(v2).await.unwrap();
}

#[tokio::test]
async fn a_router_that_was_revoked_keeps_no_image() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap().id;
    f.store.start(device, op, request(1)).await.unwrap();
    f.pass(2 * 24 * 3600 * 1000);
    f.store.expire_operations().await.unwrap();
    assert!(f.store.delete_image(image).await.is_err());
    f.store.revoke_device(Scope::Everything, device).await.unwrap();
    f.store.delete_image(image).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_nobody_silent_or_there_for_long() {
    let f = Fixture::new().await;
    let (device, day) = (f.device(1).await, 24 * 3600 * 1000);
    f.store.record_signs(vec![Sign::Seen(device, NOW)]).await.unwrap();
    f.pass(20_000);
    assert_eq!(f.store.listening_since(), NOW);
    f.hand.fetch_sub(day, std::sync::atomic::Ordering::Relaxed);
    let now = f.store.clock().now();
    assert_eq!(f.store.listening_since(), now);
    let seen = async |at| {
        f.store.record_signs(vec![Sign::Seen(device, at)]).await.unwrap();
        f.store.device(Scope::Everything, device).await.unwrap().unwrap().last_seen
    };
    assert_eq!(seen(NOW).await, Some(now), "nobody is seen tomorrow");
    f.pass(6_000);
    assert_eq!(seen(now + 6_000).await, Some(now + 6_000));
    assert_eq!(seen(now).await, Some(now + 6_000), "an older sign is no news");
}
