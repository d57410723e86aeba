use std::sync::Arc;
use std::sync::atomic::Ordering;

use coordinator::clock::Clock;
use coordinator::pilot::{Marked, Pilot};
use coordinator::store::Rejection;
use coordinator::store::event::Reported;
use coordinator::store::operation::StartRefused;
use serde_json::{Value, json};
use shared::desired::CAPABILITIES;
use shared::event::{Event, EventBody, Outcome, VersionLine};
use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::grant::{RefusalCode, StartRequest};
use shared::ids::{BatchId, DeviceId, OperationId, Slot, StreamId};
use shared::inventory::{Inventory, Staging};
use shared::stages::Phase;

use crate::world::*;

/// Several routers that a build of `acme` fits, and whoever drives its batches.
struct Fleet {
    world: World,
    build: String,
    devices: Vec<DeviceId>,
    pilot: Arc<Pilot>,
}

fn fit(inventory: &mut Inventory) {
    inventory.capabilities = CAPABILITIES.iter().map(|&name| name.to_owned()).collect();
    inventory.keys = vec!["ab".repeat(8)];
    inventory.staging = vec![Staging { path: "/srv".into(), free_bytes: 1 << 30, durable: true }];
}

impl Fleet {
    async fn new(size: usize) -> Self {
        let world = World::new().await;
        let image = world.image().await;
        let build = build_of(&world, &image).await;
        let mut devices = Vec::new();
        for _ in 0..size {
            devices.push(world.device_with(&["main"], fit).await);
        }
        let (store, feed) = (world.app.store.clone(), world.app.feed.clone());
        let pilot = Pilot::new(store, feed, Arc::new(Marked::default()));
        Self { world, build, devices, pilot }
    }

    fn upgrade(&self) -> String {
        format!("build/{}/upgrade/", self.build)
    }

    /// Starts a batch of all, and flies it once.
    async fn start(&self, strategy: Value) -> String {
        let body = json!({"upgrade_all": true, "strategy": strategy});
        let started = self.world.post(OPERATOR, &self.upgrade(), body).await.ok(201);
        let batch = started["batch"].as_str().unwrap().to_owned();
        self.fly(&batch).await;
        batch
    }

    async fn fly(&self, batch: &str) {
        self.pilot.fly(batch.parse::<BatchId>().unwrap()).await.unwrap();
    }

    async fn show(&self, batch: &str) -> Value {
        self.world.get(VIEWER, &format!("batch-upgrade-operation/{batch}/")).await.ok(200)
    }

    async fn act(&self, batch: &str, verb: &str) -> Answer {
        let path = format!("batch-upgrade-operation/{batch}/{verb}/");
        self.world.post(OPERATOR, &path, json!({})).await
    }

    async fn see(&self, device: DeviceId) {
        let store = &self.world.app.store;
        let seen = coordinator::store::event::Sign::Seen(device, store.clock().now());
        store.record_signs(vec![seen]).await.unwrap();
    }

