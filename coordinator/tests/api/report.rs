//! Tokens of scope `report`: what the script of one device may, and what it may not.

use axum::http::Method;
use coordinator::api::{BASE, document::operations};
use serde_json::{Value, json};
use shared::ids::DeviceId;

use crate::world::*;

async fn token(world: &World, device: DeviceId) -> String {
    let new = json!({"name": "script", "scope": "report", "device": device});
    let made = world.post(OPERATOR, "token/", new).await.ok(201);
    assert_eq!((&made["scope"], &made["device"]), (&json!("report"), &json!(device)));
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_script_finds_its_upgrade_and_reports_of_it() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let operation = world.upgrade(device, &image).await;
    let script = token(&world, device).await;
    let list = format!("device/{device}/upgrade-operation/?status=idle");
    let found = world.get(&script, &list).await.ok(200);
    assert_eq!(found["results"][0]["id"], json!(operation));
    let path = format!("upgrade-operation/{operation}/");
    let body = json!({"progress_percent": 65, "status": "in-progress"});
    assert_eq!(world.patch(&script, &path, body).await.ok(200)["progress_percent"], 65);
    world.patch(&script, &path, json!({"status": "success"})).await.ok(200);
    let shown = world.get(&script, &path).await.ok(200);
    assert_eq!((&shown["status"], &shown["evidence"]), (&json!("success"), &json!("reported")));
    let log = world.get(ADMINISTRATOR, "audit/?action=PATCH").await.ok(200);
    let detail = log["results"][0]["detail"].as_str().unwrap();
    assert!(detail.contains(&device.to_string()), "{detail}");
}

#[tokio::test]
async fn what_a_script_may_be_flashing_is_nobody_elses() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let operation = world.upgrade(device, &image).await;
    let script = token(&world, device).await;
    let jobs = async || world.app.store.desired(device, None).await.unwrap().unwrap().jobs.len();
    assert_eq!(jobs().await, 1);
    let path = format!("upgrade-operation/{operation}/");
    let body = json!({"progress_percent": 5, "status": "in-progress"});
    world.patch(&script, &path, body).await.ok(200);
    assert_eq!(jobs().await, 0, "its agent keeps away");
    let cancel = format!("{path}cancel/");
    let refused = world.post(OPERATOR, &cancel, json!({})).await.ok(409);
    assert!(refused["error"].as_str().unwrap().contains("point of no return"), "{refused}");
    let other = json!({"image": world.image().await});
    world.put(OPERATOR, &format!("device/{device}/modem-firmware/"), other).await.ok(409);
    let write_off = format!("{path}write-off/");
    world.post(ADMIN, &write_off, json!({})).await.ok(409);
    world.pass(3_600_001);
    world.post(ADMIN, &write_off, json!({})).await.ok(200);
    world.patch(&script, &path, json!({"status": "success"})).await.ok(200);
    let shown = world.get(VIEWER, &path).await.ok(200);
    assert_eq!(shown["status"], "failed");
    assert_eq!(shown["late_result"]["outcome"]["result"], "succeeded", "{shown}");
    assert!(shown["late_result"]["received"].is_string(), "{shown}");
}

#[tokio::test]
async fn of_what_a_script_reports_a_new_status_is_on_record_and_no_percent() {
    let world = World::new().await;
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let operation = world.upgrade(device, &image).await;
    let script = token(&world, device).await;
    let path = format!("upgrade-operation/{operation}/");
    for percent in [10, 20, 20, 10] {
        let body = json!({"progress_percent": percent, "status": "in-progress"});
        assert_eq!(world.patch(&script, &path, body).await.ok(200)["progress_percent"], percent);
    }
    world.patch(&script, &path, json!({"status": "failed"})).await.ok(200);
    let log = world.get(ADMINISTRATOR, "audit/?action=PATCH").await.ok(200);
    let statuses: Vec<_> =
        log["results"].as_array().unwrap().iter().map(|entry| &entry["after"]["status"]).collect();
    assert_eq!(statuses, ["failed", "in-progress"], "{log:#}");
}

#[tokio::test]
async fn a_script_has_no_other_devices_upgrades() {
    let world = World::new().await;
    let (own, other) = (world.device(&["main"]).await, world.device(&["main"]).await);
    let operation = world.upgrade(other, &world.image().await).await;
    let script = token(&world, own).await;
    let path = format!("upgrade-operation/{operation}/");
    world.get(&script, &path).await.ok(404);
    world.patch(&script, &path, json!({"status": "success"})).await.ok(404);
    world.get(&script, &format!("device/{other}/upgrade-operation/")).await.ok(404);
    assert_eq!(world.get(VIEWER, &path).await.ok(200)["status"], "idle");
}

#[tokio::test]
async fn a_script_may_nothing_else() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    let script = token(&world, device).await;
    let told = json!({"detail": "This token may only report of its device's upgrades."});
    let mut document = coordinator::api::openapi();
    let mut tried = 0;
    for (path, item) in &mut document.paths.paths {
        let Some(route) = path.strip_prefix(BASE) else { continue };
        for (method, _) in operations(item) {
            let own = ["/upgrade-operation/{id}/", "/device/{id}/upgrade-operation/"];
            if own.contains(&route) || route == "/users/token/" {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = route.replace("{id}", &device.to_string());
            let path = path.replace("{image_id}", &device.to_string());
            let path = path.replace("{user_id}", &device.to_string());
            let request = request(method.clone(), &script, &path[1..]);
            let request = request.header("content-type", "application/json");
            let answer = world.send(request.body("{}".into()).unwrap()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.json()),
                (403, told.clone()),
                "{method} {route}"
            );
            tried += 1;
        }
    }
    assert!(tried > 70, "{tried}");
}

#[tokio::test]
async fn a_scripts_token_ends_with_its_device() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    let script = token(&world, device).await;
    let path = format!("device/{device}/upgrade-operation/");
    world.get(&script, &path).await.ok(200);
    world.post(ADMINISTRATOR, &format!("device/{device}/revoke/"), json!({})).await.ok(200);
    world.get(&script, &path).await.ok(401);
}

#[tokio::test]
async fn tokens_for_scripts_are_made_by_who_may_change_the_device() {
    let world = World::new().await;
    let device = world.device(&["main"]).await;
    let new = |device: Value| json!({"name": "x", "scope": "report", "device": device});
    let refused = world.post(RIVAL, "token/", new(json!(device))).await.ok(400);
    assert!(refused["device"].is_array(), "{refused}");
    world.post(VIEWER, "token/", new(json!(device))).await.ok(403);
    assert!(world.post(OPERATOR, "token/", new(json!(null))).await.ok(400)["device"].is_array());
    let write = json!({"name": "x", "scope": "write", "device": device});
    assert!(world.post(OPERATOR, "token/", write).await.ok(400)["device"].is_array());
    let script = token(&world, device).await;
    world.post(&script, "token/", new(json!(device))).await.ok(403);
    for _ in 1..4 {
        token(&world, device).await;
    }
    let many = world.post(OPERATOR, "token/", new(json!(device))).await.ok(409);
    assert!(many["error"].as_str().unwrap().contains("4 tokens"), "{many}");
}
