//! Users: made, changed, shut out, and let in by password.

use axum::http::header;
use coordinator::store::Rejection;
use coordinator::store::account::UserChange;
use coordinator::store::user::UserRefusal;
use serde_json::{Value, json};

use crate::world::*;

const PASSWORD: &str = "correct horse battery";

async fn user(world: &World, name: &str, more: Value) -> String {
    let mut body = json!({"username": name, "password": PASSWORD});
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    world.post(ADMIN, "user/", body).await.id(201)
}

async fn login(world: &World, name: &str, password: &str) -> Answer {
    world.post("", "users/token/", json!({"username": name, "password": password})).await
}

async fn token(world: &World, name: &str) -> String {
    let answer = login(world, name, PASSWORD).await.ok(200);
    answer["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_users_life() {
    let world = World::new().await;
    let memberships = json!([{"organization": "acme", "role": "viewer"}]);
    let id = user(&world, "eve", json!({"memberships": memberships})).await;
    let expected = json!({
        "id": id,
        "username": "eve",
        "superuser": false,
        "active": true,
        "has_password": true,
        "memberships": memberships,
        "last_login": null,
        "created": NOW_TEXT,
        "modified": NOW_TEXT,
    });
    let path = format!("user/{id}/");
    world.get(ADMIN, &path).await.is(200, expected);
    let listing = world.get(ADMIN, "user/?username=eve&organization=acme&active=true").await;
    assert_eq!(listing.ok(200)["count"], 1);
    assert_eq!(world.get(ADMIN, "user/?superuser=true").await.ok(200)["count"], 1);
    world.get(ADMIN, "user/?active=maybe").await.ok(400);

    let eve = token(&world, "eve").await;
    world.get(&eve, "device/").await.ok(200);
    world.post(&eve, "category/", json!({"name": "x"})).await.ok(403);
    let role = json!({"memberships": [{"organization": world.acme.id, "role": "operator"}]});
    world.patch(ADMIN, &path, role).await.ok(200);
    world.post(&eve, "category/", json!({"name": "x"})).await.ok(201);
    let me = world.get(&eve, "user/me/").await.ok(200);
    assert_eq!((&me["username"], &me["last_login"]), (&json!("eve"), &json!(NOW_TEXT)));
    let none = world.patch(ADMIN, &path, json!({"memberships": []})).await.ok(200);
    assert_eq!(none["memberships"], json!([]));
    world.post(&eve, "category/", json!({"name": "y"})).await.ok(403);

    world.delete(ADMIN, &path).await.ok(204);
    world.get(ADMIN, &path).await.ok(404);
    world.get(&eve, "device/").await.ok(401);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let world = World::new().await;
    for (body, field) in [
        (json!({}), "username"),
        (json!({"username": "a b"}), "username"),
        (json!({"username": "admin"}), "username"),
        (json!({"username": "x", "password": "short"}), "password"),
        (json!({"username": "x", "superuser": "yes"}), "superuser"),
        (
            json!({"username": "x", "memberships": [{"organization": "nobody", "role": "viewer"}]}),
            "memberships",
        ),
        (
            json!({"username": "x", "memberships": [{"organization": "acme", "role": "king"}]}),
            "memberships",
        ),
        (json!({"username": "x", "memberships": ["acme"]}), "memberships"),
    ] {
        let refused = world.post(ADMIN, "user/", body.clone()).await.ok(400);
        assert!(refused[field].is_array(), "{body}: {refused}");
    }
}

#[tokio::test]
async fn users_are_the_superusers() {
    let world = World::new().await;
    let id = user(&world, "eve", json!({})).await;
    for token in [ADMINISTRATOR, OPERATOR, VIEWER] {
        world.get(token, "user/").await.ok(403);
        world.get(token, &format!("user/{id}/")).await.ok(403);
        world.post(token, "user/", json!({"username": "x"})).await.ok(403);
        world.patch(token, &format!("user/{id}/"), json!({"superuser": true})).await.ok(403);
        world.delete(token, &format!("user/{id}/")).await.ok(403);
        world.get(token, "user/me/").await.ok(200);
    }
    let eve = token(&world, "eve").await;
    let mut raise =
        json!({"password": "another horse", "current_password": PASSWORD, "superuser": true});
    let refused = world.patch(&eve, "user/me/", raise.clone()).await.ok(400);
    assert_eq!(refused, json!({"superuser": ["Unknown field."]}), "nobody raises themselves");
    raise.as_object_mut().unwrap().remove("superuser");
    assert_eq!(world.patch(&eve, "user/me/", raise).await.ok(200)["superuser"], false);
}

#[tokio::test]
async fn the_last_superuser_stays() {
    let world = World::new().await;
    let admin = world.get(ADMIN, "user/me/").await.id(200);
    let path = format!("user/{admin}/");
    for change in [json!({"superuser": false}), json!({"active": false})] {
        let refused = world.patch(ADMIN, &path, change).await.ok(409);
        assert!(refused["error"].as_str().unwrap().contains("superuser"), "{refused}");
    }
    world.delete(ADMIN, &path).await.ok(409);
    world.get(ADMIN, "user/me/").await.ok(200);
    user(&world, "second", json!({"superuser": true})).await;
    let second = token(&world, "second").await;
    world.patch(ADMIN, &path, json!({"superuser": false})).await.ok(200);
    world.get(ADMIN, "user/").await.ok(403);
    world.delete(&second, &path).await.ok(204);
}

#[tokio::test]
async fn a_new_password_and_a_deactivation_end_all_tokens() {
    let world = World::new().await;
    let memberships = json!([{"organization": "acme", "role": "operator"}]);
    let id = user(&world, "eve", json!({"memberships": memberships})).await;
    let one = token(&world, "eve").await;
    let named = world.post(&one, "token/", json!({"name": "script"})).await.ok(201);
    let named = named["token"].as_str().unwrap();
    let mqtt = world.post(&one, "users/mqtt-token/", json!({})).await.ok(201);
    let epoch = |mqtt: &Value| {
        let token = mqtt["token"].as_str().unwrap();
        let claims = world.app.tokens.verify(coordinator::tokens::Audience::Mqtt, token);
        claims.unwrap().epoch
    };
    assert_eq!(epoch(&mqtt), 1);

    let alone = json!({"password": "another horse"});
    let required = json!({"current_password": ["This field is required."]});
    world.patch(&one, "user/me/", alone).await.is(400, required);
    let wrong = json!({"password": "another horse", "current_password": "wrong"});
    let refused = world.patch(&one, "user/me/", wrong).await.ok(400);
    assert!(refused["current_password"].is_array());
    let right = json!({"password": "another horse", "current_password": PASSWORD});
    world.patch(&one, "user/me/", right).await.ok(200);
    for dead in [&one, named] {
        world.get(dead, "device/").await.ok(401);
    }
    login(&world, "eve", PASSWORD).await.ok(400);
    let answer = login(&world, "eve", "another horse").await.ok(200);
    let two = answer["token"].as_str().unwrap();
    let mqtt = world.post(two, "users/mqtt-token/", json!({})).await.ok(201);
    assert_eq!(epoch(&mqtt), 2);

    world.patch(ADMIN, &format!("user/{id}/"), json!({"active": false})).await.ok(200);
    world.get(two, "device/").await.ok(401);
    login(&world, "eve", "another horse").await.ok(400);
    world.patch(ADMIN, &format!("user/{id}/"), json!({"active": true})).await.ok(200);
    world.get(two, "device/").await.ok(401);
    login(&world, "eve", "another horse").await.ok(200);
    let active = world.app.store.admitted_users().await.unwrap();
    assert!(active.iter().any(|(user, epoch)| user.to_string() == id && *epoch > 2));
}

#[tokio::test]
async fn who_is_not_there_is_answered_as_who_is() {
    let world = World::new().await;
    user(&world, "eve", json!({})).await;
    user(&world, "tokens-only", json!({"password": null})).await;
    let wrong = json!({"non_field_errors": ["Unable to log in with provided credentials."]});
    login(&world, "eve", "wrong password").await.is(400, wrong.clone());
    login(&world, "nobody", "wrong password").await.is(400, wrong.clone());
    login(&world, "tokens-only", "wrong password").await.is(400, wrong);
    login(&world, "eve", PASSWORD).await.ok(200);
}

#[tokio::test]
async fn ten_logins_live_and_twenty_a_day_are_made() {
    let world = World::new().await;
    user(&world, "eve", json!({})).await;
    let first = token(&world, "eve").await;
    let keeper = world.post(&first, "token/", json!({"name": "keeper"})).await.ok(201);
    let keeper = keeper["token"].as_str().unwrap();
    let logins = async || {
        let listing = world.get(keeper, "token/?ordering=created&page_size=100").await.ok(200);
        let all = listing["results"].as_array().unwrap().clone();
        all.into_iter().filter(|token| token["login"] == true).collect::<Vec<_>>()
    };
    let end_one = async || {
        let id = logins().await[0]["id"].clone();
        world.delete(keeper, &format!("token/{}/", id.as_str().unwrap())).await.ok(204);
    };
    for _ in 1..10 {
        world.pass(60_000);
        token(&world, "eve").await;
    }
    assert_eq!(logins().await.len(), 10);
    world.pass(60_000);
    let eleventh = login(&world, "eve", PASSWORD).await;
    assert!(eleventh.headers.contains_key(header::RETRY_AFTER));
    let told = eleventh.ok(429)["detail"].as_str().unwrap().to_owned();
    assert!(told.starts_with("10 of your logins are live: end one"), "{told}");
    assert!(
        told.contains("`modem-upgrader tokens revoke`") && told.contains("at 2023-11-15T"),
        "{told}"
    );

    // Ending a login makes room for another, for twenty in a day.
    for _ in 0..10 {
        end_one().await;
        world.pass(60_000);
        token(&world, "eve").await;
    }
    world.get(&first, "device/").await.ok(401);
    end_one().await;
    world.pass(60_000);
    let told = login(&world, "eve", PASSWORD).await.ok(429)["detail"].as_str().unwrap().to_owned();
    assert!(told.starts_with("You have logged in 20 times today"), "{told}");
    world.pass(24 * 3600 * 1000);
    assert!(logins().await.is_empty(), "they are over");
    login(&world, "eve", PASSWORD).await.ok(200);
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let world = World::new().await;
    user(&world, "eve", json!({})).await;
    for _ in 0..10 {
        login(&world, "eve", "a wrong guess").await.ok(400);
    }
    let answer = login(&world, "eve", PASSWORD).await;
    assert_eq!(answer.headers[header::RETRY_AFTER], "60");
    answer.ok(429);
    world.pass(60_000);
    login(&world, "eve", PASSWORD).await.ok(200);
}

#[tokio::test]
async fn a_token_that_ends_makes_no_first_password() {
    let world = World::new().await;
    let soon = json!({"name": "a", "expires": "2023-11-15T00:00:00.000Z"});
    let made = world.post(OPERATOR, "token/", soon).await.ok(201);
    let password = json!({"password": PASSWORD});
    let ends = made["token"].as_str().unwrap();
    world.patch(ends, "user/me/", password.clone()).await.ok(403);
    world.patch(OPERATOR, "user/me/", password).await.ok(200);
}

#[tokio::test]
async fn a_password_is_compared_with_the_one_that_is_replaced() {
    let world = World::new().await;
    let id = user(&world, "eve", json!({})).await.parse().unwrap();
    let store = &world.app.store;
    let was = store.password(id).await.unwrap();
    let change = UserChange {
        password: Some(Some("a hash".into())),
        password_was: Some(was.clone()),
        ..UserChange::default()
    };
    store.change_user(id, change.clone()).await.unwrap();
    let late = store.change_user(id, change).await;
    assert!(matches!(late, Err(Rejection::Refused(UserRefusal::PasswordChanged))));
}

#[tokio::test]
async fn a_peer_that_guesses_everybody_is_slowed_down() {
    let world = World::new().await;
    for n in 0..60 {
        login(&world, &format!("user-{n}"), "a wrong guess").await.ok(400);
    }
    login(&world, "user-60", "a wrong guess").await.ok(429);
    world.pass(60_000);
    login(&world, "user-60", "a wrong guess").await.ok(400);
}