    fn pass(&self, seconds: u64) {
        let Clock::Manual(hand) = self.world.app.store.clock() else { panic!("no manual clock") };
        hand.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// Its jobs, as the device sees them.
    async fn job(&self, device: DeviceId) -> Option<OperationId> {
        let desired = self.world.app.store.desired(device, None).await.unwrap().unwrap();
        desired.jobs.first().map(|job| job.operation)
    }

    /// The devices that have a job now, with it.
    async fn working(&self) -> Vec<(DeviceId, OperationId)> {
        let mut working = Vec::new();
        for device in &self.devices {
            working.extend(self.job(*device).await.map(|operation| (*device, operation)));
        }
        working
    }

    async fn ask(&self, device: DeviceId, id: OperationId) -> Result<(), RefusalCode> {
        match self.world.app.store.start(device, id, request()).await {
            Ok(_) => Ok(()),
            Err(Rejection::Refused(StartRefused::Refused(refusal))) => Err(refusal.code),
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn end(&self, device: DeviceId, id: OperationId, outcome: Outcome) {
        let body = EventBody::Finished { outcome };
        let event = Event {
            operation: id,
            slot: Slot::default(),
            stream: request().stream,
            seq: 9,
            attempt: 1,
            at: None,
            body,
        };
        let body = serde_json::to_string(&event.body).unwrap();
        let (stream, seq) = (event.stream, event.seq);
        let reported = Reported { device, operation: id, stream, seq, event: Ok(event), body };
        self.world.app.store.record_events(vec![reported]).await.unwrap();
    }

    /// Everybody who has a job does it.
    async fn work(&self, outcome: fn() -> Outcome) -> usize {
        let working = self.working().await;
        for (device, id) in &working {
            self.ask(*device, *id).await.unwrap();
            self.end(*device, *id, outcome()).await;
        }
        working.len()
    }
}

async fn build_of(world: &World, image: &str) -> String {
    let image = world.app.store.image(image.parse().unwrap()).await.unwrap().unwrap();
    image.build.to_string()
}

fn request() -> StartRequest {
    let stream = StreamId(uuid::Uuid::from_u128(1));
    StartRequest { attempt: 1, stream, dark_expected_s: 60, dark_longest_s: 600 }
}

fn new_version() -> Vec<VersionLine> {
    vec![VersionLine { command: "#SWPKGV".into(), line: 1, value: "45.00.012".into() }]
}

fn success() -> Outcome {
    Outcome::Succeeded { versions: new_version(), not_compared: None }
}

fn broken() -> Outcome {
    let kind = FailureKind::VersionMismatch;
    let failure =
        Failure::new(Phase::Probing, kind, ModemCondition::OldVersion, "the old one runs");
    Outcome::Failed { failure }
}

fn quick() -> Value {
    json!({"canary": 1, "growth": 2, "gate": {"soak_s": 10}})
}

#[tokio::test]
async fn a_canary_and_then_the_others() {
    let fleet = Fleet::new(4).await;
    let batch = fleet.start(quick()).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("idle"), &json!("canary")));
    assert_eq!(shown["tally"]["total"], 4);
    let sizes: Vec<_> = shown["waves"].as_array().unwrap().iter().map(|w| &w["size"]).collect();
    assert_eq!(sizes, [1, 2, 1], "{shown}");
    assert_eq!(shown["upgradeoperations"].as_array().unwrap().len(), 4);
    assert_eq!(fleet.work(success).await, 1, "the canary alone has a job");
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("in-progress"), &json!("soaking")));
    assert_eq!(shown["progress_report"], "1 out of 4");
    assert_eq!(shown["success_rate"], 25.0);
    assert_eq!(fleet.working().await, [], "it soaks");
    fleet.pass(10);
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["phase"], "wave");
    assert_eq!(fleet.work(success).await, 2);
    fleet.pass(10);
    fleet.fly(&batch).await;
    assert_eq!(fleet.work(success).await, 1);
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("success"), &json!("finished")));
    assert_eq!(
        (&shown["progress_report"], &shown["success_rate"]),
        (&json!("4 out of 4"), &json!(100.0))
    );
    let again = json!({"upgrade_all": true});
    let refused = fleet.world.post(OPERATOR, &fleet.upgrade(), again).await.ok(400);
    assert!(refused["error"].as_str().unwrap().contains("runs this version"), "{refused}");
}

#[tokio::test]
async fn a_bad_build_stops_itself_after_its_canary() {
    let fleet = Fleet::new(3).await;
    let batch = fleet.start(quick()).await;
    assert_eq!(fleet.work(broken).await, 1);
    fleet.fly(&batch).await;
    fleet.pass(3600);
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("in-progress"), &json!("paused")));
    assert!(shown["paused_reason"].as_str().unwrap().contains("gate"), "{shown}");
    assert_eq!(fleet.working().await, []);
    let cancelled = fleet.act(&batch, "cancel").await.ok(200);
    assert_eq!((&cancelled["cancelled"], &cancelled["will_finish"]), (&json!(2), &json!(0)));
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("failed"), &json!("finished")));
    assert_eq!(shown["tally"]["cancelled"], 2);
}

