//! Batches in the store: their counters, and their verbs one by one.

mod interleaving;

use std::sync::Arc;

use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::ids::BatchId;

use super::*;
use crate::batch::{Batch, Counts, Course, Reason, Strategy};
use crate::feed::Feed;
use crate::operation::report::Report;
use crate::operation::{Evidence, Operation};
use crate::pilot::{Marked, Pilot};
use crate::store::batch::{Member, NewBatch};
use crate::store::operation::save;

const AT_A_TIME: u32 = 2;
const DAY: u64 = 24 * 3600 * 1000;

async fn fly(store: &Store, batch: BatchId) {
    let pilot = Pilot::new(store.clone(), Feed::new(store.clock()), Arc::<Marked>::default());
    pilot.fly(batch).await.unwrap();
}

async fn operations(store: &Store, batch: BatchId) -> Vec<Operation> {
    let all = store.operations_of_batch(batch, Default::default(), 100, true);
    all.await.unwrap().into_iter().map(|(_, operation)| operation).collect()
}

async fn launch(f: &Fixture, image: shared::ids::ImageId, devices: &[DeviceId]) -> BatchId {
    let organization = f.store.organization("default".parse().unwrap()).await.unwrap().unwrap();
    let mut strategy =
        Strategy { canary: 2, growth: 1.5, max_concurrent: Some(AT_A_TIME), ..Strategy::default() };
    strategy.gate.soak_s = 10;
    strategy.failure_threshold.percent = Some(50);
    strategy.failure_threshold.minimum = 3;
    let new = NewBatch {
        organization: organization.id,
        build: f.store.image(image).await.unwrap().unwrap().build,
        group: None,
        location: None,
        upgrade_options: Default::default(),
        strategy,
        retry_of: None,
        start_at: None,
        expires_at: NOW + 300_000_000,
    };
    let batch = f.store.create_batch(new).await.unwrap();
    let member = |device: &DeviceId| Member {
        device: *device,
        slot: Slot::default(),
        image,
        retry_of: None,
    };
    let members = devices.iter().map(member).collect();
    assert_eq!(f.store.add_members(batch, members, "admin".into()).await.unwrap(), 0);
    let signs = devices.iter().map(|device| Sign::Seen(*device, NOW)).collect();
    f.store.record_signs(signs).await.unwrap();
    f.store.launch_batch(batch).await.unwrap();
    batch
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
        let proved = operation.evidence == Some(Evidence::Versions);
        counts.unproved += u64::from(success && !proved);
        counts.charged += u64::from(crate::batch::charge::counts(operation.status, failure));
    }
    counts
}

async fn stored_status(store: &Store, batch: BatchId) -> Status {
    let status = store.read(move |conn| {
        let sql = "SELECT status FROM batches WHERE id = ?1";
        Ok(conn.query_row(sql, [batch.to_string()], |row| row.get::<_, String>(0))?)
    });
    status.await.unwrap().parse().unwrap()
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
    let proved = Operation { evidence: Some(Evidence::Versions), ..reported };
    let saved = f.store.write::<_, Never, _>(move |tx| Ok(save(tx, &proved)?));
    saved.await.unwrap();
    assert_eq!((counts().await.success, counts().await.unproved), (1, 0));
    let shown = f.store.batch_report(Scope::Everything, batch).await.unwrap().unwrap();
    assert_eq!(shown.waves[0].counts.proved(), 1);
}

#[tokio::test]
async fn a_batch_that_was_not_launched_is_taken_back_after_a_crash() {
    let f = Fixture::new().await;
    let (image, device) = (f.image("v2").await, f.device(1).await);
    let organization = f.store.organization("default".parse().unwrap()).await.unwrap().unwrap();
    let new = NewBatch {
        organization: organization.id,
        build: f.store.image(image).await.unwrap().unwrap().build,
        group: None,
        location: None,
        upgrade_options: Default::default(),
        strategy: Strategy::default(),
        retry_of: None,
        start_at: None,
        expires_at: NOW + DAY,
    };
    let batch = f.store.create_batch(new).await.unwrap();
    let member = Member { device, slot: Slot::default(), image, retry_of: None };
    f.store.add_members(batch, vec![member], "admin".into()).await.unwrap();
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
