//! A request of every route, good for whoever is named.

use axum::http::Method;
use coordinator::pilot::{Marked, Pilot};
use coordinator::store::enrolment::Enrolment;
use coordinator::store::event::Reported;
use serde_json::{Value, json};
use shared::desired::CAPABILITIES;
use shared::event::{Event, EventBody};
use shared::grant::StartRequest;
use shared::hex::{Hex, sha256};
use shared::identity::Claims;
use shared::ids::{DeviceId, OperationId, Slot, StreamId};
use shared::inventory::{Inventory, Staging};

use crate::world::*;

/// A user with a password, who is in no organization.
pub const EVE: &str = "eve";
const PASSWORD: &str = "correct horse battery";

pub enum Content {
    Json(Value),
    Parts(Vec<Part<'static>>),
}

pub struct Ask {
    pub path: String,
    pub content: Content,
    /// The least who may: a token, or "" where a password is asked.
    pub by: &'static str,
    /// Whose entry it is.
    pub organization: Option<&'static str>,
    /// Whether the entry tells what was, and what is.
    pub before: bool,
    pub after: bool,
    /// What a user of another organization is told; `None`: the thing is their own as well.
    pub stranger: Option<u16>,
    /// What the entry says in place of the method and the path.
    pub action: Option<&'static str>,
    pub subject: Option<String>,
    /// A token that may only read is enough otherwise.
    pub changes: bool,
}

impl Ask {
    fn by(self, by: &'static str) -> Self {
        Self { by, ..self }
    }

    /// Its entry is the superusers' to see.
    fn nobodys(self) -> Self {
        Self { organization: None, ..self }
    }

    /// What they name is not theirs, or not theirs to name.
    fn stranger(self, told: u16) -> Self {
        Self { stranger: Some(told), ..self }
    }

    /// Everybody's for themselves.
    fn own(self) -> Self {
        Self { by: VIEWER, organization: None, stranger: None, ..self }
    }