#[tokio::test]
async fn the_dry_run_tells_of_every_device() {
    let fleet = Fleet::new(2).await;
    let world = &fleet.world;
    let untrusting = world.device_with(&["main"], |known| {
        fit(known);
        known.keys.clear();
    });
    let untrusting = untrusting.await;
    let silent = world.device_with(&[], fit).await;
    let foreign = world.device_with(&["main"], |known| {
        fit(known);
        known.modems[0].model = "RM520N-GL".into();
    });
    let foreign = foreign.await;
    let off = world.device_with(&["main"], fit).await;
    let path = format!("device/{off}/");
    world.patch(ADMIN, &path, json!({"deactivated": true})).await.ok(200);

    let all = world.get(VIEWER, &format!("{}?upgrade_all=true", fleet.upgrade())).await.ok(200);
    assert_eq!((&all["count"], &all["excluded"]), (&json!(2), &json!(4)), "{all}");
    assert_eq!(all["devices"].as_array().unwrap().len(), 2);
    assert_eq!(all["device_modem_firmwares"], json!([]));
    let verdict = |device: DeviceId| {
        let verdicts = all["verdicts"].as_array().unwrap();
        verdicts.iter().find(|verdict| verdict["device"] == json!(device)).unwrap()
    };
    assert_eq!(verdict(fleet.devices[0])["will_upgrade"], true);
    for (device, reason) in [
        (untrusting, "key_not_trusted"),
        (silent, "modem_unknown"),
        (foreign, "wrong_model"),
        (off, "deactivated"),
    ] {
        assert_eq!(verdict(device)["reason"], reason);
        assert!(verdict(device)["detail"].as_str().unwrap().ends_with('.'));
    }
    let few = world.get(VIEWER, &fleet.upgrade()).await.ok(200);
    assert_eq!(few["count"], 0);
    assert_eq!(few["verdicts"][0]["reason"].as_str().map(|reason| reason.len() > 3), Some(true));
    let one = format!("{}?device={}", fleet.upgrade(), fleet.devices[0]);
    assert_eq!(world.get(VIEWER, &one).await.ok(200)["count"], 1, "named is enough");
    let page = format!("{}?upgrade_all=1&page_size=4", fleet.upgrade());
    let page = world.get(VIEWER, &page).await.ok(200);
    assert_eq!(page["verdicts"].as_array().unwrap().len(), 4);
    assert!(page["verdicts_next"].as_str().unwrap().contains("page=2"), "{page}");
    assert_eq!(page["count"], 2, "the counts are of all");
    world.get(RIVAL, &fleet.upgrade()).await.ok(404);
    let nobody = uuid::Uuid::new_v4();
    let path = format!("{}?device={nobody}", fleet.upgrade());
    assert!(world.get(VIEWER, &path).await.ok(400)["devices"].is_array());
}

