//! Requests with an Idempotency-Key.

use axum::body::Body;
use axum::http::{Method, header};
use coordinator::api::BASE;
use coordinator::store::listing::Scope;
use coordinator::store::repeat::{Known, Repeat};
use serde_json::{Value, json};
use shared::hex::sha256;
use shared::ids::DeviceId;

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
async fn a_crash_after_the_change_does_not_repeat_it() {
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
    // As the request does it, up to the crash: before its change, and after it.
    assert_eq!(world.app.store.begin_repeat(repeat.clone()).await.unwrap(), Known::New);
    assert_eq!(world.app.store.begin_repeat(repeat.clone()).await.unwrap(), Known::New);
    let changed = world.app.store.once(&repeat);
    changed.deactivate_device(Scope::Everything, device, false).await.unwrap();
    let again = put(&world, OPERATOR, device, "k", body).await.ok(409);
    assert!(again["error"].as_str().unwrap().contains("carried out before"), "{again}");
    assert_eq!(operations(&world).await, 0);
}
