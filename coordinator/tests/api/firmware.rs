use serde_json::{Value, json};

use shared::inventory::Inventory;

use crate::world::*;

#[tokio::test]
async fn put_makes_it_and_starts_the_upgrade() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let path = format!("device/{device}/modem-firmware/");
    world.get(OPERATOR, &path).await.is(404, json!({"detail": "Not found."}));
    let body =
        json!({"image": image, "upgrade_options": {"speed": "921600", "tool_path": "/bin/x"}});
    let put = world.put(OPERATOR, &path, body.clone()).await.ok(201);
    let operation = put["upgrade_operation"]["id"].as_str().unwrap().to_owned();
    let expected = json!({
        "id": put["id"],
        "device": device,
        "slot": "main",
        "image": image,
        "installed": false,
        "created": NOW_TEXT,
        "modified": NOW_TEXT,
    });
    let mut with_operation = expected.clone();
    with_operation["upgrade_operation"] = json!({"id": operation});
    assert_eq!(put, with_operation);
    world.get(VIEWER, &path).await.is(200, expected.clone());
    let listing = json!({"count": 1, "next": null, "previous": null, "results": [expected]});
    world.get(VIEWER, &format!("device-firmware/?device={device}")).await.is(200, listing);
    let stored = world.get(VIEWER, &format!("upgrade-operation/{operation}/")).await.ok(200);
    assert_eq!(stored["upgrade_options"], body["upgrade_options"]);

    let again = world.put(OPERATOR, &path, body).await.ok(200);
    assert_eq!(again["upgrade_operation"]["id"], operation, "asked twice, done once");
    let patched = world.patch(OPERATOR, &path, json!({"image": world.image().await})).await.ok(200);
    assert_ne!(patched["upgrade_operation"]["id"], operation);
    let old = world.get(OPERATOR, &format!("upgrade-operation/{operation}/")).await.ok(200);
    assert_eq!(
        (&old["status"], &old["superseded_by"]),
        (&json!("cancelled"), &patched["upgrade_operation"]["id"])
    );
}

#[tokio::test]
async fn what_the_modem_runs_already_is_installed_and_no_upgrade() {
    let world = World::new().await;
    // Two that it could be: it is not recognized by itself.
    let (image, _other) = (world.image().await, world.image().await);
    let runs = |known: &mut Inventory| known.modems[0].versions[0].value = "45.00.012".into();
    let device = world.device_with(&["main"], runs).await;
    let path = format!("device/{device}/modem-firmware/");
    let put = world.put(OPERATOR, &path, json!({"image": image})).await.ok(201);
    assert_eq!((&put["installed"], &put["upgrade_operation"]), (&json!(true), &Value::Null));
    let again = world.put(OPERATOR, &path, json!({"image": image})).await.ok(200);
    assert_eq!((&again["installed"], &again["upgrade_operation"]), (&json!(true), &Value::Null));
    let operations = world.get(VIEWER, "upgrade-operation/").await.ok(200);
    assert_eq!(operations["count"], 0);
    // The router decides where it is another model's.
    let foreign = world.device_with(&["main"], |known| {
        runs(known);
        known.modems[0].model = "LM960".into();
    });
    world.upgrade(foreign.await, &image).await;
    // What was read before a script has flashed the modem says nothing any more.
    let older = world.image_reaching("45.00.008").await;
    let operation = world.upgrade(device, &older).await;
    let report = format!("upgrade-operation/{operation}/");
    world.pass(1000);
    world.patch(OPERATOR, &report, json!({"status": "success"})).await.ok(200);
    world.upgrade(device, &image).await;
}

#[tokio::test]
async fn it_can_be_cleared_and_deleted_when_nothing_is_under_way() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let path = format!("device/{device}/modem-firmware/");
    let operation = world.upgrade(device, &image).await;
    assert!(world.delete(OPERATOR, &path).await.ok(409)["error"].is_string());
    assert!(
        world.patch(OPERATOR, &path, json!({"image": null})).await.ok(409)["error"].is_string()
    );
    world
        .post(OPERATOR, &format!("upgrade-operation/{operation}/cancel/"), json!({}))
        .await
        .ok(200);
    let cleared = world.patch(OPERATOR, &path, json!({"image": null})).await.ok(200);
    assert_eq!((&cleared["image"], cleared.get("upgrade_operation")), (&Value::Null, None));
    world.delete(VIEWER, &path).await.ok(403);
    assert_eq!(world.delete(OPERATOR, &path).await.ok(204), Value::Null);
    world.get(OPERATOR, &path).await.ok(404);
    world.patch(OPERATOR, &path, json!({"image": image})).await.ok(404);
    world.delete(OPERATOR, &path).await.ok(404);
}

#[tokio::test]
async fn a_modem_can_be_one_that_no_image_is_meant_for() {
    let world = World::new().await;
    let (device, posted) = (world.device(&["main"]).await, world.device(&["main"]).await);
    let path = format!("device/{device}/modem-firmware/");
    world.patch(OPERATOR, &path, json!({"image": null})).await.ok(404);
    let put = world.put(OPERATOR, &path, json!({"image": null})).await.ok(201);
    assert_eq!((&put["slot"], &put["image"]), (&json!("main"), &Value::Null));
    assert_eq!((&put["installed"], put.get("upgrade_operation")), (&json!(false), None));
    world.get(VIEWER, &path).await.is(200, put.clone());
    world.put(OPERATOR, &path, json!({"image": null})).await.is(200, put);

    let body = json!({"device": posted, "image": null});
    let made = world.post(OPERATOR, "device-firmware/", body.clone()).await.ok(201);
    assert_eq!((&made["device"], &made["image"]), (&json!(posted), &Value::Null));
    let listed = world.get(VIEWER, &format!("device-firmware/?device={posted}")).await.ok(200);
    assert_eq!(listed["results"], json!([made]));
    assert!(world.post(OPERATOR, "device-firmware/", body).await.ok(400)["device"].is_array());
    let image = world.image().await;
    let assigned = world.put(OPERATOR, &path, json!({"image": image})).await.ok(200);
    assert!(assigned["upgrade_operation"]["id"].is_string());
}

