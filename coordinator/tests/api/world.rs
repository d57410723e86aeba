//! A coordinator's API without its sockets: organizations, users, devices and signed firmware.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::middleware;
use coordinator::api::{self, App, BASE, Services, throttle::Throttle};
use coordinator::artifacts::{Artifacts, Limits};
use coordinator::clock::Clock;
use coordinator::feed::Feed;
use coordinator::store::Store;
use coordinator::store::bootstrap::{FirstStart, NewEnrolmentToken};
use coordinator::store::enrolment::Enrolment;
use coordinator::store::organization::Organization;
use coordinator::store::user::{NewApiToken, Role, TokenScope};
use coordinator::tokens::Tokens;
use serde_json::{Value, json};
use shared::event::VersionLine;
use shared::hex::{Hex, sha256};
use shared::identity::Claims;
use shared::ids::{DeviceId, Slot};
use shared::inventory::{Inventory, Modem};
use shared::manifest::Manifest;
use shared::signature::SecretKey;
use tower::ServiceExt;

use crate::manifest::manifest;
use crate::openapi::only_documented;

/// 2023-11-14T22:13:20Z
pub const NOW: u64 = 1_700_000_000_000;
pub const NOW_TEXT: &str = "2023-11-14T22:13:20.000Z";
pub const FILE_LIMIT: u64 = 3 << 20;

pub const ADMIN: &str = "token-of-admin";
/// An administrator of `acme`.
pub const ADMINISTRATOR: &str = "token-of-administrator";
/// An operator of `acme`.
pub const OPERATOR: &str = "token-of-operator";
/// Of `acme` as well, and may only look.
pub const VIEWER: &str = "token-of-viewer";
/// The operator's, for reading only.
pub const READING: &str = "token-for-reading";
/// An operator of another organization.
pub const RIVAL: &str = "token-of-rival";

/// Of a multipart body: name, file name (empty = none), content.
pub type Part<'a> = (&'a str, &'a str, &'a [u8]);

