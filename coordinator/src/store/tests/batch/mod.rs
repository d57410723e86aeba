//! Batches in the store: their counters, and their verbs one by one.

mod between;
mod interleaving;
mod recorded;
mod takeover;

use std::sync::Arc;

use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::ids::{BatchId, ImageId};

use super::*;
use crate::batch::{Batch, Counts, Course, LeftOut, Reason, Strategy, verdict};
use crate::feed::Feed;
use crate::operation::report::Report;
use crate::operation::{Evidence, Operation};
use crate::pilot::{Marked, Pilot};
use crate::store::batch::{AbsentList, BatchRefused, Member, NewBatch};
use crate::store::listing::{Order, Rows};
use crate::store::operation::save;

const AT_A_TIME: u32 = 2;

async fn fly(store: &Store, batch: BatchId) {
    let pilot = Pilot::new(store.clone(), Feed::new(store.clock()), Arc::<Marked>::default());
    pilot.fly(batch).await.unwrap();
}

async fn operations(store: &Store, batch: BatchId) -> Vec<Operation> {
    let all = store.operations_of_batch(batch, Default::default(), 100, true);
    all.await.unwrap().into_iter().map(|(_, operation)| operation).collect()
}

async fn left_out(store: &Store, batch: BatchId) -> Vec<(DeviceId, LeftOut)> {
    let order = Order { column: "created", descending: false };
    let wanted = AbsentList { batch, order, rows: Rows { offset: 0, limit: 100 } };
    let found = store.left_out(wanted).await.unwrap();
    found.rows.into_iter().map(|absent| (absent.device, absent.why)).collect()
}

pub(super) async fn launch(f: &Fixture, image: ImageId, devices: &[DeviceId]) -> BatchId {
    let signs = devices.iter().map(|device| Sign::Seen(*device, NOW)).collect();
    f.store.record_signs(signs).await.unwrap();
    let batch = create(f, image).await;
    let members = devices.iter().map(|device| member(*device, image, None)).collect();
    f.store.add_members(batch, members, "admin".into()).await.unwrap();
    f.store.launch_batch(batch).await.unwrap();
    batch
}

fn member(device: DeviceId, image: ImageId, retry_of: Option<OperationId>) -> Member {
    Member { device, slot: Slot::default(), image, retry_of }
}

pub(super) async fn create(f: &Fixture, image: ImageId) -> BatchId {
    f.store.create_batch(wanted(f, image).await).await.unwrap()
}

async fn wanted(f: &Fixture, image: ImageId) -> NewBatch {
    let mut strategy =
        Strategy { canary: 2, growth: 1.5, max_concurrent: Some(AT_A_TIME), ..Strategy::default() };
    strategy.gate.soak_s = 10;
    strategy.failure_threshold.percent = Some(50);
    strategy.failure_threshold.minimum = 3;
    NewBatch {
        organization: f.store.organizations().await.unwrap().remove(0).id,
        build: f.store.image(image).await.unwrap().unwrap().build,
        group: None,
        location: None,
        upgrade_options: Default::default(),
        strategy,
        retry_of: None,
        start_at: None,
        expires_at: f.store.clock().now() + 300_000_000,
    }
}

fn count_all<'a>(operations: impl Iterator<Item = &'a Operation>) -> Counts {
    let mut counts = Counts::default();
    for operation in operations {
        let count = match operation.status {
            Status::Idle => &mut counts.idle,
            Status::InProgress => &mut counts.in_progress,
            Status::Success => &mut counts.success,
            Status::Failed => &mut counts.failed,
            Status::Aborted => &mut counts.aborted,
            Status::Cancelled => &mut counts.cancelled,
        };
        *count += 1;
        let failure = operation.failure.as_ref();
        let success = operation.status == Status::Success;
        counts.unproved += u64::from(success && !is_proof(operation));
        counts.charged += u64::from(crate::batch::charge::counts(operation.status, failure));
    }
    counts
}

/// Whether this success shows that the build is good: somebody flashed it.
fn is_proof(op: &Operation) -> bool {
    let found = |line: &str| line.ends_with("this version ran already") && !line.contains("late");
    op.evidence == Some(Evidence::Versions)
        && op.granted.is_some_and(|granted| !granted.unused)
        && !op.log.lines().any(found)
}

