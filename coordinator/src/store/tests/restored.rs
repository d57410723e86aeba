//! What devices were granted after the backup that the database was restored from.

use super::*;
use crate::operation::restored::is_uncertain;

fn entered() -> EventBody {
    EventBody::Entered { phase: Phase::Installing }
}

/// The database is as it was before anything was granted.
async fn restore(f: &Fixture) {
    f.pass(1);
    f.store.begin_anew().await.unwrap();
    f.pass(1);
}

#[tokio::test]
async fn a_grant_that_the_backup_has_forgotten_is_taken_by_the_devices_word() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    let before = tell(&f, device, op.id, 2, entered()).await;
    assert_eq!(refused(&before), Some("not_granted"), "nothing was forgotten");
    restore(&f).await;
    assert_eq!(tell(&f, device, op.id, 3, entered()).await, Verdict::Accepted);
    let now = f.operation(op.id).await;
    assert!(now.is_granted() && now.attempts_granted == 1, "{now:?}");
    let cancel = f.store.cancel_operation(Scope::Everything, op.id, "admin".into()).await;
    let expected = ChangeRefused::Rule(CannotCancel::PastPointOfNoReturn(1));
    assert!(matches!(cancel, Err(Rejection::Refused(refused)) if refused == expected));
    assert_eq!(tell(&f, device, op.id, 4, succeeded()).await, Verdict::Accepted);
    let now = f.operation(op.id).await;
    assert_eq!((now.status, now.unproved), (Status::Success, false));
    assert!(installed(&f.store, device).await);

    let newer = f.ask(f.device(2).await, image).await.unwrap();
    let verdict = tell(&f, newer.device, newer.id, 2, entered()).await;
    assert_eq!(refused(&verdict), Some("not_granted"), "it was asked for after the restore");
}

#[tokio::test]
async fn a_tick_is_a_word_as_well_and_so_is_the_next_attempt() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    restore(&f).await;
    let tick = Tick {
        v: 1,
        operation: op.id,
        slot: Slot::default(),
        stream: stream(1),
        attempt: 1,
        n: 7,
        phase: Phase::Installing,
        percent: 60,
        stalled: false,
        detail: None,
        fetched: None,
    };
    f.store.record_signs(vec![Sign::Tick(device, tick)]).await.unwrap();
    let now = f.operation(op.id).await;
    assert!(now.is_granted() && now.phase == Some(Phase::Installing), "{now:?}");
    restore(&f).await;
    let events = vec![reported(device, event(op.id, 9, 2, entered()))];
    let verdict = f.store.record_events(events).await.unwrap().remove(0).verdict;
    assert_eq!(verdict, Verdict::Accepted);
    let granted = f.operation(op.id).await.granted.unwrap();
    assert_eq!((granted.attempt, granted.open), (2, true));
}

#[tokio::test]
async fn what_was_cancelled_unheard_keeps_its_end_as_a_late_one() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    assert!(!is_uncertain(&op, f.store.restored_at().await.unwrap()));
    restore(&f).await;
    let cancelled = f.store.cancel_operation(Scope::Everything, op.id, "admin".into()).await;
    assert!(is_uncertain(&cancelled.unwrap(), f.store.restored_at().await.unwrap()));
    assert_eq!(tell(&f, device, op.id, 2, succeeded()).await, Verdict::Accepted);
    let now = f.operation(op.id).await;
    assert_eq!(now.status, Status::Cancelled);
    assert!(!now.is_granted() && now.late_result.is_some(), "{now:?}");
    assert!(installed(&f.store, device).await);
}
