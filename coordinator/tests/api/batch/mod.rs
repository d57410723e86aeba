//! Batches, by the API alone: a fleet whose routers do as they are told.

mod retry;
mod selection;
mod steering;
mod telling;
mod waves;

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
pub struct Fleet {
    pub world: World,
    build: String,
    devices: Vec<DeviceId>,
    pilot: Arc<Pilot>,
}

fn fit(inventory: &mut Inventory) {
    inventory.capabilities = CAPABILITIES.iter().map(|&name| name.to_owned()).collect();
    inventory.keys = vec!["ab".repeat(8)];
    inventory.staging =
        vec![Staging { path: "/srv".into(), free_bytes: 1 << 30, durable: true, problem: None }];
}

impl Fleet {
    pub async fn new(size: usize) -> Self {
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
    pub async fn start(&self, strategy: Value) -> String {
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

    /// Everybody is heard of now.
    async fn see_all(&self) {
        for device in &self.devices {
            self.see(*device).await;
        }
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
        self.tell(device, id, 9, 1, EventBody::Finished { outcome }).await;
    }

    async fn tell(
        &self,
        device: DeviceId,
        operation: OperationId,
        seq: u64,
        attempt: u32,
        body: EventBody,
    ) {
        let (slot, stream) = (Slot::default(), request().stream);
        let text = serde_json::to_string(&body).unwrap();
        let event = Event { operation, slot, stream, seq, attempt, at: None, body };
        let reported = Reported { device, operation, stream, seq, event: Ok(event), body: text };
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
    StartRequest { attempt: 1, stream, dark_expected_s: 60, dark_longest_s: 600, returned: 0 }
}

fn new_version() -> Vec<VersionLine> {
    vec![VersionLine { command: "#SWPKGV".into(), line: 1, value: "45.00.012".into() }]
}

fn success() -> Outcome {
    Outcome::Succeeded { versions: new_version(), not_compared: None, remark: None }
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

fn request_to(token: &str, path: &str) -> axum::http::Request<axum::body::Body> {
    crate::world::request(axum::http::Method::GET, token, path)
        .body(axum::body::Body::empty())
        .unwrap()
}
