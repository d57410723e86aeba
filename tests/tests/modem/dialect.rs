//! What a modem says, through stutter, echo, unsolicited codes and silence, and what is put back.

use crate::router::{IMEI, LIMIT, NEW, OLD, Router, expected, versions_of};
use agent::modem::{
    Difference, PortError,
    dialect::{VersionCommands, read_versions},
    standing::{baseline, restore},
};
use lab::{faults::ModemFault, firmware::Model};
use std::time::Duration;

#[tokio::test]
async fn identity_and_versions_through_stutter_echo_and_boot_silence() {
    for seed in 0..6 {
        let router = Router::with(|settings| settings.seed = seed);
        let mut ready = router.ready().await;
        assert_eq!(ready.identity.manufacturer, "Telit");
        assert_eq!(ready.identity.model, "FN990A28");
        assert_eq!(ready.identity.imei, IMEI);
        assert_eq!(ready.identity.hardware_revision.as_deref(), Some("1.00"));
        assert_eq!(ready.modem.usb.to_string(), "1bc7:1070");
        assert_eq!(ready.modem.net, ["wwan0"]);
        assert_eq!(versions_of(&mut ready).await, expected(OLD));
    }
}

#[tokio::test]
async fn a_storm_of_unsolicited_codes_changes_no_value() {
    for seed in 0..6 {
        let router = Router::with(|settings| {
            settings.seed = seed;
            settings.faults.push(ModemFault::UrcStorm);
        });
        let mut ready = router.ready().await;
        for _ in 0..5 {
            assert_eq!(versions_of(&mut ready).await, expected(OLD));
        }
        let baseline = baseline(&mut ready.port).await.unwrap();
        assert_eq!(baseline.sim.as_deref(), Some("READY"));
        assert_eq!(baseline.usb_composition.as_deref(), Some("1"));
        assert_eq!(baseline.firmware_switch.as_deref(), Some("40,0,0"));
        assert_eq!(baseline.sim_status.as_deref(), Some("0,1,1"));
        assert!(baseline.is_registered());
        assert!(baseline.iccid.is_some());
    }
}

#[tokio::test]
async fn a_modem_without_sim_still_has_an_identity_and_a_baseline() {
    let router = Router::with(|settings| settings.factory.iccid = None);
    let mut ready = router.ready().await;
    let baseline = baseline(&mut ready.port).await.unwrap();
    assert_eq!(baseline.sim.as_deref(), Some("+CME ERROR: 10"));
    assert_eq!(baseline.iccid, None);
    assert!(!baseline.is_registered());
}

#[tokio::test]
async fn an_unknown_command_is_refused_and_the_port_goes_on() {
    let router = Router::new();
    let mut ready = router.ready().await;
    let limit = Duration::from_secs(3);
    let refused = ready.port.command("AT#PACKINFO", limit).await;
    assert!(matches!(refused, Err(PortError::Refused { .. })), "{refused:?}");
    let not_sent = ready.port.command("AT+CGMI\rAT#REBOOT", limit).await;
    assert!(matches!(not_sent, Err(PortError::NotACommand { .. })), "{not_sent:?}");
    assert_eq!(versions_of(&mut ready).await, expected(OLD));
}

#[tokio::test]
async fn only_what_decides_has_to_be_answered() {
    let router = Router::new();
    let mut ready = router.ready().await;
    let (known, unknown) = (["#SWPKGV".to_owned()], ["#PACKINFO".to_owned()]);
    let more = VersionCommands::new(&known, known.iter().chain(&unknown));
    assert_eq!(read_versions(&mut ready.port, &more).await.unwrap(), expected(OLD)[..1]);
    let decisive = VersionCommands::new(&unknown, &known);
    let refused = read_versions(&mut ready.port, &decisive).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn a_modem_that_was_left_with_numeric_results_is_understood() {
    let router = Router::new();
    let mut ready = router.ready().await;
    // Its own answer is already a digit, which is no result where text may come.
    let answer = ready.port.command("ATV0", Duration::from_millis(300)).await;
    assert!(matches!(answer, Err(PortError::Timeout { .. })), "{answer:?}");
    drop(ready);
    let mut ready = router.ready().await;
    assert_eq!(versions_of(&mut ready).await, expected(OLD));
}

#[tokio::test]
async fn a_caller_that_gives_up_half_way_leaves_no_stale_answer() {
    let router = Router::new();
    let mut ready = router.ready().await;
    for millis in 0..12 {
        let hurry = Duration::from_millis(millis);
        let _ = tokio::time::timeout(hurry, ready.port.command("AT#SWPKGV", LIMIT)).await;
        let lines = ready.port.command("AT+CGSN", LIMIT).await.unwrap();
        assert!(lines.contains(&IMEI.to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("45.")), "{lines:?}");
    }
}

#[tokio::test]
async fn a_lost_composition_and_switch_are_put_back() {
    let router = Router::new();
    let before = baseline(&mut router.ready().await.port).await.unwrap();
    let lost =
        [ModemFault::CompositionAfterFlash { composition: 2 }, ModemFault::SettingsLostAfterFlash];
    for fault in lost {
        router.modem.set_fault(fault).unwrap();
    }
    assert!(router.flash(&router.firmware(Model::Fn990a28, NEW), &[]).await.status.success());
    let mut changed = router.ready().await;
    assert_eq!(changed.modem.usb.to_string(), "1bc7:1071");
    for round in 0.. {
        let now = baseline(&mut changed.port).await.unwrap();
        let differences = before.differences(&now);
        let Some(difference) = differences.first() else { break };
        assert!(round < 3, "{differences:?}");
        assert_ne!(*difference, Difference::Network);
        if matches!(difference, Difference::Context { .. }) {
            restore(&mut changed.port, difference).await.unwrap();
            continue;
        }
        let enumerations = router.modem.state().unwrap().enumerations;
        restore(&mut changed.port, difference).await.unwrap();
        router.until(|state| state.enumerations > enumerations).await;
        changed = router.ready().await;
    }
    assert_eq!(changed.modem.usb.to_string(), "1bc7:1070");
    assert_eq!(versions_of(&mut changed).await, expected(NEW));
}
