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
