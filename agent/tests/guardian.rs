//! The guardian with real processes: shell scripts stand in for the vendor's tool.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "a test plays the world around the agent")]

#[allow(dead_code)] // Shared with the unit tests, which use all of it.
#[path = "../src/testing.rs"]
mod testing;

use agent::files;
use agent::guardian::holders::{Holder, Holders, Programs};
use agent::guardian::record::{FORMAT, Image, Plan, RunDir, Timeouts};
use agent::guardian::{
    Ended, ExitRecord, Guardian, NotStarted, Presence, Running, Status, is_any_running,
};
use agent::verify::{SignaturePolicy, VerifiedImage, VerifiedManifest};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use shared::profile::{ImageArgument, Output};
use shared::signature::Keyring;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testing::{firmware, manifest_of, script};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// One router: a run directory, a verified image and a tool.
struct Router {
    directory: tempfile::TempDir,
}

impl Router {
    fn new(tool: &str) -> Self {
        let router = Self { directory: tempfile::tempdir().unwrap() };
        script(&router.path("tool"), tool);
        std::fs::write(router.path("image"), firmware(300_000)).unwrap();
        router
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self) -> RunDir {
        RunDir::new(&self.path("run"))
    }

    fn guardian(&self) -> Guardian {
        guardian(&self.path("run"))
    }

    fn plan(&self) -> Plan {
        plan(self.directory.path())
    }

    async fn start(&self) -> Running {
        self.start_plan(&self.plan()).await.unwrap()
    }

    async fn start_plan(&self, plan: &Plan) -> Result<Running, NotStarted> {
        self.guardian().start(plan, &verified(&self.path("image")).await).await
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default().trim().to_owned()
    }

    /// The process whose id the tool wrote into a file.
    async fn pid(&self, name: &str) -> Pid {
        until(name, || async { self.read(name).parse::<i32>().is_ok() }).await;
        Pid::from_raw(self.read(name).parse().unwrap())
    }

