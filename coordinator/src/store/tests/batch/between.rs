//! Members between two attempts: the first has failed, and nobody knows of the next one.

use super::*;
use crate::batch::Tally;
use crate::batch::decide::Whom;

const LONG: u64 = 3600 * 1000;

fn retrying() -> EventBody {
    let condition = ModemCondition::OldVersion;
    let failure = Failure::new(Phase::Installing, FailureKind::ToolFailed, condition, "it broke");
    EventBody::Retrying { failure, delay_s: 60 }
}

/// Its first attempt fails, and leaves the old version running.
async fn fail(f: &Fixture, op: &Operation) {
    f.store.start(op.device, op.id, request(1)).await.unwrap();
    assert_eq!(tell(f, op.device, op.id, 2, retrying()).await, Verdict::Accepted);
}

async fn see(f: &Fixture, device: DeviceId) {
    let seen = Sign::Seen(device, f.store.clock().now());
    f.store.record_signs(vec![seen]).await.unwrap();
}

async fn look(f: &Fixture, batch: BatchId) -> (Batch, Tally) {
    let report = f.store.batch_report(Scope::Everything, batch).await.unwrap().unwrap();
    (report.batch, report.tally)
}

async fn begun(f: &Fixture, devices: u8) -> (BatchId, Vec<Operation>) {
    let image = f.image("v2").await;
    let mut all = Vec::new();
    for key in 1..=devices {
        all.push(f.device(key).await);
    }
    let batch = launch(f, image, &all).await;
    fly(&f.store, batch).await;
    let mut members = operations(&f.store, batch).await;
    members.retain(|op| op.wave.is_some());
    assert_eq!(members.len(), 2);
    (batch, members)
}

#[tokio::test]
async fn whoever_says_nothing_after_a_failed_attempt_holds_nobody_up() {
    let f = Fixture::new().await;
    let (batch, members) = begun(&f, 4).await;
    fail(&f, &members[0]).await;
    f.store.start(members[1].device, members[1].id, request(1)).await.unwrap();
    tell(&f, members[1].device, members[1].id, 2, succeeded()).await;
    fly(&f.store, batch).await;
    assert_eq!(look(&f, batch).await.1.stalled, 0);
    f.pass(LONG + 1);
    assert_eq!(look(&f, batch).await.1.stalled, 1, "it is shown before anything is done");
    fly(&f.store, batch).await;
    let ended = f.operation(members[0].id).await;
    assert_eq!(ended.status, Status::Failed);
    assert_eq!(ended.failure.unwrap().condition, ModemCondition::OldVersion);
    assert!(ended.log.contains("not heard of any more"), "{}", ended.log);
    let (batch, tally) = look(&f, batch).await;
    assert_eq!((batch.counts.charged, tally.stalled), (1, 0));
    assert!(matches!(batch.reason, Some(Reason::Gate { wave: 0, success: 1, failures: 1 })));
}

#[tokio::test]
async fn whoever_holds_nobody_up_or_is_there_gets_its_next_attempt() {
    let f = Fixture::new().await;
    let (batch, members) = begun(&f, 2).await;
    fail(&f, &members[0]).await;
    f.pass(LONG + 1);
    fly(&f.store, batch).await;
    assert_eq!(look(&f, batch).await.1.stalled, 1);
    assert_eq!(f.operation(members[0].id).await.status, Status::InProgress, "nobody waits for it");
    see(&f, members[0].device).await;
    assert_eq!(look(&f, batch).await.1.stalled, 0);
    f.store.start(members[0].device, members[0].id, request(2)).await.unwrap();

    let f = Fixture::new().await;
    let (batch, members) = begun(&f, 4).await;
    fail(&f, &members[0]).await;
    f.pass(LONG + 1);
    for member in &members {
        see(&f, member.device).await;
    }
    fly(&f.store, batch).await;
    assert_eq!(f.operation(members[0].id).await.status, Status::InProgress, "it is there");
}

#[tokio::test]
async fn whoever_is_heard_of_right_before_it_is_given_up_goes_on() {
    let f = Fixture::new().await;
    let (id, members) = begun(&f, 4).await;
    for op in &members {
        fail(&f, op).await;
    }
    f.pass(LONG + 1);
    let batch = look(&f, id).await.0;
    let mut silent = f.store.holding_up(&batch, Whom::Stalled).await.unwrap();
    silent.sort();
    let mut all = members.iter().map(|op| op.id).collect::<Vec<_>>();
    all.sort();
    assert_eq!(silent, all);
    see(&f, members[0].device).await;
    assert_eq!(f.store.give_up(id, vec![members[0].id]).await.unwrap(), 0);
    assert_eq!(f.operation(members[0].id).await.status, Status::InProgress);
    assert_eq!(f.store.give_up(id, silent).await.unwrap(), 1, "the other one");
    assert_eq!(f.operation(members[0].id).await.status, Status::InProgress);
    assert_eq!(f.operation(members[1].id).await.status, Status::Failed);
}

#[tokio::test]
async fn whoever_was_deactivated_in_mid_attempt_leaves_when_that_is_over() {
    let f = Fixture::new().await;
    let (batch, members) = begun(&f, 4).await;
    let alone = f.device(9).await;
    let single = f.ask(alone, f.image("v3").await).await.unwrap();
    for op in [&members[0], &single] {
        f.store.start(op.device, op.id, request(1)).await.unwrap();
        f.store.deactivate_device(Scope::Everything, op.device, true).await.unwrap();
        let before = f.store.desired(op.device, None).await.unwrap().unwrap();
        assert_eq!(before.jobs.len(), 1, "it has to finish it");
        tell(&f, op.device, op.id, 2, retrying()).await;
        let after = f.store.desired(op.device, Some(before.generation)).await.unwrap();
        assert!(after.expect("its jobs are others now").jobs.is_empty());
    }
    assert_eq!(f.operation(members[0].id).await.status, Status::Failed);
    assert_eq!(look(&f, batch).await.0.counts.charged, 1);
    assert_eq!(
        f.operation(single.id).await.status,
        Status::InProgress,
        "it may be activated again"
    );
}
