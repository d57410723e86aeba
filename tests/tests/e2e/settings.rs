//! Settings that somebody broke while an upgrade was under way.

use crate::{SLOW, scene, started};
use lab::{
    release::{TO, Wanted},
    watch::{self, until},
};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn refused_settings_leave_no_modem_in_download_mode_and_begin_nothing() {
    let scene = scene("settings-refused");
    let mut router = scene.router(1, true).await.unwrap();
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    router.power_cut().unwrap();
    let good = fs::read_to_string(router.dir.join("agent.toml")).unwrap();
    router.edit("agent.toml", "backoff_s = 1", "backoff_s = 1\nmax_atempts = 2").unwrap();
    router.power_on().unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    assert_eq!(router.modem.state().unwrap().flash.versions.package, TO);
    watch::given_back(&router).await.unwrap();
    let said = "agent.toml: [upgrade] max_atempts: no such option";
    assert!(router.agent_log().contains(said), "{}", router.agent_log());
    let status = fs::read_to_string(router.dir.join("run/status.json")).unwrap();
    assert!(status.contains(said), "{status}");

    // What comes next waits for a person, and says for what.
    let next = Wanted { package: "45.00.006".into(), sequence: 6, ..Wanted::default() };
    let next = scene.image(&next).unwrap();
    let device = operation["device"].as_str().unwrap();
    let next = watch::assign(&scene.api, device, &next).await.unwrap();
    let waits = scene.operation(&next, |operation| {
        operation["log"].as_str().is_some_and(|log| log.contains(said))
    });
    assert_eq!(waits.await.unwrap()["status"], "in-progress");
    assert_eq!(router.modem.state().unwrap().flash.begun, 2);

    // A restarted agent finds nothing to finish, and leaves.
    router.kill_agent();
    fs::write(router.dir.join("agent.toml"), "[coordinator\n").unwrap();
    fs::write(router.dir.join("agent.log"), "").unwrap();
    router.start_agent().unwrap();
    until("the agent has ended", || router.has_ended().unwrap()).await.unwrap();
    let log = router.agent_log();
    assert!(log.contains("settings refused: ") && log.contains("agent.toml"), "{log}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 2);

    fs::write(router.dir.join("agent.toml"), good).unwrap();
    router.start_agent().unwrap();
    let next = scene.ended(&next).await.unwrap();
    assert_eq!(next["status"], "success", "{next:#}\n{}", router.agent_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_keeps_its_name_until_its_modem_is_whole_again() {
    let scene = scene("settings-renamed");
    let mut router = scene.router(1, true).await.unwrap();
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    router.power_cut().unwrap();
    let slots = format!("[[slot]]\nname = \"left\"\nimei = \"{}\"\n\n[modem]", router.imei);
    router.edit("agent.toml", "[modem]", &slots).unwrap();
    assert_eq!(router.ask(&["check-config"]).unwrap().0, Some(8), "refused, and one is to run");
    assert_eq!(router.ask(&["busy"]).unwrap().0, Some(7), "what was begun is not forgotten");
    router.power_on().unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    let said = "slot main: the upgrade is not finished";
    assert!(router.agent_log().contains(said), "{}", router.agent_log());
    watch::given_back(&router).await.unwrap();
    let whole = || router.ask(&["check-config"]).unwrap().0 == Some(0);
    until("the slot may have another name", whole).await.unwrap();
    // Nobody has to say so: it ends, and procd starts it again.
    until("the agent has ended", || router.has_ended().unwrap()).await.unwrap();
    router.start_agent().unwrap();
    let taken_over = || router.status().is_some_and(|status| status.settings_refused.is_none());
    until("the settings are in force", taken_over).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_switched_off_in_the_middle_finishes_and_begins_nothing() {
    let scene = scene("settings-off");
    let mut router = scene.router(1, true).await.unwrap();
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    router.power_cut().unwrap();
    router
        .edit("agent.toml", "[coordinator]", "[agent]\nenabled = false\n\n[coordinator]")
        .unwrap();
    assert_eq!(router.ask(&["check-config"]).unwrap().0, Some(0), "one is to run");
    router.power_on().unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    watch::given_back(&router).await.unwrap();

    let next = Wanted { package: "45.00.006".into(), sequence: 6, ..Wanted::default() };
    let next = scene.image(&next).unwrap();
    let device = operation["device"].as_str().unwrap();
    let next = watch::assign(&scene.api, device, &next).await.unwrap();
    let waits = scene.operation(&next, |operation| {
        operation["log"].as_str().is_some_and(|log| log.contains("enabled is off"))
    });
    assert_eq!(waits.await.unwrap()["status"], "in-progress");
    let (status, shown) = router.ask(&["check-config"]).unwrap();
    assert_eq!(status, Some(6), "none is to run");
    assert!(shown.contains("enabled"), "{shown}");
    router.kill_agent();
    router.start_agent().unwrap();
    until("the agent has ended", || router.has_ended().unwrap()).await.unwrap();
}
