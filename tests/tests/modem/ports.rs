//! Which modem it is and where: ports that vanish, come back under other names, belong to somebody
//! else, or to another modem.

use crate::router::{IMEI, LIMIT, OLD, Router, Running, expected, versions_of};
use agent::modem::{Condition, Port, PortError, Seen, Sought, dialect, survey, wait_ready};
use lab::{
    faults::ModemFault,
    firmware::Model,
    modem::{FlashCondition, Mode, RemoteModem, Request, Settings, SimulatedModem},
    watch,
};
use std::path::Path;
use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

const OTHER_IMEI: &str = "351234560000022";

#[tokio::test]
async fn a_port_of_wwan_is_driven_by_plain_termios() {
    let router = Router::with(|settings| settings.faults.push(ModemFault::UrcStorm));
    let ready = router.ready().await;
    let pty = fs::read_link(router.place().port(&ready.modem.at[0])).unwrap();
    drop(ready);
    let path = router.place().port("wwan0at0");
    std::os::unix::fs::symlink(pty, &path).unwrap();
    let mut port = Port::open(&path, Duration::from_secs(3)).await.unwrap();
    assert_eq!(dialect::identify(&mut port).await.unwrap().imei, IMEI);
    router.modem.power_cut().unwrap();
    let gone = port.command("AT", Duration::from_secs(3)).await;
    assert!(matches!(gone, Err(PortError::Gone)), "{gone:?}");
    let gone = Port::open(&path, Duration::from_secs(3)).await.map(|_| ());
    assert!(matches!(gone, Err(PortError::Gone)), "{gone:?}");
}

#[tokio::test]
async fn after_a_restart_the_modem_is_found_under_other_names() {
    let router = Router::new();
    let mut ready = router.ready().await;
    let before = ready.modem.at.clone();
    // Its ports may vanish before the OK gets out.
    let _ = ready.port.command("AT#REBOOT", Duration::from_secs(8)).await;
    router.until(|state| state.enumerations == 2 && state.mode == Mode::Normal).await;
    let gone = ready.port.command("AT", Duration::from_secs(3)).await;
    assert!(matches!(gone, Err(PortError::Gone)), "{gone:?}");
    let mut ready = router.ready().await;
    assert_ne!(ready.modem.at, before);
    assert_eq!(versions_of(&mut ready).await, expected(OLD));
}

#[tokio::test]
async fn a_modem_that_restarts_under_a_command_is_gone_and_comes_back() {
    let router = Router::new();
    let mut ready = router.ready().await;
    router.modem.set_fault(ModemFault::Restart { after_commands: 2 }).unwrap();
    let error = loop {
        match ready.port.command("AT+CGMR", Duration::from_secs(3)).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PortError::Gone | PortError::Timeout { .. }), "{error:?}");
    assert_eq!(versions_of(&mut router.ready().await).await, expected(OLD));
}

#[tokio::test]
async fn what_is_seen_in_place_of_the_modem_is_said() {
    let soon = || tokio::time::Instant::now() + Duration::from_millis(2500);
    let router = Router::new();
    router.ready().await;
    let other = wait_ready(&router.place(), Sought::Imei(OTHER_IMEI), soon()).await.unwrap_err();
    assert_eq!(other.seen, Seen::OtherModem { imei: IMEI.into() });

    let seen_with = async |change: fn(&mut Settings), mode: Mode| {
        let router = Router::with(change);
        router.until(|state| state.mode == mode).await;
        wait_ready(&router.place(), Sought::Any, soon()).await.unwrap_err().seen
    };
    let seen = seen_with(|settings| settings.boot_silence = LIMIT, Mode::Normal).await;
    assert_eq!(seen, Seen::Silent);
    let half: fn(&mut Settings) =
        |settings| settings.factory.condition = FlashCondition::HalfWritten;
    assert_eq!(seen_with(half, Mode::Download).await, Seen::Abnormal(Condition::DownloadMode));
    let crashing: fn(&mut Settings) =
        |settings| settings.factory.condition = FlashCondition::Crashing;
    assert_eq!(seen_with(crashing, Mode::CrashDump).await, Seen::Abnormal(Condition::CrashDump));
    let dead: fn(&mut Settings) = |settings| settings.factory.condition = FlashCondition::Dead;
    assert_eq!(seen_with(dead, Mode::Dead).await, Seen::Nothing);
}

/// A router's second modem, at its own place.
fn second(router: &Router, change: impl FnOnce(&mut Settings)) -> SimulatedModem {
    let mut settings = Settings::new(router.path(), Model::Fn990a28, OLD, OTHER_IMEI);
    settings.name = "second".into();
    settings.bus_id = "2-2".into();
    settings.download_bus_id = "1-2".into();
    settings.net = "wwan1".into();
    change(&mut settings);
    SimulatedModem::start(settings).unwrap()
}

