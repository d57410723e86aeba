//! The verbs together: from enrolment to a proved version, and what is refused on the way.

use std::sync::mpsc::channel;

use shared::ack::Verdict;
use shared::event::{EventBody, Presence, Tick, VersionLine};
use shared::grant::RefusalCode;
use shared::identity::DeviceState;
use shared::ids::{DeviceId, OperationId, SessionId, Slot};
use shared::stages::Phase;
use uuid::Uuid;

use super::enrolment::EnrolRefusal;
use super::event::{Reported, Sign};
use super::fixture::*;
use super::listing::{Order, Rows, Scope};
use super::note::Note;
use super::operation::{ChangeRefused, OperationList, StartRefused, UpgradeRefused};
use super::{Never, Rejection, Store};
use crate::operation::Status;
use crate::operation::cancel::CannotCancel;
use crate::operation::event::Refused;
use crate::operation::grant::Leave;

async fn tell(
    f: &Fixture,
    device: DeviceId,
    op: OperationId,
    seq: u64,
    body: EventBody,
) -> Verdict {
    let attempt = u32::from(seq > 1);
    let events = vec![reported(device, event(op, seq, attempt, body))];
    f.store.record_events(events).await.unwrap().remove(0).verdict
}

fn refused(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Refused { reason } => Some(reason),
        Verdict::Accepted | Verdict::Duplicate | Verdict::Unknown => None,
    }
}

async fn count(store: &Store, table: &'static str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.read(move |conn| Ok(conn.query_row(&sql, [], |row| row.get(0))?)).await.unwrap()
}

async fn installed(store: &Store, device: DeviceId) -> bool {
    store.device_firmware(device, Slot::default()).await.unwrap().unwrap().installed
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
    }
    assert_eq!(count(&f.store, "dead_letters").await, 256);
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
async fn the_same_key_is_the_same_device_and_a_known_mac_waits() {
    let f = Fixture::new().await;
    let mac = Some("00:11:22:33:44:55");
    let (first, new) = f.enrol(1, mac).await.unwrap();
    assert!(new && first.state == DeviceState::Accepted);
    let (again, new) = f.enrol(1, mac).await.unwrap();
    assert!(!new && again == first);
    let (taker, _) = f.enrol(2, Some("001122334455")).await.unwrap();
    assert_eq!(taker.state, DeviceState::Pending, "also with a token that accepts");
    let waiting = f.store.device(Scope::Everything, taker.device).await.unwrap().unwrap();
    assert_eq!(waiting.replacement_of, Some(first.device));
    for key in 3..6 {
        f.enrol(key, mac).await.unwrap();
    }
    let flood = f.enrol(6, mac).await;
    assert!(matches!(flood, Err(Rejection::Refused(EnrolRefusal::TooManyReplacements))));

    let accepted = f.store.accept_device(Scope::Everything, taker.device).await.unwrap();
    assert_eq!(accepted.state, DeviceState::Accepted);
    let replaced = f.store.device(Scope::Everything, first.device).await.unwrap().unwrap();
    assert_eq!((replaced.state, replaced.epoch), (DeviceState::Revoked, 2));
    let back = f.enrol(1, mac).await;
    assert!(matches!(back, Err(Rejection::Refused(EnrolRefusal::Revoked))));
    assert_eq!(f.store.admitted_devices().await.unwrap(), [(taker.device, 1)]);
}

#[tokio::test]
async fn a_router_has_one_key_at_a_time_and_none_gets_back_in_by_itself() {
    let f = Fixture::new().await;
    let mac = Some("00:11:22:33:44:55");
    let state = async |id| f.store.device(Scope::Everything, id).await.unwrap().unwrap().state;
    let (first, _) = f.enrol(1, mac).await.unwrap();
    let (second, _) = f.enrol(2, mac).await.unwrap();
    let (third, _) = f.enrol(3, mac).await.unwrap();
    f.store.accept_device(Scope::Everything, second.device).await.unwrap();
    assert_eq!(state(third.device).await, DeviceState::Revoked, "it waited for the same place");

    f.pass(1);
    let (fourth, _) = f.enrol(4, mac).await.unwrap();
    assert_eq!(fourth.state, DeviceState::Pending);
    f.store.accept_device(Scope::Everything, fourth.device).await.unwrap();
    assert_eq!(f.store.admitted_devices().await.unwrap(), [(fourth.device, 1)]);

    f.store.revoke_device(Scope::Everything, fourth.device).await.unwrap();
    let (fifth, _) = f.enrol(5, mac).await.unwrap();
    assert_eq!(fifth.state, DeviceState::Pending, "revoked hardware waits under any key");
    let fifth = f.store.device(Scope::Everything, fifth.device).await.unwrap().unwrap();
    assert_eq!(fifth.replacement_of, Some(first.device));
}