#[tokio::test]
async fn a_device_with_several_modems_is_asked_which() {
    let world = World::new().await;
    let (device, image) = (world.device(&["left", "right"]).await, world.image().await);
    let path = format!("device/{device}/modem-firmware/");
    let body = json!({"image": image});
    for answer in [world.get(OPERATOR, &path).await, world.put(OPERATOR, &path, body.clone()).await]
    {
        let refused = answer.ok(400);
        assert!(refused["slot"][0].as_str().unwrap().contains("left, right"), "{refused}");
    }
    for slot in ["middle", "a/b"] {
        let refused =
            world.put(OPERATOR, &format!("{path}?slot={slot}"), body.clone()).await.ok(400);
        assert!(refused["slot"].is_array());
    }
    let put = world.put(OPERATOR, &format!("{path}?slot=right"), body).await.ok(201);
    assert_eq!(put["slot"], "right");
    world.get(OPERATOR, &format!("{path}?slot=left")).await.ok(404);
}

#[tokio::test]
async fn what_the_tool_must_not_see_is_refused() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let path = format!("device/{device}/modem-firmware/");
    for options in [
        json!({"speed": "--boot-mode"}),
        json!({"speed": "115200; reboot"}),
        json!({"speed": "$(reboot)"}),
        json!({"speed": 17}),
        json!({"debug": "`id`"}),
        json!({"script": "/tmp/x"}),
        json!({"--port": "/dev/ttyUSB0"}),
        json!({"speed": ["115200"]}),
        json!([1]),
    ] {
        let body = json!({"image": image, "upgrade_options": options});
        let refused = world.put(OPERATOR, &path, body).await.ok(400);
        assert!(refused["upgrade_options"][0].is_string(), "{options}: {refused}");
    }
    assert_eq!(world.get(OPERATOR, "upgrade-operation/").await.ok(200)["count"], 0);
    assert_eq!(world.get(OPERATOR, "device-firmware/").await.ok(200)["count"], 0);
}

#[tokio::test]
async fn an_image_must_be_there_ours_and_signed() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    let path = format!("device/{device}/modem-firmware/");
    let unknown = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
    let message = format!("Invalid pk \"{unknown}\" - object does not exist.");
    world
        .put(OPERATOR, &path, json!({"image": unknown}))
        .await
        .is(400, json!({"image": [message]}));
    for (body, message) in [
        (json!({}), "This field is required."),
        (json!({"image": "x"}), "Must be a valid UUID."),
        (json!({"image": 5}), "Must be a valid UUID."),
    ] {
        world.put(OPERATOR, &path, body).await.is(400, json!({"image": [message]}));
    }
    let build = world.build().await;
    let parts: [Part<'_>; 2] = [("type", "", b"telit-uxfp"), ("file", "f", b"unsigned")];
    let unsigned =
        world.multipart(OPERATOR, &format!("build/{build}/image/"), &parts).await.id(201);
    let refused = world.put(OPERATOR, &path, json!({"image": unsigned})).await.ok(400);
    assert!(refused["image"][0].as_str().unwrap().contains("manifest"), "{refused}");
    world.get(OPERATOR, &path).await.ok(404);
    let image = world.image().await;
    world.put(OPERATOR, &path, json!({"image": image})).await.ok(201);
    let count = async || world.get(OPERATOR, "upgrade-operation/").await.ok(200)["count"].clone();
    let id = world.get(OPERATOR, "upgrade-operation/").await.ok(200)["results"][0]["id"].clone();
    let cancel = format!("upgrade-operation/{}/cancel/", id.as_str().unwrap());
    world.post(OPERATOR, &cancel, json!({})).await.ok(200);
    world.patch(OPERATOR, &path, json!({})).await.ok(400);
    assert_eq!(count().await, 1, "nothing was asked for");
    world.patch(OPERATOR, &path, json!({"upgrade_options": {}})).await.ok(200);
    assert_eq!(count().await, 2);
    world.put(VIEWER, &path, json!({"image": unknown})).await.ok(403);
    world.put(RIVAL, &path, json!({"image": unknown})).await.ok(404);
}

#[tokio::test]
async fn associations_can_be_posted() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let body = json!({"device": device, "image": image});
    let created = world.post(OPERATOR, "device-firmware/", body.clone()).await.ok(201);
    assert!(created["upgrade_operation"]["id"].is_string());
    assert!(world.post(OPERATOR, "device-firmware/", body).await.ok(400)["device"].is_array());
    let refused = world.post(OPERATOR, "device-firmware/", json!({"image": image})).await;
    refused.is(400, json!({"device": ["This field is required."]}));
    let foreign =
        world.post(RIVAL, "device-firmware/", json!({"device": device, "image": image})).await;
    assert!(foreign.ok(400)["device"].is_array());
}
