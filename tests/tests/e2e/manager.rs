//! A router on which ModemManager has the modem: it is asked in the modem's place, and nobody reads beside
//! it from a port.

use crate::{enrolled, scene};
use lab::{
    modem::Surroundings,
    release::{FROM, TO, Wanted},
    router::Router,
    scene::Scene,
    watch::{self, until},
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn no_port_of_modem_managers_is_opened_before_it_has_let_go() {
    let scene = scene("modem-manager");
    let mut router = scene.router(1, false).await.unwrap();
    router.give_to_modem_manager().unwrap();
    router.halt().unwrap();
    let image = scene.image(&Wanted::default()).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let known = scene.api.get(&format!("device/{device}/")).await.unwrap();
    let network = &known["modems"][0]["network"];
    assert_eq!((&network["operator"], &network["rsrp_dbm"]), (&"Lab Mobile".into(), &(-81).into()));
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let stopping = || router.holder_calls().contains(&"modemmanager stop".to_owned());
    until("ModemManager is asked to let go", stopping).await.unwrap();
    assert_eq!(router.modem.state().unwrap().commands, 0, "nobody has spoken to the modem");
    router.go_on().unwrap();

    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    let log = operation["log"].as_str().unwrap();
    assert!(!log.contains("not compared"), "SIM and network were known from before: {log}");
    assert_eq!(router.modem.versions().unwrap().package, TO);
    watch::given_back(&router).await.unwrap();

    // ModemManager cannot tell all that this one is to reach: the modem does, and nothing is flashed.
    let same =
        Wanted { build: Some("again".into()), sequence: 5, untold: true, ..Wanted::default() };
    let same = watch::assign(&scene.api, &device, &scene.image(&same).unwrap()).await.unwrap();
    let same = scene.ended(&same).await.unwrap();
    assert_eq!(same["status"], "success", "{same:#}\n{}", router.agent_log());
    let log = same["log"].as_str().unwrap();
    assert!(log.contains("may start") && log.contains("this version ran already"), "{log}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    watch::given_back(&router).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_modem_that_goes_down_with_modem_manager_is_no_other_way() {
    let scene = scene("modem-manager-another");
    let memory = format!("/dev/shm/modem-upgrader-another-{}", std::process::id());
    let mut router = scene.router(1, false).await.unwrap();
    router.give_to_modem_manager().unwrap();
    // The way to the coordinator leads over eth0.
    router.give_another("eth0").unwrap();
    let durable = format!("staging = [\"{}/staging\"]", router.dir.display());
    router.edit("agent.toml", &durable, &format!("staging = [{memory:?}]")).unwrap();
    let device = scene.enrol(&mut router).await.unwrap();
    let image = scene.image(&Wanted::default()).unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let ended = scene.ended(&operation).await.unwrap();
    assert_eq!(ended["failure"]["kind"], "no_durable_staging", "{ended:#}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 0);
    assert!(!router.holder_calls().contains(&"modemmanager stop".to_owned()));
    let _ = std::fs::remove_dir_all(memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_at_tells_is_restored_although_modem_manager_had_the_modem() {
    use lab::modem::FlashCondition;
    let scene = scene("modem-manager-restored");
    let mut router = scene.router(1, false).await.unwrap();
    router.give_to_modem_manager().unwrap();
    router.modem.set_fault(lab::faults::ModemFault::SettingsLostAfterFlash).unwrap();
    let before = router.modem.state().unwrap().flash;
    let operation = crate::started(&scene, &mut router, &[]).await;
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    let after = router.modem.state().unwrap().flash;
    assert_eq!((after.contexts, after.firmware_switch), (before.contexts, before.firmware_switch));
    assert_eq!(after.condition, FlashCondition::Whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sim_that_waits_for_its_pin_is_said_and_no_failure() {
    let scene = scene("locked-sim");
    let (router, device) = enrolled(&scene, &[]).await;
    router.modem.set_fault(lab::faults::ModemFault::SimLockedAfterFlash).unwrap();
    let image = scene.image(&Wanted::default()).unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    let log = operation["log"].as_str().unwrap();
    let said = "SIM and network were not compared: the SIM waits for its PIN";
    assert!(log.contains(said), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modem_that_tells_its_versions_late_is_waited_for() {
    let scene = scene("late-versions");
    let (router, device) = enrolled(&scene, &[]).await;
    router.modem.set_fault(lab::faults::ModemFault::LateVersions { ms: 6000 }).unwrap();
    let image = scene.image(&Wanted::default()).unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
}

/// What becomes of an upgrade after which the modem has this fault, in the ten seconds that the profile gives it.
async fn after_which(name: &str, fault: lab::faults::ModemFault) -> (Scene, Router, Value) {
    let scene = scene(name);
    let mut router = scene.router(1, false).await.unwrap();
    router.edit("profiles/telit-uxfp.toml", "# network_s = 1200", "network_s = 10").unwrap();
    router.modem.set_fault(fault).unwrap();
    let operation = crate::started(&scene, &mut router, &[]).await;
    let operation = scene.ended(&operation).await.unwrap();
    (scene, router, operation)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modem_that_is_not_back_in_its_network_in_time_has_failed_and_is_updated() {
    use lab::faults::ModemFault::{NetworkLostAfterFlash, SimLostAfterFlash};
    for (name, fault, why) in [
        ("no-network", NetworkLostAfterFlash, "not registered in a network again"),
        ("no-sim", SimLostAfterFlash, "the SIM is not back"),
    ] {
        let (_scene, router, operation) = after_which(name, fault).await;
        assert_eq!(operation["status"], "failed", "{operation:#}");
        let failure = &operation["failure"];
        assert_eq!(
            (&failure["kind"], &failure["condition"]),
            (&json!("acceptance"), &json!("updated"))
        );
        let detail = failure["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{detail}");
        assert_eq!(router.modem.versions().unwrap().package, TO);
        assert_eq!(
            router.modem.state().unwrap().flash.begun,
            1,
            "it is not flashed for that again"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sim_after_the_flash_is_said_and_not_compared() {
    let scene = scene("another-sim");
    let (router, device) = enrolled(&scene, &[]).await;
    let other = lab::faults::ModemFault::OtherSimAfterFlash { iccid: "8949021000000000026".into() };
    router.modem.set_fault(other).unwrap();
    let image = scene.image(&Wanted::default()).unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    let log = operation["log"].as_str().unwrap();
    let said = "SIM and network were not compared: another SIM is in the modem";
    assert!(log.contains(said), "{log}");
}

const HOT: Surroundings = Surroundings { voltage_mv: 3300, temperature_c: 90, rsrp_dbm: -81 };

/// Temperature is what ModemManager does not tell.
fn mind_the_heat(router: &Router) {
    router.give_to_modem_manager().unwrap();
    router
        .edit("profiles/telit-uxfp.toml", "# max_temperature_c = 85", "max_temperature_c = 70")
        .unwrap();
    router.modem.surround(HOT).unwrap();
}

/// Its grant has come back, and the coordinator knows why.
fn is_postponed(operation: &Value) -> bool {
    let log = operation["log"].as_str().unwrap_or_default();
    operation["granted"] == false && log.contains("handed back: the modem is hotter than 70 °C")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modem_that_turns_out_too_hot_is_given_back_and_tried_again_when_it_has_cooled() {
    let scene = scene("too-hot");
    let mut router = scene.router(1, false).await.unwrap();
    mind_the_heat(&router);
    let id = crate::started(&scene, &mut router, &[]).await;
    let waits = scene.operation(&id, is_postponed).await.unwrap();
    assert_eq!(waits["status"], "in-progress", "postponed is not failed: {waits:#}");
    // Each try takes the modem from ModemManager and gives it back.
    let tries = || router.holder_calls().iter().filter(|call| *call == "modemmanager stop").count();
    until("it is tried again", || tries() > 2).await.unwrap();
    assert_eq!(router.modem.state().unwrap().flash.begun, 0);
    // A crash in the middle of it changes nothing.
    router.kill_agent();
    router.start_agent().unwrap();
    router.modem.surround(Surroundings::default()).unwrap();

    let operation = scene.ended(&id).await.unwrap();
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    assert_eq!(router.modem.versions().unwrap().package, TO);
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    watch::given_back(&router).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_postponed_for_heat_can_be_cancelled_and_is_never_flashed() {
    let scene = scene("too-hot-cancelled");
    let mut router = scene.router(1, false).await.unwrap();
    mind_the_heat(&router);
    // It comes to no second try by itself.
    router.edit("agent.toml", "backoff_s = 1", "backoff_s = 3600").unwrap();
    let id = crate::started(&scene, &mut router, &[]).await;
    let waits = scene.operation(&id, is_postponed).await.unwrap();
    assert_eq!((&waits["attempt"], &waits["phase"]), (&0.into(), &"waiting".into()), "{waits:#}");
    assert_eq!(waits["detail"], "the modem is hotter than 70 °C", "{waits:#}");
    watch::given_back(&router).await.unwrap();
    let (status, answer) = watch::cancel(&scene.api, &id).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let over = || router.agent_log().contains("ended: Cancelled");
    until("the agent gives up", over).await.unwrap();
    assert_eq!(scene.ended(&id).await.unwrap()["status"], "cancelled");
    assert_eq!(router.modem.versions().unwrap().package, FROM);
    assert_eq!(router.modem.state().unwrap().flash.begun, 0);
}
