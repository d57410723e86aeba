//! Organizations and who belongs to them.

use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn its_life_in_the_api() {
    let world = World::new().await;
    let made = world.post(ADMIN, "organization/", json!({"slug": "north"})).await.ok(201);
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!((&made["slug"], &made["name"]), (&json!("north"), &json!("north")));
    let path = format!("organization/{id}/");
    let named = world.patch(ADMIN, &path, json!({"name": "North"})).await.ok(200);
    assert_eq!(named["name"], "North");
    let moved = world.patch(ADMIN, &path, json!({"slug": "south"})).await.ok(400);
    assert!(moved["slug"].is_array(), "a slug never changes");
    let again = world.post(ADMIN, "organization/", json!({"slug": "north"})).await.ok(400);
    assert!(again["slug"].is_array());
    world.post(ADMIN, "organization/", json!({"slug": "No Slug"})).await.ok(400);
    world.delete(ADMIN, &path).await.ok(204);
    world.get(ADMIN, &path).await.ok(404);
    world.device(&["main"]).await;
    world.delete(ADMIN, &format!("organization/{}/", world.acme.id)).await.ok(409);
}

#[tokio::test]
async fn members_see_their_own() {
    let world = World::new().await;
    assert_eq!(world.get(ADMIN, "organization/").await.ok(200)["count"], 3);
    let own = world.get(VIEWER, "organization/").await.ok(200);
    assert_eq!((&own["count"], &own["results"][0]["slug"]), (&json!(1), &json!("acme")));
    let path = format!("organization/{}/", world.acme.id);
    world.get(VIEWER, &path).await.ok(200);
    world.get(RIVAL, &path).await.ok(404);
    world.patch(OPERATOR, &path, json!({"name": "x"})).await.ok(403);
    world.patch(ADMINISTRATOR, &path, json!({"name": "Acme"})).await.ok(200);
    world.delete(ADMINISTRATOR, &path).await.ok(403);
    world.post(ADMINISTRATOR, "organization/", json!({"slug": "x"})).await.ok(403);
}

#[tokio::test]
async fn administrators_look_after_members_and_raise_nobody_to_themselves() {
    let world = World::new().await;
    let path = format!("organization/{}/member/", world.acme.id);
    world.get(VIEWER, &path).await.ok(403);
    world.get(OPERATOR, &path).await.ok(403);
    world.get(RIVAL, &path).await.ok(404);
    let listing = world.get(ADMINISTRATOR, &path).await.ok(200);
    assert_eq!(listing["count"], 4);
    world.post(ADMIN, "user/", json!({"username": "eve"})).await.ok(201);
    let new = json!({"username": "eve", "role": "viewer"});
    world.post(OPERATOR, &path, new.clone()).await.ok(403);
    let made = world.post(ADMINISTRATOR, &path, new.clone()).await.ok(201);
    assert!(world.post(ADMINISTRATOR, &path, new).await.ok(400)["username"].is_array());
    let unknown = json!({"username": "nobody", "role": "viewer"});
    assert!(world.post(ADMINISTRATOR, &path, unknown).await.ok(400)["username"].is_array());
    let eve = format!("{path}{}/", made["user"].as_str().unwrap());
    let role = world.put(ADMINISTRATOR, &eve, json!({"role": "operator"})).await.ok(200);
    assert_eq!(role["role"], "operator");

    let me = world.get(ADMINISTRATOR, "user/me/").await.id(200);
    for body in [json!({"role": "viewer"}), json!({"role": "administrator"})] {
        world.put(ADMINISTRATOR, &format!("{path}{me}/"), body).await.ok(403);
    }
    world.delete(ADMINISTRATOR, &format!("{path}{me}/")).await.ok(403);
    let operator = world.get(OPERATOR, "user/me/").await.id(200);
    world.delete(ADMINISTRATOR, &format!("{path}{operator}/")).await.ok(204);
    world.get(OPERATOR, &format!("organization/{}/", world.acme.id)).await.ok(404);
    assert_eq!(world.delete(ADMINISTRATOR, &eve).await.ok(204), Value::Null);
    world.get(ADMINISTRATOR, &eve).await.ok(404);
}

#[tokio::test]
async fn a_slug_that_comes_again_brings_no_log_of_before() {
    let world = World::new().await;
    let new = json!({"slug": "north"});
    let id = world.post(ADMIN, "organization/", new.clone()).await.id(201);
    let path = format!("organization/{id}/");
    world.patch(ADMIN, &path, json!({"name": "The first"})).await.ok(200);
    world.delete(ADMIN, &path).await.ok(204);
    world.post(ADMIN, "organization/", new).await.ok(201);
    let listing = world.get(ADMIN, "audit/?organization=north").await.ok(200);
    assert_eq!(listing["count"], 1, "{listing}");
    let all = world.get(ADMIN, "audit/").await.ok(200).to_string();
    assert!(all.contains("The first"), "superusers see it still: {all}");
}

#[tokio::test]
async fn whoever_belongs_elsewhere_is_not_there_for_administrators() {
    let world = World::new().await;
    let path = format!("organization/{}/member/", world.acme.id);
    let add = async |token: &str, name: &str| {
        world.post(token, &path, json!({"username": name, "role": "viewer"})).await
    };
    let rival = format!("user of {RIVAL}");
    let nobody = add(ADMINISTRATOR, "nobody").await.ok(400);
    for name in [rival.as_str(), "admin"] {
        assert_eq!(add(ADMINISTRATOR, name).await.ok(400), nobody, "{name}");
    }
    add(ADMIN, &rival).await.ok(201);
}