#[tokio::test]
async fn devices_are_selected_by_what_operators_say_of_them() {
    let fleet = Fleet::new(3).await;
    let world = &fleet.world;
    let group = world.post(OPERATOR, "group/", json!({"name": "north"})).await.id(201);
    let location = world.post(OPERATOR, "location/", json!({"name": "Ulm"})).await.id(201);
    world.post(OPERATOR, "group/", json!({"name": "north"})).await.ok(400);
    world.post(VIEWER, "group/", json!({"name": "south"})).await.ok(403);
    let device = |n: usize| format!("device/{}/", fleet.devices[n]);
    let said = json!({"group": group, "tags": ["b", "a", "b"]});
    let shown = world.patch(OPERATOR, &device(0), said).await.ok(200);
    assert_eq!((&shown["group"], &shown["tags"]), (&json!(group), &json!(["a", "b"])));
    world.patch(OPERATOR, &device(1), json!({"location": location, "tags": ["c"]})).await.ok(200);
    let foreign = world.post(ADMIN, "group/", json!({"name": "x", "organization": "rival"})).await;
    let foreign = foreign.id(201);
    assert!(
        world.patch(OPERATOR, &device(2), json!({"group": foreign})).await.ok(400)["group"]
            .is_array()
    );
    world.get(RIVAL, &format!("group/{group}/")).await.ok(404);
    for (query, count) in [
        (format!("group={group}"), 1),
        (format!("location={location}"), 1),
        ("tag=a,c".into(), 2),
        ("model=FN990A28".into(), 3),
        ("model=FN980".into(), 0),
        ("board=glinet,gl-x3000".into(), 3),
        ("from_version=45.00.010".into(), 3),
        ("from_version=45.00.009".into(), 0),
        (format!("group={group}&tag=c"), 0),
    ] {
        let path = format!("{}?upgrade_all=true&{query}", fleet.upgrade());
        assert_eq!(world.get(VIEWER, &path).await.ok(200)["count"], count, "{query}");
    }
    for (query, count) in [("tag=a".into(), 1), (format!("group={group}"), 1)] {
        assert_eq!(world.get(VIEWER, &format!("device/?{query}")).await.ok(200)["count"], count);
    }
    let body = json!({"upgrade_all": true, "tags": ["c"], "strategy": quick()});
    let batch = world.post(OPERATOR, &fleet.upgrade(), body).await.ok(201);
    let shown = fleet.show(batch["batch"].as_str().unwrap()).await;
    assert_eq!(shown["upgradeoperations"][0]["device"], json!(fleet.devices[1]));
    world.delete(OPERATOR, &format!("group/{group}/")).await.ok(204);
    assert_eq!(world.get(VIEWER, &device(0)).await.ok(200)["group"], Value::Null);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_field() {
    let fleet = Fleet::new(1).await;
    let world = &fleet.world;
    let all = |strategy: Value| json!({"upgrade_all": true, "strategy": strategy});
    for strategy in [
        json!({"canary": 0}),
        json!({"canery": 5}),
        json!({"growth": "fast"}),
        json!({"gate": {"minimum": 9}}),
        json!({"window": "02:00-04:00"}),
        json!({"start_at": "tomorrow"}),
        json!({"expires_at": "2020-01-01T00:00:00Z"}),
        json!(5),
    ] {
        let refused = world.post(OPERATOR, &fleet.upgrade(), all(strategy.clone())).await.ok(400);
        assert!(refused["strategy"].is_array(), "{strategy}: {refused}");
    }
    let options = json!({"upgrade_all": true, "upgrade_options": {"speed": "--help"}});
    assert!(
        world.post(OPERATOR, &fleet.upgrade(), options).await.ok(400)["upgrade_options"].is_array()
    );
    world.post(VIEWER, &fleet.upgrade(), all(json!({}))).await.ok(403);
    world.post(RIVAL, &fleet.upgrade(), all(json!({}))).await.ok(404);
    let nobody = json!({"upgrade_all": true, "models": ["other"]});
    assert!(world.post(OPERATOR, &fleet.upgrade(), nobody).await.ok(400)["error"].is_string());
    assert_eq!(world.get(VIEWER, "batch-upgrade-operation/").await.ok(200)["count"], 0);
    let unknown = json!({"build": uuid::Uuid::new_v4()});
    assert!(
        world.post(OPERATOR, "batch-upgrade-operation/", unknown).await.ok(400)["build"].is_array()
    );
}

#[tokio::test]
async fn pause_stops_grants_and_granted_ones_finish() {
    let fleet = Fleet::new(2).await;
    let batch = fleet.start(json!({"canary": 2})).await;
    let working = fleet.working().await;
    let [(first, one), (second, two)] = working[..] else { panic!("{working:?}") };
    fleet.ask(first, one).await.unwrap();
    let paused = fleet.act(&batch, "pause").await.ok(200);
    assert_eq!(paused["will_finish"], 1);
    assert_eq!(fleet.ask(second, two).await, Err(RefusalCode::Paused));
    fleet.ask(first, one).await.unwrap();
    assert!(fleet.act(&batch, "pause").await.ok(409)["error"].is_string());
    fleet.end(first, one, success()).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["phase"], &shown["tally"]["success"]), (&json!("paused"), &json!(1)));
    assert_eq!(shown["paused_reason"], "by user of token-of-operator");
    fleet.act(&batch, "resume").await.ok(200);
    assert_eq!(fleet.show(&batch).await["paused_reason"], Value::Null);
    fleet.ask(second, two).await.unwrap();
    let cancelled = fleet.act(&batch, "cancel").await.ok(200);
    assert_eq!((&cancelled["will_finish"], &cancelled["cancelled"]), (&json!(1), &json!(0)));
    assert_eq!(fleet.show(&batch).await["phase"], "cancelling");
    fleet.end(second, two, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["status"], "success", "both were flashed after all");
    assert!(fleet.act(&batch, "cancel").await.ok(409)["error"].is_string());
    let path = format!("batch-upgrade-operation/{batch}/");
    fleet.world.post(VIEWER, &format!("{path}cancel/"), json!({})).await.ok(403);
    fleet.world.post(RIVAL, &format!("{path}cancel/"), json!({})).await.ok(404);
    fleet.world.get(RIVAL, &path).await.ok(404);
}

