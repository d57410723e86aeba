//! docs/operations.md with its own commands: a roll-out that stops by itself, the way on from there,
//! and a server that is restored.

use crate::{batch::fleet, enrolled, scene};
use lab::{
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    release::{TO, Wanted},
    router::Router,
    scene::Scene,
    watch,
};
use serde_json::Value;

/// The command's exit status and what it printed.
fn run(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String) {
    let output = scene.coordinator.run(arguments).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// The same, of one that has to go well.
#[track_caller]
fn good(scene: &Scene, arguments: &[&str]) -> String {
    let (status, said) = run(scene, arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {said}");
    said
}

#[track_caller]
fn field(json: &str, name: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap();
    let value = if value.is_array() { value[0][name].clone() } else { value[name].clone() };
    value.as_str().unwrap_or_else(|| panic!("no {name}: {json}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_canary_is_looked_at_and_tried_again() {
    let scene = scene("page-retry");
    let lie = ToolFault { kind: ToolFaultKind::Lie, times: None };
    let (routers, _) = fleet(&scene, 2, &[lie]).await;
    let build = format!("FN990A/{TO}");
    let all = ["--build", &build, "--all"];
    let preview = good(&scene, &[&["batch", "preview"], &all[..]].concat());
    assert!(preview.starts_with("2 will be upgraded, 0 left out."), "{preview}");
    let how = ["--canary", "1", "--growth", "3", "--soak", "0s", "--yes", "--json"];
    let created = good(&scene, &[&["batch", "create"], &all[..], &how].concat());
    let batch = field(&created, "id");

    let (status, said) = run(&scene, &["batch", "watch", &batch]);
    assert_eq!(status, Some(1), "only a person can go on: {said}");
    assert!(said.contains("failed: version_mismatch, modem old_version"), "{said}");
    assert!(said.contains(&format!("batch resume {batch}")), "{said}");
    let failed = ["operations", "--batch", &batch, "--status", "failed"];
    assert!(good(&scene, &failed).contains("version_mismatch"));
    let operation = field(&good(&scene, &[&failed[..], &["--json"]].concat()), "id");
    let shown = good(&scene, &["operations", "show", &operation]);
    assert!(shown.contains("version_mismatch, modem old_version"), "{shown}");

    // The cause is known, and gone.
    routers.iter().for_each(|router| write_tool_faults(&router.dir, &[]).unwrap());
    good(&scene, &["batch", "resume", &batch]);
    let (status, said) = run(&scene, &["batch", "watch", &batch]);
    assert_eq!(status, Some(1), "one did not succeed: {said}");
    assert!(said.contains("1 success, 1 failed of 2"), "{said}");
    assert!(said.contains(&format!("batch retry {batch}")), "{said}");
    let said = good(&scene, &["batch", "retry", &batch, "--watch"]);
    assert!(said.contains("1 success of 1"), "{said}");
    for router in &routers {
        let flash = router.modem.state().unwrap().flash;
        assert_eq!((flash.versions.package.as_str(), flash.begun), (TO, 1), "{}", router.name);
    }
    let (status, said) = run(&scene, &["batch", "retry", &batch]);
    assert_eq!(status, Some(1), "nobody is left: {said}");
}

/// A server, and its backup from a time when an operation waited for a router without an agent.
struct BackedUp {
    scene: Scene,
    router: Router,
    device: String,
    image: String,
    operation: String,
    data: String,
    file: String,
}

async fn backed_up(name: &str) -> BackedUp {
    let scene = scene(name);
    let (mut router, device) = enrolled(&scene, &[]).await;
    let image = scene.image(&Wanted::default()).unwrap();
    router.kill_agent();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let data = scene.coordinator.data.to_str().unwrap().to_owned();
    let file = scene.dir.join("backup.tar").to_str().unwrap().to_owned();
    let taken = good(&scene, &["backup", "--data", &data, &file]);
    assert!(taken.contains("firmware: 1 files"), "{taken}");
    BackedUp { scene, router, device, image, operation, data, file }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_is_trusted_and_goes_on() {
    let BackedUp { mut scene, mut router, device, image, operation, data, file } =
        backed_up("page-restore").await;
    good(&scene, &["operations", "cancel", &operation]);

    let restore = ["restore", "--data", &data, &file];
    assert_eq!(run(&scene, &restore).0, Some(1), "the server runs");
    scene.coordinator.kill();
    let (status, said) = run(&scene, &restore);
    assert_eq!(status, Some(1), "there is a database: {said}");
    assert!(said.contains("--replace"), "{said}");
    // The backup is from before the cancelling.
    let said = good(&scene, &[&restore[..], &["--replace", "--cancel-waiting"]].concat());
    assert!(said.contains("cancelled: 1 operations") && said.contains("replaced: "), "{said}");

    scene.coordinator.restart().unwrap();
    router.start_agent().unwrap();
    watch::online(&scene.api, &device).await.unwrap();
    assert!(good(&scene, &["operations", "show", &operation]).contains("cancelled"));
    let upgrade = ["upgrade", "--device", "router-1", "--image", &image, "--watch"];
    assert!(good(&scene, &upgrade).contains("success"));
    let flash = router.modem.state().unwrap().flash;
    assert_eq!((flash.versions.package.as_str(), flash.begun), (TO, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_hears_again_how_it_ended() {
    let BackedUp { mut scene, mut router, operation, data, file, .. } =
        backed_up("page-restore-ended").await;
    router.start_agent().unwrap();
    let is_success = |operation: &Value| operation["status"] == "success";
    watch::operation(&scene.api, &operation, is_success).await.unwrap();

    // The agent goes on, and has told everything that there was to tell.
    let told = || router.status()?.uplink.filter(|uplink| uplink.pending_events == 0);
    watch::found("that everything is told", told).await.unwrap();
    scene.coordinator.kill();
    good(&scene, &["restore", "--data", &data, &file, "--replace"]);
    scene.coordinator.restart().unwrap();
    let ended = watch::operation(&scene.api, &operation, is_success).await.unwrap();
    assert!(ended["late_result"].is_null(), "{ended}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
}
