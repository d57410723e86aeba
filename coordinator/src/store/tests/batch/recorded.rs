//! What nobody asked for is on record too: the pilot's verbs, and those of a restore.

use shared::stages::Phase;

use super::*;
use crate::store::audit::Recorded;

const DAY: u64 = 24 * 3600 * 1000;

/// What was done to a batch by the coordinator itself, newest first.
async fn done(store: &Store, batch: BatchId) -> Vec<Recorded> {
    let mut all = store.audit(100).await.unwrap();
    all.retain(|of| of.entry.actor == "system" && of.entry.subject == batch.to_string());
    for recorded in &all {
        assert_eq!(recorded.entry.organization.as_deref(), Some("default"), "{recorded:?}");
    }
    all
}

fn courses(of: &Recorded) -> (String, String, String) {
    let text = |value: &Option<serde_json::Value>, field: &str| {
        value.as_ref().unwrap()[field].as_str().unwrap_or_default().to_owned()
    };
    let after = (text(&of.before, "course"), text(&of.after, "course"));
    (of.entry.action.clone(), after.0, after.1)
}

fn is(action: &str, before: &str, after: &str) -> (String, String, String) {
    (action.into(), before.into(), after.into())
}

async fn fail(f: &Fixture, batch: BatchId) {
    let all = operations(&f.store, batch).await;
    let wave = || all.iter().filter(|op| op.wave.is_some());
    for op in wave() {
        f.store.start(op.device, op.id, request(1)).await.unwrap();
    }
    for op in wave() {
        let failure = Failure::new(
            Phase::Installing,
            FailureKind::ToolFailed,
            ModemCondition::OldVersion,
            "",
        );
        let body = EventBody::Finished { outcome: Outcome::Failed { failure } };
        assert_eq!(tell(f, op.device, op.id, 2, body).await, Verdict::Accepted);
    }
}

#[tokio::test]
async fn a_batch_that_stops_by_itself_says_so_in_the_audit_log() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let devices = [f.device(1).await, f.device(2).await, f.device(3).await];
    let batch = launch(&f, image, &devices).await;
    fly(&f.store, batch).await;
    assert!(done(&f.store, batch).await.is_empty());
    fail(&f, batch).await;
    fly(&f.store, batch).await;
    let paused = done(&f.store, batch).await;
    assert_eq!(paused.iter().map(courses).collect::<Vec<_>>(), [is("pause", "open", "paused")]);
    assert_eq!(paused[0].after.as_ref().unwrap()["reason"]["kind"], "gate");
    f.pass(300_000_000);
    fly(&f.store, batch).await;
    let expired = done(&f.store, batch).await;
    assert_eq!(courses(&expired[0]), is("expire", "paused", "expiring"));
    assert_eq!(expired.len(), 2, "{expired:?}");
}

#[tokio::test]
async fn a_restored_batch_goes_on_by_a_persons_word_only() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let devices = [f.device(1).await, f.device(2).await, f.device(3).await];
    let batch = launch(&f, image, &devices).await;
    fly(&f.store, batch).await;
    let begun: Vec<_> = operations(&f.store, batch).await;
    let begun: Vec<_> = begun.into_iter().filter(|op| op.wave.is_some()).collect();
    let granted = f.store.start(begun[0].device, begun[0].id, request(1)).await;
    assert_eq!(granted.unwrap(), Leave::New);
    assert_eq!(f.store.begin_anew().await.unwrap(), 1);
    let shown = async || f.store.batch(Scope::Everything, batch).await.unwrap().unwrap();
    assert_eq!(
        (shown().await.course, shown().await.reason),
        (Course::Paused, Some(Reason::Restored))
    );
    let waits = f.store.start(begun[1].device, begun[1].id, request(1)).await.unwrap_err();
    let Rejection::Refused(StartRefused::Refused(refusal)) = waits else { panic!("{waits:?}") };
    assert_eq!(refusal.code, RefusalCode::Paused);
    // What was granted finishes, and opens nothing.
    tell(&f, begun[0].device, begun[0].id, 2, succeeded()).await;
    f.pass(DAY);
    fly(&f.store, batch).await;
    assert_eq!((shown().await.course, shown().await.counts.success), (Course::Paused, 1));
    let recorded = done(&f.store, batch).await;
    assert_eq!(recorded.iter().map(courses).collect::<Vec<_>>(), [is("pause", "open", "paused")]);
    let log = f.store.audit(10).await.unwrap();
    let restore = log.iter().find(|of| of.entry.action == "restore").unwrap();
    assert_eq!(restore.entry.actor, "system");
    let ids = &restore.after.as_ref().unwrap()["paused_batches"];
    assert_eq!(*ids, serde_json::json!([batch]));
    assert_eq!(f.store.begin_anew().await.unwrap(), 0, "paused already");
    f.store.resume_batch(Scope::Everything, batch).await.unwrap();
    let leave = f.store.start(begun[1].device, begun[1].id, request(1)).await;
    assert_eq!(leave.unwrap(), Leave::New);
}
