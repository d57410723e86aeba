//! Batches with real agents: waves that open on what the modems showed, and a build that is stopped
//! by its canary.

use crate::scene;
use lab::{
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    release::{TO, Wanted},
    router::Router,
    scene::Scene,
    watch,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// So many routers that a build fits, and the path of its upgrade.
pub async fn fleet(scene: &Scene, size: u8, faults: &[ToolFault]) -> (Vec<Router>, String) {
    scene.image(&Wanted::default()).unwrap();
    let mut routers = Vec::new();
    for number in 1..=size {
        let mut router = scene.router(number, false).await.unwrap();
        write_tool_faults(&router.dir, faults).unwrap();
        scene.enrol(&mut router).await.unwrap();
        routers.push(router);
    }
    let builds = scene.api.get(&format!("build/?version={TO}")).await.unwrap();
    let build = builds["results"][0]["id"].as_str().unwrap();
    let path = format!("build/{build}/upgrade/");
    let dry_run = format!("{path}?upgrade_all=true");
    let mut last = Value::Null;
    let all = watch::poll("every router in the dry run", Duration::from_millis(300), async || {
        last = scene.api.get(&dry_run).await.ok()?;
        (last["count"] == size).then_some(())
    });
    all.await.unwrap_or_else(|error| panic!("{error}: {last:#}"));
    (routers, path)
}

async fn start(scene: &Scene, path: &str, strategy: Value) -> String {
    let body = json!({"upgrade_all": true, "strategy": strategy});
    let started = scene.api.send(Method::POST, path, &body).await.unwrap();
    started["batch"].as_str().unwrap().to_owned()
}

/// The batch once `condition` holds for it.
async fn batch(scene: &Scene, id: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let path = format!("batch-upgrade-operation/{id}/");
    let mut last = Value::Null;
    let found = watch::poll("the batch", Duration::from_millis(300), async || {
        last = scene.api.get(&path).await.ok()?;
        condition(&last).then(|| last.clone())
    });
    found.await.unwrap_or_else(|error| panic!("{error}: {last:#}"))
}

fn flashed(routers: &[Router]) -> usize {
    let begun = |router: &&Router| router.modem.state().unwrap().flash.begun > 0;
    routers.iter().filter(begun).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_and_then_the_others_also_over_a_restart() {
    let mut scene = scene("batch-waves");
    let (routers, path) = fleet(&scene, 3, &[]).await;
    let id = start(&scene, &path, json!({"canary": 1, "growth": 2, "gate": {"soak_s": 5}})).await;
    let soaking = batch(&scene, &id, |batch| batch["phase"] == "soaking").await;
    assert_eq!(soaking["tally"]["success"], 1, "{soaking:#}");
    assert_eq!(soaking["tally"]["idle"], 2, "nobody else has heard of it");
    assert_eq!(flashed(&routers), 1);
    scene.coordinator.kill();
    scene.coordinator.restart().unwrap();
    let ended = batch(&scene, &id, |batch| batch["phase"] == "finished").await;
    assert_eq!(
        (&ended["status"], &ended["progress_report"]),
        (&json!("success"), &json!("3 out of 3"))
    );
    let sizes: Vec<_> = ended["waves"].as_array().unwrap().iter().map(|w| &w["size"]).collect();
    assert_eq!(sizes, [1, 2], "{ended:#}");
    for router in &routers {
        let state = router.modem.state().unwrap();
        assert_eq!((state.flash.versions.package.as_str(), state.flash.begun), (TO, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_build_stops_itself_after_its_canary() {
    let scene = scene("batch-bad-build");
    let lie = ToolFault { kind: ToolFaultKind::Lie, times: None };
    let (routers, path) = fleet(&scene, 2, &[lie]).await;
    let strategy = json!({
        "canary": 1, "gate": {"soak_s": 0}, "failure_threshold": {"count": 1, "then": "abort"},
    });
    let id = start(&scene, &path, strategy).await;
    let ended = batch(&scene, &id, |batch| batch["phase"] == "finished").await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert_eq!((&ended["tally"]["failed"], &ended["tally"]["cancelled"]), (&json!(1), &json!(1)));
    assert!(ended["paused_reason"].as_str().unwrap().contains("threshold"), "{ended:#}");
    let operations = ended["upgradeoperations"].as_array().unwrap();
    let granted = operations.iter().filter(|operation| operation["attempt"] != 0).count();
    assert_eq!(granted, 1, "the other was never given leave: {ended:#}");
    assert_eq!(flashed(&routers), 0, "the tool only said so");
}