#[tokio::test]
async fn so_many_at_a_time_and_no_more() {
    let fleet = Fleet::new(3).await;
    let batch = fleet.start(json!({"canary": 3, "max_concurrent": 2})).await;
    let working = fleet.working().await;
    fleet.ask(working[0].0, working[0].1).await.unwrap();
    fleet.ask(working[1].0, working[1].1).await.unwrap();
    assert_eq!(fleet.ask(working[2].0, working[2].1).await, Err(RefusalCode::Concurrency));
    fleet.end(working[0].0, working[0].1, success()).await;
    fleet.ask(working[2].0, working[2].1).await.unwrap();
    assert_eq!(fleet.show(&batch).await["tally"]["granted"], 2);
}

#[tokio::test]
async fn what_failed_is_tried_again() {
    let fleet = Fleet::new(3).await;
    let world = &fleet.world;
    let lenient = json!({"canary": 3, "failure_threshold": {"percent": null}});
    let batch = fleet.start(lenient).await;
    assert!(fleet.act(&batch, "retry").await.ok(409)["error"].is_string());
    let working = fleet.working().await;
    for (n, (device, id)) in working.iter().enumerate() {
        fleet.ask(*device, *id).await.unwrap();
        fleet.end(*device, *id, if n == 0 { success() } else { broken() }).await;
    }
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["failed_rate"]), (&json!("failed"), &json!(66.66)));
    // One of the two turns out to run the new version all the same.
    let late = world.app.store.clone();
    let known = late.device(coordinator::store::listing::Scope::Everything, working[1].0);
    let mut known = known.await.unwrap().unwrap().inventory.unwrap();
    known.modems[0].versions = new_version();
    late.set_inventory(working[1].0, known).await.unwrap();
    let retry = fleet.act(&batch, "retry").await.ok(201);
    let again = fleet.show(retry["batch"].as_str().unwrap()).await;
    assert_eq!((&again["retry_of"], &again["tally"]["total"]), (&json!(batch), &json!(1)));
    let operation = &again["upgradeoperations"][0];
    assert_eq!(operation["retry_of"], json!(working[2].1));
    assert_eq!(again["strategy"]["canary"], 3, "as before");
    let listed = world.get(VIEWER, "batch-upgrade-operation/?status=failed").await.ok(200);
    assert_eq!((&listed["count"], &listed["results"][0]["id"]), (&json!(1), &json!(batch)));
    let of_build = format!("batch-upgrade-operation/?build={}", fleet.build);
    assert_eq!(world.get(VIEWER, &of_build).await.ok(200)["count"], 2);
}

#[tokio::test]
async fn a_silent_device_blocks_the_next_wave_and_then_counts_as_failed() {
    let fleet = Fleet::new(3).await;
    let strategy = json!({"failure_threshold": {"count": 1, "then": "abort"}});
    let batch = fleet.start(strategy).await;
    let (device, id) = fleet.working().await[0];
    fleet.ask(device, id).await.unwrap();
    for (seconds, tally) in [(60, "dark"), (200, "suspect"), (600, "overdue")] {
        fleet.pass(seconds);
        let shown = fleet.show(&batch).await;
        assert_eq!(shown["tally"][tally], 1, "{shown}");
        assert_eq!(shown["tally"]["in_progress"], 1, "dark is not failed");
        if tally != "overdue" {
            fleet.fly(&batch).await;
            assert_eq!(fleet.working().await.len(), 1, "no other wave");
        }
    }
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["phase"], &shown["tally"]["cancelled"]), (&json!("cancelling"), &json!(2)));
    fleet.end(device, id, success()).await;
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["tally"]["success"]), (&json!("cancelled"), &json!(1)));
}

