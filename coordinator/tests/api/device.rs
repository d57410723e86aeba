use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn list_and_detail() {
    let world = World::new().await;
    let id = world.device(&["main"]).await;
    let device = world.get(VIEWER, &format!("device/{id}/")).await.ok(200);
    for (field, value) in [
        ("id", json!(id)),
        ("organization", json!(world.acme.id)),
        ("organization_slug", json!("acme")),
        ("state", json!("accepted")),
        ("online", json!(false)),
        ("deactivated", json!(false)),
        ("agent_version", json!("0.1.0")),
        ("created", json!(NOW_TEXT)),
    ] {
        assert_eq!(device[field], value, "{field}");
    }
    assert_eq!(device["modems"][0]["versions"][0]["value"], "45.00.010");
    assert_eq!(device["inventory"]["board"], "glinet,gl-x3000");
    let listing = world.get(VIEWER, "device/?state=accepted&organization=acme").await.ok(200);
    assert_eq!((&listing["count"], &listing["results"][0]["id"]), (&json!(1), &json!(id)));
    assert_eq!(listing["results"][0]["inventory"], Value::Null, "only in the detail");
    assert_eq!(world.get(VIEWER, "device/?state=pending").await.ok(200)["count"], 0);
    assert!(world.get(VIEWER, "device/?state=odd").await.ok(400)["state"].is_array());
}

#[tokio::test]
async fn another_organization_does_not_see_it() {
    let world = World::new().await;
    let id = world.device(&["main"]).await;
    assert_eq!(world.get(RIVAL, "device/").await.ok(200)["count"], 0);
    assert_eq!(world.get(RIVAL, "device/?organization=acme").await.ok(200)["count"], 0);
    for path in ["", "modem-firmware/", "upgrade-operation/"] {
        let answer = world.get(RIVAL, &format!("device/{id}/{path}")).await;
        answer.is(404, json!({"detail": "Not found."}));
    }
    world.post(RIVAL, &format!("device/{id}/revoke/"), json!({})).await.ok(404);
    world.patch(RIVAL, &format!("device/{id}/"), json!({"deactivated": true})).await.ok(404);
}

#[tokio::test]
async fn it_can_be_deactivated_and_revoked() {
    let world = World::new().await;
    let id = world.device(&["main"]).await;
    let path = format!("device/{id}/");
    assert!(
        world.patch(ADMINISTRATOR, &path, json!({"deactivated": 1})).await.ok(400)["deactivated"]
            .is_array()
    );
    for token in [VIEWER, OPERATOR] {
        world.patch(token, &path, json!({"deactivated": true})).await.ok(403);
        world.post(token, &format!("{path}revoke/"), json!({})).await.ok(403);
        world.post(token, &format!("{path}accept/"), json!({})).await.ok(403);
    }
    let off = world.patch(ADMINISTRATOR, &path, json!({"deactivated": true})).await.ok(200);
    assert_eq!(off["deactivated"], true);
    let image = world.image().await;
    let firmware = format!("{path}modem-firmware/");
    let refused = world.put(OPERATOR, &firmware, json!({"image": image})).await;
    refused.is(403, json!({"detail": "The device is deactivated."}));
    world.patch(ADMINISTRATOR, &path, json!({"deactivated": false})).await.ok(200);

    let revoked = world.post(ADMINISTRATOR, &format!("{path}revoke/"), json!({})).await.ok(200);
    assert_eq!(revoked["state"], "revoked");
    assert!(
        world.post(ADMINISTRATOR, &format!("{path}accept/"), json!({})).await.ok(409)["error"]
            .is_string()
    );
    let refused = world.put(OPERATOR, &firmware, json!({"image": image})).await.ok(409);
    assert!(refused["error"].as_str().unwrap().contains("not accepted"), "{refused}");
}