async fn stored_status(store: &Store, batch: BatchId) -> Status {
    let status = store.read(move |conn| {
        let sql = "SELECT status FROM batches WHERE id = ?1";
        Ok(conn.query_row(sql, [batch.to_string()], |row| row.get::<_, String>(0))?)
    });
    status.await.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_batch_of_what_was_deleted_meanwhile_is_refused() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let new = wanted(&f, image).await;
    let stranger = || Some(Uuid::new_v4());
    for (part, new) in [
        ("organization", NewBatch { organization: Uuid::new_v4().into(), ..new.clone() }),
        ("build", NewBatch { build: Uuid::new_v4().into(), ..new.clone() }),
        ("group", NewBatch { group: stranger(), ..new.clone() }),
        ("location", NewBatch { location: stranger(), ..new.clone() }),
    ] {
        let refused = f.store.create_batch(new).await.unwrap_err();
        let gone = matches!(refused, Rejection::Refused(BatchRefused::Gone(gone)) if gone == part);
        assert!(gone, "{part}: {refused:?}");
    }
    let other = f.store.create_organization("other".parse().unwrap(), "Other".into());
    let given = NewBatch { organization: other.await.unwrap().id, ..new.clone() };
    let category = f.store.build(new.build).await.unwrap().unwrap().category.to_string();
    let own = new.organization.to_string();
    let give = f.store.write::<_, Never, _>(move |tx| {
        Ok(tx.execute("UPDATE categories SET organization = ?2 WHERE id = ?1", (category, own))?)
    });
    give.await.unwrap();
    let refused = f.store.create_batch(given).await.unwrap_err();
    assert!(matches!(refused, Rejection::Refused(BatchRefused::Gone("build"))), "{refused:?}");
    f.store.create_batch(new).await.unwrap();
}

#[tokio::test]
async fn a_success_that_is_proved_later_is_counted_as_proved() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let batch = launch(&f, image, &[f.device(1).await, f.device(2).await]).await;
    fly(&f.store, batch).await;
    let id = operations(&f.store, batch).await[0].id;
    let report = Report { progress_percent: None, status: Some(Status::Success) };
    let reported = f.store.report_operation(Scope::Everything, id, report).await.unwrap();
    let counts = async || f.store.batch(Scope::Everything, batch).await.unwrap().unwrap().counts;
    assert_eq!((counts().await.success, counts().await.unproved), (1, 1));
    let evidence = Some(Evidence::Versions);
    let proved = Operation { evidence, unproved: false, ..reported };
    let saved = f.store.write::<_, Never, _>(move |tx| Ok(save(tx, &proved)?));
    saved.await.unwrap();
    assert_eq!((counts().await.success, counts().await.unproved), (1, 0));
    let shown = f.store.batch_report(Scope::Everything, batch).await.unwrap().unwrap();
    assert_eq!(shown.waves[0].counts.proved(), 1);
}

#[tokio::test]
async fn a_wave_that_takes_long_to_fill_leaves_others_their_turns() {
    for pauses in [false, true] {
        let f = Fixture::new().await;
        let image = f.image("v2").await;
        let batch =
            launch(&f, image, &[f.device(1).await, f.device(2).await, f.device(3).await]).await;
        let (marked, feed) = (Arc::<Marked>::default(), Feed::new(f.store.clock()));
        let pilot = Pilot::in_turns_of(1, f.store.clone(), feed, marked.clone());
        let joined = async || {
            let all = operations(&f.store, batch).await;
            all.iter().filter(|op| op.wave == Some(0)).count()
        };
        pilot.fly(batch).await.unwrap();
        assert_eq!(joined().await, 1, "of two");
        assert!(marked.is_marked(batch), "it has its next turn after the others");
        if pauses {
            let by = Reason::Operator { by: "admin".into() };
            f.store.pause_batch(Scope::Everything, batch, by).await.unwrap();
        }
        pilot.fly(batch).await.unwrap();
        assert_eq!(joined().await, if pauses { 1 } else { 2 });
        pilot.fly(batch).await.unwrap();
        assert_eq!(joined().await, if pauses { 1 } else { 2 }, "nobody is taken twice");
    }
}

/// An answer before the pilot has looked.
#[tokio::test]
async fn nobody_is_granted_past_a_gate_that_is_lost() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let batch = launch(&f, image, &[f.device(1).await, f.device(2).await, f.device(3).await]).await;
    fly(&f.store, batch).await;
    let all = operations(&f.store, batch).await;
    let [one, other] = [&all[0], &all[1]].map(|op| (op.device, op.id));
    f.store.start(one.0, one.1, request(1)).await.unwrap();
    let failure =
        Failure::new(Phase::Installing, FailureKind::ToolFailed, ModemCondition::Silent, "dead");
    tell(&f, one.0, one.1, 2, EventBody::Finished { outcome: Outcome::Failed { failure } }).await;
    let ask = async || match f.store.start(other.0, other.1, request(1)).await {
        Ok(_) => None,
        Err(Rejection::Refused(StartRefused::Refused(refusal))) => Some(refusal.code),
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(ask().await, Some(RefusalCode::Paused));
    fly(&f.store, batch).await;
    let paused = f.store.batch(Scope::Everything, batch).await.unwrap().unwrap();
    assert!(matches!(paused.reason, Some(Reason::Gate { wave: 0, .. })), "{paused:?}");
    f.store.resume_batch(Scope::Everything, batch).await.unwrap();
    assert_eq!(ask().await, None, "it is forgiven");
}

