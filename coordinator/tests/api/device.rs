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
