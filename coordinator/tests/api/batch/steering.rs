//! Holding a batch, and how many at a time.

use super::*;

#[tokio::test]
async fn pause_stops_grants_and_granted_ones_finish() {
    let fleet = Fleet::new(2).await;
    let batch = fleet.start(json!({"canary": 2})).await;
    let working = fleet.working().await;
    let [(first, one), (second, two)] = working[..] else { panic!("{working:?}") };
    fleet.ask(first, one).await.unwrap();
    let paused = fleet.act(&batch, "pause").await.ok(200);
    assert_eq!(paused["will_finish"], 1);
    assert_eq!(fleet.ask(second, two).await, Err(RefusalCode::Paused));
    fleet.ask(first, one).await.unwrap();
    assert!(fleet.act(&batch, "pause").await.ok(409)["error"].is_string());
    fleet.end(first, one, success()).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["phase"], &shown["tally"]["success"]), (&json!("paused"), &json!(1)));
    assert_eq!(shown["paused_reason"], "by user of token-of-operator");
    fleet.act(&batch, "resume").await.ok(200);
    assert_eq!(fleet.show(&batch).await["paused_reason"], Value::Null);
    fleet.ask(second, two).await.unwrap();
    let cancelled = fleet.act(&batch, "cancel").await.ok(200);
    assert_eq!((&cancelled["will_finish"], &cancelled["cancelled"]), (&json!(1), &json!(0)));
    assert_eq!(fleet.show(&batch).await["phase"], "cancelling");
    fleet.end(second, two, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["status"], "success", "both were flashed after all");
    assert!(fleet.act(&batch, "cancel").await.ok(409)["error"].is_string());
    let path = format!("batch-upgrade-operation/{batch}/");
    fleet.world.post(VIEWER, &format!("{path}cancel/"), json!({})).await.ok(403);
    fleet.world.post(RIVAL, &format!("{path}cancel/"), json!({})).await.ok(404);
    fleet.world.get(RIVAL, &path).await.ok(404);
}

#[tokio::test]
async fn so_many_at_a_time_and_no_more() {
    let fleet = Fleet::new(3).await;
    let batch = fleet.start(json!({"canary": 3, "max_concurrent": 2})).await;
    let working = fleet.working().await;
    fleet.ask(working[0].0, working[0].1).await.unwrap();
    fleet.ask(working[1].0, working[1].1).await.unwrap();
    assert_eq!(fleet.ask(working[2].0, working[2].1).await, Err(RefusalCode::Concurrency));
    fleet.end(working[0].0, working[0].1, success()).await;
    fleet.ask(working[2].0, working[2].1).await.unwrap();
    assert_eq!(fleet.show(&batch).await["tally"]["granted"], 2);
}

#[tokio::test]
async fn one_that_cannot_be_launched_is_taken_back() {
    let fleet = Fleet::new(2).await;
    let db = rusqlite::Connection::open(fleet.world.folder.path().join("db")).unwrap();
    db.execute_batch(
        "CREATE TRIGGER broken BEFORE UPDATE OF course ON batches WHEN NEW.course = 'open'
         BEGIN SELECT RAISE(ABORT, 'broken'); END",
    )
    .unwrap();
    let body = json!({"upgrade_all": true});
    fleet.world.post(OPERATOR, &fleet.upgrade(), body).await.ok(500);
    let listing = fleet.world.get(VIEWER, "batch-upgrade-operation/").await.ok(200);
    let batch = listing["results"][0]["id"].as_str().unwrap();
    fleet.fly(batch).await;
    assert_eq!(fleet.show(batch).await["phase"], "finished");

    // Where not even that can be said.
    db.execute_batch("UPDATE batches SET course = 'preparing', finished_at = NULL").unwrap();
    assert_eq!(fleet.act(batch, "cancel").await.ok(200)["cancelled"], 0);
    db.execute_batch("UPDATE batches SET course = 'preparing', finished_at = NULL").unwrap();
    fleet.fly(batch).await;
    assert_eq!(fleet.show(batch).await["phase"], "preparing", "it may be being made");
    fleet.pass(15 * 60);
    fleet.fly(batch).await;
    assert_eq!(fleet.show(batch).await["phase"], "finished");
}

#[tokio::test]
async fn a_cancellation_that_is_committed_is_told_whatever_comes_then() {
    let fleet = Fleet::new(2).await;
    let batch = fleet.start(json!({"canary": 2})).await;
    let db = rusqlite::Connection::open(fleet.world.folder.path().join("db")).unwrap();
    db.execute_batch(
        "CREATE TRIGGER full BEFORE UPDATE OF status ON operations
         BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    .unwrap();
    assert_eq!(fleet.act(&batch, "cancel").await.ok(200)["cancelled"], 2);
    let (device, id) = fleet.working().await[0];
    assert_eq!(fleet.ask(device, id).await, Err(RefusalCode::Cancelled));
    db.execute_batch("DROP TRIGGER full").unwrap();
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["status"], "cancelled");
}

#[tokio::test]
async fn what_is_done_with_places_and_batches_is_on_record_in_their_organization() {
    let fleet = Fleet::new(2).await;
    let log = async || {
        let listing = fleet.world.get(ADMINISTRATOR, "audit/").await.ok(200);
        let newest = &listing["results"][0];
        assert_eq!(newest["organization"], "acme", "{newest}");
        (newest["before"].clone(), newest["after"].clone())
    };
    for kind in ["group", "location"] {
        let new = json!({"name": "north"});
        let id = fleet.world.post(ADMINISTRATOR, &format!("{kind}/"), new).await.id(201);
        let (before, after) = log().await;
        assert_eq!((before, &after["name"]), (Value::Null, &json!("north")));
        let path = format!("{kind}/{id}/");
        fleet.world.patch(ADMINISTRATOR, &path, json!({"name": "south"})).await.ok(200);
        let (before, after) = log().await;
        assert_eq!((&before["name"], &after["name"]), (&json!("north"), &json!("south")));
        fleet.world.delete(ADMINISTRATOR, &path).await.ok(204);
        let (before, after) = log().await;
        assert_eq!((&before["name"], after), (&json!("south"), Value::Null));
    }
    let batch = fleet.start(quick()).await;
    let (before, after) = log().await;
    assert_eq!((before, &after["id"]), (Value::Null, &json!(batch)));
    for (verb, was, is) in [
        ("pause", "open", "paused"),
        ("resume", "paused", "open"),
        ("cancel", "open", "cancelling"),
    ] {
        fleet.act(&batch, verb).await.ok(200);
        let (before, after) = log().await;
        assert_eq!((&before["course"], &after["course"]), (&json!(was), &json!(is)));
    }
}