pub struct World {
    pub app: App,
    pub router: Router,
    pub acme: Organization,
    pub folder: tempfile::TempDir,
    hand: Arc<AtomicU64>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", String::from_utf8_lossy(&self.bytes)))
    }

    /// Status and body in one.
    #[track_caller]
    pub fn is(&self, status: u16, body: Value) {
        assert_eq!((self.status.as_u16(), self.json()), (status, body));
    }

    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    /// The id in the body.
    #[track_caller]
    pub fn id(self, status: u16) -> String {
        self.ok(status)["id"].as_str().unwrap().to_owned()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::limited(api::REQUESTS_A_MINUTE).await
    }

    pub async fn limited(requests_a_minute: u32) -> Self {
        let (folder, hand) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(NOW)));
        let app = app(folder.path(), &hand, requests_a_minute);
        let acme = people(&app.store).await;
        Self { router: router(&app), app, acme, folder, hand }
    }

    /// The same after a start of the coordinator.
    pub fn again(self) -> Self {
        let Self { acme, folder, hand, .. } = self;
        let app = app(folder.path(), &hand, api::REQUESTS_A_MINUTE);
        Self { router: router(&app), app, acme, folder, hand }
    }

    /// Moves the coordinator's clock on.
    pub fn pass(&self, milliseconds: u64) {
        self.hand.fetch_add(milliseconds, Ordering::Relaxed);
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(request(Method::GET, token, path).body(Body::empty()).unwrap()).await
    }

    pub async fn delete(&self, token: &str, path: &str) -> Answer {
        self.send(request(Method::DELETE, token, path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.json(Method::POST, token, path, body).await
    }

    pub async fn put(&self, token: &str, path: &str, body: Value) -> Answer {
        self.json(Method::PUT, token, path, body).await
    }

    pub async fn patch(&self, token: &str, path: &str, body: Value) -> Answer {
        self.json(Method::PATCH, token, path, body).await
    }

    async fn json(&self, method: Method, token: &str, path: &str, body: Value) -> Answer {
        let request = request(method, token, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    pub async fn multipart(&self, token: &str, path: &str, parts: &[Part<'_>]) -> Answer {
        let body = multipart(parts);
        let request = request(Method::POST, token, path)
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=frontier")
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from(body));
        self.send(request.unwrap()).await
    }

    /// A category and a build of `acme`; answers with the build's id.
    pub async fn build(&self) -> String {
        let name = format!("FN990A-{}", uuid::Uuid::new_v4());
        let category = self.post(OPERATOR, "category/", json!({"name": name})).await.id(201);
        let build =
            json!({"category": category, "version": "45.00.012", "modem_model": "Telit FN990A"});
        self.post(OPERATOR, "build/", build).await.id(201)
    }

    /// Makes a manifest one for the build's category.
    pub async fn of(&self, build: &str) -> impl Fn(&mut Manifest) {
        let build = self.get(OPERATOR, &format!("build/{build}/")).await.ok(200);
        let category = build["category_relation"]["name"].as_str().unwrap().to_owned();
        move |manifest| manifest.category.clone_from(&category)
    }

    /// A signed image of a new build.
    pub async fn image(&self) -> String {
        self.image_reaching("45.00.012").await
    }

    pub async fn image_reaching(&self, version: &str) -> String {
        let build = self.build().await;
        let content = b"firmware".repeat(1000);
        let of_build = self.of(&build).await;
        let (manifest, signature) = signed_as(&content, |manifest| {
            of_build(manifest);
            manifest.reaches[0].value = version.into();
        });
        let parts: [Part<'_>; 4] = [
            ("type", "", b"telit-uxfp"),
            ("file", "fn990.bin", &content),
            ("manifest", "", &manifest),
            ("signature", "", &signature),
        ];
        self.multipart(OPERATOR, &format!("build/{build}/image/"), &parts).await.id(201)
    }

    /// An accepted device of `acme` with a modem in each of these slots.
    pub async fn device(&self, slots: &[&str]) -> DeviceId {
        self.device_with(slots, |_| {}).await
    }

    pub async fn device_with(
        &self,
        slots: &[&str],
        change: impl FnOnce(&mut Inventory),
    ) -> DeviceId {
        let random = uuid::Uuid::new_v4();
        let mut key = [0; 32];
        key[..16].copy_from_slice(random.as_bytes());
        let enrolment = Enrolment {
            public_key: Hex(key),
            token: sha256(b"enrolment"),
            peer: None,
            claims: Claims { hostname: "router".into(), ..serde_json::from_str("{}").unwrap() },
        };
        let device = self.app.store.enrol(enrolment).await.unwrap().0.device;
        let modems = slots.iter().map(|slot| modem(slot.parse().unwrap())).collect();
        let mut inventory = inventory(modems);
        change(&mut inventory);
        self.app.store.set_inventory(device, inventory).await.unwrap();
        device
    }

    /// The device tells of itself, from this boot.
    pub async fn inventory(&self, device: DeviceId, boot: &str) {
        let told = Inventory { boot_id: boot.into(), ..inventory(vec![modem(Slot::default())]) };
        self.app.store.set_inventory(device, told).await.unwrap();
    }

    /// Asks for an upgrade; answers with the operation's id.
    pub async fn upgrade(&self, device: DeviceId, image: &str) -> String {
        let path = format!("device/{device}/modem-firmware/");
        let answer = self.put(OPERATOR, &path, json!({"image": image})).await;
        assert!(answer.status.is_success(), "{}", answer.json());
        answer.json()["upgrade_operation"]["id"].as_str().unwrap().to_owned()
    }

    pub fn artifacts(&self) -> Vec<std::path::PathBuf> {
        let inside = |path: &Path| std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
        inside(&self.folder.path().join("artifacts")).flat_map(|path| inside(&path)).collect()
    }
}

fn router(app: &App) -> Router {
    api::router(app.clone()).layer(middleware::from_fn(only_documented))
}

fn app(folder: &Path, hand: &Arc<AtomicU64>, requests_a_minute: u32) -> App {
    let clock = Clock::Manual(hand.clone());
    let limits = Limits { file: FILE_LIMIT, quota: 4 * FILE_LIMIT, reserve: 0 };
    App::from(Services {
        artifacts: Artifacts::open(&folder.join("artifacts"), limits).unwrap(),
        tokens: Arc::new(Tokens::load(folder, clock.clone()).unwrap()),
        feed: Feed::new(&clock),
        registry: Arc::default(),
        throttle: Arc::new(Throttle::new(requests_a_minute)),
        census: Arc::default(),
        ready: Arc::default(),
        counters: Arc::default(),
        streams: Arc::default(),
        passwords: Arc::default(),
        repeats: Arc::default(),
        logins: Arc::new(Throttle::new(api::user::ATTEMPTS_A_MINUTE)),
        mqtt_tokens: Arc::new(Throttle::daily(api::user::MQTT_TOKENS_A_DAY)),
        mqtt_port: 8883,
        store: Store::open(&folder.join("db"), clock).unwrap(),
    })
}

/// A body of this boundary: `frontier`.
pub fn multipart(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file_name, content) in parts {
        body.extend(
            format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"").bytes(),
        );
        if !file_name.is_empty() {
            body.extend(format!("; filename=\"{file_name}\"").bytes());
        }
        body.extend(b"\r\n\r\n");
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--frontier--\r\n");
    body
}

pub fn request(method: Method, token: &str, path: &str) -> axum::http::request::Builder {
    let uri = if path.starts_with('/') { path.to_owned() } else { format!("{BASE}/{path}") };
    let request = Request::builder().method(method).uri(uri).header(header::HOST, "mu.example");
    if token.is_empty() {
        return request;
    }
    request.header(header::AUTHORIZATION, format!("Bearer {token}"))
}

async fn people(store: &Store) -> Organization {
    let first = FirstStart {
        superuser: "admin".into(),
        organization: "default".parse().unwrap(),
        api_token: sha256(ADMIN.as_bytes()),
        enrolment_token: sha256(b"first"),
    };
    assert!(store.bootstrap(first).await.unwrap());
    let create = |slug: &str| store.create_organization(slug.parse().unwrap(), slug.to_owned());
    let acme = create("acme").await.unwrap();
    let rival = create("rival").await.unwrap();
    for (token, organization, role, scope) in [
        (ADMINISTRATOR, &acme, Role::Administrator, TokenScope::Write),
        (OPERATOR, &acme, Role::Operator, TokenScope::Write),
        (VIEWER, &acme, Role::Viewer, TokenScope::Write),
        (READING, &acme, Role::Operator, TokenScope::Read),
        (RIVAL, &rival, Role::Operator, TokenScope::Write),
    ] {
        let user = store.create_user(format!("user of {token}"), false).await.unwrap();
        store.set_role(user, organization.id, role).await.unwrap();
        let (name, digest) = ("test".to_owned(), sha256(token.as_bytes()));
        let new = NewApiToken { user, name, digest, scope, expires: None };
        store.create_api_token(new).await.unwrap();
    }
    let enrolment = NewEnrolmentToken {
        organization: acme.id,
        name: "test".into(),
        digest: sha256(b"enrolment"),
        auto_accept: true,
        uses: None,
        expires: None,
    };
    store.create_enrolment_token(enrolment).await.unwrap();
    acme
}

pub fn key() -> SecretKey {
    SecretKey::from_random([1; 32], [0xab; 8]).unwrap()
}

/// A manifest of the content, and its signature.
pub fn signed_as(content: &[u8], change: impl FnOnce(&mut Manifest)) -> (Vec<u8>, Vec<u8>) {
    let mut manifest = Manifest {
        models: vec!["FN990A28".into(), "FN990A40".into()],
        sequence: 7,
        reaches: vec![VersionLine {
            command: "#SWPKGV".into(),
            line: 1,
            value: "45.00.012".into(),
        }],
        ..manifest(content)
    };
    change(&mut manifest);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let signature = key().sign(&bytes).to_text("verify with test.pub").into_bytes();
    (bytes, signature)
}

fn modem(slot: Slot) -> Modem {
    Modem {
        slot,
        manufacturer: "Telit".into(),
        model: "FN990A28".into(),
        imei: "490154203237518".into(),
        versions: vec![VersionLine {
            command: "#SWPKGV".into(),
            line: 1,
            value: "45.00.010".into(),
        }],
        usb: None,
        sole_uplink: true,
        network: None,
        unreadable: None,
    }
}

fn inventory(modems: Vec<Modem>) -> Inventory {
    Inventory {
        v: 1,
        agent_version: "0.1.0".into(),
        capabilities: vec![],
        board: "glinet,gl-x3000".into(),
        hostname: "router".into(),
        boot_id: "b".into(),
        require_signature: true,
        keys: vec![],
        profiles: vec!["telit-uxfp".into()],
        staging: vec![],
        modems,
    }
}