#[tokio::test]
async fn an_old_sessions_will_does_not_hide_a_newer_one() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let session = |n| SessionId(Uuid::from_u128(n));
    let said = |n, online| Sign::Presence(device, Presence { v: 1, session: session(n), online });
    f.store.record_signs(vec![said(1, true), said(2, true), said(1, false)]).await.unwrap();
    let online = async || f.store.device(Scope::Everything, device).await.unwrap().unwrap().online;
    assert!(online().await);
    f.store.record_signs(vec![said(2, false)]).await.unwrap();
    assert!(!online().await);
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
async fn installed_ends_where_the_modem_says_otherwise_and_with_its_image() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let proved = async || {
        let op = f.ask(device, image).await.unwrap();
        f.store.start(device, op.id, request(1)).await.unwrap();
        assert_eq!(tell(&f, device, op.id, 2, succeeded()).await, Verdict::Accepted);
        assert!(installed(&f.store, device).await);
    };
    let reads = async |versions: Vec<VersionLine>| {
        let modem = serde_json::json!({
            "slot": "main", "manufacturer": "Telit", "model": "FN990", "imei": "1",
            "versions": versions, "sole_uplink": true
        });
        let inventory = serde_json::from_value(serde_json::json!({
            "v": 1, "agent_version": "0.1.0", "capabilities": [], "board": "b", "hostname": "r",
            "boot_id": "", "require_signature": true, "keys": [], "profiles": [], "staging": [],
            "modems": [modem]
        }))
        .unwrap();
        f.store.set_inventory(device, inventory).await.unwrap();
    };
    proved().await;
    reads(versions()).await;
    reads(vec![]).await;
    assert!(installed(&f.store, device).await, "what was not read contradicts nothing");
    let mut other = versions();
    other[0].value = "another".into();
    reads(other).await;
    assert!(!installed(&f.store, device).await);
    proved().await;
    f.store
        .write::<_, Never, _>(|tx| {
            tx.execute("DELETE FROM images", [])?;
            Ok(())
        })
        .await
        .unwrap();
    assert!(!installed(&f.store, device).await);
}

#[tokio::test]
async fn an_older_operations_late_result_is_no_news_of_the_modem() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let (v2, v3) = (f.image("v2").await, f.image("v3").await);
    let older = f.ask(device, v2).await.unwrap();
    f.store.start(device, older.id, request(1)).await.unwrap();
    f.pass(2 * 24 * 3600 * 1000);
    f.store.expire_operations().await.unwrap();
    f.pass(1);
    f.store.record_signs(vec![Sign::Seen(device, f.store.clock().now())]).await.unwrap();
    f.ask(device, v3).await.unwrap();
    assert_eq!(tell(&f, device, older.id, 2, succeeded()).await, Verdict::Accepted);
    assert!(f.operation(older.id).await.late_result.is_some());
    assert_eq!(count(&f.store, "modems").await, 0);
}

#[tokio::test]
async fn milestones_are_bounded_and_the_end_comes_through() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.start(device, op.id, request(1)).await.unwrap();
    let most = u64::from(super::event::MILESTONES);
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
    assert_eq!(f.store.newest_operations().await.unwrap().len(), 2);
    let foreign = f.store.operation(Scope::Organizations(vec![]), first.id).await.unwrap();
    assert_eq!(foreign, None);

    let path = f.dir.path().join("db");
    let before = f.operation(first.id).await;
    f.store.stop();
    let again = Store::open(&path, f.store.clock().clone()).unwrap();
    assert_eq!(again.operation(Scope::Everything, first.id).await.unwrap(), Some(before));
}
