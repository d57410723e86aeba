//! Every built-in profile against a stand-in of its tool, under the real guardian: how the call is
//! made, what is understood of the output, and how an end is judged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "a test plays the world around the agent")]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::guardian::holders::Programs;
use agent::guardian::profile::{Places, Purpose, named_image, resolve};
use agent::guardian::record::{FORMAT, Follow, Image, Plan, RunDir, Timeouts};
use agent::guardian::{Ended, ExitRecord, Guardian, Presence, Status, Verdict};
use agent::verify::{SignaturePolicy, VerifiedImage, VerifiedManifest};
use shared::event::VersionLine;
use shared::manifest::{self, Encoding, Manifest};
use shared::profile::{BUILT_IN, ToolProfile};
use shared::signature::Keyring;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const ZIP: &[u8] = b"PK\x03\x04 a package";
const SEVEN_ZIP: &[u8] = b"7z\xbc\xaf a package";

/// One run of a profile's tool.
struct Run {
    profile: ToolProfile,
    directory: tempfile::TempDir,
    purpose: Purpose,
    total_ms: u64,
}

/// What came of it.
struct Came {
    record: ExitRecord,
    verdict: Verdict,
    percents: Vec<u8>,
    transcript: String,
}

impl Run {
    /// The stand-in does `mode` on an `image` of these bytes.
    fn new(name: &str, mode: &str, image: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = BUILT_IN.iter().find(|(built_in, _)| *built_in == name).unwrap().1;
        let mut profile = ToolProfile::parse(text).unwrap();
        profile.tool.environment.insert("LAB_TOOL".into(), mode.into());
        profile.tool.environment.insert("PATH".into(), "/usr/bin:/bin".into());
        profile.tool.program = stand_in(directory.path(), &profile.tool.program);
        if let Some(follow) = &mut profile.follow {
            follow.program = stand_in(directory.path(), &follow.program);
        }
        std::fs::write(directory.path().join("image"), image).unwrap();
        Self { profile, directory, purpose: Purpose::Install, total_ms: 50_000 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn plan(&self, image: &VerifiedImage) -> Plan {
        let run = RunDir::new(&self.path("run"));
        let state_dir = run.tool_state();
        let places = Places {
            image: image.path(),
            diag: Some(Path::new("/dev/ttyUSB0")),
            port: Some(Path::new("/dev/ttyUSB7")),
            usb: Some((Path::new("/sys/bus/usb/devices/2-1"), "1199:68c0".parse().unwrap())),
            state_dir: &state_dir,
        };
        let call = resolve(&self.profile, self.purpose, &BTreeMap::new(), &places).unwrap();
        let (device, inode) = image.inode();
        Plan {
            format: FORMAT,
            id: Uuid::from_u128(1),
            boot_id: "boot".into(),
            program: call.program,
            argv: call.argv,
            environment: self.profile.tool.environment.clone(),
            working_dir: self.directory.path().into(),
            image: Image {
                argument: self.profile.tool.image,
                path: image.path().into(),
                device,
                inode,
                size: image.size(),
                link: named_image(&self.profile.tool, &state_dir),
            },
            output: self.profile.output.clone(),
            follow: self.profile.follow.as_ref().zip(call.follow).map(|(f, (program, argv))| {
                let log = f.log.as_ref().map(|name| state_dir.join(name));
                Follow { program, argv, every_ms: 50, running: f.running.clone(), log }
            }),
            timeouts: Timeouts { idle_ms: 300, total_ms: self.total_ms, grace_ms: 200 },
            holders: Programs::default(),
            agent_lock: Presence::lock_path(&self.path("run")),
            orphan_grace_s: 600,
        }
    }

    async fn go(self) -> Came {
        let image = verified(&self.path("image")).await;
        let lab = PathBuf::from(env!("CARGO_BIN_EXE_lab"));
        let guardian =
            Guardian::with_program(&self.path("run"), lab, "modem-upgrader-agent".into());
        let plan = self.plan(&image);
        let mut running = guardian.start(&plan, &image, || None).await.unwrap();
        let mut percents = Vec::new();
        while let Some(progress) = running.next_progress().await {
            percents.extend(progress.percent);
        }
        let ended = tokio::time::timeout(PATIENCE, running.wait()).await.expect("it ends");
        let Ended::Exited(record) = ended else { panic!("no exit record") };
        let verdict = record.verdict(&self.profile.exit);
        let transcript = guardian.transcript().unwrap();
        Came { record, verdict, percents, transcript }
    }
}

async fn run(name: &str, mode: &str, image: &[u8]) -> Came {
    Run::new(name, mode, image).go().await
}

impl Came {
    fn status(&self) -> Option<u8> {
        match self.record.status {
            Status::Exited(code) => Some(code),
            Status::Signaled(_) => None,
        }
    }

    /// Progress never fell, was seen on the way to the end, and ended at `last`.
    fn progressed_to(&self, last: u8) {
        assert!(self.percents.is_sorted(), "{:?}", self.percents);
        let seen = self.percents.iter().any(|percent| (1..100).contains(percent));
        assert!(seen || last < 100, "{:?}", self.percents);
        assert_eq!(self.record.percent, Some(last));
    }
}

/// The lab's binary under the name of the program at `path`.
fn stand_in(directory: &Path, path: &str) -> String {
    let program = directory.join(Path::new(path).file_name().unwrap());
    if program.file_name().unwrap() == "tfl.sh" {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/profiles/tfl.sh");
        symlink(env!("CARGO_BIN_EXE_lab"), directory.join("tfl")).unwrap();
        let text = std::fs::read_to_string(script).unwrap();
        let text = text.replace("/usr/bin/tfl", directory.join("tfl").to_str().unwrap());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    } else {
        symlink(env!("CARGO_BIN_EXE_lab"), &program).unwrap();
    }
    program.to_str().unwrap().to_owned()
}

async fn verified(path: &Path) -> VerifiedImage {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().size(), bytes.len() as u64);
    let line = VersionLine { command: "+CGMR".into(), line: 1, value: "A1".into() };
    let manifest = Manifest {
        format: manifest::FORMAT,
        vendor: "Any".into(),
        models: vec!["M1".into()],
        category: "any".into(),
        sequence: 1,
        not_after: None,
        allow_rollback: false,
        reaches: vec![line],
        from: vec![],
        tool: manifest::Tool { profile: "any".into(), options: BTreeMap::new() },
        file: manifest::File {
            name: "any.bin".into(),
            size: bytes.len() as u64,
            sha256: shared::hex::sha256(&bytes),
            encoding: Encoding::Identity,
            decoded: None,
        },
        block_size: shared::limits::BLOCK,
        blocks: vec![shared::hex::sha256(&bytes)],
        critical: vec![],
    };
    let text = serde_json::to_vec(&manifest).unwrap();
    let digest = shared::hex::sha256(&text);
    let optional = SignaturePolicy::Optional;
    let manifest = VerifiedManifest::verify(&text, None, &digest, &Keyring::default(), optional);
    VerifiedImage::open(path, &manifest.unwrap(), |_| {}).await.unwrap()
}

#[tokio::test]
async fn qfirehose_succeeds_with_fail_in_its_log() {
    for mode in ["", "old", "no-md5"] {
        let came = run("quectel-qfirehose", mode, ZIP).await;
        assert_eq!((came.verdict, came.status()), (Verdict::Succeeded, Some(0)), "{mode}");
        assert!(came.transcript.contains("fh_recv_cmd 327 fail"));
        assert!(came.transcript.contains("firmware.zip") || came.transcript.contains("ttyUSB0"));
        came.progressed_to(100);
    }
}

#[tokio::test]
async fn qfirehoses_status_is_no_proof_in_either_direction() {
    for (mode, status) in [("fail", 146), ("fail-zero", 0), ("gone", 0)] {
        let came = run("quectel-qfirehose", mode, ZIP).await;
        assert_eq!((came.verdict, came.status()), (Verdict::Failed, Some(status)), "{mode}");
        came.progressed_to(37);
    }
    let not_a_zip = run("quectel-qfirehose", "", b"a directory").await;
    assert_eq!((not_a_zip.verdict, not_a_zip.status()), (Verdict::Failed, Some(132)));
    let mut recovery = Run::new("quectel-qfirehose", "", ZIP);
    recovery.purpose = Purpose::Recover;
    let came = recovery.go().await;
    assert_eq!(came.verdict, Verdict::Succeeded);
    assert!(came.transcript.contains("port_name = /sys/bus/usb/devices/2-1"));
}

#[tokio::test]
async fn a_tool_that_hangs_is_ended_whatever_it_said() {
    let all = [
        ("quectel-qfirehose", ZIP),
        ("fibocom", SEVEN_ZIP),
        ("sierra-qmi-firmware-update", b"cwe".as_slice()),
        ("openwisp-safe-update", b"bin"),
    ];
    let runs = all.map(|(name, image)| async move {
        let mut run = Run::new(name, "hang", image);
        run.total_ms = 8_000;
        let came = run.go().await;
        assert_eq!(came.verdict, Verdict::TimedOut, "{name}");
        came.progressed_to(60);
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test]
async fn fibocoms_status_means_nothing() {
    let came = run("fibocom", "", SEVEN_ZIP).await;
    assert_eq!((came.verdict, came.status()), (Verdict::Succeeded, Some(17)));
    came.progressed_to(100);
    let came = run("fibocom", "fail", SEVEN_ZIP).await;
    assert_eq!((came.verdict, came.status()), (Verdict::Failed, Some(0)));
    let came = run("fibocom", "", ZIP).await;
    assert_eq!((came.verdict, came.status()), (Verdict::Failed, Some(0)));
}

#[tokio::test]
async fn sierras_progress_is_read_between_its_escape_sequences() {
    let came = run("sierra-qmi-firmware-update", "", b"cwe").await;
    assert_eq!((came.verdict, came.status()), (Verdict::Succeeded, Some(0)));
    came.progressed_to(100);
    assert!(!came.transcript.contains("[2K"), "{}", came.transcript);
    assert!(came.transcript.lines().count() < 20, "redrawn lines are kept once");
}

#[tokio::test]
async fn sierras_failures_are_told_apart() {
    for (mode, verdict, status) in [
        // Status 0 and yet nothing was done: trying again would do nothing again.
        ("contained", Verdict::Refused, 0),
        ("fail", Verdict::Failed, 1),
        // All was written, and the modem is not back.
        ("lost", Verdict::Failed, 1),
    ] {
        let came = run("sierra-qmi-firmware-update", mode, b"cwe").await;
        assert_eq!((came.verdict, came.status()), (verdict, Some(status)), "{mode}");
    }
}

#[tokio::test]
async fn the_predecessors_scripts_are_followed_to_their_end() {
    for mode in ["", "late"] {
        let came = run("openwisp-safe-update", mode, b"bin").await;
        assert_eq!((came.verdict, came.status()), (Verdict::Succeeded, Some(0)), "{mode}");
        assert_eq!(came.record.hints.success, ["state=SUCCESS"]);
        came.progressed_to(100);
    }
    let came = run("openwisp-safe-update", "fail", b"bin").await;
    assert_eq!((came.verdict, came.status()), (Verdict::Failed, Some(0)));
    assert_eq!(came.record.hints.failure, ["state=FAILED"]);
    came.progressed_to(37);
}

#[tokio::test]
async fn a_script_that_says_nothing_or_the_same_for_ever_is_no_success() {
    let came = run("openwisp-safe-update", "not-started", b"bin").await;
    assert_eq!((came.verdict, came.status()), (Verdict::Failed, Some(1)));
    // Whoever works on beyond its time is not disturbed by a second one.
    let mut overdue = Run::new("openwisp-safe-update", "overdue", b"bin");
    overdue.total_ms = 10_000;
    let came = overdue.go().await;
    assert_eq!((came.verdict, came.status()), (Verdict::Succeeded, Some(0)));
    // Its worker died and left "RUNNING" behind.
    let mut crashed = Run::new("openwisp-safe-update", "crash", b"bin");
    crashed.total_ms = 2_500;
    let came = crashed.go().await;
    assert_eq!(came.verdict, Verdict::TimedOut);
}

#[tokio::test]
async fn tfl_gets_a_directory_from_the_script_of_the_docs() {
    let package = |file: &str| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(file), "contents").unwrap();
        let tar = std::process::Command::new("tar")
            .args(["-C", directory.path().to_str().unwrap(), "-cf", "-", file])
            .output()
            .unwrap();
        tar.stdout
    };
    let good = package("information.contents");
    let came = run("telit-tfl", "", &good).await;
    assert_eq!((came.verdict, came.status()), (Verdict::Succeeded, Some(0)), "{}", came.transcript);
    assert!(came.transcript.contains("port /dev/ttyUSB0"), "{}", came.transcript);
    came.progressed_to(100);
    assert_eq!(run("telit-tfl", "fail", &good).await.verdict, Verdict::Failed);
    for bad in [package("other.bin"), b"no tar at all".to_vec()] {
        let came = run("telit-tfl", "", &bad).await;
        assert_eq!(came.verdict, Verdict::Refused, "{}", came.transcript);
    }
}