#[tokio::test]
async fn everybody_on_the_bus_is_asked_who_they_are() {
    let router = Router::with(|s| s.factory.condition = FlashCondition::HalfWritten);
    router.until(|state| state.mode == Mode::Download).await;
    let _second = second(&router, |_| {});
    let deadline = tokio::time::Instant::now() + LIMIT;
    wait_ready(&router.place(), Sought::Imei(OTHER_IMEI), deadline).await.unwrap();
    let survey = survey(&router.place(), Path::new("/nowhere/mmcli")).await;
    assert_eq!(survey.answering, [OTHER_IMEI]);
    assert_eq!(survey.silent, Vec::<String>::new());
    let abnormal: Vec<_> = survey.abnormal.iter().map(|d| d.usb.to_string()).collect();
    assert_eq!(abnormal, ["1bc7:9010"]);
}

#[tokio::test]
async fn a_port_that_somebody_uses_is_spared() {
    let router = Router::new();
    let ready = router.ready().await;
    let pty = |index: usize| fs::read_link(router.place().port(&ready.modem.at[index])).unwrap();
    let ptys = [pty(0), pty(1)];
    let spared = ready.modem.at[1].clone();
    drop(ready);
    let proc = router.path().join("other");
    let open = proc.join("4711/fd");
    fs::create_dir_all(&open).unwrap();
    fs::write(proc.join("4711/comm"), "ModemManager\n").unwrap();
    let place = router.place().sparing(&proc);
    let look = async || {
        let deadline = tokio::time::Instant::now() + LIMIT;
        wait_ready(&place, Sought::Any, deadline).await
    };
    std::os::unix::fs::symlink(&ptys[0], open.join("3")).unwrap();
    let patience = tokio::time::Instant::now() + LIMIT;
    let ready = loop {
        match look().await {
            Ok(ready) => break ready,
            // On a busy machine the free port's answer may be late.
            Err(error) => assert!(tokio::time::Instant::now() < patience, "{error}"),
        }
    };
    assert_eq!(ready.modem.at[1], spared);
    assert_eq!(ready.port.path(), place.port(&spared));
    drop(ready);
    std::os::unix::fs::symlink(&ptys[1], open.join("4")).unwrap();
    let by = "ModemManager (pid 4711)".to_owned();
    assert_eq!(look().await.unwrap_err().seen, Seen::InUse { by });
}

#[tokio::test]
async fn another_modem_that_somebody_uses_is_not_asked_while_ours_is_away() {
    let router = Router::with(|s| s.factory.condition = FlashCondition::HalfWritten);
    router.until(|state| state.mode == Mode::Download).await;
    let second = second(&router, |_| {});
    let deadline = || tokio::time::Instant::now() + LIMIT;
    wait_ready(&router.place(), Sought::Imei(OTHER_IMEI), deadline()).await.unwrap();
    let asked = || second.state().unwrap().commands;
    let before = asked();
    let place = router.place().without(vec!["2-2".into()]);
    let soon = tokio::time::Instant::now() + Duration::from_secs(2);
    let away = wait_ready(&place, Sought::Imei(IMEI), soon).await.unwrap_err();
    assert_eq!(away.seen, Seen::Abnormal(Condition::DownloadMode));
    assert_eq!(asked(), before, "it was disturbed");
}

#[tokio::test]
async fn a_modem_whose_imei_is_not_known_yet_is_told_by_its_place() {
    let router = Router::new();
    let _second = second(&router, |_| {});
    for (place, imei) in [("2-1", IMEI), ("2-2", OTHER_IMEI)] {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let ready = wait_ready(&router.place(), Sought::At(place), deadline).await.unwrap();
        assert_eq!(ready.identity.imei, imei);
    }
}

#[tokio::test]
async fn a_modem_in_its_own_process_is_controlled_over_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["sim-modem", "--enumeration-ms", "10", "--model", "FN990A40", "--dir"]);
    command.arg(directory.path()).arg("--until-stdin-closes").stdin(Stdio::piped());
    let mut process = Running(command.spawn().unwrap());
    let remote = RemoteModem::of(directory.path(), "modem");
    let normal = async || {
        let state = || remote.ask(&Request::State).ok().filter(|state| state.mode == Mode::Normal);
        watch::found("the modem has booted", state).await.unwrap()
    };
    assert_eq!(normal().await.flash.model, Model::Fn990a40);
    assert_eq!(remote.ask(&Request::PowerCut).unwrap().mode, Mode::Off);
    remote.ask(&Request::PowerOn).unwrap();
    normal().await;
    drop(process.0.stdin.take());
    assert!(process.0.wait().unwrap().success());
    assert_eq!(fs::read_dir(directory.path().join("dev")).unwrap().count(), 0);
}
