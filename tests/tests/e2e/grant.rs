//! The point of no return: passed with the coordinator's leave alone, counted once, and exact
//! against a cancel.

use crate::{SLOW, cut_in_the_download, scene, under_way};
use lab::{
    release::{FROM, TO, Wanted},
    router::Router,
    scene::Scene,
    sign_in::SignedIn,
    watch::{self, until},
};
use serde_json::json;
use shared::stages::Phase;
use std::os::unix::fs::PermissionsExt;

/// A router whose upgrade stands right before the grant: the image is there and verified, and the
/// modem, which is without power, has still to be asked how it was before.
async fn before_the_grant(scene: &Scene) -> (Router, String) {
    // The middle of the download is a sure place to switch the modem off.
    let (router, operation) = cut_in_the_download(scene).await;
    router.modem.power_cut().unwrap();
    router.link.restore();
    let baselining = || router.phase() == Some(Phase::Baselining);
    until("the image is verified", baselining).await.unwrap();
    (router, operation)
}

fn flashed(router: &Router) -> u32 {
    router.modem.state().unwrap().flash.begun
}

/// How often the agent has asked for the grant in vain.
fn asked(router: &Router) -> usize {
    router.agent_log().matches("no answer to the request for the grant").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_before_the_grant_means_that_nothing_is_ever_flashed() {
    let scene = scene("grant-cancel-wins");
    let (mut router, id) = before_the_grant(&scene).await;
    // The agent does not hear of it: only the grant it will ask for can stop it.
    router.link.cut();
    let (status, answer) = watch::cancel(&scene.api, &id).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    router.modem.power_on().unwrap();
    until("the agent asks", || asked(&router) > 0).await.unwrap();
    // Restarted, it goes on from its journal, still without a word from the coordinator.
    router.kill_agent();
    let before = asked(&router);
    // As NTP says it: with a deadline and no time, it would not even ask.
    std::fs::write(router.dir.join("run/clock-set"), "").unwrap();
    router.start_agent().unwrap();
    until("the agent asks again", || asked(&router) > before).await.unwrap();
    router.link.restore();

    let over = || router.agent_log().contains("ended: Cancelled");
    until("the agent gives up", over).await.unwrap();
    let ended = scene.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
    assert!(!ended["log"].as_str().unwrap().contains("may start"), "{ended:#}");

    router.kill_agent();
    router.start_agent().unwrap();
    // Another upgrade goes its way afterwards, so the agent has read what is desired by then.
    let other = Wanted { package: "45.00.005".into(), sequence: 5, ..Wanted::default() };
    let other = scene.image(&other).unwrap();
    let device = ended["device"].as_str().unwrap();
    assert_eq!(flashed(&router), 0);
    let next = watch::assign(&scene.api, device, &other).await.unwrap();
    let next = scene.ended(&next).await.unwrap();
    assert_eq!(next["status"], "success", "{next:#}");
    assert_eq!(flashed(&router), 1);
    assert_eq!(router.modem.versions().unwrap().package, "45.00.005");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_after_the_grant_is_refused_with_the_reason() {
    let scene = scene("grant-cancel-late");
    let (router, id) = under_way(&scene, &[SLOW]).await;
    scene.operation(&id, |o| o["granted"] == true).await.unwrap();
    let (status, answer) = watch::cancel(&scene.api, &id).await.unwrap();
    assert_eq!(status, 409, "{answer}");
    assert!(answer.to_string().contains("cannot be cancelled"), "{answer}");
    let ended = scene.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "success", "{ended:#}");
    assert_eq!(flashed(&router), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_coordinator_the_agent_waits_and_touches_nothing() {
    let scene = scene("grant-unreachable");
    let (router, id) = before_the_grant(&scene).await;
    router.link.cut();
    router.modem.power_on().unwrap();
    // It has asked, more than once, and nobody answered.
    until("the agent asks for the grant", || asked(&router) > 1).await.unwrap();
    assert_eq!(flashed(&router), 0);
    assert_eq!(router.modem.versions().unwrap().package, FROM);
    assert_eq!(router.holder_calls(), Vec::<String>::new(), "something was held");
    let waiting = scene.operation(&id, |_| true).await.unwrap();
    assert_eq!((&waiting["granted"], &waiting["status"]), (&false.into(), &"in-progress".into()));

    router.link.restore();
    let ended = scene.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "success", "{ended:#}");
    assert_eq!((flashed(&router), router.modem.versions().unwrap().package.as_str()), (1, TO));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_uplink_that_fails_before_the_grant_keeps_an_image_in_memory_from_the_modem() {
    let scene = scene("grant-failover");
    let memory = format!("/dev/shm/modem-upgrader-failover-{}", std::process::id());
    let mut router = scene.router(1, false).await.unwrap();
    let durable = format!("staging = [\"{}/staging\"]", router.dir.display());
    router.edit("agent.toml", &durable, &format!("staging = [{memory:?}]")).unwrap();
    // The last gate before the grant is a sure place to cut the link.
    let gate = router.dir.join("hooks/pre-check");
    std::fs::create_dir_all(&gate).unwrap();
    let hook = gate.join("gate");
    std::fs::write(
        &hook,
        "#!/bin/sh\ncd \"$(dirname \"$0\")/..\" && : > asked\nuntil [ -e go ]; do sleep 0.05; done\n",
    )
    .unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let image = scene.image(&Wanted::default()).unwrap();
    let id = watch::assign(&scene.api, &device, &image).await.unwrap();
    let (there, go) = (router.dir.join("hooks/asked"), router.dir.join("hooks/go"));
    until("the image is verified", || there.exists()).await.unwrap();
    router.link.cut();
    std::fs::write(go, "").unwrap();
    until("the agent asks for the grant", || asked(&router) > 0).await.unwrap();

    router.set_sole_uplink(true).unwrap();
    router.link.restore();
    let waits = |operation: &serde_json::Value| {
        operation["log"].as_str().is_some_and(|log| log.contains("no staging directory survives"))
    };
    let waiting = scene.operation(&id, waits).await.unwrap();
    assert_eq!((&waiting["granted"], &waiting["status"]), (&false.into(), &"in-progress".into()));
    assert_eq!((flashed(&router), router.holder_calls()), (0, Vec::<String>::new()));

    router.set_sole_uplink(false).unwrap();
    let ended = scene.ended(&id).await.unwrap();
    assert_eq!((&ended["status"], flashed(&router)), (&"success".into(), 1), "{ended:#}");
    let _ = std::fs::remove_dir_all(memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_whose_answer_was_lost_is_the_same_grant() {
    let scene = scene("grant-twice");
    let (router, id) = before_the_grant(&scene).await;
    scene.operation(&id, |o| o["phase"] == "baselining").await.unwrap();
    let stream: String = scene
        .database()
        .unwrap()
        .query_row("SELECT stream FROM operations WHERE id = ?1", [&id], |row| row.get(0))
        .unwrap();
    // The agent's own request, before it makes it: granted, and it never hears of it.
    let device = SignedIn::as_router(&router, &scene.coordinator).await.unwrap();
    let request = |attempt: u32, stream: &str| json!({ "attempt": attempt, "stream": stream, "dark_expected_s": 0, "dark_longest_s": 60 });
    let path = format!("operations/{id}/start");
    let (status, first) = device.post(&path, &request(1, &stream)).await.unwrap();
    assert_eq!(status, 200, "{first}");
    let (status, second) = device.post(&path, &request(1, &stream)).await.unwrap();
    assert_eq!((status, second), (200, first));
    // Neither another journal nor a second attempt beside the first.
    let other = "00000000-0000-4000-8000-000000000000";
    let (status, refusal) = device.post(&path, &request(1, other)).await.unwrap();
    assert_eq!((status, &refusal["code"]), (409, &"quarantined".into()), "{refusal}");
    let (status, answer) = watch::cancel(&scene.api, &id).await.unwrap();
    assert_eq!(status, 409, "{answer}");

    router.modem.power_on().unwrap();
    let ended = scene.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "success", "{ended:#}");
    assert_eq!(ended["log"].as_str().unwrap().matches("may start").count(), 1, "{ended:#}");
    let counted: u32 = scene
        .database()
        .unwrap()
        .query_row("SELECT attempts_granted FROM operations WHERE id = ?1", [&id], |row| row.get(0))
        .unwrap();
    assert_eq!((counted, flashed(&router)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_right_after_the_grant_flashes_once() {
    let scene = scene("grant-killed");
    let (mut router, id) = before_the_grant(&scene).await;
    router.modem.power_on().unwrap();
    scene.operation(&id, |o| o["granted"] == true).await.unwrap();
    router.kill_agent();
    router.start_agent().unwrap();
    let ended = scene.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "success", "{ended:#}");
    // Killed before the tool runs, the attempt is lost and another follows; killed later, its tool
    // is found again. Either way no attempt counts twice and the modem is written once.
    let log = ended["log"].as_str().unwrap();
    assert_eq!((log.matches("attempt 1 may start").count(), flashed(&router)), (1, 1), "{log}");
    let counted = log.matches("may start").count();
    assert_eq!(ended["attempt"], counted, "{log}");
}
