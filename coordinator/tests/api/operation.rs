use coordinator::store::operation::StartRefused;
use serde_json::{Value, json};
use shared::grant::StartRequest;
use shared::ids::{DeviceId, StreamId};

use crate::world::*;

async fn requested(world: &World) -> (DeviceId, String, String) {
    let (device, image) = (world.device(&["main"]).await, world.image().await);
    let operation = world.upgrade(device, &image).await;
    (device, image, operation)
}

fn start(attempt: u32) -> StartRequest {
    let stream = StreamId(uuid::Uuid::from_u128(1));
    StartRequest { attempt, stream, dark_expected_s: 60, dark_longest_s: 600, returned: 0 }
}

#[tokio::test]
async fn the_predecessors_fields_and_ours() {
    let world = World::new().await;
    let (device, image, id) = requested(&world).await;
    let operation = world.get(VIEWER, &format!("upgrade-operation/{id}/")).await.ok(200);
    for (field, value) in [
        ("id", json!(id)),
        ("device", json!(device)),
        ("image", json!(image)),
        ("status", json!("idle")),
        ("progress_percent", json!(0)),
        ("modified", json!(NOW_TEXT)),
        ("created", json!(NOW_TEXT)),
        ("attempt", json!(0)),
        ("stage", Value::Null),
        ("failure", Value::Null),
        ("batch", Value::Null),
        ("modem", json!({"slot": "main"})),
        ("organization", json!("acme")),
        ("granted", json!(false)),
    ] {
        assert_eq!(operation[field], value, "{field}");
    }
    assert!(operation["log"].is_string());
    let listing = world.get(VIEWER, "upgrade-operation/").await;
    listing.is(200, json!({"count": 1, "next": null, "previous": null, "results": [operation]}));
}

#[tokio::test]
async fn ordered_by_either_column_and_in_either_direction() {
    let world = World::new().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(requested(&world).await.2);
        world.pass(1000);
    }
    // The first one changes last.
    let path = format!("upgrade-operation/{}/", made[0]);
    world.patch(OPERATOR, &path, json!({"progress_percent": 5})).await.ok(200);
    for (ordering, expected) in [
        ("created", [0, 1, 2]),
        ("-created", [2, 1, 0]),
        ("modified", [1, 2, 0]),
        ("-modified", [0, 2, 1]),
        ("nothing", [2, 1, 0]),
    ] {
        let path = format!("upgrade-operation/?ordering={ordering}");
        let listing = world.get(VIEWER, &path).await.ok(200);
        let ids: Vec<_> = listing["results"].as_array().unwrap().iter().map(|o| &o["id"]).collect();
        assert_eq!(ids, expected.map(|place| &made[place]), "{ordering}");
    }
}

#[tokio::test]
async fn filters() {
    let world = World::new().await;
    let (device, image, id) = requested(&world).await;
    let (_, _, cancelled) = requested(&world).await;
    world
        .post(OPERATOR, &format!("upgrade-operation/{cancelled}/cancel/"), json!({}))
        .await
        .ok(200);
    for (query, expected) in [
        (format!("device={device}"), vec![&id]),
        (format!("image={image}"), vec![&id]),
        ("status=idle".to_owned(), vec![&id]),
        ("status=cancelled".to_owned(), vec![&cancelled]),
        ("status=cancelled&organization=acme".to_owned(), vec![&cancelled]),
        ("organization=rival".to_owned(), vec![]),
        (format!("batch={id}"), vec![]),
    ] {
        let listing = world.get(VIEWER, &format!("upgrade-operation/?{query}")).await.ok(200);
        let ids: Vec<_> = listing["results"].as_array().unwrap().iter().map(|o| &o["id"]).collect();
        assert_eq!(ids, expected, "{query}");
    }
    let of_device =
        world.get(VIEWER, &format!("device/{device}/upgrade-operation/?status=idle")).await;
    assert_eq!(of_device.ok(200)["results"][0]["id"], id);
    for (query, field) in [("status=odd", "status"), ("device=x", "device"), ("image=1", "image")] {
        let refused = world.get(VIEWER, &format!("upgrade-operation/?{query}")).await.ok(400);
        assert!(refused[field].is_array(), "{query}: {refused}");
    }
    assert_eq!(world.get(RIVAL, "upgrade-operation/").await.ok(200)["count"], 0);
}

