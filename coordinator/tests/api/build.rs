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

/// A build with an image that an upgrade of `acme` needs; its path, its category's and the operation's.
async fn in_use(world: &World) -> [String; 3] {
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let operation = world.upgrade(device, &image).await;
    let build = world.app.store.image(image.parse().unwrap()).await.unwrap().unwrap().build;
    let build = format!("build/{build}/");
    let category = world.get(OPERATOR, &build).await.ok(200)["category"].clone();
    let category = format!("category/{}/", category.as_str().unwrap());
    [build, category, format!("upgrade-operation/{operation}/cancel/")]
}

#[tokio::test]
async fn a_build_keeps_its_name_while_somebody_upgrades_to_it() {
    let world = World::new().await;
    let [build, _, cancel] = in_use(&world).await;
    for change in [json!({"version": "9"}), json!({"modem_model": "other"})] {
        let refused = world.patch(OPERATOR, &build, change).await.ok(409);
        assert!(refused["error"].as_str().unwrap().contains("unfinished upgrade"), "{refused}");
    }
    let whole = world.get(OPERATOR, &build).await.ok(200);
    world.put(OPERATOR, &build, whole).await.ok(200);
    world.patch(OPERATOR, &build, json!({"changelog": "better"})).await.ok(200);
    world.post(OPERATOR, &cancel, json!({})).await.ok(200);
    world.patch(OPERATOR, &build, json!({"version": "9"})).await.ok(200);
}

#[tokio::test]
async fn a_category_stays_while_somebody_upgrades_to_firmware_of_it() {
    let world = World::new().await;
    let [build, category, cancel] = in_use(&world).await;
    let refused = world.delete(OPERATOR, &category).await.ok(409);
    assert!(refused["error"].as_str().unwrap().contains("unfinished upgrade"), "{refused}");
    world.get(OPERATOR, &build).await.ok(200);
    world.post(OPERATOR, &cancel, json!({})).await.ok(200);
    world.delete(OPERATOR, &category).await.ok(204);
    world.get(OPERATOR, &build).await.ok(404);
}

#[tokio::test]
async fn firmware_in_use_is_not_given_to_another_organization() {
    let world = World::new().await;
    let [build, category, cancel] = in_use(&world).await;
    let theirs = json!({"name": "theirs", "organization": "rival"});
    let theirs = world.post(ADMIN, "category/", theirs).await.id(201);
    // The device's assignment stays when its upgrade has ended.
    for _ in 0..2 {
        let given = world.patch(ADMIN, &category, json!({"organization": "rival"})).await.ok(409);
        assert!(given["error"].as_str().unwrap().contains("another organization"), "{given}");
        world.patch(ADMIN, &build, json!({"category": theirs})).await.ok(409);
        world.post(OPERATOR, &cancel, json!({})).await;
    }
    world.patch(ADMIN, &category, json!({"organization": null})).await.ok(200);
    world.patch(ADMIN, &category, json!({"organization": "acme"})).await.ok(200);
    let unused = world.post(OPERATOR, "category/", json!({"name": "unused"})).await.id(201);
    let unused = format!("category/{unused}/");
    world.patch(ADMIN, &unused, json!({"organization": "rival"})).await.ok(200);
}

#[tokio::test]
async fn what_is_around_a_version_is_no_part_of_it() {
    let world = World::new().await;
    let category = category(&world, " FN990A\t").await;
    let new =
        |version: &str| json!({"category": category, "version": version, "modem_model": " LE910 "});
    let made = world.post(OPERATOR, "build/", new("45.00.004 ")).await.ok(201);
    assert_eq!(
        (&made["version"], &made["modem_model"], &made["category_relation"]["name"]),
        (&json!("45.00.004"), &json!("LE910"), &json!("FN990A"))
    );
    let again = world.post(OPERATOR, "build/", new("45.00.004")).await.ok(400);
    assert!(again["version"].is_array(), "{again}");
    let control = json!({"version": ["Control characters are not allowed."]});
    world.post(OPERATOR, "build/", new("45\u{7}00")).await.is(400, control);
    for version in ["45.00.004", "45.00.004%20", "%2045.00.004"] {
        let found = world.get(OPERATOR, &format!("build/?version={version}")).await.ok(200);
        assert_eq!(found["count"], 1, "{version}");
    }
    let tags = json!({"tags": [" spare ", "spare"]});
    let device = world.device(&["main"]).await;
    let told = world.patch(OPERATOR, &format!("device/{device}/"), tags).await.ok(200);
    assert_eq!(told["tags"], json!(["spare"]));
}
