//! A user's own tokens.

use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn a_token_is_shown_once_and_says_when_it_was_used() {
    let world = World::new().await;
    let expires = "2023-11-20T00:00:00.000Z";
    let new = json!({"name": "script", "scope": "read", "expires": expires});
    let made = world.post(OPERATOR, "token/", new).await.ok(201);
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("mu-api-"));
    assert_eq!(
        (&made["name"], &made["scope"], &made["expires"], &made["last_used"], &made["login"]),
        (&json!("script"), &json!("read"), &json!(expires), &Value::Null, &json!(false))
    );
    world.get(secret, "device/").await.ok(200);
    world.post(secret, "category/", json!({"name": "x"})).await.ok(403);
    world.post(secret, "token/", json!({"name": "more"})).await.ok(403);

    let used = async || {
        let listing = world.get(OPERATOR, "token/?ordering=name").await.ok(200);
        assert_eq!(listing["count"], 2);
        assert!(listing.to_string().find("\"token\"").is_none(), "{listing}");
        listing["results"][0]["last_used"].clone()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while used().await == Value::Null {
        assert!(std::time::Instant::now() < deadline, "its use is noted");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(used().await, NOW_TEXT);
    let path = format!("token/{}/", made["id"].as_str().unwrap());
    world.delete(RIVAL, &path).await.ok(404);
    world.delete(OPERATOR, &path).await.ok(204);
    world.get(secret, "device/").await.ok(401);
    world.delete(OPERATOR, &path).await.ok(404);
}

#[tokio::test]
async fn a_token_makes_none_that_outlives_it() {
    let world = World::new().await;
    let soon = "2023-11-15T00:00:00.000Z";
    let short = world.post(OPERATOR, "token/", json!({"name": "a", "expires": soon})).await.ok(201);
    let short = short["token"].as_str().unwrap();
    for expires in [Value::Null, json!("2033-11-15T00:00:00Z")] {
        let made = world.post(short, "token/", json!({"name": "b", "expires": expires})).await;
        assert_eq!(made.ok(201)["expires"], soon);
    }
    world.pass(24 * 3600 * 1000);
    world.get(short, "device/").await.ok(401);
    for (body, field) in [
        (json!({"name": "x", "expires": "2020-01-01T00:00:00Z"}), "expires"),
        (json!({"name": "x", "expires": "tomorrow"}), "expires"),
        (json!({"name": "x", "scope": "all"}), "scope"),
        (json!({}), "name"),
    ] {
        let refused = world.post(OPERATOR, "token/", body.clone()).await.ok(400);
        assert!(refused[field].is_array(), "{body}: {refused}");
    }
}

#[tokio::test]
async fn what_the_first_start_printed_ends_when_nobody_uses_it() {
    let world = World::new().await;
    let day = 24 * 3600 * 1000;
    world.pass(29 * day);
    world.get(ADMIN, "user/me/").await.ok(200);
    let used = async || {
        let listing = world.get(ADMIN, "token/").await.ok(200);
        listing["results"][0]["last_used"].clone()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while used().await == Value::Null {
        assert!(std::time::Instant::now() < deadline, "its use is noted");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.pass(29 * day);
    world.get(ADMIN, "user/me/").await.ok(200);
    world.pass(60 * day);
    world.get(ADMIN, "user/me/").await.ok(401);
}
