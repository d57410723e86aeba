//! From what is asked for to a proved version, and what is refused on the way.

use super::*;
use crate::store::build::BuildRefusal;
use crate::store::image::{ImageRefusal, NewImage};

#[tokio::test]
async fn what_is_being_deleted_is_not_begun_with_and_what_stays_keeps_its_history() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let (one, two) = (f.device(1).await, f.device(2).await);
    let past = f.ask(one, image).await.unwrap().id;
    f.store.cancel_operation(Scope::Everything, past, "admin".into()).await.unwrap();
    let present = f.ask(two, image).await.unwrap().id;
    let refused = f.store.delete_image(image).await;
    assert!(matches!(refused, Err(Rejection::Refused(ImageRefusal::InUse))));
    assert_eq!(f.operation(past).await.image, Some(image));
    f.store.cancel_operation(Scope::Everything, present, "admin".into()).await.unwrap();
    // It gets so far, and the process dies.
    f.store.part_from_images("SELECT ?1", image.to_string()).await.unwrap();
    let refused = f.ask(one, image).await;
    assert!(matches!(refused, Err(Rejection::Refused(UpgradeRefused::UnknownImage))));
    f.store.stop();
    let store = Store::open(&f.dir.path().join("db"), f.store.clock().clone()).unwrap();
    assert_eq!(store.finish_deletions().await.unwrap(), 1);
    assert!(store.image(image).await.unwrap().is_none());
    assert_eq!(store.finish_deletions().await.unwrap(), 0);
}

#[tokio::test]
async fn an_image_that_came_into_use_keeps_its_build_and_none_that_were_parted_stay() {
    let f = Fixture::new().await;
    let (first, device) = (f.image("v2").await, f.device(1).await);
    let build = f.store.image(first).await.unwrap().unwrap().build;
    let of_build = "SELECT id FROM images WHERE build = ?1";
    f.store.part_from_images(of_build, build.to_string()).await.unwrap();
    // Between two pieces of that work.
    let another = NewImage {
        build,
        tool: "another".into(),
        boards: vec![],
        file_name: "another.bin".into(),
        size: 7,
        sha256: shared::hex::sha256(b"another"),
        signed: f.store.image_manifest(first).await.unwrap(),
    };
    let second = f.store.create_image(another).await.unwrap().id;
    f.ask(device, second).await.unwrap();
    let refused = f.store.delete_build(build).await;
    assert!(matches!(refused, Err(Rejection::Refused(BuildRefusal::InUse))), "{refused:?}");
    assert!(f.store.image(first).await.unwrap().is_none(), "nobody could begin with it any more");
    assert!(f.store.image(second).await.unwrap().is_some());
}

#[tokio::test]
async fn a_job_out_and_its_events_back() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let empty = f.store.desired(device, None).await.unwrap().unwrap();
    assert!(empty.jobs.is_empty());
    let op = f.ask(device, image).await.unwrap();
    let desired = f.store.desired(device, Some(empty.generation)).await.unwrap().unwrap();
    assert_eq!((desired.jobs.len(), desired.time), (1, NOW));
    let job = &desired.jobs[0];
    assert_eq!((job.operation, job.image.id, &job.options), (op.id, image, &options()));
    let stored = f.store.job_image(device, image).await.unwrap().unwrap();
    assert_eq!(shared::hex::sha256(&stored.manifest), job.image.manifest_sha256);
    let known = Some(desired.generation.clone());
    assert_eq!(f.store.desired(device, known.clone()).await.unwrap(), None);

    let entered = EventBody::Entered { phase: Phase::Downloading };
    assert_eq!(tell(&f, device, op.id, 1, entered.clone()).await, Verdict::Accepted);
    assert_eq!(tell(&f, device, op.id, 1, entered).await, Verdict::Duplicate);
    assert_eq!(f.store.desired(device, known.clone()).await.unwrap(), None, "progress is no news");
    assert_eq!(f.store.start(device, op.id, request(1)).await.unwrap(), Leave::New);
    assert_eq!(f.store.start(device, op.id, request(1)).await.unwrap(), Leave::Repeated);
    let late = f.store.cancel_operation(Scope::Everything, op.id, "admin".into()).await;
    assert!(matches!(
        late,
        Err(Rejection::Refused(ChangeRefused::Rule(CannotCancel::PastPointOfNoReturn(1))))
    ));
    assert!(!installed(&f.store, device).await);
    assert_eq!(tell(&f, device, op.id, 2, succeeded()).await, Verdict::Accepted);
    let done = f.operation(op.id).await;
    assert_eq!((done.status, done.progress_percent), (Status::Success, 100));
    assert!(installed(&f.store, device).await);
    let desired = f.store.desired(device, known).await.unwrap().unwrap();
    assert!(desired.jobs.is_empty());
    assert_eq!(f.store.job_image(device, image).await.unwrap(), None);
    assert_eq!(count(&f.store, "milestones").await, 2);
}