    fn tool_runs(&self) -> bool {
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

fn guardian(run_dir: &Path) -> Guardian {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_modem-upgrader-agent"));
    Guardian::with_program(run_dir, program, "modem-upgrader-agent".into())
}

async fn verified(path: &Path) -> VerifiedImage {
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

fn plan(directory: &Path) -> Plan {
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

async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ended(running: &mut Running) -> Ended {
    tokio::time::timeout(PATIENCE, running.wait()).await.expect("the tool ends")
}

async fn exit_of(running: &mut Running) -> ExitRecord {
    match ended(running).await {
        Ended::Exited(record) => record,
        Ended::Lost => panic!("no exit record"),
    }
}

#[tokio::test]
async fn a_tool_runs_and_is_understood() {
    let router = Router::new(
        r#"cmp "$1" "$T/image" && echo same; ls -l /proc/self/fd > fds; env > env
           printf ' 10%%\r'; sleep 0.4; printf ' 55%%\r'; sleep 0.4; echo 100%; echo 'all done' >&2; exit 3"#,
    );
    let mut running = router.start().await;
    let mut seen = Vec::new();
    while let Some(progress) = running.next_progress().await {
        seen.extend(progress.percent);
    }
    assert!(seen.contains(&10) && seen.contains(&55), "{seen:?}");
    assert_eq!(seen.last(), Some(&100));
    let record = exit_of(&mut running).await;
    assert_eq!(record.status, Status::Exited(3));
    assert_eq!((record.hints.success.len(), record.hints.failure.len()), (1, 0));
    assert_eq!(record.last_lines, ["same", "100%", "all done"]);
    assert_eq!(router.guardian().last_exit(Uuid::from_u128(42)), Some(record));
    assert_eq!(router.guardian().last_exit(Uuid::from_u128(43)), None);
    assert_eq!(router.guardian().transcript().unwrap(), "same\n100%\nall done\n");
    // The image, the lock, the standard streams, and what the shell and ls open themselves.
    assert!(router.read("fds").contains("guardian.lock"));
    let names: Vec<_> =
        router.read("env").lines().filter_map(|l| Some(l.split_once('=')?.0.to_owned())).collect();
    assert!(
        names.iter().all(|n| ["PATH", "T", "PWD", "_", "SHLVL", "OLDPWD"].contains(&n.as_str()))
    );
    assert!(!router.tool_runs());
}

/// Not a test by itself: the agent that the next test kills.
#[tokio::test]
#[ignore = "run by other tests as a process of its own"]
async fn agent_process() {
    let Some(directory) = std::env::var_os("AGENT_PROCESS").map(PathBuf::from) else { return };
    let _presence = Presence::announce(&directory.join("run")).unwrap().unwrap();
    let image = verified(&directory.join("image")).await;
    let mut running =
        guardian(&directory.join("run")).start(&plan(&directory), &image).await.unwrap();
    running.wait().await;
}

struct AgentProcess(std::process::Child);

impl AgentProcess {
    fn start(router: &Router) -> Self {
        use std::os::unix::process::CommandExt;
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "agent_process"])
            .env("AGENT_PROCESS", router.directory.path())
            .stdout(std::process::Stdio::null())
            .process_group(0)
            .spawn();
        Self(child.unwrap())
    }

    /// As procd would, and worse: the whole process group.
    fn die(mut self) {
        killpg(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_tool_survives_its_agent_and_is_found_again() {
    let router =
        Router::new("echo $$ > pid; echo 40%; until test -e go; do sleep 0.05; done; echo 90%");
    let agent = AgentProcess::start(&router);
    router.pid("pid").await;
    assert!(matches!(Presence::announce(&router.path("run")), Ok(None)));
    agent.die();
    assert!(Presence::announce(&router.path("run")).unwrap().is_some());
    // As the directory of a slot, in the agent's.
    assert!(is_any_running(router.directory.path()));
    let mut running = router.guardian().attach().expect("the tool lives");
    assert_eq!(running.plan_id(), Some(Uuid::from_u128(42)));
    until("40%", || async { files::read_text(&router.run().progress()).unwrap().contains(":40,") })
        .await;
    std::fs::write(router.path("go"), "").unwrap();
    let record = exit_of(&mut running).await;
    assert_eq!((record.status, record.percent), (Status::Exited(0), Some(90)));
    assert!(router.guardian().attach().is_none());
    assert!(!is_any_running(router.directory.path()));
}

#[tokio::test]
async fn a_tool_that_will_not_end_is_killed_with_all_it_started() {
    let router = Router::new(
        r#"trap '' TERM; echo $$ > pid; setsid sh -c 'trap "" TERM; echo $$ > daemon; sleep 600' & sleep 600; sleep 600"#,
    );
    let mut plan = router.plan();
    plan.timeouts.total_ms = 700;
    let mut running = router.start_plan(&plan).await.unwrap();
    let (tool, daemon) = (router.pid("pid").await, router.pid("daemon").await);
    let mut stalled = false;
    while let Some(progress) = running.next_progress().await {
        stalled |= progress.stalled;
    }
    assert!(stalled, "silence is reported");
    let record = exit_of(&mut running).await;
    assert!(record.timed_out);
    assert_eq!(record.status, Status::Signaled(9));
    assert!(record.ended_ms - record.started_ms >= 1_000);
    for process in [tool, daemon] {
        assert!(kill(process, None).is_err(), "{process} lives");
    }
}

#[tokio::test]
async fn a_tool_that_is_asked_may_end_by_itself() {
    let router = Router::new("trap 'echo cleaning; exit 9' TERM; while :; do sleep 0.05; done");
    let mut plan = router.plan();
    plan.timeouts = Timeouts { idle_ms: 300, total_ms: 500, grace_ms: 30_000 };
    let record = exit_of(&mut router.start_plan(&plan).await.unwrap()).await;
    assert!(record.timed_out);
    assert_eq!(record.status, Status::Exited(9));
    assert!(record.last_lines.contains(&"cleaning".to_owned()), "{:?}", record.last_lines);
}

#[tokio::test]
async fn no_second_tool_while_anything_of_the_first_lives() {
    let router = Router::new(
        "setsid sh -c 'echo $$ > daemon; until test -e go; do sleep 0.05; done' & exit 0",
    );
    let mut first = router.start().await;
    router.pid("daemon").await;
    let second = router.start_plan(&Plan { id: Uuid::from_u128(43), ..router.plan() }).await;
    assert!(matches!(second, Err(NotStarted::Busy)));
    assert_eq!(first.plan_id(), router.guardian().attach().unwrap().plan_id());
    std::fs::write(router.path("go"), "").unwrap();
    assert_eq!(exit_of(&mut first).await.status, Status::Exited(0));
    // Waited for, so that no process is left in a directory that is gone.
    exit_of(&mut router.start().await).await;
}

/// Finds the guardian: the one process that holds the watch lock.
async fn kill_guardian(router: &Router, tool: Pid) {
    let stat = std::fs::read_to_string(format!("/proc/{tool}/stat")).unwrap();
    let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    kill(Pid::from_raw(parent.parse().unwrap()), Signal::SIGKILL).unwrap();
    until("the guardian's death", || async {
        !files::is_locked(&router.run().watch_lock()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_tool_does_not_notice_its_guardians_death() {
    let router = Router::new(
        "echo $$ > pid; until test -e go; do echo working; sleep 0.02; done; echo over > result",
    );
    let mut running = router.start().await;
    let tool = router.pid("pid").await;
    kill_guardian(&router, tool).await;
    let second = router.start_plan(&router.plan()).await;
    assert!(matches!(second, Err(NotStarted::Busy)));
    std::fs::write(router.path("go"), "").unwrap();
    assert_eq!(ended(&mut running).await, Ended::Lost);
    assert_eq!(router.read("result"), "over");
}

#[tokio::test]
async fn what_a_dead_guardian_left_hanging_is_ended_by_the_agent() {
    let router = Router::new("trap '' TERM; echo $$ > pid; while :; do sleep 600; done");
    let mut plan = router.plan();
    plan.timeouts = Timeouts { idle_ms: 300, total_ms: 2_000, grace_ms: 300 };
    router.start_plan(&plan).await.unwrap();
    let tool = router.pid("pid").await;
    kill_guardian(&router, tool).await;
    let mut running = router.guardian().attach().expect("the tool lives");
    assert_eq!(ended(&mut running).await, Ended::Lost);
    until("the tool's death", || async { kill(tool, None).is_err() }).await;
}

#[tokio::test]
async fn who_follows_a_tool_sees_and_ends_what_its_guardian_left() {
    for told in [true, false] {
        let router = Router::new("trap '' TERM; echo $$ > pid; while :; do sleep 600; done");
        let mut plan = router.plan();
        // Silence alone does not make it stalled.
        plan.timeouts = Timeouts { idle_ms: 600_000, total_ms: 3_000, grace_ms: 300 };
        router.start_plan(&plan).await.unwrap();
        let tool = router.pid("pid").await;
        kill_guardian(&router, tool).await;
        if !told {
            std::fs::write(router.run().progress(), "torn").unwrap();
        }
        let mut running = router.guardian().attach().expect("the tool lives");
        let followed = async {
            let mut stalled = false;
            while let Some(progress) = running.next_progress().await {
                stalled |= progress.stalled;
            }
            stalled
        };
        let stalled = tokio::time::timeout(PATIENCE, followed).await.expect("it is ended");
        assert!(stalled, "nobody watches it");
        assert_eq!(ended(&mut running).await, Ended::Lost);
    }
}

#[tokio::test]
async fn signals_do_not_end_a_guardian() {
    let router = Router::new("echo $$ > pid; until test -e go; do sleep 0.05; done");
    let mut running = router.start().await;
    let tool = router.pid("pid").await;
    let stat = std::fs::read_to_string(format!("/proc/{tool}/stat")).unwrap();
    let fields: Vec<i32> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(1)
        .take(3)
        .map(|f| f.parse().unwrap())
        .collect();
    let (guardian, group, session) = (fields[0], fields[1], fields[2]);
    assert_eq!((group, session), (tool.as_raw(), guardian), "own group, the guardian's session");
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        kill(Pid::from_raw(guardian), signal).unwrap();
    }
    std::fs::write(router.path("go"), "").unwrap();
    assert_eq!(exit_of(&mut running).await.status, Status::Exited(0));
}

#[tokio::test]
async fn a_torn_or_foreign_record_counts_as_lost() {
    let router = Router::new("exit 0");
    let mut running = router.start().await;
    let record = exit_of(&mut running).await;
    let text = serde_json::to_string(&record).unwrap();
    for torn in [&text[..text.len() / 2], "", &text.replace("2a", "2b")] {
        std::fs::write(router.run().exit(), torn).unwrap();
        assert_eq!(ended(&mut running).await, Ended::Lost);
    }
    std::fs::remove_file(router.run().exit()).unwrap();
    assert_eq!(ended(&mut running).await, Ended::Lost);
}

#[tokio::test]
async fn a_flood_of_output_stays_bounded() {
    let router =
        Router::new("yes 'a line that says nothing' | head -c 60000000; echo; echo 'all done'");
    let mut running = router.start().await;
    let mut most = 0;
    while running.next_progress().await.is_some() {
        let used = std::fs::metadata(router.run().output()).map_or(0, |m| {
            use std::os::unix::fs::MetadataExt;
            m.blocks() * 512
        });
        most = most.max(used);
    }
    let record = exit_of(&mut running).await;
    assert_eq!(record.hints.success, ["all done"]);
    assert!(most < 60_000_000, "{most} bytes of output on disk");
    assert!(router.guardian().transcript().unwrap().len() < 140 * 1024);
    assert!(!router.run().output().exists());
}

#[tokio::test]
async fn what_cannot_be_started_leaves_nothing_behind() {
    let router = Router::new("touch touched");
    let missing = Plan { program: "/nonexistent/tool".into(), ..router.plan() };
    let mut swapped = router.plan();
    swapped.image.inode += 1;
    let mut renamed = router.plan();
    renamed.image.argument = ImageArgument::Path;
    renamed.image.path = router.path("tool");
    let newer = Plan { format: FORMAT + 1, ..router.plan() };
    for (plan, word) in
        [(missing, "tool"), (swapped, "image"), (renamed, "image"), (newer, "format")]
    {
        let refused = router.start_plan(&plan).await.unwrap_err();
        assert!(matches!(&refused, NotStarted::Refused(text) if text.contains(word)), "{refused}");
        assert!(router.guardian().last_exit(plan.id).is_none());
    }
    until("the lock is free", || async { !router.tool_runs() }).await;
    assert!(!router.path("touched").exists());
    exit_of(&mut router.start().await).await;
    assert!(router.path("touched").exists());
}

#[tokio::test]
async fn a_guardian_is_nobody_without_its_lock() {
    let router = Router::new("touch touched");
    files::create_private_dir(router.run().path()).unwrap();
    files::write_atomic(&router.run().plan(), &serde_json::to_vec(&router.plan()).unwrap())
        .unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_modem-upgrader-agent"))
        .args(["guard", "--run-dir"])
        .arg(router.run().path())
        .stdin(std::fs::File::open(router.path("image")).unwrap())
        .stdout(files::open_private(&router.path("other.lock")).unwrap())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(!status.unwrap().success());
    assert!(!router.path("touched").exists());
}

#[tokio::test]
async fn an_orphaned_guardian_gives_back_the_holders() {
    let router = Router::new("until test -e go; do sleep 0.05; done");
    std::fs::create_dir(router.path("init.d")).unwrap();
    script(
        &router.path("init.d/modemmanager"),
        &format!("echo $1 >> {}/calls", router.directory.path().display()),
    );
    let holders = Holders::new(&router.path("run"), router.plan().holders);
    files::create_private_dir(&router.path("run")).unwrap();
    holders.take(&[Holder::Service("modemmanager".into())]).await.unwrap();
    let agent = AgentProcess::start(&router);
    until("a tool", || async { files::is_locked(&router.run().watch_lock()).unwrap() }).await;
    agent.die();
    std::fs::write(router.path("go"), "").unwrap();
    until("given back", || async { !router.run().holders().exists() }).await;
    assert_eq!(router.read("calls").lines().collect::<Vec<_>>(), ["running", "stop", "start"]);
}

/// A router whose service `x` is held, and a plan that gives an orphan no time.
fn holding() -> (Router, Plan) {
    let router = Router::new("exit 0");
    std::fs::create_dir(router.path("init.d")).unwrap();
    let calls = router.path("calls");
    script(&router.path("init.d/x"), &format!("echo $1 >> {}", calls.display()));
    files::create_private_dir(router.run().path()).unwrap();
    std::fs::write(router.run().holders(), r#"{"format":1,"holders":[{"service":"x"}]}"#).unwrap();
    let plan = Plan { orphan_grace_s: 0, ..router.plan() };
    (router, plan)
}

#[tokio::test]
async fn while_an_agent_lives_giving_back_is_its_business() {
    let (router, plan) = holding();
    let _presence = Presence::announce(router.run().path()).unwrap().unwrap();
    exit_of(&mut router.start_plan(&plan).await.unwrap()).await;
    until("a guardian that looks on", || async {
        files::is_locked(&router.run().orphan_lock()).unwrap()
    })
    .await;
    // What an orphan is done with by then, this one had the time for as well.
    let (orphaned, plan) = holding();
    orphaned.start_plan(&plan).await.unwrap();
    until("given back", || async { !orphaned.run().holders().exists() }).await;
    assert!(router.run().holders().exists());
    assert!(!router.path("calls").exists());
    std::fs::remove_file(router.run().holders()).unwrap();
}

#[tokio::test]
async fn an_agent_that_comes_back_meanwhile_keeps_its_holders() {
    let (router, plan) = holding();
    let agents = files::try_lock(&router.run().holders_lock()).unwrap().unwrap();
    router.start_plan(&plan).await.unwrap();
    // With the tool's lock in hand it waits for that of the holders.
    until("the orphan", || async {
        files::is_locked(&router.run().orphan_lock()).unwrap() && router.tool_runs()
    })
    .await;
    let _presence = Presence::announce(router.run().path()).unwrap().unwrap();
    drop(agents);
    until("the orphan's retreat", || async { !router.tool_runs() }).await;
    assert!(!router.path("calls").exists(), "{}", router.read("calls"));
    assert!(router.run().holders().exists());
    std::fs::remove_file(router.run().holders()).unwrap();
}

/// The guardians of a router that are there, by their process ids.
fn guardians(router: &Router) -> Vec<String> {
    let run = router.run().path().display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    ids.filter(|id| {
        let words = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        words.contains(&b"guard".as_slice()) && words.contains(&run.as_bytes())
    })
    .collect()
}

#[tokio::test]
async fn one_guardian_waits_for_all() {
    let router = Router::new("exit 0");
    let _presence = Presence::announce(router.run().path()).unwrap().unwrap();
    std::fs::write(router.run().holders(), r#"{"format":1,"holders":[{"service":"x"}]}"#).unwrap();
    for id in 1..=4 {
        let plan = Plan { id: Uuid::from_u128(id), ..router.plan() };
        exit_of(&mut router.start_plan(&plan).await.unwrap()).await;
    }
    until("only one", || async { guardians(&router).len() == 1 }).await;
    let one = guardians(&router).remove(0);
    let score = || std::fs::read_to_string(format!("/proc/{one}/oom_score_adj")).unwrap();
    until("it may be ended for its memory", || async { score().trim() == "0" }).await;
    std::fs::remove_file(router.run().holders()).unwrap();
    until("none", || async { guardians(&router).is_empty() }).await;
}
