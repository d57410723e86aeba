//! A router on which ModemManager has the modem: it is asked in the modem's place, and nobody reads beside
//! it from a port.

use crate::{enrolled, scene};
use lab::{
    release::{TO, Wanted},
    watch::{self, until},
};

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
    let same = Wanted { build: Some("again".into()), sequence: 5, ..Wanted::default() };
    let same = watch::assign(&scene.api, &device, &scene.image(&same).unwrap()).await.unwrap();
    let same = scene.ended(&same).await.unwrap();
    assert_eq!(same["status"], "success", "{same:#}\n{}", router.agent_log());
    let log = same["log"].as_str().unwrap();
    assert!(log.contains("may start") && log.contains("this version ran already"), "{log}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    watch::given_back(&router).await.unwrap();
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
