//! The agent's dialect and the stand-in tool against the simulated modem, over real ptys.
#![allow(clippy::unwrap_used, reason = "what tests share is a test as well")]
#![allow(clippy::disallowed_methods, reason = "a test plays the world around the agent")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use agent::modem::baseline::{baseline, restore};
use agent::modem::dialect::{self, VersionCommands, read_versions};
use agent::modem::{
    Condition, Difference, Place, Port, PortError, Ready, Seen, Snapshot, Sought, survey,
    wait_ready,
};
use lab::faults::{ModemFault, ToolFault, ToolFaultKind, write_tool_faults};
use lab::firmware::{Model, Versions, write_firmware};
use lab::modem::{FlashCondition, Mode, Settings, SimulatedModem, State};
use tempfile::TempDir;

const IMEI: &str = "351234560000014";
const OTHER_IMEI: &str = "351234560000022";
const OLD: &str = "45.00.002";
const NEW: &str = "45.00.004";
const LIMIT: Duration = Duration::from_secs(30);
const SIZE: usize = 1024 * 1024;

/// A router with one modem.
struct Router {
    directory: TempDir,
    modem: SimulatedModem,
}

impl Router {
    fn new() -> Router {
        Router::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Router {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(directory.path(), Model::Fn990a28, OLD, IMEI);
        change(&mut settings);
        let modem = SimulatedModem::start(settings).unwrap();
        Router { directory, modem }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn place(&self) -> Place {
        Place::new(&self.path().join("sys"), &self.path().join("dev"))
    }

    fn snapshot(&self) -> Snapshot {
        self.place().snapshot()
    }

    async fn ready(&self) -> Ready {
        let deadline = tokio::time::Instant::now() + LIMIT;
        wait_ready(&self.place(), Sought::Imei(IMEI), deadline).await.unwrap()
    }

    fn until(&self, what: impl Fn(&State) -> bool) -> State {
        let start = Instant::now();
        loop {
            let state = self.modem.state().unwrap();
            if what(&state) {
                return state;
            }
            assert!(start.elapsed() < LIMIT, "still {state:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The port that a tool is given: diag, or the only one of download mode.
    fn tool_port(&self) -> PathBuf {
        let state = self.until(|state| !state.ttys.is_empty());
        self.path().join("dev").join(&state.ttys[0])
    }

    fn firmware(&self, model: Model, package: &str) -> PathBuf {
        let path = self.path().join(format!("{}-{package}.bin", model.name()));
        write_firmware(&path, model, package, SIZE, 7).unwrap();
        path
    }

    fn tool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg0("uxfp").args(arguments).stdin(Stdio::null());
        command
    }

    fn flash(&self, file: &Path, more: &[&str]) -> Output {
        self.flash_command(file).args(more).output().unwrap()
    }

    fn start_flash(&self, file: &Path, more: &[&str]) -> Running {
        let mut command = self.flash_command(file);
        Running(command.args(more).stdout(Stdio::null()).spawn().unwrap())
    }

    fn flash_command(&self, file: &Path) -> Command {
        let port = self.tool_port();
        self.tool(&["--file", file.to_str().unwrap(), "--port", port.to_str().unwrap()])
    }

    /// Each in one run, in this order.
    fn faults(&self, faults: &[ToolFaultKind]) {
        let faults: Vec<ToolFault> =
            faults.iter().map(|kind| ToolFault { kind: *kind, times: Some(1) }).collect();
        write_tool_faults(self.path(), &faults).unwrap();
    }
}

/// A process that is not left behind.
struct Running(Child);

impl Running {
    fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// SIGTERM is signal 15: bit 14 of the blocked ones.
    fn blocks_sigterm(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(blocked.trim(), 16).unwrap() & (1 << 14) != 0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn versions_of(ready: &mut Ready) -> Vec<(String, Vec<String>)> {
    let commands = ["#SWPKGV", "+CGMR", "+GMR"].map(str::to_owned);
    read_versions(&mut ready.port, &VersionCommands::new(&commands, [])).await.unwrap()
}

fn expected(package: &str) -> Vec<(String, Vec<String>)> {
    let versions = Versions::of_package(package);
    let modem = vec![versions.modem.clone()];
    vec![
        ("#SWPKGV".into(), versions.lines().map(str::to_owned).to_vec()),
        ("+CGMR".into(), modem.clone()),
        ("+GMR".into(), modem),
    ]
}

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
    dialect::reboot(&mut ready.port).await.unwrap();
    router.until(|state| state.enumerations == 2 && state.mode == Mode::Normal);
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
async fn a_lost_composition_and_switch_are_put_back() {
    let router = Router::new();
    let before = baseline(&mut router.ready().await.port).await.unwrap();
    let lost =
        [ModemFault::CompositionAfterFlash { composition: 2 }, ModemFault::SettingsLostAfterFlash];
    for fault in lost {
        router.modem.set_fault(fault).unwrap();
    }
    assert!(router.flash(&router.firmware(Model::Fn990a28, NEW), &[]).status.success());
    let mut changed = router.ready().await;
    assert_eq!(changed.modem.usb.to_string(), "1bc7:1071");
    for round in 0.. {
        let now = baseline(&mut changed.port).await.unwrap();
        let differences = before.differences(&now);
        let Some(difference) = differences.first() else { break };
        assert!(round < 2, "{differences:?}");
        assert_ne!(*difference, Difference::Network);
        let enumerations = router.modem.state().unwrap().enumerations;
        restore(&mut changed.port, difference).await.unwrap();
        router.until(|state| state.enumerations > enumerations);
        changed = router.ready().await;
    }
    assert_eq!(changed.modem.usb.to_string(), "1bc7:1070");
    assert_eq!(versions_of(&mut changed).await, expected(NEW));
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
        router.until(|state| state.mode == mode);
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
    router.until(|state| state.mode == Mode::Download);
    let _second = second(&router, |_| {});
    let deadline = tokio::time::Instant::now() + LIMIT;
    wait_ready(&router.place(), Sought::Imei(OTHER_IMEI), deadline).await.unwrap();
    let survey = survey(&router.place()).await;
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
    let ready = look().await.unwrap();
    assert_eq!(ready.modem.at[1], spared);
    assert_eq!(ready.port.path(), place.port(&spared));
    drop(ready);
    std::os::unix::fs::symlink(&ptys[1], open.join("4")).unwrap();
    let by = "ModemManager (pid 4711)".to_owned();
    assert_eq!(look().await.unwrap_err().seen, Seen::InUse { by });
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
async fn the_tool_moves_every_byte_and_the_modem_says_the_new_version() {
    let router = Router::new();
    router.ready().await;
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let output = router.flash(&firmware, &[]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("UXFP version 1.14.5-0\n"));
    for line in [
        "[+] checking connected devices...\n",
        "[+] enter boot mode phase 2: the device will disconnect and reconnect\n",
        "[+] enter boot mode OK\n",
        "[+] firmware uploaded successfully!\n",
    ] {
        assert!(said.contains(line), "{line} not in {said}");
    }
    assert!(said.contains(" 50%, transferred ") && said.contains(" B\r[+] flashing ["), "{said}");
    let mut ready = router.ready().await;
    assert_eq!(versions_of(&mut ready).await, expected(NEW));
    let flash = router.modem.state().unwrap().flash;
    assert_eq!((flash.begun, flash.completed), (1, 1));
    let mut file = fs::File::open(&firmware).unwrap();
    let header = lab::firmware::Header::read(&mut file).unwrap();
    assert_eq!(flash.payload_sha256, Some(header.payload_sha256));
}

#[tokio::test]
async fn the_tool_takes_a_descriptor_and_reports_json() {
    let router = Router::new();
    router.ready().await;
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let output = router
        .flash_command(Path::new("/proc/self/fd/0"))
        .arg("--json")
        .stdin(fs::File::open(firmware).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines: Vec<serde_json::Value> =
        text(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    assert!(of("LOG") > 3 && of("PROGRESS") > 3);
    assert_eq!(lines.last().unwrap()["type"], "REPORT");
    assert_eq!(router.modem.versions().unwrap().package, NEW);
}

#[tokio::test]
async fn the_wrong_model_is_refused_with_the_modem_untouched() {
    let router = Router::new();
    router.ready().await;
    let output = router.flash(&router.firmware(Model::Fn990a40, "45.00.014"), &[]);
    assert!(!output.status.success());
    assert!(text(&output).contains("Invalid model 40 VS 28"), "{}", text(&output));
    let state = router.modem.state().unwrap();
    assert_eq!((state.mode, state.flash.begun), (Mode::Normal, 0));
    assert_eq!(state.flash.versions.package, OLD);
}

#[tokio::test]
async fn a_tool_that_fails_half_way_leaves_download_mode_and_recovers() {
    let router = Router::new();
    router.ready().await;
    router.faults(&[ToolFaultKind::Fail { at_percent: 40 }]);
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let failed = router.flash(&firmware, &[]);
    assert!(!failed.status.success());
    assert!(text(&failed).contains("[+] could not complete firmware upload"));
    let state = router.until(|state| state.mode == Mode::Download);
    assert_eq!(state.flash.condition, FlashCondition::HalfWritten);
    let [device] = router.snapshot().abnormal().try_into().unwrap();
    assert_eq!(device.condition, Condition::DownloadMode);
    assert_eq!((device.bus_id.as_str(), device.driver.as_deref()), ("1-1", Some("option")));

    let refused = router.flash(&firmware, &[]);
    assert!(text(&refused).contains("Modem is in recovery mode") && !refused.status.success());
    let recovered = router.flash(&firmware, &["--lossrecovery"]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    assert_eq!(versions_of(&mut router.ready().await).await, expected(NEW));
}

#[tokio::test]
async fn a_power_cut_while_flashing_keeps_the_truth() {
    let router = Router::new();
    router.ready().await;
    router.modem.set_fault(ModemFault::PowerCut { at_percent: 30, off_ms: None }).unwrap();
    let firmware = router.firmware(Model::Fn990a28, NEW);
    assert!(!router.flash(&firmware, &[]).status.success());
    assert_eq!(router.modem.state().unwrap().mode, Mode::Off);
    assert_eq!(router.snapshot(), Snapshot::default());

    let Router { directory, modem } = router;
    drop(modem);
    // The flash file wins over what the factory would have made.
    let settings = Settings::new(directory.path(), Model::Fn990a40, "45.00.019", "0");
    let router = Router { modem: SimulatedModem::start(settings).unwrap(), directory };
    let state = router.until(|state| state.mode == Mode::Download);
    assert_eq!(state.flash.imei, IMEI);
    assert!(router.flash(&firmware, &["--lossrecovery"]).status.success());
    assert_eq!(versions_of(&mut router.ready().await).await, expected(NEW));
}

#[tokio::test]
async fn a_power_cut_before_the_first_byte_leaves_the_old_version() {
    let router = Router::new();
    router.ready().await;
    let firmware = router.firmware(Model::Fn990a28, NEW);
    assert!(router.flash(&firmware, &["--boot-mode"]).status.success());
    router.until(|state| state.mode == Mode::Download);
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
    let running = router.start_flash(&firmware, &[]);
    router.until(|state| state.percent >= 10);
    drop(running);
    assert_eq!(router.modem.state().unwrap().mode, Mode::Download);
    let recovered = router.flash(&firmware, &["--lossrecovery"]);
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
    let mut polite = router.start_flash(&firmware, &[]);
    router.until(|state| state.percent >= 20);
    assert_eq!(polite.0.try_wait().unwrap(), None);
    polite.terminate();
    assert!(!polite.0.wait().unwrap().success());

    let mut stubborn = router.start_flash(&firmware, &["--lossrecovery"]);
    let start = Instant::now();
    while !stubborn.blocks_sigterm() {
        assert!(start.elapsed() < LIMIT, "it never blocked SIGTERM");
        std::thread::sleep(Duration::from_millis(5));
    }
    stubborn.terminate();
    assert_eq!(stubborn.0.try_wait().unwrap(), None);
    assert_eq!(router.modem.state().unwrap().mode, Mode::Download);
}

#[tokio::test]
async fn a_tool_that_lies_leaves_the_old_version() {
    let router = Router::new();
    router.ready().await;
    router.faults(&[ToolFaultKind::Lie]);
    let output = router.flash(&router.firmware(Model::Fn990a28, NEW), &[]);
    assert!(output.status.success());
    assert!(text(&output).contains("[+] firmware uploaded successfully!"));
    assert_eq!(router.modem.state().unwrap().flash.begun, 0);
    assert_eq!(versions_of(&mut router.ready().await).await, expected(OLD));
}

#[tokio::test]
async fn a_modem_that_stops_answering_makes_the_tool_give_up() {
    let router = Router::new();
    router.ready().await;
    router.modem.set_fault(ModemFault::StopsAnswering { at_percent: 50 }).unwrap();
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let output = router.flash(&firmware, &[]);
    assert!(!output.status.success());
    assert!(text(&output).contains("Run out of retries"), "{}", text(&output));
    assert!(router.flash(&firmware, &["--lossrecovery"]).status.success());
    assert_eq!(router.modem.versions().unwrap().package, NEW);
}

#[tokio::test]
async fn firmware_of_a_sister_model_flashed_in_recovery_crashes() {
    let router = Router::with(|settings| settings.factory.condition = FlashCondition::HalfWritten);
    let sister = router.firmware(Model::Fn990a40, "45.00.014");
    assert!(router.flash(&sister, &["--lossrecovery"]).status.success());
    router.until(|state| state.mode == Mode::CrashDump);
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
    assert!(!router.flash(&router.firmware(Model::Fn990a28, NEW), &[]).status.success());
    router.until(|state| state.mode == Mode::Dead);
    assert_eq!(router.snapshot(), Snapshot::default());
}

#[test]
fn the_tool_lists_diag_ports() {
    let router = Router::new();
    router.until(|state| state.mode == Mode::Normal);
    let list = || {
        let output = router.tool(&["--show-diag-ports"]).env("LAB_ROUTER", router.path()).output();
        output.unwrap()
    };
    let said = text(&list());
    assert!(said.contains("found 1 compatible modems"), "{said}");
    assert!(said.contains("1BC7:1070 - serial number: ") && said.contains("diag port: "), "{said}");
    router.modem.power_cut().unwrap();
    let none = list();
    assert!(!none.status.success());
    assert!(text(&none).contains("no device with compatible VID/PID has been found."));
}

#[test]
fn a_modem_in_its_own_process_is_controlled_over_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["sim-modem", "--enumeration-ms", "10", "--model", "FN990A40", "--dir"]);
    command.arg(directory.path()).arg("--until-stdin-closes").stdin(Stdio::piped());
    let mut process = Running(command.spawn().unwrap());
    let remote = lab::modem::RemoteModem::of(directory.path(), "modem");
    let until = |mode: Mode| {
        let start = Instant::now();
        loop {
            match remote.ask(&lab::modem::Request::State) {
                Ok(state) if state.mode == mode => return state,
                last => assert!(start.elapsed() < LIMIT, "{last:?}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    assert_eq!(until(Mode::Normal).flash.model, Model::Fn990a40);
    assert_eq!(remote.ask(&lab::modem::Request::PowerCut).unwrap().mode, Mode::Off);
    remote.ask(&lab::modem::Request::PowerOn).unwrap();
    until(Mode::Normal);
    drop(process.0.stdin.take());
    assert!(process.0.wait().unwrap().success());
    assert_eq!(fs::read_dir(directory.path().join("dev")).unwrap().count(), 0);
}
