//! What is cleared away, what stays, and in what pieces.

use std::time::Duration;

use super::*;
use crate::store::audit::{Entry, Told};
use crate::store::retention::{Cleared, PIECE, Retention};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DAY_MS: u64 = 24 * 3600 * 1000;

fn all(days: u32) -> Retention {
    let keep = Some(DAY * days);
    Retention { milestones: keep, logs: keep, dead_letters: keep, audit: keep }
}

/// An operation that ended after this many milestones.
async fn ended(f: &Fixture, device: DeviceId, milestones: u64) -> OperationId {
    let image = f.image(&format!("v{device}")).await;
    let op = f.ask(device, image).await.unwrap().id;
    let enter =
        |seq| reported(device, event(op, seq, 0, EventBody::Entered { phase: Phase::Waiting }));
    f.store.record_events((1..milestones).map(enter).collect()).await.unwrap();
    let outcome = shared::event::Outcome::Cancelled;
    let end = reported(device, event(op, milestones, 0, EventBody::Finished { outcome }));
    f.store.record_events(vec![end]).await.unwrap();
    op
}

#[tokio::test]
async fn what_is_old_goes_and_an_end_stays_known() {
    let f = Fixture::new().await;
    let (device, other) = (f.device(1).await, f.device(2).await);
    let old = ended(&f, device, 4).await;
    let stray = reported(device, event(OperationId(Uuid::nil()), 1, 0, EventBody::Granted));
    f.store.record_events(vec![stray.clone()]).await.unwrap();
    let audited = count(&f.store, "audit").await;
    f.pass(10 * DAY_MS);
    let young = ended(&f, other, 4).await;
    let open = f.ask(device, f.image("v3").await).await.unwrap().id;
    let since = count(&f.store, "audit").await - audited;
    let entry = Entry {
        actor: "user:x".into(),
        actor_id: None,
        organization: None,
        action: "POST".into(),
        subject: "y".into(),
        peer: None,
        detail: None,
        asked: None,
    };
    f.store.record_audit(entry, Told::default()).await.unwrap();

    let cleared = f.store.clear_away(all(5)).await.unwrap();
    assert_eq!(cleared, Cleared { milestones: 3, logs: 1, dead_letters: 1, audit: audited });
    assert_eq!(count(&f.store, "milestones").await, 1 + 4);
    let left = (count(&f.store, "dead_letters").await, count(&f.store, "audit").await);
    assert_eq!(left, (0, since + 1));
    assert!(f.operation(old).await.log.is_empty());
    assert!(!f.operation(young).await.log.is_empty() && !f.operation(open).await.log.is_empty());
    let outcome = shared::event::Outcome::Cancelled;
    let again = tell(&f, device, old, 4, EventBody::Finished { outcome }).await;
    assert_eq!(again, Verdict::Duplicate);
    assert_eq!(f.operation(old).await.late_result, None);

    assert!(f.store.clear_away(all(5)).await.unwrap().is_nothing());
    f.pass(10 * DAY_MS);
    let cleared = f.store.clear_away(all(5)).await.unwrap();
    assert_eq!((cleared.milestones, cleared.logs), (3, 1), "the next in turn");
    assert!(!f.operation(open).await.log.is_empty(), "what has not ended keeps its log");
}

#[tokio::test]
async fn nothing_goes_that_is_kept_for_ever() {
    let f = Fixture::new().await;
    ended(&f, f.device(1).await, 4).await;
    f.pass(10_000 * DAY_MS);
    assert!(f.store.clear_away(Retention::default()).await.unwrap().is_nothing());
}

#[tokio::test]
async fn much_goes_in_pieces_and_others_come_between() {
    let f = Fixture::new().await;
    let milestones = u64::from(PIECE) * 3;
    for key in 1..=3 {
        ended(&f, f.device(key).await, milestones + 1).await;
    }
    f.pass(10 * DAY_MS);
    let store = f.store.clone();
    let clearing = tokio::spawn(async move { store.clear_away(all(5)).await.unwrap() });
    let mut left = vec![count(&f.store, "milestones").await];
    while !clearing.is_finished() {
        f.store.check().await.unwrap();
        left.push(count(&f.store, "milestones").await);
    }
    left.dedup();
    assert_eq!(clearing.await.unwrap().milestones, 3 * milestones);
    assert_eq!(left.last(), Some(&3));
    assert!(left.len() > 3, "others found it half done: {left:?}");
    let steps = left.windows(2).map(|two| two[0] - two[1]);
    assert!(steps.max() < Some(milestones), "{left:?}");
}
