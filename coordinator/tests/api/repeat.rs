//! Requests with an Idempotency-Key.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use coordinator::api::BASE;
use coordinator::pilot::Pilot;
use coordinator::store::listing::Scope;
use coordinator::store::note::Note;
use coordinator::store::repeat::{Known, Repeat};
use serde_json::{Value, json};
use shared::hex::sha256;
use shared::ids::DeviceId;
use tower::ServiceExt;

use crate::changes::requests::{batch, fail, fleet};
use crate::world::*;

async fn put(world: &World, token: &str, device: DeviceId, key: &str, body: Value) -> Answer {
    let path = format!("device/{device}/modem-firmware/");
    let request = request(Method::PUT, token, &path)
        .header(header::CONTENT_TYPE, "application/json")
        .header("Idempotency-Key", key)
        .body(Body::from(body.to_string()));
    world.send(request.unwrap()).await
}

async fn operations(world: &World) -> u64 {
    world.get(ADMIN, "upgrade-operation/").await.ok(200)["count"].as_u64().unwrap()
}

#[tokio::test]
async fn the_same_request_is_carried_out_once() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let body = json!({"image": image});
    let first = put(&world, OPERATOR, device, "k1", body.clone()).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let first = first.ok(201);
    let again = put(&world, OPERATOR, device, "k1", body.clone()).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.ok(201), first, "though there is one now: 200 without a key");
    assert_eq!(operations(&world).await, 1);

    let other = put(&world, OPERATOR, device, "k1", json!({"image": null})).await.ok(422);
    assert!(other["error"].as_str().unwrap().contains("another request"), "{other}");
    let administrator = put(&world, ADMINISTRATOR, device, "k1", body.clone()).await;
    assert!(!administrator.headers.contains_key("idempotency-replayed"), "keys are a user's own");
    administrator.ok(200);
    let long = "k".repeat(129);
    for bad in ["", " ", long.as_str()] {
        let refused = put(&world, OPERATOR, device, bad, body.clone()).await.ok(400);
        assert!(refused["Idempotency-Key"].is_array());
    }
    put(&world, "", device, "k1", body.clone()).await.ok(401);

    world.pass(24 * 3600 * 1000);
    let later = put(&world, OPERATOR, device, "k1", body).await;
    assert!(!later.headers.contains_key("idempotency-replayed"), "forgotten after a day");
    later.ok(200);
}

#[tokio::test]
async fn a_request_with_a_key_counts_once() {
    let world = World::limited(2).await;
    let device = world.device(&["main"]).await;
    let body = json!({"image": null});
    put(&world, OPERATOR, device, "k1", body.clone()).await.ok(201);
    put(&world, OPERATOR, device, "k2", body.clone()).await.ok(200);
    assert_eq!(put(&world, OPERATOR, device, "k3", body).await.status.as_u16(), 429);
}

#[tokio::test]
async fn what_came_to_nothing_may_be_tried_again() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let body = json!({"image": image});
    let path = format!("device/{device}/");
    world.patch(ADMINISTRATOR, &path, json!({"deactivated": true})).await.ok(200);
    put(&world, OPERATOR, device, "k", body.clone()).await.ok(403);
    world.patch(ADMINISTRATOR, &path, json!({"deactivated": false})).await.ok(200);
    put(&world, OPERATOR, device, "k", body).await.ok(201);
}

#[tokio::test]
async fn two_at_once_start_one() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let body = || json!({"image": image});
    let answers = tokio::join!(
        put(&world, OPERATOR, device, "k", body()),
        put(&world, OPERATOR, device, "k", body()),
        put(&world, OPERATOR, device, "k", body()),
    );
    for answer in [answers.0, answers.1, answers.2] {
        assert!([201, 409].contains(&answer.status.as_u16()), "{}", answer.status);
    }
    put(&world, OPERATOR, device, "k", body()).await.ok(201);
    assert_eq!(operations(&world).await, 1);
}

#[tokio::test]
async fn what_was_carried_out_and_left_no_answer_is_not_repeated() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let body = json!({"image": image});
    let operator = world.get(OPERATOR, "user/me/").await.id(200);
    let repeat = Repeat {
        user: operator.parse().unwrap(),
        key: "k".into(),
        route: Repeat::route("PUT", &format!("{BASE}/device/{device}/modem-firmware/")),
        digest: sha256(body.to_string().as_bytes()),
    };
    // A crash before the change leaves the request as it was.
    assert_eq!(world.app.store.begin_repeat(repeat.clone()).await.unwrap(), Known::New);
    assert_eq!(world.app.store.begin_repeat(repeat.clone()).await.unwrap(), Known::New);
    let changed = world.app.store.once(&repeat);
    changed.deactivate_device(Scope::Everything, device, false).await.unwrap();
    let again = put(&world, OPERATOR, device, "k", body).await.ok(409);
    assert!(again["error"].as_str().unwrap().contains("carried out before"), "{again}");
    assert_eq!(operations(&world).await, 0);
}

