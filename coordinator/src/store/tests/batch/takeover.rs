//! Older upgrades give way to a batch when it is launched: not before, not by halves, whatever comes between.

use super::*;
use crate::batch::{Phase, phase::phase};
use crate::store::audit::Entry;
use crate::store::batch::Withdrawal;
use crate::store::batch::launch as launch_some;
use crate::store::build::BuildRefusal;
use crate::store::category::CategoryRefusal;
use crate::store::firmware::Assignment;
use crate::store::image::{ImageList, ImageRefusal};
use crate::store::listing::{Order, Rows};

/// Two devices with an older upgrade each, and a batch of another image that both were added to.
async fn begun(f: &Fixture) -> (BatchId, [Operation; 2]) {
    let (older, newer) = (f.image("v2").await, f.image("v3").await);
    let devices = [f.device(1).await, f.device(2).await];
    let signs = devices.iter().map(|device| Sign::Seen(*device, NOW)).collect();
    f.store.record_signs(signs).await.unwrap();
    let asked = [f.ask(devices[0], older).await.unwrap(), f.ask(devices[1], older).await.unwrap()];
    f.pass(1);
    let batch = create(f, newer).await;
    let members = devices.iter().map(|device| member(*device, newer, None)).collect();
    f.store.add_members(batch, members, "admin".into()).await.unwrap();
    (batch, asked)
}

#[tokio::test]
async fn a_member_that_is_added_twice_is_counted_once() {
    let f = Fixture::new().await;
    let (older, newer) = (f.image("v2").await, f.image("v3").await);
    let device = f.device(1).await;
    f.ask(device, older).await.unwrap();
    f.pass(1);
    let batch = create(&f, newer).await;
    let twice = [member(device, newer, None), member(device, newer, None)].into_iter().collect();
    f.store.add_members(batch, twice, "admin".into()).await.unwrap();
    assert_eq!(shown(&f, batch).await.0.takeovers, 1);
    f.store.launch_batch(batch).await.unwrap();
    let (launched, _) = shown(&f, batch).await;
    assert_eq!((launched.counts.total(), launched.takeovers), (1, 0));
}

#[tokio::test]
async fn what_is_asked_of_one_modem_after_a_batch_was_begun_stays() {
    let f = Fixture::new().await;
    let (installed, newer) = (f.image("v2").await, f.image("v3").await);
    let device = f.device(1).await;
    let past = f.ask(device, installed).await.unwrap();
    assert_eq!(f.store.start(device, past.id, request(1)).await.unwrap(), Leave::New);
    assert_eq!(tell(&f, device, past.id, 1, succeeded()).await, Verdict::Accepted);
    let ask = || Assignment {
        device,
        slot: Slot::default(),
        image: installed,
        upgrade_options: Default::default(),
        by: "admin".into(),
    };
    assert_eq!(f.store.assign_firmware(ask()).await.unwrap().operation, None, "it is there");
    f.pass(1);
    let batch = launch(&f, newer, &[device]).await;
    let asked = f.store.assign_firmware(ask()).await.unwrap().operation;
    assert!(asked.is_some(), "a batch was about to flash another image");
    assert_eq!(shown(&f, batch).await.0.counts.cancelled, 1);
}

fn assignment(op: &Operation) -> Assignment {
    Assignment {
        device: op.device,
        slot: op.slot.clone(),
        image: op.image.unwrap(),
        upgrade_options: op.upgrade_options.clone(),
        by: "admin".into(),
    }
}

#[tokio::test]
async fn what_is_asked_of_one_modem_once_more_stays_too() {
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    let found = f.store.assign_firmware(assignment(&older[0])).await.unwrap().operation;
    assert_eq!(found, Some(older[0].id), "the one that there is");
    f.store.launch_batch(batch).await.unwrap();
    assert_eq!(f.operation(older[0].id).await.status, Status::Idle);
    assert_eq!(f.operation(older[1].id).await.status, Status::Cancelled);

    // So too where it is there by now.
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    f.store.start(older[0].device, older[0].id, request(1)).await.unwrap();
    tell(&f, older[0].device, older[0].id, 2, succeeded()).await;
    assert_eq!(f.store.assign_firmware(assignment(&older[0])).await.unwrap().operation, None);
    f.store.launch_batch(batch).await.unwrap();
    assert_eq!(shown(&f, batch).await.0.counts.total(), 1);
}

