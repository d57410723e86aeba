//! Trying again what failed.

use super::*;

#[tokio::test]
async fn what_failed_is_tried_again() {
    let fleet = Fleet::new(3).await;
    let world = &fleet.world;
    let lenient = json!({"canary": 3, "failure_threshold": {"percent": null}});
    let batch = fleet.start(lenient).await;
    assert!(fleet.act(&batch, "retry").await.ok(409)["error"].is_string());
    let working = fleet.working().await;
    for (n, (device, id)) in working.iter().enumerate() {
        fleet.ask(*device, *id).await.unwrap();
        fleet.end(*device, *id, if n == 0 { success() } else { broken() }).await;
    }
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["failed_rate"]), (&json!("failed"), &json!(66.66)));
    // One of the two turns out to run the new version all the same.
    let late = world.app.store.clone();
    let known = late.device(coordinator::store::listing::Scope::Everything, working[1].0);
    let mut known = known.await.unwrap().unwrap().inventory.unwrap();
    known.modems[0].versions = new_version();
    late.set_inventory(working[1].0, known).await.unwrap();
    let retry = fleet.act(&batch, "retry").await.ok(201);
    let again = fleet.show(retry["batch"].as_str().unwrap()).await;
    assert_eq!((&again["retry_of"], &again["tally"]["total"]), (&json!(batch), &json!(1)));
    let operation = &again["upgradeoperations"][0];
    assert_eq!(operation["retry_of"], json!(working[2].1));
    assert_eq!(again["strategy"]["canary"], 3, "as before");
    let listed = world.get(VIEWER, "batch-upgrade-operation/?status=failed").await.ok(200);
    assert_eq!((&listed["count"], &listed["results"][0]["id"]), (&json!(1), &json!(batch)));
    let of_build = format!("batch-upgrade-operation/?build={}", fleet.build);
    assert_eq!(world.get(VIEWER, &of_build).await.ok(200)["count"], 2);
}

#[tokio::test]
async fn who_was_upgraded_to_another_build_since_is_left_out() {
    let fleet = Fleet::new(3).await;
    let world = &fleet.world;
    let batch = fleet.start(json!({"canary": 3, "failure_threshold": {"percent": null}})).await;
    assert_eq!(fleet.work(broken).await, 3);
    fleet.fly(&batch).await;
    let line = |value: &str| VersionLine { value: value.into(), ..new_version().remove(0) };
    let (build, content) = (world.build().await, b"newer".repeat(1000));
    let of_build = world.of(&build).await;
    let (manifest, signature) = signed_as(&content, |manifest| {
        of_build(manifest);
        manifest.sequence = 8;
        manifest.reaches = vec![line("45.00.014")];
    });
    let parts: [Part<'_>; 4] = [
        ("type", "", b"telit-uxfp"),
        ("file", "fn990.bin", &content),
        ("manifest", "", &manifest),
        ("signature", "", &signature),
    ];
    let newer = world.multipart(OPERATOR, &format!("build/{build}/image/"), &parts).await.id(201);
    let [done, asked, left] = fleet.devices[..] else { panic!() };
    let id = world.upgrade(done, &newer).await.parse().unwrap();
    fleet.ask(done, id).await.unwrap();
    let versions = vec![line("45.00.014")];
    fleet.end(done, id, Outcome::Succeeded { versions, not_compared: None, remark: None }).await;
    world.upgrade(asked, &newer).await;
    let retry = fleet.act(&batch, "retry").await.ok(201);
    let again = fleet.show(retry["batch"].as_str().unwrap()).await;
    assert_eq!(again["tally"]["total"], 1, "{again}");
    assert_eq!(again["upgradeoperations"][0]["device"], json!(left));
    assert!(fleet.job(asked).await.is_some(), "the newer one goes on");
    fleet.act(retry["batch"].as_str().unwrap(), "cancel").await.ok(200);
    world.upgrade(left, &newer).await;
    let refused = fleet.act(&batch, "retry").await.ok(400);
    assert!(refused["error"].as_str().unwrap().contains("cannot give way"), "{refused}");
}

#[tokio::test]
async fn a_batch_of_which_nothing_failed_says_so() {
    let fleet = Fleet::new(1).await;
    let batch = fleet.start(json!({})).await;
    fleet.act(&batch, "cancel").await.ok(200);
    let refused = fleet.act(&batch, "retry").await.ok(400);
    let why = "The batch cannot be retried: nothing of it has failed or was aborted.";
    assert_eq!(refused["error"], why);
}
