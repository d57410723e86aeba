use axum::body::Body;
use axum::http::{Method, Request, header};
use coordinator::api::{BASE, user::MQTT_TOKENS_A_DAY};
use serde_json::json;

use crate::world::*;

async fn with(world: &World, authorization: &str) -> Answer {
    let request = Request::get(format!("{BASE}/category/"))
        .header(header::AUTHORIZATION, authorization)
        .body(Body::empty());
    world.send(request.unwrap()).await
}

#[tokio::test]
async fn credentials_are_needed_and_named() {
    let world = World::new().await;
    let missing = json!({"detail": "Authentication credentials were not provided."});
    for path in
        ["category/", "build/", "device/", "device-firmware/", "upgrade-operation/", "events/"]
    {
        let answer = world.get("", path).await;
        answer.is(401, missing.clone());
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    with(&world, "Basic YTpi").await.is(401, missing);
    for wrong in ["Bearer wrong", "Bearer ", "Bearer", "Token wrong", "Bearer token-of-admin x"] {
        let answer = with(&world, wrong).await;
        answer.is(401, json!({"detail": "Invalid token."}));
        assert!(answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
    }
}

#[tokio::test]
async fn both_schemes_are_taken() {
    let world = World::new().await;
    for scheme in ["Bearer", "Token", "bearer"] {
        with(&world, &format!("{scheme} {ADMIN}")).await.ok(200);
    }
}

#[tokio::test]
async fn a_viewer_and_a_reading_token_change_nothing() {
    let world = World::new().await;
    let new = json!({"name": "mine"});
    world
        .post(VIEWER, "category/", new.clone())
        .await
        .is(403, json!({"detail": "You do not have permission to perform this action."}));
    world
        .post(READING, "category/", new)
        .await
        .is(403, json!({"detail": "This token may only read."}));
    world.get(READING, "category/").await.ok(200);
}

#[tokio::test]
async fn too_many_requests_are_throttled_by_user() {
    let world = World::limited(2).await;
    world.get(OPERATOR, "category/").await.ok(200);
    world.get(OPERATOR, "build/").await.ok(200);
    let answer = world.get(OPERATOR, "category/").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers[header::RETRY_AFTER]),
        (429, &"60".parse().unwrap())
    );
    world.get(RIVAL, "category/").await.ok(200);
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_api_s_shape() {
    let world = World::new().await;
    world.get(ADMIN, "nothing/").await.is(404, json!({"detail": "Not found."}));
    world.get(ADMIN, "/nothing").await.is(404, json!({"detail": "Not found."}));
    let answer = world.delete(ADMIN, "category/").await;
    answer.is(405, json!({"detail": "Method \"DELETE\" not allowed."}));
    assert!(answer.headers[header::ALLOW].to_str().unwrap().contains("POST"));
    let answer =
        world.send(request(Method::PUT, ADMIN, "upgrade-operation/").body(Body::empty()).unwrap());
    answer.await.is(405, json!({"detail": "Method \"PUT\" not allowed."}));
}

#[tokio::test]
async fn a_dashboards_token_is_for_one_organization_and_only_reads() {
    let world = World::new().await;
    let answer = world.post(OPERATOR, "users/mqtt-token/", json!({})).await.ok(201);
    assert_eq!(answer["port"], 8883);
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["topics"], json!(["mu/acme/+/+/operation", "mu/acme/batches/+"]));
    let token = answer["token"].as_str().unwrap();
    let tokens = &world.app.tokens;
    use coordinator::tokens::{Audience, Kind, Refusal};
    let claims = tokens.verify(Audience::Mqtt, token).unwrap();
    assert_eq!((claims.org.as_str(), claims.kind), ("acme", Kind::User));
    assert_eq!(tokens.verify(Audience::Api, token), Err(Refusal::Audience));

    let other = json!({"organization": "rival"});
    world.post(OPERATOR, "users/mqtt-token/", other.clone()).await.ok(404);
    world.post(ADMIN, "users/mqtt-token/", other).await.ok(201);
    world.post(ADMIN, "users/mqtt-token/", json!({"organization": "nobody"})).await.ok(404);
    let several = world.post(ADMIN, "users/mqtt-token/", json!({})).await.ok(400);
    assert!(several["organization"].is_array());
    let bad = world.post(ADMIN, "users/mqtt-token/", json!({"organization": "a/#"})).await.ok(400);
    assert!(bad["organization"].is_array());
}

#[tokio::test]
async fn who_may_only_read_does_not_fill_the_audit_log_with_tokens() {
    let world = World::new().await;
    for _ in 0..MQTT_TOKENS_A_DAY {
        world.post(READING, "users/mqtt-token/", json!({})).await.ok(201);
    }
    let answer = world.post(READING, "users/mqtt-token/", json!({})).await;
    let wait: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((86_000..=86_400).contains(&wait), "{wait}");
    answer.ok(429);
    world.post(OPERATOR, "users/mqtt-token/", json!({})).await.ok(201);
    let log =
        world.get(ADMINISTRATOR, &format!("audit/?subject={BASE}/users/mqtt-token/")).await.ok(200);
    assert_eq!(log["count"], MQTT_TOKENS_A_DAY + 1);
}

#[tokio::test]
async fn a_reading_token_may_listen_for_as_long_as_it_is_good() {
    let world = World::new().await;
    world.post(READING, "users/mqtt-token/", json!({})).await.ok(201);
    let admin = world.app.store.user_named("admin".into()).await.unwrap().unwrap();
    let short = coordinator::store::user::NewApiToken {
        user: admin,
        name: "short".into(),
        digest: shared::hex::sha256(b"token-for-a-minute"),
        scope: coordinator::store::user::TokenScope::Read,
        expires: Some(NOW + 60_000),
    };
    world.app.store.create_api_token(short).await.unwrap();
    let asked = json!({"organization": "acme"});
    let answer = world.post("token-for-a-minute", "users/mqtt-token/", asked).await.ok(201);
    assert_eq!(answer["expires_in"], 60);
}