#[tokio::test]
async fn a_batch_that_nobody_joins_any_more_is_told_of() {
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    f.store.write(move |tx| launch_some(tx, batch, 1)).await.unwrap();
    let left = match f.operation(older[0].id).await.status {
        Status::Idle => &older[0],
        _ => &older[1],
    };
    let (heard, notes) = channel();
    f.store.on_commit(move |note| heard.send(note).unwrap());
    f.store.assign_firmware(assignment(left)).await.unwrap();
    assert_eq!(shown(&f, batch).await.0.takeovers, 0);
    assert_eq!(left_out(&f.store, batch).await, [(left.device, LeftOut::AskedSince)]);
    assert!(notes.try_iter().any(|note| matches!(note, Note::Batch(id) if id == batch)));
}

#[tokio::test]
async fn an_image_that_members_wait_to_be_upgraded_to_stays() {
    let f = Fixture::new().await;
    let (id, _) = begun(&f).await;
    let build = shown(&f, id).await.0.build.unwrap();
    let image = async |store: &Store| {
        let (tool, organization) = (None, None);
        let order = Order { column: "created", descending: false };
        let rows = Rows { offset: 0, limit: 1 };
        let wanted = ImageList { build, organization, tool, order, rows };
        store.images(wanted).await.unwrap().rows.remove(0)
    };
    let newer = image(&f.store).await.id;
    let category = f.store.build(build).await.unwrap().unwrap().category;
    let check_refused = async || {
        let refused = f.store.delete_image(newer).await.unwrap_err();
        assert!(matches!(refused, Rejection::Refused(ImageRefusal::InUse)), "{refused:?}");
        let refused = f.store.delete_build(build).await.unwrap_err();
        assert!(matches!(refused, Rejection::Refused(BuildRefusal::InUse)), "{refused:?}");
        let refused = f.store.delete_category(category).await.unwrap_err();
        assert!(matches!(refused, Rejection::Refused(CategoryRefusal::InUse)), "{refused:?}");
    };
    check_refused().await;
    f.store.write(move |tx| launch_some(tx, id, 1)).await.unwrap();
    let joined = operations(&f.store, id).await.remove(0).id;
    f.store.cancel_operation(Scope::Everything, joined, "admin".into()).await.unwrap();
    assert_eq!(shown(&f, id).await.0.takeovers, 1);
    check_refused().await;
    fly(&f.store, id).await;
    let (launched, _) = shown(&f, id).await;
    assert_eq!((launched.counts.total(), launched.takeovers), (2, 0), "nobody is lost");
}

fn active() -> LeftOut {
    LeftOut::Unfit(verdict::Reason::OperationActive)
}

#[tokio::test]
async fn who_gets_no_jobs_any_more_when_its_turn_comes_is_left_out() {
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    let device = older[0].device;
    f.store.deactivate_device(Scope::Everything, device, true).await.unwrap();
    f.store.launch_batch(batch).await.unwrap();
    let deactivated = (device, LeftOut::Unfit(verdict::Reason::Deactivated));
    assert_eq!(left_out(&f.store, batch).await, [deactivated]);
    let launched = shown(&f, batch).await.0;
    assert_eq!((launched.counts.total(), launched.takeovers, launched.left_out), (1, 0, 1));
}

async fn crash(f: &mut Fixture) {
    f.store.stop();
    f.store = Store::open(&f.dir.path().join("db"), f.store.clock().clone()).unwrap();
    f.store.recover_batches().await.unwrap();
}

async fn shown(f: &Fixture, batch: BatchId) -> (Batch, Phase) {
    let report = f.store.batch_report(Scope::Everything, batch).await.unwrap().unwrap();
    let phase = phase(&report.batch, &report.tally, report.now);
    (report.batch, phase)
}

fn code(refused: &Rejection<StartRefused>) -> RefusalCode {
    let Rejection::Refused(StartRefused::Refused(refusal)) = refused else { panic!("{refused:?}") };
    refusal.code
}

