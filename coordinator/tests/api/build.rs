use serde_json::{Value, json};

use crate::world::*;

async fn category(world: &World, name: &str) -> String {
    world.post(OPERATOR, "category/", json!({"name": name})).await.id(201)
}

#[tokio::test]
async fn its_life_in_the_api() {
    let world = World::new().await;
    let category = category(&world, "FN990A").await;
    let new = json!({
        "category": category,
        "version": "M0F.050003.03",
        "modem_model": "Telit FN990A",
        "changelog": "# New",
    });
    let created = world.post(OPERATOR, "build/", new).await.ok(201);
    let id = created["id"].as_str().unwrap().to_owned();
    let expected = json!({
        "id": id,
        "category_relation": {"name": "FN990A", "organization": world.acme.id},
        "created": NOW_TEXT,
        "modified": NOW_TEXT,
        "version": "M0F.050003.03",
        "modem_model": "Telit FN990A",
        "changelog": "# New",
        "category": category,
    });
    assert_eq!(created, expected);
    let path = format!("build/{id}/");
    world.get(OPERATOR, &path).await.is(200, expected);
    let patched = world.patch(OPERATOR, &path, json!({"version": "M0F.050004"})).await.ok(200);
    assert_eq!(patched["version"], "M0F.050004");
    let short = world.put(OPERATOR, &path, json!({"version": "1"})).await;
    short.is(400, json!({"category": ["This field is required."]}));
    world.put(OPERATOR, &path, json!({"version": "1", "category": category})).await.ok(200);
    assert_eq!(world.delete(OPERATOR, &path).await.ok(204), Value::Null);
    world.get(OPERATOR, &path).await.ok(404);
}

#[tokio::test]
async fn a_model_has_many_versions_and_a_category_each_once() {
    let world = World::new().await;
    let (one, other) = (category(&world, "one").await, category(&world, "other").await);
    let new = |category: &str, version: &str| json!({"category": category, "version": version, "modem_model": "Telit FN990A"});
    let first = world.post(OPERATOR, "build/", new(&one, "1")).await.id(201);
    world.post(OPERATOR, "build/", new(&one, "2")).await.ok(201);
    world.post(OPERATOR, "build/", new(&other, "1")).await.ok(201);
    let again = world.post(OPERATOR, "build/", new(&one, "1")).await.ok(400);
    assert!(again["version"].is_array());
    let moved = world.patch(OPERATOR, &format!("build/{first}/"), json!({"category": other})).await;
    assert!(moved.ok(400)["version"].is_array());
}

#[tokio::test]
async fn filters_and_order() {
    let world = World::new().await;
    let (one, other) = (category(&world, "one").await, category(&world, "other").await);
    for (category, version, model) in [(&one, "1", "A"), (&one, "2", "B"), (&other, "3", "A")] {
        let new = json!({"category": category, "version": version, "modem_model": model});
        world.post(OPERATOR, "build/", new).await.ok(201);
    }
    for (query, expected) in [
        ("ordering=version".to_owned(), vec!["1", "2", "3"]),
        ("ordering=-version".to_owned(), vec!["3", "2", "1"]),
        (format!("category={one}&ordering=version"), vec!["1", "2"]),
        ("modem_model=A&ordering=version".to_owned(), vec!["1", "3"]),
        ("version=2".to_owned(), vec!["2"]),
        ("organization=acme&ordering=version".to_owned(), vec!["1", "2", "3"]),
        ("organization=rival".to_owned(), vec![]),
    ] {
        let listing = world.get(OPERATOR, &format!("build/?{query}")).await.ok(200);
        let versions: Vec<_> =
            listing["results"].as_array().unwrap().iter().map(|b| &b["version"]).collect();
        assert_eq!(versions, expected, "{query}");
    }
    let bad = world.get(OPERATOR, "build/?category=x").await;
    bad.is(400, json!({"category": ["Enter a valid UUID."]}));
    assert_eq!(world.get(RIVAL, "build/").await.ok(200)["count"], 0);
}

#[tokio::test]
async fn a_foreign_category_is_not_there() {
    let world = World::new().await;
    let ours = category(&world, "ours").await;
    let message = format!("Invalid pk \"{ours}\" - object does not exist.");
    let foreign = world.post(RIVAL, "build/", json!({"category": ours, "version": "1"})).await;
    foreign.is(400, json!({"category": [message]}));
    let build = world.build().await;
    world.get(RIVAL, &format!("build/{build}/")).await.ok(404);
    world.delete(RIVAL, &format!("build/{build}/")).await.ok(404);
    world.delete(VIEWER, &format!("build/{build}/")).await.ok(403);
}
