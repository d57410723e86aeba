//! The agent's side: starting a guardian, finding one again, waiting for it.

use super::process::{REFUSED, STARTED};
use super::record::{self, ExitRecord, FORMAT, Plan, Progress, RunDir};
use super::tree;
use crate::verify::VerifiedImage;
use crate::{clock, files};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

/// How often the agent looks at the lock and the files.
const LOOK: Duration = Duration::from_millis(100);
/// How long a lock that somebody only asks about may seem taken.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long a guardian may seem gone, which hands over locks or is asked about.
const WATCH_PATIENCE_MS: u64 = 1_000;
/// How long a guardian may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// Starts and finds guardians of one run directory.
#[derive(Debug, Clone)]
pub struct Guardian {
    run: RunDir,
    program: PathBuf,
    arg0: OsString,
}

/// Why no tool runs; the modem is untouched.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error("another tool is still running")]
    Busy,
    #[error("the run directory cannot be used")]
    RunDir(#[source] io::Error),
    #[error("the guardian cannot be started")]
    Spawn(#[source] io::Error),
    #[error("{0}")]
    Refused(String),
    /// Somebody else comes first.
    #[error("{0}")]
    Objected(String),
}

/// A tool that runs, or ran a moment ago.
#[derive(Debug)]
pub struct Running {
    run: RunDir,
    plan: Option<Plan>,
    seen: Option<Progress>,
    /// CLOCK_BOOTTIME in milliseconds.
    attached_ms: u64,
    /// Since when no guardian watches the tool, likewise.
    unwatched_ms: Option<u64>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Exited(ExitRecord),
    /// All its processes are gone and nobody wrote down how.
    Lost,
}

impl Guardian {
    /// Guardians that are this very program.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        let arg0 = std::env::args_os().next().unwrap_or_else(|| "modem-upgrader-agent".into());
        Self::with_program(run_dir, PathBuf::from("/proc/self/exe"), arg0)
    }

    /// Guardians that are `program`, called as `arg0`.
    #[must_use]
    pub fn with_program(run_dir: &Path, program: PathBuf, arg0: OsString) -> Self {
        Self { run: RunDir::new(run_dir), program, arg0 }
    }

    /// Starts the tool of `plan` on `image`, in a guardian that outlives this process. `objection` is
    /// asked when whoever looks for tools already sees this one.
    ///
    /// # Errors
    /// No tool was started and the modem is untouched. Where that is not certain the answer is a
    /// [`Running`], which ends as [`Ended::Lost`] when nothing comes of it.
    pub async fn start(
        &self,
        plan: &Plan,
        image: &VerifiedImage,
        objection: impl FnOnce() -> Option<String>,
    ) -> Result<Running, NotStarted> {
        let lock = self.take_lock().await?;
        if let Some(reason) = objection() {
            return Err(NotStarted::Objected(reason));
        }
        self.prepare(plan).map_err(NotStarted::RunDir)?;
        crate::failpoint::at!("guardian.planned");
        let image = image.file().try_clone().map_err(NotStarted::Spawn)?;
        let child = self.spawn(image, lock).map_err(NotStarted::Spawn)?;
        crate::failpoint::at!("guardian.spawned");
        match tokio::time::timeout(ANSWER_PATIENCE, refusal(child)).await {
            Ok(Some(reason)) => Err(NotStarted::Refused(reason)),
            Ok(None) | Err(_) => Ok(Running::new(self.run.clone(), Some(plan.clone()))),
        }
    }

    /// The tool that an earlier life of this agent started, while any process of it lives.
    #[must_use]
    pub fn attach(&self) -> Option<Running> {
        let held = files::is_locked(&self.run.guardian_lock()).unwrap_or(true);
        held.then(|| Running::new(self.run.clone(), record::read(&self.run.plan()).ok()))
    }

    /// How the start named `plan` ended, when its guardian could write it down.
    #[must_use]
    pub fn last_exit(&self, plan: Uuid) -> Option<ExitRecord> {
        last_exit(&self.run, plan)
    }

    /// What is kept of the last tool's output, at most some 130 KiB.
    #[must_use]
    pub fn transcript(&self) -> Option<String> {
        let bytes = files::read_limited(&self.run.transcript(), 256 * 1024).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn take_lock(&self) -> Result<File, NotStarted> {
        files::create_private_dir(self.run.path()).map_err(NotStarted::RunDir)?;
        let deadline = clock::boottime() + LOCK_PATIENCE;
        loop {
            match files::try_lock(&self.run.guardian_lock()).map_err(NotStarted::RunDir)? {
                Some(lock) => return Ok(lock),
                None if clock::boottime() >= deadline => return Err(NotStarted::Busy),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn prepare(&self, plan: &Plan) -> io::Result<()> {
        for old in [
            self.run.exit(),
            self.run.progress(),
            self.run.output(),
            self.run.transcript(),
            self.run.guardian_log(),
        ] {
            files::remove_if_present(&old)?;
        }
        files::write_atomic(&self.run.plan(), &record::to_json(plan)?)
    }

    /// The descriptors are handed over as the standard streams: see `process.rs`.
    #[allow(clippy::disallowed_methods, reason = "the one place that starts the guardian")]
    fn spawn(&self, image: File, lock: File) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg0(&self.arg0).arg("guard").arg("--run-dir").arg(self.run.path());
        command.stdin(Stdio::from(image)).stdout(Stdio::from(lock)).stderr(Stdio::piped());
        command.kill_on_drop(false).spawn()
    }
}

/// Why the guardian started nothing. `None`: the tool runs, or the guardian went without a word
/// and nobody knows.
async fn refusal(mut child: Child) -> Option<String> {
    let mut lines = BufReader::new(child.stderr.take()?.take(16 * 1024)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == STARTED {
            return None;
        }
        if let Some(reason) = line.strip_prefix(REFUSED) {
            return Some(reason.to_owned());
        }
        log::info!("guardian: {line}");
    }
    None
}

impl Running {
    fn new(run: RunDir, plan: Option<Plan>) -> Self {
        let attached_ms = clock::boottime_ms();
        Self { run, plan, seen: None, attached_ms, unwatched_ms: None }
    }

    /// Which start it is.
    #[must_use]
    pub fn plan_id(&self) -> Option<Uuid> {
        self.plan.as_ref().map(|plan| plan.id)
    }

    /// The next state that differs from the last one told; `None` once the tool has ended. A tool
    /// that nobody watches any more counts as stalled.
    pub async fn next_progress(&mut self) -> Option<Progress> {
        loop {
            let running = self.is_running();
            let abandoned = running && self.end_if_abandoned();
            if let Some(progress) = self.fresh_progress(abandoned) {
                return Some(progress);
            }
            if !running {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every process of the tool is gone.
    pub async fn wait(&mut self) -> Ended {
        while self.is_running() {
            self.end_if_abandoned();
            tokio::time::sleep(LOOK).await;
        }
        match self.plan_id().and_then(|plan| last_exit(&self.run, plan)) {
            Some(record) => Ended::Exited(record),
            None => Ended::Lost,
        }
    }

    fn is_running(&self) -> bool {
        // Who cannot ask must not conclude that nothing runs.
        files::is_locked(&self.run.guardian_lock()).unwrap_or(true)
    }

    fn fresh_progress(&mut self, abandoned: bool) -> Option<Progress> {
        let told = self.progress().or_else(|| abandoned.then(|| self.unheard()).flatten())?;
        let progress = Progress { stalled: told.stalled || abandoned, ..told };
        let fresh = self.seen.as_ref() != Some(&progress);
        fresh.then(|| self.seen.insert(progress).clone())
    }

    /// What the guardian of this start told last.
    fn progress(&self) -> Option<Progress> {
        let progress: Progress = record::read(&self.run.progress()).ok()?;
        (Some(progress.plan) == self.plan_id()).then_some(progress)
    }

    /// The state of a tool whose guardian told nothing that can be read.
    fn unheard(&self) -> Option<Progress> {
        Some(Progress {
            format: FORMAT,
            plan: self.plan_id()?,
            percent: None,
            line: String::new(),
            stalled: true,
            bytes: 0,
            started_ms: self.attached_ms,
        })
    }

    /// A guardian that was killed keeps no time: then the agent ends what is overdue. Says whether
    /// it is so.
    fn end_if_abandoned(&mut self) -> bool {
        let now = clock::boottime_ms();
        if files::is_locked(&self.run.watch_lock()).unwrap_or(true) {
            self.unwatched_ms = None;
            return false;
        }
        let unwatched = now.saturating_sub(*self.unwatched_ms.get_or_insert(now));
        if unwatched < WATCH_PATIENCE_MS {
            return false;
        }
        if let Some(limits) = self.plan.as_ref().map(|plan| plan.timeouts) {
            let started = self.progress().map_or(self.attached_ms, |progress| progress.started_ms);
            let elapsed = now.saturating_sub(started);
            if elapsed >= limits.total_ms.saturating_add(limits.grace_ms) {
                tree::signal(&tree::holding(&self.run.guardian_lock()), Signal::SIGKILL);
            } else if elapsed >= limits.total_ms {
                tree::signal(&tree::holding(&self.run.guardian_lock()), Signal::SIGTERM);
            }
        }
        true
    }
}

/// Whether a tool runs in `run_dir` or in one of the directories in it, a slot's each.
#[must_use]
pub fn is_any_running(run_dir: &Path) -> bool {
    let slots = std::fs::read_dir(run_dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut locks = slots.chain([run_dir.to_owned()]).map(|d| RunDir::new(&d).guardian_lock());
    locks.any(|lock| files::is_locked(&lock).unwrap_or(false))
}

/// Whether a tool runs in another directory of `run_dir` than `own`. Who cannot ask must not conclude that
/// none does.
#[must_use]
pub fn is_another_running(run_dir: &Path, own: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(run_dir) else { return true };
    let slots = entries.map(|entry| entry.map(|entry| entry.path()));
    let others =
        slots.filter(|slot| !slot.as_ref().is_ok_and(|slot| slot == own || !slot.is_dir()));
    let mut locks = others.map(|slot| slot.map(|slot| RunDir::new(&slot).guardian_lock()));
    locks.any(|lock| lock.and_then(|lock| files::is_locked(&lock)).unwrap_or(true))
}

fn last_exit(run: &RunDir, plan: Uuid) -> Option<ExitRecord> {
    let record: ExitRecord = record::read(&run.exit()).ok()?;
    (record.plan == plan).then_some(record)
}

/// The sign that an agent lives; hold it as long as the agent runs.
#[derive(Debug)]
pub struct Presence {
    _lock: File,
}

impl Presence {
    /// Where the sign of the agents of `run_dir` is.
    #[must_use]
    pub fn lock_path(run_dir: &Path) -> PathBuf {
        run_dir.join("agent.lock")
    }

    /// `None`: another agent lives in this run directory. Waits a little for those who only ask.
    ///
    /// # Errors
    /// The run directory cannot be used.
    #[allow(clippy::disallowed_methods, reason = "at the start, when there is nothing to hold up")]
    pub fn announce(run_dir: &Path) -> io::Result<Option<Self>> {
        files::create_private_dir(run_dir)?;
        let deadline = clock::boottime() + LOCK_PATIENCE;
        loop {
            if let Some(lock) = files::try_lock(&Self::lock_path(run_dir))? {
                return Ok(Some(Self { _lock: lock }));
            }
            if clock::boottime() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }
}
