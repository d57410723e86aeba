//! What a flash that breaks leaves behind, and what brings the modem back.

use crate::router::{IMEI, NEW, OLD, Router, expected, text, versions_of};
use agent::modem::{Condition, Snapshot};
use lab::{
    faults::{ModemFault, ToolFaultKind},
    firmware::Model,
    modem::{FlashCondition, Mode, Settings, SimulatedModem},
    watch,
};

#[tokio::test]
async fn a_tool_that_fails_half_way_leaves_download_mode_and_recovers() {
    let router = Router::new();
    router.ready().await;
    router.faults(&[ToolFaultKind::Fail { at_percent: 40 }]);
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let failed = router.flash(&firmware, &[]).await;
    assert!(!failed.status.success());
    assert!(text(&failed).contains("[+] could not complete firmware upload"));
    let state = router.until(|state| state.mode == Mode::Download).await;
    assert_eq!(state.flash.condition, FlashCondition::HalfWritten);
    let [device] = router.snapshot().abnormal().try_into().unwrap();
    assert_eq!(device.condition, Condition::DownloadMode);
    assert_eq!((device.bus_id.as_str(), device.driver.as_deref()), ("1-1", Some("option")));

    let refused = router.flash(&firmware, &[]).await;
    assert!(text(&refused).contains("Modem is in recovery mode") && !refused.status.success());
    let recovered = router.flash(&firmware, &["--lossrecovery"]).await;
    assert!(recovered.status.success(), "{}", text(&recovered));
    assert_eq!(versions_of(&mut router.ready().await).await, expected(NEW));
}

#[tokio::test]
async fn a_power_cut_while_flashing_keeps_the_truth() {
    let router = Router::new();
    router.ready().await;
    router.modem.set_fault(ModemFault::PowerCut { at_percent: 30, off_ms: None }).unwrap();
    let firmware = router.firmware(Model::Fn990a28, NEW);
    assert!(!router.flash(&firmware, &[]).await.status.success());
    assert_eq!(router.modem.state().unwrap().mode, Mode::Off);
    assert_eq!(router.snapshot(), Snapshot::default());

    let Router { directory, modem } = router;
    drop(modem);
    // The flash file wins over what the factory would have made.
    let settings = Settings::new(directory.path(), Model::Fn990a40, "45.00.019", "0");
    let router = Router { modem: SimulatedModem::start(settings).unwrap(), directory };
    let state = router.until(|state| state.mode == Mode::Download).await;
    assert_eq!(state.flash.imei, IMEI);
    assert!(router.flash(&firmware, &["--lossrecovery"]).await.status.success());
    assert_eq!(versions_of(&mut router.ready().await).await, expected(NEW));
}

#[tokio::test]
async fn a_power_cut_before_the_first_byte_leaves_the_old_version() {
    let router = Router::new();
    router.ready().await;
    let firmware = router.firmware(Model::Fn990a28, NEW);
    assert!(router.flash(&firmware, &["--boot-mode"]).await.status.success());
    router.until(|state| state.mode == Mode::Download).await;
    router.modem.power_cut().unwrap();
    router.modem.power_on().unwrap();
    assert_eq!(versions_of(&mut router.ready().await).await, expected(OLD));
}

#[tokio::test]
async fn a_killed_tool_leaves_a_port_that_the_next_one_can_use() {
    let router = Router::new();
    router.ready().await;
    router.faults(&[ToolFaultKind::Slow { bytes_per_second: 200_000 }]);
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let running = router.start_flash(&firmware, &[]).await;
    router.until(|state| state.percent >= 10).await;
    drop(running);
    assert_eq!(router.modem.state().unwrap().mode, Mode::Download);
    let recovered = router.flash(&firmware, &["--lossrecovery"]).await;
    assert!(recovered.status.success(), "{}", text(&recovered));
    assert_eq!(versions_of(&mut router.ready().await).await, expected(NEW));
}

#[tokio::test]
async fn a_tool_that_hangs_can_be_told_to_ignore_sigterm() {
    let router = Router::new();
    router.ready().await;
    router.faults(&[
        ToolFaultKind::Hang { at_percent: 20 },
        ToolFaultKind::HangIgnoringTerm { at_percent: 20 },
    ]);
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let mut polite = router.start_flash(&firmware, &[]).await;
    router.until(|state| state.percent >= 20).await;
    assert_eq!(polite.0.try_wait().unwrap(), None);
    polite.terminate();
    assert!(!polite.0.wait().unwrap().success());

    let mut stubborn = router.start_flash(&firmware, &["--lossrecovery"]).await;
    watch::until("SIGTERM is blocked", || stubborn.blocks_sigterm()).await.unwrap();
    stubborn.terminate();
    assert_eq!(stubborn.0.try_wait().unwrap(), None);
    assert_eq!(router.modem.state().unwrap().mode, Mode::Download);
}

#[tokio::test]
async fn a_modem_that_stops_answering_makes_the_tool_give_up() {
    let router = Router::new();
    router.ready().await;
    router.modem.set_fault(ModemFault::StopsAnswering { at_percent: 50 }).unwrap();
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let output = router.flash(&firmware, &[]).await;
    assert!(!output.status.success());
    assert!(text(&output).contains("Run out of retries"), "{}", text(&output));
    assert!(router.flash(&firmware, &["--lossrecovery"]).await.status.success());
    assert_eq!(router.modem.versions().unwrap().package, NEW);
}

#[tokio::test]
async fn firmware_of_a_sister_model_flashed_in_recovery_crashes() {
    let router = Router::with(|settings| settings.factory.condition = FlashCondition::HalfWritten);
    let sister = router.firmware(Model::Fn990a40, "45.00.014");
    assert!(router.flash(&sister, &["--lossrecovery"]).await.status.success());
    router.until(|state| state.mode == Mode::CrashDump).await;
    assert_eq!(router.snapshot().abnormal()[0].condition, Condition::CrashDump);
}

#[tokio::test]
async fn an_interrupted_flash_may_leave_nothing_to_recover() {
    let router = Router::new();
    router.ready().await;
    let cut = ModemFault::PowerCut { at_percent: 50, off_ms: Some(10) };
    for fault in [ModemFault::NeverRecovers, cut] {
        router.modem.set_fault(fault).unwrap();
    }
    assert!(!router.flash(&router.firmware(Model::Fn990a28, NEW), &[]).await.status.success());
    router.until(|state| state.mode == Mode::Dead).await;
    assert_eq!(router.snapshot(), Snapshot::default());
}