#[tokio::test]
async fn a_version_that_was_found_opens_no_gate() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let devices = [f.device(1).await, f.device(2).await, f.device(3).await, f.device(4).await];
    let batch = launch(&f, image, &devices).await;
    fly(&f.store, batch).await;
    for op in operations(&f.store, batch).await.iter().filter(|op| op.wave.is_some()) {
        let found = Outcome::AlreadyInstalled { versions: versions() };
        tell(&f, op.device, op.id, 1, EventBody::Finished { outcome: found }).await;
        let op = f.operation(op.id).await;
        assert_eq!((op.status, op.evidence), (Status::Success, Some(Evidence::Versions)));
    }
    f.pass(10_000);
    fly(&f.store, batch).await;
    let report = f.store.batch_report(Scope::Everything, batch).await.unwrap().unwrap();
    let counts = report.waves[0].counts;
    assert_eq!((report.waves.len(), counts.success, counts.proved()), (1, 2, 0));
    assert_eq!(counts.undecided(), 1, "others have to show it");
}

#[tokio::test]
async fn resuming_wakes_whoever_may_go_on() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let batch = launch(&f, image, &[f.device(1).await, f.device(2).await, f.device(3).await]).await;
    fly(&f.store, batch).await;
    let wave: Vec<_> =
        operations(&f.store, batch).await.into_iter().filter(|op| op.wave.is_some()).collect();
    assert_eq!(wave.len(), 2);
    f.store.start(wave[0].device, wave[0].id, request(1)).await.unwrap();
    let reason = Reason::Operator { by: "admin".into() };
    f.store.pause_batch(Scope::Everything, batch, reason).await.unwrap();
    let (told, heard) = channel();
    f.store.on_commit(move |note| {
        if let Note::Desired(device) = note {
            told.send(device).unwrap();
        }
    });
    f.store.resume_batch(Scope::Everything, batch).await.unwrap();
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [wave[1].device]);
}

#[tokio::test]
async fn a_place_that_becomes_free_is_offered_to_whoever_waits_for_one() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let batch = launch(&f, image, &[f.device(1).await, f.device(2).await]).await;
    let alone = f.store.write::<_, Never, _>(move |tx| {
        let sql = "UPDATE batches SET strategy = json_set(strategy, '$.max_concurrent', 1)";
        Ok(tx.execute(sql, [])?)
    });
    alone.await.unwrap();
    let pilot = Pilot::new(f.store.clone(), Feed::new(f.store.clock()), Arc::default());
    pilot.fly(batch).await.unwrap();
    let wave = operations(&f.store, batch).await;
    f.store.start(wave[0].device, wave[0].id, request(1)).await.unwrap();
    f.store.start(wave[1].device, wave[1].id, request(1)).await.unwrap_err();
    pilot.fly(batch).await.unwrap();
    let (told, heard) = channel();
    f.store.on_commit(move |note| {
        if let Note::Desired(device) = note {
            told.send(device).unwrap();
        }
    });
    pilot.fly(batch).await.unwrap();
    assert_eq!(heard.try_iter().count(), 0, "there is none");
    assert_eq!(tell(&f, wave[0].device, wave[0].id, 1, succeeded()).await, Verdict::Accepted);
    heard.try_iter().for_each(drop);
    pilot.fly(batch).await.unwrap();
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [wave[1].device]);
    pilot.fly(batch).await.unwrap();
    assert_eq!(heard.try_iter().count(), 0, "once");
}

#[tokio::test]
async fn who_watches_hears_of_a_member_that_waits_for_a_later_wave() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let batch = launch(&f, image, &[f.device(1).await, f.device(2).await, f.device(3).await]).await;
    fly(&f.store, batch).await;
    let members = operations(&f.store, batch).await;
    let (member, other) = (members.iter().find(|op| op.wave.is_some()).unwrap(), &members);
    let pooled = other.iter().find(|op| op.wave.is_none()).unwrap().id;
    let (told, heard) = channel();
    f.store.on_commit(move |note| {
        if let Note::Operation(operation) = note {
            told.send(*operation).unwrap();
        }
    });
    f.pass(5);
    assert_eq!(f.store.defer(batch, 0, vec![member.id, pooled]).await.unwrap(), 1);
    let now = f.operation(member.id).await;
    assert_eq!((now.wave, now.modified), (None, f.store.clock().now()));
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [now]);
}