/// A request with a key.
#[derive(Clone)]
struct Keyed {
    method: Method,
    path: String,
    body: Value,
}

impl Keyed {
    fn post(path: &str, body: Value) -> Self {
        Self { method: Method::POST, path: path.to_owned(), body }
    }

    fn request(&self) -> Request<Body> {
        request(self.method.clone(), OPERATOR, &self.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", "k")
            .body(Body::from(self.body.to_string()))
            .unwrap()
    }
}

/// The request, up to a crash right after the first commit that such a note comes of, and the
/// coordinator's next start.
async fn crash(world: World, keyed: &Keyed, point: fn(&Note) -> bool) -> World {
    let (reached, arrival) = mpsc::channel();
    let (leave, gate) = mpsc::channel::<()>();
    world.app.store.on_commit(move |note| {
        if point(&note) && reached.send(()).is_ok() {
            let _ = gate.recv();
        }
    });
    let (router, request) = (world.router.clone(), keyed.request());
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let answer = runtime.spawn(router.oneshot(request));
        arrival.recv_timeout(Duration::from_secs(30)).expect("it never came to that commit");
        assert!(!answer.is_finished(), "answered before the commit was");
        drop(runtime);
    };
    tokio::task::spawn_blocking(run).await.unwrap();
    drop(leave);
    world.app.store.stop();
    world.app.store.ended().await;
    let world = world.again();
    world.app.store.recover_batches().await.unwrap();
    let pilot = Pilot::new(world.app.store.clone(), world.app.feed.clone(), Arc::default());
    for batch in world.app.store.unfinished_batches().await.unwrap() {
        pilot.fly(batch).await.unwrap();
    }
    world
}

/// The same request again is answered as if nothing had been, whether it had come to anything or
/// not, and once and for all.
async fn is_made_once(world: World, keyed: Keyed, point: fn(&Note) -> bool, made: bool) -> Value {
    let world = crash(world, &keyed, point).await;
    let first = world.send(keyed.request()).await;
    assert_eq!(first.headers.contains_key("idempotency-replayed"), made, "{}", keyed.path);
    let first = first.ok(201);
    let again = world.send(keyed.request()).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.ok(201), first);
    let unfinished = world.get(ADMIN, "upgrade-operation/?status=idle").await.ok(200);
    assert_eq!(unfinished["count"], 1, "{}: {unfinished}", keyed.path);
    let operation = &unfinished["results"][0];
    json!({"answer": first, "batch": operation["batch"], "operation": operation["id"]})
}

fn members(note: &Note) -> bool {
    matches!(note, Note::Operation(_))
}

fn launched(note: &Note) -> bool {
    matches!(note, Note::Batch(_))
}

#[tokio::test]
async fn a_crash_anywhere_in_the_making_of_a_batch_leaves_one_batch_and_its_answer() {
    for (point, is_made) in [(members as fn(&Note) -> bool, false), (launched, true)] {
        let world = World::new().await;
        let build = fleet(&world).await;
        let start = Keyed::post(&format!("build/{build}/upgrade/"), json!({"upgrade_all": true}));
        let made = is_made_once(world, start, point, is_made).await;
        assert_eq!(made["answer"], json!({"batch": made["batch"]}));

        let world = World::new().await;
        let body = json!({"build": fleet(&world).await, "upgrade_all": true});
        let create = Keyed::post("batch-upgrade-operation/", body);
        let made = is_made_once(world, create, point, is_made).await;
        assert_eq!(made["answer"]["id"], made["batch"]);
        assert_eq!(made["answer"]["tally"]["total"], 1);

        let world = World::new().await;
        let failed = batch(&world).await;
        fail(&world, &failed).await;
        let retry = format!("batch-upgrade-operation/{failed}/retry/");
        let made = is_made_once(world, Keyed::post(&retry, json!({})), point, is_made).await;
        assert_eq!(made["answer"], json!({"batch": made["batch"]}));
    }
}

#[tokio::test]
async fn a_crash_after_an_upgrade_was_asked_for_keeps_the_answer() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let path = format!("device/{device}/modem-firmware/");
    let keyed = Keyed { method: Method::PUT, path, body: json!({"image": image}) };
    let made = is_made_once(world, keyed, members, true).await;
    assert_eq!(made["answer"]["upgrade_operation"]["id"], made["operation"]);
}

#[tokio::test]
async fn what_takes_a_thing_away_needs_no_key_and_is_answered_each_time() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    let image = world.image().await;
    put(&world, OPERATOR, device, "k1", json!({"image": image})).await.ok(201);
    let operations = world.get(ADMIN, "upgrade-operation/").await.ok(200);
    let id = operations["results"][0]["id"].as_str().unwrap();
    world.post(OPERATOR, &format!("upgrade-operation/{id}/cancel/"), json!({})).await.ok(200);
    let path = format!("device/{device}/modem-firmware/");
    for expected in [204, 404] {
        let request = request(Method::DELETE, OPERATOR, &path).header("Idempotency-Key", "k2");
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), expected);
    }
}