#[tokio::test]
async fn an_offline_member_waits_for_a_later_wave() {
    let fleet = Fleet::new(3).await;
    let batch = fleet.start(json!({"canary": 2, "gate": {"soak_s": 0}})).await;
    let working = fleet.working().await;
    let [(first, one), (gone, left)] = working[..] else { panic!("{working:?}") };
    fleet.ask(first, one).await.unwrap();
    fleet.end(first, one, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["wave"], 0, "it may come yet");
    fleet.pass(4000);
    let third = *fleet.devices.iter().find(|id| **id != first && **id != gone).unwrap();
    fleet.see(third).await;
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["wave"], &shown["waves"][1]["size"]), (&json!(1), &json!(1)), "{shown}");
    assert_eq!(fleet.ask(gone, left).await, Err(RefusalCode::Paused), "not in an open wave");
    let job = fleet.job(third).await.unwrap();
    fleet.ask(third, job).await.unwrap();
    fleet.end(third, job, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["wave"], 1, "whoever is away is taken into no wave");
    fleet.see(gone).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["wave"], 2);
    fleet.ask(gone, left).await.unwrap();
    fleet.end(gone, left, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["status"], "success");
}

#[tokio::test]
async fn it_begins_and_ends_at_its_times() {
    let fleet = Fleet::new(2).await;
    let times = json!({"start_at": "2023-11-14T22:23:20Z", "expires_at": "2023-11-15T22:13:20Z"});
    let batch = fleet.start(times).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["phase"], &shown["status"]), (&json!("scheduled"), &json!("idle")));
    assert_eq!(shown["strategy"]["start_at"], "2023-11-14T22:23:20.000Z");
    fleet.pass(600);
    fleet.fly(&batch).await;
    let (device, id) = fleet.working().await[0];
    fleet.pass(24 * 3600);
    assert_eq!(fleet.ask(device, id).await, Err(RefusalCode::Expired));
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["aborted_rate"]), (&json!("aborted"), &json!(100.0)));
    assert_eq!(shown["tally"]["charged"], 0, "nobody's fault");
}