#[tokio::test]
async fn a_batch_that_is_not_launched_takes_nothing_from_anybody() {
    let mut f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    assert_eq!(shown(&f, batch).await.0.takeovers, 2);
    let before = f.store.desired(older[0].device, None).await.unwrap().unwrap();
    assert_eq!(before.jobs[0].operation, older[0].id);
    crash(&mut f).await;
    fly(&f.store, batch).await;
    let (ended, phase) = shown(&f, batch).await;
    assert_eq!((ended.course, ended.takeovers, phase), (Course::Finished, 0, Phase::Finished));
    for asked in &older {
        assert_eq!(f.operation(asked.id).await, *asked, "it is as it was");
        assert_eq!(f.store.start(asked.device, asked.id, request(1)).await.unwrap(), Leave::New);
    }
    // So too where whoever made it has given up.
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    f.store.abandon_batch(batch).await.unwrap();
    fly(&f.store, batch).await;
    assert_eq!(shown(&f, batch).await.0.course, Course::Finished);
    assert_eq!(f.operation(older[0].id).await, older[0]);
}

#[tokio::test]
async fn a_launch_that_a_crash_breaks_off_is_finished() {
    let mut f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    let store = f.store.on_record(Entry::system("launch", batch));
    let launched = store.write(move |tx| launch_some(tx, batch, 1)).await.unwrap();
    assert_eq!((launched.batch.counts.total(), launched.batch.takeovers), (1, 1));
    assert_eq!(launched.batch.members().progress_report(), "0 out of 2");
    let log = store.audit(10).await.unwrap();
    let after = log[0].after.as_ref().unwrap();
    assert_eq!((&after["operations"], &after["takes_over"]), (&2.into(), &2.into()), "{after}");
    crash(&mut f).await;
    assert_eq!(shown(&f, batch).await.1, Phase::Preparing);
    let states = [f.operation(older[0].id).await.status, f.operation(older[1].id).await.status];
    let left = usize::from(states[0] == Status::Cancelled);
    assert_eq!(states[1 - left], Status::Cancelled, "{states:?}");
    // Neither of the two is granted in between.
    let asked = &older[left];
    let refused = f.store.start(asked.device, asked.id, request(1)).await.unwrap_err();
    assert_eq!(code(&refused), RefusalCode::Paused);
    fly(&f.store, batch).await;
    for asked in &older {
        let ended = f.operation(asked.id).await;
        assert_eq!(ended.status, Status::Cancelled);
        let newer = f.operation(ended.superseded_by.unwrap()).await;
        assert_eq!((newer.batch, newer.device), (Some(batch), asked.device));
    }
    let (batch, phase) = shown(&f, batch).await;
    assert_eq!((batch.counts.total(), batch.takeovers, phase), (2, 0, Phase::Canary));
}

#[tokio::test]
async fn who_was_granted_or_asked_for_in_between_is_left_out() {
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    f.store.start(older[0].device, older[0].id, request(1)).await.unwrap();
    let report = f.store.launch_batch(batch).await.unwrap();
    assert_eq!((report.batch.counts.total(), report.batch.left_out), (1, 1));
    assert_eq!(left_out(&f.store, batch).await, [(older[0].device, active())]);
    assert!(f.operation(older[0].id).await.is_granted());
    assert_eq!(f.operation(older[1].id).await.status, Status::Cancelled);

    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    // Though the clock was set back.
    f.hand.fetch_sub(1_000_000, std::sync::atomic::Ordering::Relaxed);
    let asked = f.ask(older[0].device, f.image("v4").await).await.unwrap();
    f.store.launch_batch(batch).await.unwrap();
    assert_eq!(f.operation(asked.id).await.status, Status::Idle);
    assert_eq!(shown(&f, batch).await.0.counts.total(), 1);
    assert_eq!(left_out(&f.store, batch).await, [(asked.device, LeftOut::AskedSince)]);

    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    for asked in &older {
        f.store.start(asked.device, asked.id, request(1)).await.unwrap();
    }
    let refused = f.store.launch_batch(batch).await.unwrap_err();
    assert!(matches!(refused, Rejection::Refused(BatchRefused::Empty)), "{refused:?}");
    assert_eq!(f.store.left_out_for(batch).await.unwrap(), [(active(), 2)]);
    f.store.discard_batch(batch).await.unwrap();
    assert_eq!(f.store.batch(Scope::Everything, batch).await.unwrap(), None);
    assert_eq!(count(&f.store, "batch_takeovers").await, 0);
    assert_eq!(count(&f.store, "batch_left_out").await, 0);
}

