//! One router, whose tool is a shell script, and an agent that may die.

use crate::testing::{firmware, manifest_of, script};
use agent::guardian::holders::Programs;
use agent::guardian::record::{FORMAT, Image, Plan, RunDir, Timeouts};
use agent::guardian::{Ended, ExitRecord, Guardian, NotStarted, Presence, Running};
use agent::verify::{SignaturePolicy, VerifiedImage, VerifiedManifest};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use shared::profile::{ImageArgument, Output};
use shared::signature::Keyring;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// One router: a run directory, a verified image and a tool.
pub struct Router {
    pub directory: tempfile::TempDir,
}

impl Router {
    pub fn new(tool: &str) -> Self {
        let router = Self { directory: tempfile::tempdir().unwrap() };
        script(&router.path("tool"), tool);
        std::fs::write(router.path("image"), firmware(300_000)).unwrap();
        router
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn run(&self) -> RunDir {
        RunDir::new(&self.path("run"))
    }

    pub fn guardian(&self) -> Guardian {
        guardian(&self.path("run"))
    }

    pub fn plan(&self) -> Plan {
        plan(self.directory.path())
    }

    pub async fn start(&self) -> Running {
        self.start_plan(&self.plan()).await.unwrap()
    }

    pub async fn start_plan(&self, plan: &Plan) -> Result<Running, NotStarted> {
        self.guardian().start(plan, &verified(&self.path("image")).await, || None).await
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default().trim().to_owned()
    }

    /// The process whose id the tool wrote into a file.
    pub async fn pid(&self, name: &str) -> Pid {
        until(name, || async { self.read(name).parse::<i32>().is_ok() }).await;
        Pid::from_raw(self.read(name).parse().unwrap())
    }

    pub fn tool_runs(&self) -> bool {
        self.guardian().attach().is_some()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for name in ["pid", "daemon"] {
            if let Ok(pid) = self.read(name).parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

pub fn guardian(run_dir: &Path) -> Guardian {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_modem-upgrader-agent"));
    Guardian::with_program(run_dir, program, "modem-upgrader-agent".into())
}

pub async fn verified(path: &Path) -> VerifiedImage {
    let bytes = serde_json::to_vec(&manifest_of(&std::fs::read(path).unwrap())).unwrap();
    let manifest = VerifiedManifest::verify(
        &bytes,
        None,
        &shared::hex::sha256(&bytes),
        &Keyring::default(),
        SignaturePolicy::Optional,
    );
    VerifiedImage::open(path, &manifest.unwrap(), |_| {}).await.unwrap()
}

pub fn plan(directory: &Path) -> Plan {
    use std::os::unix::fs::MetadataExt;
    let image = directory.join("image");
    let metadata = std::fs::metadata(&image).unwrap();
    let environment = BTreeMap::from([
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ("T".to_owned(), directory.display().to_string()),
    ]);
    Plan {
        format: FORMAT,
        id: Uuid::from_u128(42),
        boot_id: "this-boot".into(),
        program: directory.join("tool"),
        argv: vec!["/proc/self/fd/100".into()],
        environment,
        working_dir: directory.to_owned(),
        image: Image {
            argument: ImageArgument::Descriptor,
            path: image,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            link: None,
        },
        output: Output {
            progress: vec!["{percent}%".into()],
            success: vec!["all done".into()],
            failure: vec!["no luck".into()],
            refusal: vec![],
        },
        follow: None,
        timeouts: Timeouts { idle_ms: 300, total_ms: 60_000, grace_ms: 300 },
        holders: Programs {
            services: directory.join("init.d"),
            ifup: "/bin/false".into(),
            ifdown: "/bin/false".into(),
            ifstatus: "/bin/false".into(),
            timeout_ms: 5_000,
            ..Programs::default()
        },
        agent_lock: Presence::lock_path(&directory.join("run")),
        orphan_grace_s: 1,
    }
}

pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn ended(running: &mut Running) -> Ended {
    tokio::time::timeout(PATIENCE, running.wait()).await.expect("the tool ends")
}

pub async fn exit_of(running: &mut Running) -> ExitRecord {
    match ended(running).await {
        Ended::Exited(record) => record,
        Ended::Lost => panic!("no exit record"),
    }
}

/// Not a test by itself: the agent that the next test kills.
#[tokio::test]
#[ignore = "run by other tests as a process of its own"]
async fn agent_process() {
    let Some(directory) = std::env::var_os("AGENT_PROCESS").map(PathBuf::from) else { return };
    let _presence = Presence::announce(&directory.join("run")).unwrap().unwrap();
    let image = verified(&directory.join("image")).await;
    let mut running =
        guardian(&directory.join("run")).start(&plan(&directory), &image, || None).await.unwrap();
    running.wait().await;
}

pub struct AgentProcess(std::process::Child);

impl AgentProcess {
    pub fn start(router: &Router) -> Self {
        use std::os::unix::process::CommandExt;
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "router::agent_process"])
            .env("AGENT_PROCESS", router.directory.path())
            .stdout(std::process::Stdio::null())
            .process_group(0)
            .spawn();
        Self(child.unwrap())
    }

    /// As procd would, and worse: the whole process group.
    pub fn die(mut self) {
        killpg(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}