#[tokio::test]
async fn a_cancel_before_the_grant_wins() {
    let world = World::new().await;
    let (device, _, id) = requested(&world).await;
    let path = format!("upgrade-operation/{id}/cancel/");
    world.post(VIEWER, &path, json!({})).await.ok(403);
    world.post(RIVAL, &path, json!({})).await.ok(404);
    let answer = world.post(OPERATOR, &path, json!({})).await.ok(200);
    assert!(answer["message"].is_string() && answer.as_object().unwrap().len() == 1);
    assert!(world.post(OPERATOR, &path, json!({})).await.ok(409)["error"].is_string());
    let refused = world.app.store.start(device, id.parse().unwrap(), start(1)).await.unwrap_err();
    use coordinator::store::Rejection;
    assert!(matches!(refused, Rejection::Refused(StartRefused::Refused(_))), "no flash, ever");
}

#[tokio::test]
async fn a_cancel_after_the_grant_comes_too_late() {
    let world = World::new().await;
    let (device, image, id) = requested(&world).await;
    world.app.store.start(device, id.parse().unwrap(), start(1)).await.unwrap();
    let path = format!("upgrade-operation/{id}/");
    let refused = world.post(OPERATOR, &format!("{path}cancel/"), json!({})).await.ok(409);
    assert!(refused["error"].as_str().unwrap().contains("point of no return"), "{refused}");
    assert_eq!(world.get(OPERATOR, &path).await.ok(200)["granted"], true);
    let firmware = format!("device/{device}/modem-firmware/");
    let other = json!({"image": world.image().await});
    assert!(world.put(OPERATOR, &firmware, other).await.ok(409)["error"].is_string());
    world.put(OPERATOR, &firmware, json!({"image": image})).await.ok(200);
}

#[tokio::test]
async fn a_scripts_report_moves_it_and_proves_nothing() {
    let world = World::new().await;
    let (device, _, id) = requested(&world).await;
    let path = format!("upgrade-operation/{id}/");
    for (body, field) in [
        (json!({"progress_percent": 101}), "progress_percent"),
        (json!({"progress_percent": -1}), "progress_percent"),
        (json!({"progress_percent": "65"}), "progress_percent"),
        (json!({"status": "done"}), "status"),
        (json!({"status": 1}), "status"),
    ] {
        let refused = world.patch(OPERATOR, &path, body.clone()).await.ok(400);
        assert!(refused[field].is_array(), "{body}: {refused}");
    }
    world.patch(VIEWER, &path, json!({"progress_percent": 5})).await.ok(403);
    world.patch(RIVAL, &path, json!({"progress_percent": 5})).await.ok(404);
    let report = json!({"progress_percent": 65, "status": "in-progress"});
    let moved = world.patch(OPERATOR, &path, report).await.ok(200);
    assert_eq!(
        (&moved["progress_percent"], &moved["status"], &moved["evidence"]),
        (&json!(65), &json!("in-progress"), &json!("reported"))
    );
    world.patch(OPERATOR, &path, json!({"status": "success"})).await.ok(200);
    let firmware = world.get(OPERATOR, &format!("device/{device}/modem-firmware/")).await.ok(200);
    assert_eq!(firmware["installed"], false, "only versions read back install");
    assert!(
        world.patch(OPERATOR, &path, json!({"status": "failed"})).await.ok(409)["error"]
            .is_string()
    );
}

#[tokio::test]
async fn its_log_is_read_from_where_somebody_left_off() {
    let world = World::new().await;
    let (_, _, id) = requested(&world).await;
    let path = format!("upgrade-operation/{id}/");
    let whole = world.get(VIEWER, &path).await.ok(200)["log"].as_str().unwrap().to_owned();
    assert!(!whole.is_empty());
    let first = world.get(VIEWER, &format!("{path}log/")).await.ok(200);
    assert_eq!(
        first,
        json!({"offset": 0, "log": whole, "next_offset": whole.len(), "complete": false})
    );
    world.post(OPERATOR, &format!("{path}cancel/"), json!({})).await.ok(200);
    let next = world.get(VIEWER, &format!("{path}log/?offset={}", whole.len())).await.ok(200);
    let line = next["log"].as_str().unwrap();
    assert!(line.contains("cancelled") && line.lines().count() == 1, "{line}");
    assert_eq!(next["complete"], true);
    let tail = world.get(VIEWER, &format!("{path}?log_offset={}", whole.len())).await.ok(200);
    assert_eq!(tail["log"], line);
    let past = world.get(VIEWER, &format!("{path}log/?offset=999999")).await.ok(200);
    assert_eq!((&past["log"], &past["offset"]), (&json!(""), &past["next_offset"]));
    world.get(VIEWER, &format!("{path}log/?offset=x")).await.ok(400);
    world.get(RIVAL, &format!("{path}log/")).await.ok(404);
}
