//! What devices report: recorded, bounded, and passed on.

use super::*;

#[tokio::test]
async fn a_device_touches_only_its_own() {
    let f = Fixture::new().await;
    let (own, foreign) = (f.device(1).await, f.device(2).await);
    let image = f.image("v2").await;
    let op = f.ask(own, image).await.unwrap();
    let verdict = tell(&f, foreign, op.id, 1, succeeded()).await;
    assert_eq!(refused(&verdict), Some("unknown_operation"));
    assert_eq!(f.operation(op.id).await, op);
    let start = f.store.start(foreign, op.id, request(1)).await;
    assert!(matches!(start, Err(Rejection::Refused(StartRefused::Unknown))));
    assert_eq!(f.store.job_image(foreign, image).await.unwrap(), None);
    assert!(f.store.desired(foreign, None).await.unwrap().unwrap().jobs.is_empty());
    assert_eq!(count(&f.store, "dead_letters").await, 1);
}

#[tokio::test]
async fn dead_letters_are_bounded() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let nothing = OperationId(Uuid::from_u128(5));
    for round in 0..6 {
        let events = (1..=64u64)
            .map(|seq| reported(device, event(nothing, round * 64 + seq, 0, succeeded())));
        f.store.record_events(events.collect()).await.unwrap();
        f.pass(60_000);
    }
    assert_eq!(count(&f.store, "dead_letters").await, 256);
}

#[tokio::test]
async fn one_router_s_key_cannot_have_dead_letters_written_without_end() {
    let f = Fixture::new().await;
    let (thief, other) = (f.device(1).await, f.device(2).await);
    let nothing = OperationId(Uuid::from_u128(5));
    let flood = (1..=200).map(|seq| reported(thief, event(nothing, seq, 0, succeeded())));
    let acks = f.store.record_events(flood.collect()).await.unwrap();
    assert!(acks.iter().all(|ack| refused(&ack.verdict) == Some("unknown_operation")));
    assert_eq!(count(&f.store, "dead_letters").await, 60);
    tell(&f, other, nothing, 1, succeeded()).await;
    assert_eq!(count(&f.store, "dead_letters").await, 61, "others have room of their own");
    f.pass(60_000);
    tell(&f, thief, nothing, 201, succeeded()).await;
    assert_eq!(count(&f.store, "dead_letters").await, 62);
}

#[tokio::test]
async fn ticks_move_the_operation_and_leave_no_rows() {
    let f = Fixture::new().await;
    let (device, other, image) = (f.device(1).await, f.device(2).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    let tick = |n, percent| Tick {
        v: 1,
        operation: op.id,
        slot: Slot::default(),
        stream: stream(1),
        attempt: 0,
        n,
        phase: Phase::Downloading,
        percent,
        stalled: false,
        detail: Some("1 MiB".into()),
        fetched: Some(1 << 20),
    };
    let signs = vec![
        Sign::Tick(device, tick(2, 7)),
        Sign::Tick(device, tick(1, 9)),
        Sign::Tick(other, tick(3, 10)),
    ];
    f.store.record_signs(signs).await.unwrap();
    let now = f.operation(op.id).await;
    assert_eq!((now.progress_percent, now.fetched), (7, 1 << 20));
    assert_eq!((now.status, now.phase), (Status::InProgress, Some(Phase::Downloading)));
    assert_eq!(count(&f.store, "milestones").await, 0);
}

#[tokio::test]
async fn what_is_committed_is_passed_on_before_the_answer_and_nothing_else_is() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let (heard, notes) = channel();
    f.store.on_commit(move |note| heard.send(note).unwrap());
    let op = f.ask(device, image).await.unwrap();
    let told: Vec<_> = notes.try_iter().collect();
    assert!(matches!(&told[..], [Note::Operation(new), Note::Desired(of)]
        if new.id == op.id && *of == device));
    f.store.start(device, op.id, request(1)).await.unwrap();
    assert_eq!(notes.try_iter().count(), 1);
    assert!(f.ask(device, image).await.is_err());
    assert_eq!(notes.try_iter().count(), 0, "a refusal is no news");
}

#[tokio::test]
async fn milestones_are_bounded_and_the_end_comes_through() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.start(device, op.id, request(1)).await.unwrap();
    let most = u64::from(crate::store::event::MILESTONES);
    let entered = EventBody::Entered { phase: Phase::Installing };
    let flood = (1..=most + 10).map(|seq| reported(device, event(op.id, seq, 1, entered.clone())));
    let acks = f.store.record_events(flood.collect()).await.unwrap();
    let too_many = acks.iter().filter(|ack| refused(&ack.verdict) == Some("too_many")).count();
    assert_eq!(too_many, 10);
    assert_eq!(tell(&f, device, op.id, most + 11, succeeded()).await, Verdict::Accepted);
    assert_eq!(f.operation(op.id).await.status, Status::Success);
    assert_eq!(count(&f.store, "milestones").await, most + 1);
    assert_eq!(count(&f.store, "dead_letters").await, 0);
}

#[tokio::test]
async fn a_milestone_that_cannot_be_read_is_answered_and_buried() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    let good = reported(device, event(op.id, 1, 0, EventBody::Held { reason: "?".into() }));
    let odd = Reported { seq: u64::MAX, event: Err(Refused::BadNumber), ..good.clone() };
    let acks = f.store.record_events(vec![odd, good]).await.unwrap();
    assert_eq!(refused(&acks[0].verdict), Some("bad_number"));
    assert_eq!((acks[0].seq, &acks[1].verdict), (u64::MAX, &Verdict::Accepted));
    assert_eq!(count(&f.store, "dead_letters").await, 1);
}