#[tokio::test]
async fn who_asks_last_has_the_modem_whoever_is_made_last() {
    let f = Fixture::new().await;
    let (image, other) = (f.image("v2").await, f.image("v3").await);
    let [one, two, three] = [f.device(1).await, f.device(2).await, f.device(3).await];
    let add = async |batch, image, device| {
        let members = [member(device, image, None)].into_iter().collect();
        f.store.add_members(batch, members, "admin".into()).await.unwrap();
        let active = (device, LeftOut::Unfit(verdict::Reason::OperationActive));
        !left_out(&f.store, batch).await.contains(&active)
    };
    let first = create(&f, image).await;
    let second = create(&f, other).await;
    assert!(add(second, other, one).await);
    assert!(!add(first, image, one).await, "a batch that was begun later has it");
    assert!(add(first, image, two).await);
    assert!(add(second, other, two).await, "the later one is to take it");
    f.pass(1);
    f.ask(three, other).await.unwrap();
    assert!(!add(second, other, three).await, "somebody has asked for this modem since");
    f.store.launch_batch(second).await.unwrap();
    let taken = operations(&f.store, first).await.remove(0);
    assert_eq!((taken.device, taken.status), (two, Status::Cancelled));
    let third = create(&f, other).await;
    assert!(!add(third, other, one).await, "it has what it would get");
    assert_eq!(f.store.batch(Scope::Everything, third).await.unwrap().unwrap().left_out, 1);
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_keep_a_batch_that_is_over() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let batch = launch(&f, image, &[f.device(1).await, f.device(2).await]).await;
    fly(&f.store, batch).await;
    let (device, id) =
        operations(&f.store, batch).await.iter().map(|op| (op.device, op.id)).next().unwrap();
    f.pass(300_000_000);
    f.store.expire_batch(batch).await.unwrap();
    f.hand.fetch_sub(200_000_000, std::sync::atomic::Ordering::Relaxed);
    fly(&f.store, batch).await;
    let now = f.store.batch(Scope::Everything, batch).await.unwrap().unwrap();
    assert_eq!((now.course, now.counts.aborted), (Course::Finished, 2));
    assert!(f.store.desired(device, None).await.unwrap().unwrap().jobs.is_empty());
    assert!(f.operation(id).await.log.contains("the deadline passed"));
}

#[tokio::test]
async fn a_batch_that_was_not_launched_is_taken_back_after_a_crash() {
    let f = Fixture::new().await;
    let (image, device) = (f.image("v2").await, f.device(1).await);
    let batch = create(&f, image).await;
    let members = [member(device, image, None)].into_iter().collect();
    f.store.add_members(batch, members, "admin".into()).await.unwrap();
    f.store.stop();
    let store = Store::open(&f.dir.path().join("db"), f.store.clock().clone()).unwrap();
    assert_eq!(store.recover_batches().await.unwrap(), 1);
    fly(&store, batch).await;
    let batch = store.batch(Scope::Everything, batch).await.unwrap().unwrap();
    assert_eq!((batch.course, batch.counts.cancelled), (Course::Finished, 1));
    assert!(store.desired(device, None).await.unwrap().unwrap().jobs.is_empty());
}

#[tokio::test]
async fn a_device_that_goes_leaves_its_batch() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let devices = [f.device(1).await, f.device(2).await, f.device(3).await];
    let batch = launch(&f, image, &devices).await;
    f.store.deactivate_device(Scope::Everything, devices[0], true).await.unwrap();
    f.store.revoke_device(Scope::Everything, devices[1]).await.unwrap();
    let operations = f.store.operations_of_batch(batch, Default::default(), 9, true).await.unwrap();
    for (_, operation) in &operations {
        let gone = operation.device != devices[2];
        assert_eq!(operation.status == Status::Cancelled, gone, "{operation:?}");
        assert_eq!(operation.log.contains("the device was"), gone, "{}", operation.log);
    }
}

#[tokio::test]
async fn operations_of_a_batch_come_in_pieces_with_their_logs_or_without() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let devices = [f.device(1).await, f.device(2).await, f.device(3).await];
    let batch = launch(&f, image, &devices).await;
    let (mut after, mut found) = (Default::default(), Vec::new());
    loop {
        let piece = f.store.operations_of_batch(batch, after, 2, false).await.unwrap();
        let Some((last, _)) = piece.last() else { break };
        after = *last;
        found.extend(piece.into_iter().map(|(_, operation)| operation));
    }
    assert_eq!(found.iter().map(|op| op.device).collect::<Vec<_>>(), devices);
    assert!(found.iter().all(|op| op.log.is_empty()));
    assert!(operations(&f.store, batch).await.iter().all(|op| op.log.contains("by admin")));
}
