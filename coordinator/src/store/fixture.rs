//! A store with something in it, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shared::desired::OptionValue;
use shared::event::{Event, EventBody, Outcome};
use shared::grant::StartRequest;
use shared::hex::{Hex, sha256};
use shared::identity::{Claims, Enrolled};
use shared::ids::{DeviceId, ImageId, OperationId, Slot, StreamId};
use uuid::Uuid;

use super::bootstrap::FirstStart;
use super::build::BuildChange;
use super::category::CategoryChange;
use super::enrolment::{EnrolRefusal, Enrolment};
use super::event::Reported;
use super::image::{NewImage, SignedManifest};
use super::listing::Scope;
use super::operation::{UpgradeRefused, UpgradeRequest};
use super::{Rejection, Store};
use crate::clock::Clock;
use crate::operation::Operation;

#[path = "../../tests/fixture/manifest.rs"]
mod manifest;

pub(crate) use manifest::{manifest, versions};

pub(crate) const NOW: u64 = 1_800_000_000_000;
pub(crate) const TOKEN: &str = "enrolment token";

pub(crate) struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub hand: Arc<AtomicU64>,
}

pub(crate) fn stream(n: u128) -> StreamId {
    StreamId(Uuid::from_u128(n))
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(NOW);
        let store = Store::open(&dir.path().join("db"), clock).unwrap();
        let first = FirstStart {
            superuser: "admin".into(),
            organization: "default".parse().unwrap(),
            api_token: sha256(b"api token"),
            enrolment_token: sha256(TOKEN.as_bytes()),
        };
        assert!(store.bootstrap(first).await.unwrap());
        Self { dir, store, hand }
    }

    pub(crate) fn pass(&self, milliseconds: u64) {
        self.hand.fetch_add(milliseconds, Ordering::Relaxed);
    }

    pub(crate) async fn enrol(
        &self,
        key: u8,
        mac: Option<&str>,
    ) -> Result<(Enrolled, bool), Rejection<EnrolRefusal>> {
        let claims = Claims { mac: mac.map(str::to_owned), ..Claims::default() };
        let token = sha256(TOKEN.as_bytes());
        self.store.enrol(Enrolment { public_key: Hex([key; 32]), token, claims, peer: None }).await
    }

    pub(crate) async fn device(&self, key: u8) -> DeviceId {
        self.enrol(key, None).await.unwrap().0.device
    }

    /// An image that can be flashed.
    pub(crate) async fn image(&self, version: &str) -> ImageId {
        let bytes = serde_json::to_vec(&manifest(version.as_bytes())).unwrap();
        let signed = SignedManifest {
            manifest: bytes,
            signature: "untrusted comment: test\n".into(),
            signed_by: Hex([7; 8]),
            sequence: 1,
        };
        self.image_with(version, Some(signed)).await
    }

    pub(crate) async fn image_with(
        &self,
        version: &str,
        signed: Option<SignedManifest>,
    ) -> ImageId {
        let category = CategoryChange { name: Some(version.into()), ..Default::default() };
        let category = self.store.create_category(category).await.unwrap().id;
        let build = BuildChange { version: Some(version.into()), ..Default::default() };
        let build = self.store.create_build(category, build).await.unwrap().id;
        let new = NewImage {
            build,
            tool: "telit-uxfp".into(),
            boards: vec![],
            file_name: "fn990.bin".into(),
            size: version.len() as u64,
            sha256: sha256(version.as_bytes()),
            signed,
        };
        self.store.create_image(new).await.unwrap().id
    }

    pub(crate) async fn ask(
        &self,
        device: DeviceId,
        image: ImageId,
    ) -> Result<Operation, Rejection<UpgradeRefused>> {
        let request = UpgradeRequest {
            device,
            slot: Slot::default(),
            image,
            upgrade_options: serde_json::from_str(r#"{"speed":"115200","tool_path":"/x"}"#)
                .unwrap(),
            deadline: None,
            retry_of: None,
            by: "admin".into(),
        };
        self.store.request_upgrade(request).await
    }

    pub(crate) async fn operation(&self, id: OperationId) -> Operation {
        self.store.operation(Scope::Everything, id).await.unwrap().unwrap()
    }
}

pub(crate) fn options() -> std::collections::BTreeMap<String, OptionValue> {
    [("speed".to_owned(), OptionValue::Word("115200".into()))].into()
}

pub(crate) fn request(attempt: u32) -> StartRequest {
    StartRequest {
        attempt,
        stream: stream(1),
        dark_expected_s: 60,
        dark_longest_s: 600,
        returned: 0,
    }
}

pub(crate) fn event(operation: OperationId, seq: u64, attempt: u32, body: EventBody) -> Event {
    let slot = Slot::default();
    Event { operation, slot, stream: stream(1), seq, attempt, at: None, body }
}

pub(crate) fn reported(device: DeviceId, event: Event) -> Reported {
    let body = serde_json::to_string(&event.body).unwrap();
    let (operation, stream, seq) = (event.operation, event.stream, event.seq);
    Reported { device, operation, stream, seq, event: Ok(event), body }
}

pub(crate) fn succeeded() -> EventBody {
    EventBody::Finished {
        outcome: Outcome::Succeeded { versions: versions(), not_compared: None, remark: None },
    }
}
