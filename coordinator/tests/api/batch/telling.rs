//! What a batch says of itself.

use super::*;

#[tokio::test]
async fn whoever_watches_is_told() {
    use futures_util::StreamExt;
    use tower::ServiceExt;
    let fleet = Fleet::new(1).await;
    let batch = fleet.start(quick()).await;
    let path = format!("batch-upgrade-operation/{batch}/events/");
    let request = request_to(VIEWER, &path);
    let response = fleet.world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    assert_eq!(fleet.work(success).await, 1);
    fleet.fly(&batch).await;
    while !text.contains(r#""phase":"finished""#) {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), body.next()).await;
        text.push_str(std::str::from_utf8(&next.unwrap().unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("event: batch") && text.contains(r#""phase":"canary""#), "{text}");
    fleet.world.get(RIVAL, &path).await.ok(404);
    let topic = format!("mu/acme/batches/{batch}");
    let (retained, _) = fleet.world.app.feed.retained(&"acme".parse().unwrap());
    assert!(retained.iter().any(|state| state.change.topic().to_string() == topic));
}

#[tokio::test]
async fn a_batch_is_heard_of_though_the_past_is_gone() {
    let fleet = Fleet::new(1).await;
    let batch = fleet.start(quick()).await;
    let path = format!("batch-upgrade-operation/{batch}/events/");
    let before = fleet.world.get(VIEWER, &format!("{path}?since=0")).await.ok(200)["last"].clone();
    fleet.act(&batch, "cancel").await.ok(200);
    crate::events::pass_by(&fleet.world);
    let told = fleet.world.get(VIEWER, &format!("{path}?since={before}")).await.ok(200);
    assert_eq!(told["events"][0]["event"], "batch");
    assert_eq!(told["events"][0]["data"]["status"], "cancelled", "{told}");
}

#[tokio::test]
async fn a_long_changelog_keeps_no_answer_and_no_event_back() {
    let fleet = Fleet::new(1).await;
    let changelog = json!({"changelog": "x".repeat(65_536)});
    fleet.world.patch(OPERATOR, &format!("build/{}/", fleet.build), changelog).await.ok(200);
    let body = json!({"build": fleet.build, "upgrade_all": true});
    let send = async || {
        let path = "batch-upgrade-operation/";
        let request = crate::world::request(axum::http::Method::POST, OPERATOR, path)
            .header("content-type", "application/json")
            .header("Idempotency-Key", "k")
            .body(axum::body::Body::from(body.to_string()));
        fleet.world.send(request.unwrap()).await
    };
    let batch = send().await.id(201);
    send().await.ok(409);
    fleet.fly(&batch).await;
    let (retained, _) = fleet.world.app.feed.retained(&"acme".parse().unwrap());
    let topic = format!("mu/acme/batches/{batch}");
    assert!(retained.iter().any(|state| state.change.topic().to_string() == topic));
    let shown = fleet.show(&batch).await;
    assert_eq!(shown["build"]["changelog"].as_str().unwrap().len(), 65_536);
}

#[tokio::test]
async fn a_batch_ends_in_the_moment_of_its_last_operation() {
    let fleet = Fleet::new(2).await;
    let batch = fleet.start(json!({"canary": 2})).await;
    assert_eq!(fleet.work(success).await, 2);
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("success"), &json!("finished")));
    assert_eq!((&shown["finished"], &shown["awaited"]), (&shown["modified"], &json!([])));
    for verb in ["pause", "resume", "cancel"] {
        let refused = fleet.act(&batch, verb).await.ok(409);
        assert!(refused["error"].as_str().unwrap().contains("finished"), "{refused}");
    }
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await, shown);
}

#[tokio::test]
async fn batches_are_ordered_by_either_column_and_in_either_direction() {
    let fleet = Fleet::new(3).await;
    let mut made = Vec::new();
    for device in &fleet.devices {
        let body = json!({"devices": [device]});
        let started = fleet.world.post(OPERATOR, &fleet.upgrade(), body).await.ok(201);
        made.push(started["batch"].as_str().unwrap().to_owned());
        fleet.pass(1);
    }
    fleet.act(&made[0], "pause").await.ok(200);
    for (ordering, expected) in [
        ("created", [0, 1, 2]),
        ("-created", [2, 1, 0]),
        ("modified", [1, 2, 0]),
        ("-modified", [0, 2, 1]),
    ] {
        let path = format!("batch-upgrade-operation/?ordering={ordering}");
        let listing = fleet.world.get(VIEWER, &path).await.ok(200);
        let ids: Vec<_> = listing["results"].as_array().unwrap().iter().map(|b| &b["id"]).collect();
        assert_eq!(ids, expected.map(|place| &made[place]), "{ordering}");
    }
}

#[tokio::test]
async fn a_user_has_so_many_unread_batches_and_gets_their_places_back() {
    use tower::ServiceExt;
    let fleet = Fleet::new(1).await;
    let batch = fleet.start(quick()).await;
    let path = format!("batch-upgrade-operation/{batch}/");
    let mut unread = Vec::new();
    for _ in 0..32 {
        let answer = fleet.world.router.clone().oneshot(request_to(VIEWER, &path)).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        unread.push(answer);
    }
    let refused = fleet.world.get(VIEWER, &path).await;
    assert_eq!(refused.status.as_u16(), 429);
    assert!(refused.headers.contains_key("retry-after"));
    fleet.world.get(OPERATOR, &path).await.ok(200);
    unread.pop();
    for _ in 0..2 {
        let read = fleet.world.get(VIEWER, &path).await.ok(200);
        assert_eq!(read["upgradeoperations"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn who_is_left_out_while_a_batch_is_made_is_told_with_the_reason() {
    let fleet = Fleet::new(3).await;
    let gone = fleet.devices[0];
    let db = rusqlite::Connection::open(fleet.world.folder.path().join("db")).unwrap();
    let between = |devices: &str| {
        db.execute_batch(&format!(
            "DROP TRIGGER IF EXISTS between_look_and_member;
             CREATE TRIGGER between_look_and_member AFTER INSERT ON batches
             BEGIN UPDATE devices SET deactivated = 1 WHERE {devices}; END"
        ))
        .unwrap();
    };
    between(&format!("id = '{gone}'"));
    let batch = fleet.start(json!({})).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["tally"]["total"], &shown["tally"]["left_out"]), (&json!(2), &json!(1)));
    let path = format!("batch-upgrade-operation/{batch}/left-out/");
    let left_out = fleet.world.get(VIEWER, &path).await.ok(200);
    let modem = &left_out["results"][0];
    assert_eq!((&left_out["count"], &modem["device"]), (&json!(1), &json!(gone)));
    assert_eq!((&modem["slot"], &modem["reason"]), (&json!("main"), &json!("deactivated")));
    assert_eq!(modem["detail"], "The device is deactivated.");
    fleet.world.get(RIVAL, &path).await.ok(404);
    fleet.world.get(VIEWER, &format!("{path}?page=2")).await.ok(404);
    let log = fleet.world.get(ADMIN, "audit/?page_size=1").await.ok(200);
    let oldest = fleet.world.get(ADMIN, "audit/?page_size=1&ordering=id").await.ok(200);
    assert!(oldest["results"][0]["id"].as_u64() < log["results"][0]["id"].as_u64(), "{oldest}");
    assert_eq!(log["results"][0]["after"]["left_out"], 1, "{log}");

    fleet.act(&batch, "cancel").await.ok(200);
    between("1");
    let body = json!({"upgrade_all": true});
    let nobody = fleet.world.post(OPERATOR, &fleet.upgrade(), body).await.ok(400);
    let why = "Nobody would be upgraded: 2 × The device is deactivated.";
    assert_eq!(nobody["error"], why);
    let all = fleet.world.get(VIEWER, "batch-upgrade-operation/").await.ok(200);
    assert_eq!(all["count"], 1, "it is forgotten");
}