#[tokio::test]
async fn a_cancel_before_the_grant_wins() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.cancel_operation(Scope::Everything, op.id, "admin".into()).await.unwrap();
    assert!(f.store.desired(device, None).await.unwrap().unwrap().jobs.is_empty());
    match f.store.start(device, op.id, request(1)).await {
        Err(Rejection::Refused(StartRefused::Refused(refusal))) => {
            assert_eq!(refusal.code, RefusalCode::Cancelled);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(f.operation(op.id).await.attempts_granted, 0);
}

#[tokio::test]
async fn a_newer_upgrade_takes_the_slot_unless_the_older_was_granted() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let (v2, v3) = (f.image("v2").await, f.image("v3").await);
    let older = f.ask(device, v2).await.unwrap();
    let newer = f.ask(device, v3).await.unwrap();
    let superseded = f.operation(older.id).await;
    assert_eq!(superseded.status, Status::Cancelled);
    assert_eq!(superseded.superseded_by, Some(newer.id));
    let jobs = f.store.desired(device, None).await.unwrap().unwrap().jobs;
    assert_eq!(jobs.iter().map(|job| job.operation).collect::<Vec<_>>(), [newer.id]);
    f.store.start(device, newer.id, request(1)).await.unwrap();
    match f.ask(device, v2).await {
        Err(Rejection::Refused(UpgradeRefused::InProgress(id))) => assert_eq!(id, newer.id),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_made_that_cannot_be_flashed() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let unsigned = f.image_with("v1", None).await;
    let refused = f.ask(device, unsigned).await;
    assert!(matches!(refused, Err(Rejection::Refused(UpgradeRefused::NoManifest))));
    let image = f.image("v2").await;
    f.store.deactivate_device(Scope::Everything, device, true).await.unwrap();
    let refused = f.ask(device, image).await;
    assert!(matches!(refused, Err(Rejection::Refused(UpgradeRefused::Deactivated))));
    let nobody = DeviceId(Uuid::from_u128(9));
    let refused = f.ask(nobody, image).await;
    assert!(matches!(refused, Err(Rejection::Refused(UpgradeRefused::UnknownDevice))));
}

#[tokio::test]
async fn a_held_device_gets_no_job_but_finishes_what_was_granted() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.deactivate_device(Scope::Everything, device, true).await.unwrap();
    assert!(f.store.desired(device, None).await.unwrap().unwrap().jobs.is_empty());
    let start = f.store.start(device, op.id, request(1)).await;
    assert!(matches!(start, Err(Rejection::Refused(StartRefused::Refused(refusal)))
        if refusal.code == RefusalCode::Quarantined));
    f.store.deactivate_device(Scope::Everything, device, false).await.unwrap();
    f.store.start(device, op.id, request(1)).await.unwrap();
    f.store.deactivate_device(Scope::Everything, device, true).await.unwrap();
    assert_eq!(f.store.desired(device, None).await.unwrap().unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn lists_are_filtered_and_an_operation_survives_the_disk() {
    let f = Fixture::new().await;
    let (one, two, image) = (f.device(1).await, f.device(2).await, f.image("v2").await);
    let first = f.ask(one, image).await.unwrap();
    f.ask(two, image).await.unwrap();
    f.store.start(one, first.id, request(1)).await.unwrap();
    let list = |device, status| OperationList {
        scope: Scope::Everything,
        organization: Some("default".parse().unwrap()),
        device,
        image: Some(image),
        batch: None,
        status,
        order: Order { column: "created", descending: true },
        rows: Rows { offset: 0, limit: 10 },
    };
    assert_eq!(f.store.operations(list(None, None)).await.unwrap().count, 2);
    let of_one = f.store.operations(list(Some(one), None)).await.unwrap().rows;
    assert_eq!(of_one, [f.operation(first.id).await]);
    let idle = f.store.operations(list(None, Some(Status::Idle))).await.unwrap();
    assert_eq!((idle.count, idle.rows[0].device), (1, two));
    assert_eq!(newest(&f.store).await.len(), 2);
    let foreign = f.store.operation(Scope::Organizations(vec![]), first.id).await.unwrap();
    assert_eq!(foreign, None);

    let path = f.dir.path().join("db");
    let before = f.operation(first.id).await;
    f.store.stop();
    let again = Store::open(&path, f.store.clock().clone()).unwrap();
    assert_eq!(again.operation(Scope::Everything, first.id).await.unwrap(), Some(before));
}

#[tokio::test]
async fn history_is_parted_from_an_image_when_it_goes_and_not_before() {
    let f = Fixture::new().await;
    let image = f.image("v2").await;
    let (one, two) = (f.device(1).await, f.device(2).await);
    let ended = f.ask(one, image).await.unwrap().id;
    let active = f.ask(two, image).await.unwrap().id;
    let cancel = async |id| f.store.cancel_operation(Scope::Everything, id, "admin".into()).await;
    cancel(ended).await.unwrap();
    let build = f.store.image(image).await.unwrap().unwrap().build;
    assert!(f.store.delete_image(image).await.is_err(), "it is in use");
    assert!(f.store.delete_build(build).await.is_err());
    assert_eq!(f.operation(ended).await.image, Some(image));
    cancel(active).await.unwrap();
    f.store.delete_build(build).await.unwrap();
    for (device, id) in [(one, ended), (two, active)] {
        assert_eq!(f.operation(id).await.image, None);
        let firmware = f.store.device_firmware(device, Slot::default()).await.unwrap().unwrap();
        assert_eq!((firmware.image.is_none(), firmware.installed), (true, false));
    }
}