#[tokio::test]
async fn those_who_cannot_join_any_more_are_left_out_in_several_writes() {
    let f = Fixture::new().await;
    let (batch, mut older) = begun(&f).await;
    older.sort_by_key(|op| op.device.to_string());
    f.store.start(older[0].device, older[0].id, request(1)).await.unwrap();
    let refused = f.store.write(move |tx| launch_some(tx, batch, 1)).await.unwrap_err();
    assert!(matches!(refused, Rejection::Refused(BatchRefused::Changed)), "{refused:?}");
    assert_eq!(shown(&f, batch).await.0.takeovers, 2, "all or nothing");
    let (heard, notes) = channel();
    f.store.on_commit(move |note| heard.send(note).unwrap());
    let launched = f.store.launch_in(batch, 1).await.unwrap().batch;
    assert_eq!((launched.course, launched.counts.total()), (Course::Open, 1));
    assert_eq!(shown(&f, batch).await.0.takeovers, 0);
    assert_eq!(left_out(&f.store, batch).await, [(older[0].device, active())]);
    assert!(f.operation(older[0].id).await.is_granted());
    assert_eq!(f.operation(older[1].id).await.status, Status::Cancelled);
    let of_batch = notes.try_iter().filter(|note| matches!(note, Note::Batch(id) if *id == batch));
    assert!(of_batch.count() >= 2, "one to leave out, and one to launch");

    // All of them.
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    for asked in &older {
        f.store.start(asked.device, asked.id, request(1)).await.unwrap();
    }
    let refused = f.store.launch_in(batch, 1).await.unwrap_err();
    assert!(matches!(refused, Rejection::Refused(BatchRefused::Empty)), "{refused:?}");
    assert_eq!(shown(&f, batch).await.0.course, Course::Preparing);
}

#[tokio::test]
async fn a_batch_that_is_cancelled_or_paused_takes_no_more() {
    let f = Fixture::new().await;
    let (batch, older) = begun(&f).await;
    f.store.write(move |tx| launch_some(tx, batch, 1)).await.unwrap();
    let reason = || Reason::Operator { by: "admin".into() };
    f.store.pause_batch(Scope::Everything, batch, reason()).await.unwrap();
    fly(&f.store, batch).await;
    assert_eq!(shown(&f, batch).await.0.takeovers, 1);
    for asked in &older {
        let refused = f.store.start(asked.device, asked.id, request(1)).await.unwrap_err();
        let gone = f.operation(asked.id).await.status.is_terminal();
        let expected = if gone { RefusalCode::Superseded } else { RefusalCode::Paused };
        assert_eq!(code(&refused), expected, "it gives way, or has");
    }
    let withdrawal = f.store.cancel_batch(Scope::Everything, batch, reason()).await.unwrap();
    assert_eq!(withdrawal, Withdrawal { will_finish: 0, cancelled: 2 });
    fly(&f.store, batch).await;
    let (ended, _) = shown(&f, batch).await;
    assert_eq!((ended.course, ended.takeovers, ended.counts.cancelled), (Course::Finished, 0, 1));
    let left: Vec<_> = [f.operation(older[0].id).await, f.operation(older[1].id).await]
        .into_iter()
        .filter(|op| op.status == Status::Idle)
        .collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left_out(&f.store, batch).await, [(left[0].device, LeftOut::BatchEnded)]);
    f.store.start(left[0].device, left[0].id, request(1)).await.unwrap();
}

#[tokio::test]
async fn the_database_has_the_same_status_of_a_batch() {
    let f = Fixture::new().await;
    let (batch, _) = begun(&f).await;
    for bits in 0..1 << 7 {
        let set = f.store.write::<_, Never, _>(move |tx| {
            let of = |bit: u32| i64::from(bits >> bit & 1);
            tx.execute(
                "UPDATE batches SET idle = ?2, in_progress = ?3, success = ?4, failed = ?5,
                     aborted = ?6, cancelled = ?7, takeovers = ?8 WHERE id = ?1",
                (batch.to_string(), of(0), of(1), of(2), of(3), of(4), of(5), of(6)),
            )?;
            Ok(())
        });
        set.await.unwrap();
        let stored = stored_status(&f.store, batch).await;
        let (batch, _) = shown(&f, batch).await;
        assert_eq!(stored, batch.members().status(), "{batch:?}");
    }
}
