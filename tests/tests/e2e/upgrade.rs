//! Whole upgrades, with real processes: the smooth one, and those whose modem is touched while
//! something breaks.

use crate::{SLOW, enrolled, scene, started, under_way};
use lab::{
    faults::{ModemFault, ToolFault, ToolFaultKind},
    modem::{FlashCondition, Mode},
    release::{FROM, TO, Wanted},
    router::Router,
    watch::{self, until},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
};

/// What a success is: by the coordinator's word and by what the modem really holds.
#[track_caller]
fn assert_success(router: &Router, operation: &Value) {
    assert_eq!(operation["status"], "success", "{operation:#}\n{}", router.agent_log());
    assert_eq!(operation["evidence"], "versions");
    let flash = router.modem.state().unwrap().flash;
    assert_eq!((flash.versions.package.as_str(), flash.condition), (TO, FlashCondition::Whole));
}

/// That `lines` stand in the operation's log in this order, others between them.
#[track_caller]
fn assert_logged(operation: &Value, lines: &[&str]) {
    let log = operation["log"].as_str().unwrap();
    let mut rest = log.lines();
    for line in lines {
        assert!(rest.any(|logged| logged.ends_with(line)), "{line:?} in its place in\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flash_resets_is_as_before_when_it_is_a_success() {
    let scene = scene("restored");
    let mut router = scene.router(1, false).await.unwrap();
    for fault in
        [ModemFault::SettingsLostAfterFlash, ModemFault::CompositionAfterFlash { composition: 2 }]
    {
        router.modem.set_fault(fault).unwrap();
    }
    let before = router.modem.state().unwrap().flash;
    let operation = started(&scene, &mut router, &[]).await;
    let operation = watch::ended(&scene.api, &operation).await.unwrap();
    assert_success(&router, &operation);
    let after = router.modem.state().unwrap().flash;
    assert_eq!(after.contexts, before.contexts);
    assert_eq!(after.firmware_switch, before.firmware_switch);
    assert_eq!(after.usb_composition, before.usb_composition);
    assert_logged(&operation, &["attempt 1: restoring", "attempt 1: confirming"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smooth_upgrade_is_proved_and_told_step_by_step() {
    let scene = scene("upgrade-smooth");
    let image = scene.image(&Wanted::default()).unwrap();
    let (router, device) = enrolled(&scene, &[]).await;
    assert_eq!(router.modem.versions().unwrap().package, FROM);

    let known = scene.api.get(&format!("device/{device}/")).await.unwrap();
    let network = json!({ "sim": true, "sim_issuer": "894902", "registration": "home",
        "operator": "Lab Mobile", "technology": "lte", "rsrp_dbm": -81 });
    assert_eq!(known["modems"][0]["network"], network);

    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_success(&router, &operation);
    assert_eq!((&operation["progress_percent"], &operation["attempt"]), (&100.into(), &1.into()));
    assert_logged(
        &operation,
        &[
            "downloading",
            "verifying",
            "attempt 1 may start",
            "attempt 1: past the point of no return",
            "attempt 1: installing",
            "attempt 1: confirming",
        ],
    );
    watch::given_back(&router).await.unwrap();
    let calls = router.holder_calls();
    assert!(calls.contains(&"modemmanager stop".into()), "nothing was held: {calls:?}");

    let firmware = format!("device/{device}/modem-firmware/");
    let firmware = scene.api.get(&firmware).await.unwrap();
    assert_eq!((&firmware["installed"], &firmware["image"]), (&true.into(), &image.into()));

    // The same image again starts nothing.
    let body = json!({ "image": firmware["image"] });
    let path = format!("device/{device}/modem-firmware/");
    let again = scene.api.send(Method::PUT, &path, &body).await.unwrap();
    assert_eq!(again["upgrade_operation"], Value::Null, "{again:#}");
    // So does another one with the versions that run.
    let same = Wanted { build: Some("same".into()), sequence: 5, ..Wanted::default() };
    let body = json!({ "image": scene.image(&same).unwrap() });
    let there = scene.api.send(Method::PUT, &path, &body).await.unwrap();
    assert_eq!((&there["installed"], &there["upgrade_operation"]), (&true.into(), &Value::Null));
    // And where only the modem can tell: seen to be there, and nothing is flashed.
    let same =
        Wanted { build: Some("again".into()), sequence: 5, untold: true, ..Wanted::default() };
    let again = watch::assign(&scene.api, &device, &scene.image(&same).unwrap()).await.unwrap();
    let again = scene.ended(&again).await.unwrap();
    assert_success(&router, &again);
    assert!(!again["log"].as_str().unwrap().contains("may start"), "{again:#}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_under_the_sole_uplink_is_recovered_from_the_staged_image() {
    let scene = scene("upgrade-power-cut");
    let mut router = scene.router(1, true).await.unwrap();
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    // From here on the coordinator cannot help: what recovers the modem lies on the router.
    router.link.cut();
    router.power_cut().unwrap();
    assert_eq!(router.modem.state().unwrap().flash.condition, FlashCondition::HalfWritten);
    router.power_on().unwrap();
    // Found on the modem before it was flashed; in download mode nothing would tell.
    let dials = || router.dir.join("wwan.up").exists();
    assert!(!dials(), "an interface dials over the port of a modem in download mode");
    let whole = || router.modem.state().unwrap().flash.versions.package == TO;
    until("recovered without the coordinator", whole).await.unwrap();
    router.link.restore();

    let operation = scene.ended(&operation).await.unwrap();
    assert_success(&router, &operation);
    assert_logged(&operation, &["attempt 1: installing", "attempt 1: confirming"]);
    assert!(operation["log"].as_str().unwrap().contains("recovery 1"), "{operation:#}");
    assert_eq!(router.modem.state().unwrap().flash.begun, 2);
    watch::given_back(&router).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_flashing_finds_its_tool_again() {
    let scene = scene("upgrade-agent-killed");
    let mut router = scene.router(1, false).await.unwrap();
    for stage in ["pre-flash", "post-flash"] {
        note_hook(&router, stage);
    }
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    let tool = router.tool_processes();
    router.kill_agent();
    router.start_agent().unwrap();
    assert!(!tool.is_empty());
    let same = tool.iter().all(|pid| router.tool_processes().contains(pid));
    assert!(same, "the tool died with the agent");

    let operation = scene.ended(&operation).await.unwrap();
    assert_success(&router, &operation);
    assert_eq!(operation["attempt"], 1);
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    watch::given_back(&router).await.unwrap();
    let hooks = fs::read_to_string(router.dir.join("hooks.log")).unwrap();
    assert_eq!(hooks, "pre-flash\npost-flash\n", "each once, whoever started the tool");
}

/// A hook that notes its stage in `hooks.log`.
fn note_hook(router: &Router, stage: &str) {
    let directory = router.dir.join("hooks").join(stage);
    fs::create_dir_all(&directory).unwrap();
    let log = router.dir.join("hooks.log");
    let hook = directory.join("note");
    fs::write(&hook, format!("#!/bin/sh\necho {stage} >> {}\n", log.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modem_is_recovered_whatever_is_wrong_with_trust_and_identity() {
    let scene = scene("upgrade-no-trust");
    let mut router = scene.router(1, true).await.unwrap();
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    router.power_cut().unwrap();
    let settings = fs::read_to_string(router.dir.join("agent.toml")).unwrap();
    let pins = settings.lines().find(|line| line.starts_with("pins")).unwrap();
    router.edit("agent.toml", pins, "ca_file = \"/nowhere\"").unwrap();
    // Nor can the identity be read.
    let identity = router.dir.join("state/identity");
    let aside = router.dir.join("state/identity.aside");
    fs::rename(&identity, &aside).unwrap();
    fs::write(&identity, "").unwrap();
    router.power_on().unwrap();
    let whole = || router.modem.state().unwrap().flash.versions.package == TO;
    until("recovered without any uplink", whole).await.unwrap();
    watch::given_back(&router).await.unwrap();

    // Both mended, it tells what it did.
    router.kill_agent();
    fs::remove_file(&identity).unwrap();
    fs::rename(&aside, &identity).unwrap();
    fs::write(router.dir.join("agent.toml"), settings).unwrap();
    router.start_agent().unwrap();
    let operation = scene.ended(&operation).await.unwrap();
    assert_success(&router, &operation);
    assert!(operation["log"].as_str().unwrap().contains("recovery 1"), "{operation:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_of_a_tool_that_lies_counts_for_nothing() {
    let scene = scene("upgrade-lie");
    let lie = ToolFault { kind: ToolFaultKind::Lie, times: None };
    let (router, operation) = under_way(&scene, &[lie]).await;
    let operation = scene.ended(&operation).await.unwrap();
    assert_eq!(operation["status"], "failed", "{operation:#}");
    let failure = &operation["failure"];
    assert_eq!(failure["kind"], "version_mismatch", "{failure}");
    assert_eq!(failure["condition"], "old_version", "{failure}");
    // A lie is not worth a second attempt.
    assert_eq!(operation["attempt"], 1);
    assert_eq!(router.modem.versions().unwrap().package, FROM);
    let firmware = format!("device/{}/modem-firmware/", operation["device"].as_str().unwrap());
    assert_eq!(scene.api.get(&firmware).await.unwrap()["installed"], false);
    watch::given_back(&router).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_hangs_and_ignores_sigterm_is_ended_and_its_modem_recovered() {
    let scene = scene("upgrade-hang");
    let mut router = scene.router(1, false).await.unwrap();
    let hang = ToolFaultKind::HangIgnoringTerm { at_percent: 50 };
    router.edit("profiles/telit-uxfp.toml", "typical_s = 20", "typical_s = 5").unwrap();
    router.edit("profiles/telit-uxfp.toml", "total_s = 90", "total_s = 8").unwrap();
    let hang = ToolFault { kind: hang, times: Some(1) };
    let operation = started(&scene, &mut router, &[hang]).await;
    watch::half_flashed(&router).await.unwrap();
    let hanging = router.tool_processes();
    assert!(!hanging.is_empty());

    let operation = scene.ended(&operation).await.unwrap();
    assert_success(&router, &operation);
    let log = operation["log"].as_str().unwrap();
    assert!(log.contains("recovery 1"), "{log}");
    assert_eq!(router.modem.state().unwrap().mode, Mode::Normal);
    watch::given_back(&router).await.unwrap();
    // A zombie has no command line any more.
    let alive = |pid: &nix::unistd::Pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    };
    let gone = || !hanging.iter().any(alive);
    until("the hanging tool is gone", gone).await.unwrap();
}

/// Directories that can only be read any more, as after a power cut that the file system noticed; needs root.
struct ReadOnly(Vec<PathBuf>);

impl ReadOnly {
    fn mount(paths: &[PathBuf]) -> Option<Self> {
        let mut mounted = Self(Vec::new());
        for path in paths {
            let mount = |arguments: &[&str]| {
                let done = Command::new("mount").args(arguments).arg(path).output();
                done.is_ok_and(|done| done.status.success())
            };
            let own = path.to_string_lossy().into_owned();
            if !mount(&["--bind", &own]) {
                eprintln!("SKIPPED: nothing can be mounted here");
                return None;
            }
            mounted.0.push(path.clone());
            assert!(mount(&["-o", "remount,ro,bind"]));
        }
        Some(mounted)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = Command::new("umount").arg("--lazy").arg(path).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modem_is_recovered_from_a_disk_that_came_back_read_only() {
    let scene = scene("upgrade-read-only");
    let mut router = scene.router(1, true).await.unwrap();
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    router.power_cut().unwrap();
    let paths = [router.dir.join("state"), router.dir.join("staging")];
    let Some(_disk) = ReadOnly::mount(&paths) else { return };
    router.power_on().unwrap();
    let ended = scene.ended(&operation).await.unwrap();
    assert_eq!(
        ended["status"],
        "success",
        "{ended:#}
{}",
        router.agent_log()
    );
    let log = ended["log"].as_str().unwrap();
    assert!(log.contains("the upgrade goes on in memory"), "{log}");
    assert_eq!(router.modem.state().unwrap().flash.versions.package, TO);
    watch::given_back(&router).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_recovery_begins_while_somebody_has_the_port_open() {
    let scene = scene("upgrade-port");
    let mut router = scene.router(1, true).await.unwrap();
    router.edit("agent.toml", "backoff_s = 1", "backoff_s = 1\nrecovery_s = 1").unwrap();
    let operation = started(&scene, &mut router, &[SLOW]).await;
    watch::half_flashed(&router).await.unwrap();
    router.power_cut().unwrap();
    let gcom = router.dir.join("proc/4712");
    fs::create_dir_all(gcom.join("fd")).unwrap();
    fs::write(gcom.join("cmdline"), "gcom\0-d\0").unwrap();
    for port in 0..32 {
        symlink(router.dir.join(format!("dev/ttyUSB{port}")), gcom.join(format!("fd/{port}")))
            .unwrap();
    }
    router.power_on().unwrap();
    let waits = scene.operation(&operation, |operation| {
        operation["log"].as_str().is_some_and(|log| log.contains("gcom (pid 4712) has"))
    });
    waits.await.unwrap();
    assert_eq!(router.modem.state().unwrap().flash.begun, 1);
    fs::remove_dir_all(&gcom).unwrap();
    let ended = scene.ended(&operation).await.unwrap();
    assert_success(&router, &ended);
    watch::given_back(&router).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_ends_the_agent_and_the_next_one_goes_on() {
    let scene = scene("panic");
    let (mut router, device) = enrolled(&scene, &[]).await;
    router.kill_agent();
    // In a task that nobody waits for.
    router.strike("status.told@2=panic");
    router.start_agent().unwrap();
    until("the agent has ended", || router.has_ended().unwrap()).await.unwrap();
    assert!(router.was_struck(), "{}", router.agent_log());
    router.start_agent().unwrap();
    let image = scene.image(&Wanted::default()).unwrap();
    let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
    assert_success(&router, &scene.ended(&operation).await.unwrap());
}