#[tokio::test]
async fn whoever_watches_is_told() {
    use futures_util::StreamExt;
    use tower::ServiceExt;
    let fleet = Fleet::new(1).await;
    let batch = fleet.start(quick()).await;
    let path = format!("batch-upgrade-operation/{batch}/events/");
    let request = request_to(VIEWER, &path);
    let response = fleet.world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    assert_eq!(fleet.work(success).await, 1);
    fleet.fly(&batch).await;
    while !text.contains(r#""phase":"finished""#) {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), body.next()).await;
        text.push_str(std::str::from_utf8(&next.unwrap().unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("event: batch") && text.contains(r#""phase":"canary""#), "{text}");
    fleet.world.get(RIVAL, &path).await.ok(404);
    let topic = format!("mu/acme/batches/{batch}");
    let (retained, _) = fleet.world.app.feed.retained(&"acme".parse().unwrap());
    assert!(retained.iter().any(|state| state.change.topic().to_string() == topic));
}

#[tokio::test]
async fn one_that_cannot_be_launched_is_taken_back() {
    let fleet = Fleet::new(2).await;
    let db = rusqlite::Connection::open(fleet.world.folder.path().join("db")).unwrap();
    db.execute_batch(
        "CREATE TRIGGER broken BEFORE UPDATE OF course ON batches WHEN NEW.course = 'open'
         BEGIN SELECT RAISE(ABORT, 'broken'); END",
    )
    .unwrap();
    let body = json!({"upgrade_all": true});
    fleet.world.post(OPERATOR, &fleet.upgrade(), body).await.ok(500);
    let listing = fleet.world.get(VIEWER, "batch-upgrade-operation/").await.ok(200);
    let batch = listing["results"][0]["id"].as_str().unwrap();
    fleet.fly(batch).await;
    assert_eq!(fleet.show(batch).await["phase"], "finished");

    // Where not even that can be said.
    db.execute_batch("UPDATE batches SET course = 'preparing', finished_at = NULL").unwrap();
    assert_eq!(fleet.act(batch, "cancel").await.ok(200)["cancelled"], 0);
    db.execute_batch("UPDATE batches SET course = 'preparing', finished_at = NULL").unwrap();
    fleet.fly(batch).await;
    assert_eq!(fleet.show(batch).await["phase"], "preparing", "it may be being made");
    fleet.pass(15 * 60);
    fleet.fly(batch).await;
    assert_eq!(fleet.show(batch).await["phase"], "finished");
}

#[tokio::test]
async fn a_long_changelog_keeps_no_answer_and_no_event_back() {
    let fleet = Fleet::new(1).await;
    let changelog = json!({"changelog": "x".repeat(65_536)});
    fleet.world.patch(OPERATOR, &format!("build/{}/", fleet.build), changelog).await.ok(200);
    let body = json!({"build": fleet.build, "upgrade_all": true});
    let send = async || {
        let path = "batch-upgrade-operation/";
        let request = crate::world::request(axum::http::Method::POST, OPERATOR, path)
            .header("content-type", "application/json")
            .header("Idempotency-Key", "k")
            .body(axum::body::Body::from(body.to_string()));
        fleet.world.send(request.unwrap()).await
    };
    let batch = send().await.id(201);
    send().await.ok(409);
    fleet.fly(&batch).await;
    let (retained, _) = fleet.world.app.feed.retained(&"acme".parse().unwrap());
    let topic = format!("mu/acme/batches/{batch}");
    assert!(retained.iter().any(|state| state.change.topic().to_string() == topic));
    let shown = fleet.show(&batch).await;
    assert_eq!(shown["build"]["changelog"].as_str().unwrap().len(), 65_536);
}

#[tokio::test]
async fn what_is_done_with_places_and_batches_is_on_record_in_their_organization() {
    let fleet = Fleet::new(2).await;
    let log = async || {
        let listing = fleet.world.get(ADMINISTRATOR, "audit/").await.ok(200);
        let newest = &listing["results"][0];
        assert_eq!(newest["organization"], "acme", "{newest}");
        (newest["before"].clone(), newest["after"].clone())
    };
    for kind in ["group", "location"] {
        let new = json!({"name": "north"});
        let id = fleet.world.post(ADMINISTRATOR, &format!("{kind}/"), new).await.id(201);
        let (before, after) = log().await;
        assert_eq!((before, &after["name"]), (Value::Null, &json!("north")));
        let path = format!("{kind}/{id}/");
        fleet.world.patch(ADMINISTRATOR, &path, json!({"name": "south"})).await.ok(200);
        let (before, after) = log().await;
        assert_eq!((&before["name"], &after["name"]), (&json!("north"), &json!("south")));
        fleet.world.delete(ADMINISTRATOR, &path).await.ok(204);
        let (before, after) = log().await;
        assert_eq!((&before["name"], after), (&json!("south"), Value::Null));
    }
    let batch = fleet.start(quick()).await;
    let (before, after) = log().await;
    assert_eq!((before, &after["id"]), (Value::Null, &json!(batch)));
    for (verb, was, is) in [
        ("pause", "open", "paused"),
        ("resume", "paused", "open"),
        ("cancel", "open", "cancelling"),
    ] {
        fleet.act(&batch, verb).await.ok(200);
        let (before, after) = log().await;
        assert_eq!((&before["course"], &after["course"]), (&json!(was), &json!(is)));
    }
}

fn request_to(token: &str, path: &str) -> axum::http::Request<axum::body::Body> {
    crate::world::request(axum::http::Method::GET, token, path)
        .body(axum::body::Body::empty())
        .unwrap()
}