#[tokio::test]
async fn ordered_by_every_column_and_in_either_direction() {
    let world = World::new().await;
    let mut made = Vec::new();
    for name in ["b", "c", "a"] {
        let device = world.device_with(&["main"], |_| {}).await;
        let db = rusqlite::Connection::open(world.folder.path().join("db")).unwrap();
        let renamed =
            db.execute("UPDATE devices SET name = ?2 WHERE id = ?1", (device.to_string(), name));
        assert_eq!(renamed.unwrap(), 1);
        made.push(device);
        world.pass(60_000);
    }
    let seen = async |device| {
        let store = &world.app.store;
        let seen = coordinator::store::event::Sign::Seen(device, store.clock().now());
        store.record_signs(vec![seen]).await.unwrap();
        world.pass(60_000);
    };
    for place in [1, 0, 2] {
        seen(made[place]).await;
    }
    world.patch(OPERATOR, &format!("device/{}/", made[1]), json!({"tags": ["van"]})).await.ok(200);
    for (ordering, expected) in [
        ("created", [0, 1, 2]),
        ("name", [2, 0, 1]),
        ("last_seen", [1, 0, 2]),
        ("modified", [0, 2, 1]),
    ] {
        let order = async |ordering: &str| {
            let listing = world.get(VIEWER, &format!("device/?ordering={ordering}")).await.ok(200);
            let rows = listing["results"].as_array().unwrap().iter();
            rows.map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let expected = expected.map(|place| made[place].to_string());
        assert_eq!(order(ordering).await, expected, "{ordering}");
        let back = order(&format!("-{ordering}")).await;
        assert_eq!(back, expected.into_iter().rev().collect::<Vec<_>>(), "-{ordering}");
    }
}

#[tokio::test]
async fn tags_are_added_and_taken_away_one_by_one() {
    let world = World::new().await;
    let id = world.device(&["main"]).await;
    let path = format!("device/{id}/");
    let patch = async |body: Value| world.patch(OPERATOR, &path, body).await;
    patch(json!({"tags": ["old", "van"]})).await.ok(200);
    let several = (0..8).map(|n| patch(json!({"add_tags": [format!("t{n}")]})));
    for answer in futures_util::future::join_all(several).await {
        answer.ok(200);
    }
    let changed = patch(json!({"add_tags": ["van", "a"], "remove_tags": ["old", "a", "no"]}));
    let tags = json!(["a", "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "van"]);
    assert_eq!(changed.await.ok(200)["tags"], tags);

    let both = patch(json!({"tags": [], "add_tags": ["x"], "remove_tags": ["y"]})).await.ok(400);
    assert!(both["add_tags"].is_array() && both["remove_tags"].is_array(), "{both}");
    assert!(patch(json!({"add_tags": ["a,b"]})).await.ok(400)["add_tags"].is_array());
    let many: Vec<_> = (0..55).map(|n| format!("u{n}")).collect();
    let told = patch(json!({"add_tags": many})).await.ok(400);
    assert!(told["add_tags"][0].as_str().unwrap().contains("64 tags at most"), "{told}");
    assert_eq!(world.get(VIEWER, &path).await.ok(200)["tags"], tags, "none of them");
    patch(json!({"add_tags": many[1..]})).await.ok(200);
    world.patch(VIEWER, &path, json!({"add_tags": ["x"]})).await.ok(403);
}

#[tokio::test]
async fn what_was_read_of_it_can_be_sent_back() {
    let world = World::new().await;
    let path = format!("device/{}/", world.device(&["main"]).await);
    let mut device = world.get(OPERATOR, &path).await.ok(200);
    device["tags"] = json!(["van"]);
    let changed = world.patch(OPERATOR, &path, device.clone()).await.ok(200);
    assert_eq!(changed["tags"], json!(["van"]));
    device["name"] = json!("another");
    let refused = world.patch(OPERATOR, &path, device).await.ok(400);
    assert_eq!(refused, json!({"name": ["This field cannot be changed."]}));
}