    /// Something that is there becomes another.
    fn alters(self) -> Self {
        Self { before: true, after: true, ..self }
    }
}

/// The rest is as the caller says: an operator's, in `acme`, found by nobody else.
fn ask(method: &Method, path: String, body: Value) -> Ask {
    Ask {
        path,
        content: Content::Json(body),
        by: OPERATOR,
        organization: Some("acme"),
        before: *method != Method::POST,
        after: *method != Method::DELETE,
        stranger: Some(404),
        action: None,
        subject: None,
        changes: true,
    }
}

pub async fn of(world: &World, method: &Method, route: &str) -> Ask {
    let ask = |path: &str, body| ask(method, path.to_owned(), body);
    let post = *method == Method::POST;
    match route {
        "/category/" => {
            ask("category/", json!({"name": "x", "organization": "acme"})).stranger(400)
        }
        "/category/{id}/" => {
            let id = world.post(OPERATOR, "category/", json!({"name": "x"})).await.id(201);
            ask(&format!("category/{id}/"), json!({"name": "y"}))
        }
        "/build/" => {
            let category = world.post(OPERATOR, "category/", json!({"name": "x"})).await.id(201);
            ask("build/", json!({"category": category, "version": "1"})).stranger(400)
        }
        "/build/{id}/" => {
            let build = world.build().await;
            let path = format!("build/{build}/");
            let category = world.get(OPERATOR, &path).await.ok(200)["category"].clone();
            ask(&path, json!({"category": category, "version": "2"}))
        }
        "/build/{id}/image/" => {
            let parts = vec![("type", "", &b"telit-uxfp"[..]), ("file", "x.bin", FIRMWARE)];
            let path = format!("build/{}/image/", world.build().await);
            Ask { content: Content::Parts(parts), ..ask(&path, Value::Null) }
        }
        "/build/{id}/image/{image_id}/" => {
            let (build, image) = unsigned(world).await;
            ask(&format!("build/{build}/image/{image}/"), Value::Null)
        }
        "/image/{id}/manifest/" => {
            let (build, image) = unsigned(world).await;
            let (manifest, signature) = signed_as(FIRMWARE, world.of(&build).await);
            let parts: Vec<Part<'static>> =
                vec![("manifest", "", manifest.leak()), ("signature", "", signature.leak())];
            let path = format!("image/{image}/manifest/");
            Ask { content: Content::Parts(parts), ..ask(&path, Value::Null).alters() }
        }
        "/build/{id}/upgrade/" => {
            let build = fleet(world).await;
            ask(&format!("build/{build}/upgrade/"), json!({"upgrade_all": true}))
        }
        "/batch-upgrade-operation/" => {
            let body = json!({"build": fleet(world).await, "upgrade_all": true});
            ask("batch-upgrade-operation/", body).stranger(400)
        }
        "/batch-upgrade-operation/{id}/retry/" => {
            let batch = batch(world).await;
            fail(world, &batch).await;
            ask(&format!("batch-upgrade-operation/{batch}/retry/"), json!({}))
        }
        "/batch-upgrade-operation/{id}/pause/" | "/batch-upgrade-operation/{id}/cancel/" => {
            let batch = batch(world).await;
            ask(&route[1..].replace("{id}", &batch), json!({})).alters()
        }
        "/batch-upgrade-operation/{id}/resume/" => {
            let path = format!("batch-upgrade-operation/{}/", batch(world).await);
            world.post(OPERATOR, &format!("{path}pause/"), json!({})).await.ok(200);
            ask(&format!("{path}resume/"), json!({})).alters()
        }
        "/device-firmware/" => {
            let (device, image) = (world.device(&["main"]).await, world.image().await);
            ask("device-firmware/", json!({"device": device, "image": image})).stranger(400)
        }
        "/device/{id}/modem-firmware/" => {
            let (device, image) = (world.device(&["main"]).await, world.image().await);
            let path = format!("device/{device}/modem-firmware/");
            let operation = world.upgrade(device, &image).await;
            let cancel = format!("upgrade-operation/{operation}/cancel/");
            world.post(OPERATOR, &cancel, json!({})).await.ok(200);
            ask(&path, json!({"image": world.image().await}))
        }
        "/upgrade-operation/{id}/" => {
            let operation =
                world.upgrade(world.device(&["main"]).await, &world.image().await).await;
            let body = json!({"progress_percent": 5, "status": "in-progress"});
            ask(&format!("upgrade-operation/{operation}/"), body)
        }
        "/upgrade-operation/{id}/cancel/" => {
            let operation =
                world.upgrade(world.device(&["main"]).await, &world.image().await).await;
            ask(&format!("upgrade-operation/{operation}/cancel/"), json!({})).alters()
        }
        "/upgrade-operation/{id}/write-off/" => {
            let device = world.device(&["main"]).await;
            let operation = world.upgrade(device, &world.image().await).await;
            held(world, device, operation.parse().unwrap()).await;
            ask(&format!("upgrade-operation/{operation}/write-off/"), json!({}))
                .by(ADMINISTRATOR)
                .alters()
        }
        "/device/{id}/" => {
            let device = world.device(&["main"]).await;
            ask(&format!("device/{device}/"), json!({"tags": ["spare-at-hand"]}))
        }
        "/device/{id}/accept/" | "/device/{id}/refuse/" => {
            let path = route[1..].replace("{id}", &pending(world).await);
            ask(&path, json!({})).by(ADMINISTRATOR).alters()
        }
        "/device/{id}/revoke/" => {
            let path = format!("device/{}/revoke/", world.device(&["main"]).await);
            ask(&path, json!({})).by(ADMINISTRATOR).alters()
        }
        "/device/{id}/release/" => {
            let path = format!("device/{}/release/", duplicate(world).await);
            ask(&path, json!({})).by(ADMINISTRATOR).alters()
        }
        "/group/" | "/location/" => {
            let body = json!({"name": "north", "organization": "acme"});
            ask(&route[1..], body).stranger(400)
        }
        "/group/{id}/" | "/location/{id}/" => {
            let kind = route[1..].trim_end_matches("{id}/");
            let id = world.post(OPERATOR, kind, json!({"name": "north"})).await.id(201);
            ask(&format!("{kind}{id}/"), json!({"name": "south"}))
        }
        "/enrolment-token/" => {
            let body = json!({"name": "vans", "organization": "acme"});
            ask("enrolment-token/", body).by(ADMINISTRATOR).stranger(400)
        }
        "/enrolment-token/{id}/" => {
            let new = json!({"name": "vans"});
            let id = world.post(ADMINISTRATOR, "enrolment-token/", new).await.id(201);
            ask(&format!("enrolment-token/{id}/"), Value::Null).by(ADMINISTRATOR)
        }
        "/organization/" => {
            let made = ask("organization/", json!({"slug": "north"})).by(ADMIN).stranger(403);
            Ask { organization: Some("north"), ..made }
        }
        "/organization/{id}/" => {
            let path = format!("organization/{}/", world.acme.id);
            let change = ask(&path, json!({"name": "Acme"}));
            match *method {
                // Its slug may come again.
                Method::DELETE => change.by(ADMIN).nobodys(),
                _ => change.by(ADMINISTRATOR),
            }
        }
        "/organization/{id}/member/" => {
            user(world).await;
            let path = format!("organization/{}/member/", world.acme.id);
            ask(&path, json!({"username": EVE, "role": "viewer"})).by(ADMINISTRATOR)
        }
        "/organization/{id}/member/{user_id}/" => {
            let user = user(world).await;
            let path = format!("organization/{}/member/", world.acme.id);
            let new = json!({"username": EVE, "role": "viewer"});
            world.post(ADMINISTRATOR, &path, new).await.ok(201);
            ask(&format!("{path}{user}/"), json!({"role": "operator"})).by(ADMINISTRATOR)
        }
        "/user/" => {
            let new = json!({"username": "mallory", "password": PASSWORD});
            ask("user/", new).by(ADMIN).nobodys().stranger(403)
        }
        "/user/{id}/" => {
            let body = json!({"username": EVE, "active": false});
            let path = format!("user/{}/", user(world).await);
            ask(&path, body).by(ADMIN).nobodys().stranger(403)
        }
        "/user/me/" => ask("user/me/", json!({"password": PASSWORD})).own(),
        "/token/" => ask("token/", json!({"name": "mine"})).own(),
        "/token/{id}/" => {
            let id = world.post(VIEWER, "token/", json!({"name": "mine"})).await.id(201);
            ask(&format!("token/{id}/"), Value::Null).own().stranger(404)
        }
        "/users/token/" => {
            let subject = Some(user(world).await);
            let login = ask("users/token/", json!({"username": EVE, "password": PASSWORD})).own();
            Ask { by: "", action: Some("login"), subject, changes: false, ..login }
        }
        "/users/mqtt-token/" => {
            let listen = ask("users/mqtt-token/", json!({"organization": "acme"})).own();
            Ask { organization: Some("acme"), stranger: Some(404), changes: false, ..listen }
        }
        new => panic!("no request of {method} {new} yet (a POST: {post})"),
    }
}

const FIRMWARE: &[u8] = b"firmware";

/// A build with an image that has no manifest.
async fn unsigned(world: &World) -> (String, String) {
    let build = world.build().await;
    let parts: [Part<'_>; 2] = [("type", "", b"telit-uxfp"), ("file", "x.bin", FIRMWARE)];
    let image = world.multipart(OPERATOR, &format!("build/{build}/image/"), &parts).await.id(201);
    (build, image)
}

/// A build, and a device that it fits.
pub async fn fleet(world: &World) -> String {
    let image = world.image().await;
    let fit = |inventory: &mut Inventory| {
        inventory.capabilities = CAPABILITIES.iter().map(|&name| name.to_owned()).collect();
        inventory.keys = vec!["ab".repeat(8)];
        inventory.staging = vec![Staging {
            path: "/srv".into(),
            free_bytes: 1 << 30,
            durable: true,
            problem: None,
        }];
    };
    world.device_with(&["main"], fit).await;
    world.app.store.image(image.parse().unwrap()).await.unwrap().unwrap().build.to_string()
}

pub async fn batch(world: &World) -> String {
    let path = format!("build/{}/upgrade/", fleet(world).await);
    let started = world.post(OPERATOR, &path, json!({"upgrade_all": true})).await.ok(201);
    started["batch"].as_str().unwrap().to_owned()
}

/// By the word of the device's script; then the batch is over.
pub async fn fail(world: &World, batch: &str) {
    let (store, feed) = (world.app.store.clone(), world.app.feed.clone());
    let pilot = Pilot::new(store, feed, std::sync::Arc::new(Marked::default()));
    pilot.fly(batch.parse().unwrap()).await.unwrap();
    let found = world.get(OPERATOR, &format!("upgrade-operation/?batch={batch}")).await.ok(200);
    let path = format!("upgrade-operation/{}/", found["results"][0]["id"].as_str().unwrap());
    world.patch(OPERATOR, &path, json!({"status": "failed"})).await.ok(200);
    pilot.fly(batch.parse().unwrap()).await.unwrap();
}

/// The operation was granted, and its modem waits for a person.
async fn held(world: &World, device: DeviceId, operation: OperationId) {
    let stream = StreamId(uuid::Uuid::from_u128(1));
    let start =
        StartRequest { attempt: 1, stream, dark_expected_s: 60, dark_longest_s: 600, returned: 0 };
    world.app.store.start(device, operation, start).await.unwrap();
    let body = EventBody::Held { reason: "two modems in download mode".into() };
    let (slot, seq) = (Slot::default(), 2);
    let event = Event { operation, slot, stream, seq, attempt: 1, at: None, body };
    let body = serde_json::to_string(&event.body).unwrap();
    let reported = Reported { device, operation, stream, seq, event: Ok(event), body };
    world.app.store.record_events(vec![reported]).await.unwrap();
}

/// A device that waits to be let in.
async fn pending(world: &World) -> String {
    let new = json!({"name": "x", "organization": "acme"});
    let token = world.post(ADMINISTRATOR, "enrolment-token/", new).await.ok(201);
    let token = sha256(token["token"].as_str().unwrap().as_bytes());
    let claims = Claims::default();
    let enrolment = Enrolment { public_key: Hex([7; 32]), token, claims, peer: None };
    world.app.store.enrol(enrolment).await.unwrap().0.device.to_string()
}

/// A device that two boards speak as.
async fn duplicate(world: &World) -> String {
    let device = world.device(&["main"]).await;
    for boot in ["one", "two", "one", "two", "one"] {
        world.pass(60_000);
        world.inventory(device, boot).await;
    }
    let shown = world.get(VIEWER, &format!("device/{device}/")).await.ok(200);
    assert!(shown["duplicate"].is_object(), "{shown}");
    device.to_string()
}

/// Answers with the id of [`EVE`].
async fn user(world: &World) -> String {
    let new = json!({"username": EVE, "password": PASSWORD});
    world.post(ADMIN, "user/", new).await.id(201)
}
