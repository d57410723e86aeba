//! The guardian's own process: `modem-upgrader-agent guard --run-dir DIR`.
//!
//! The agent spawns it with everything it needs already in its hands, so that there is no instant
//! in which the lock is free and a tool is about to start:
//!
//! | descriptor | from the agent |
//! |---|---|
//! | 0 | the verified image, open |
//! | 1 | `guardian.lock`, locked |
//! | 2 | a pipe for the one answer: `started`, or why not |

use super::holders::{Holders, Programs};
use super::record::{self, FORMAT, Plan, RunDir};
use super::runner::Runner;
use super::running::is_another_running;
use crate::{clock, files};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use shared::profile::ImageArgument;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The answer that the tool runs.
pub const STARTED: &str = "started";
/// The answer that no tool was started, before the reason. The log shares the pipe, so that any
/// other line means nothing.
pub const REFUSED: &str = "refused: ";

/// Runs one guardian to its end.
#[must_use]
pub fn guard_main(run_dir: &Path) -> ExitCode {
    let run = RunDir::new(run_dir);
    // Fails only for a leader of a process group, which then has its session already.
    let _ = setsid();
    let (plan, runner, lock) = match start(&run) {
        Ok(started) => started,
        Err(refusal) => {
            let _ = writeln!(io::stderr(), "{REFUSED}{refusal}");
            return ExitCode::FAILURE;
        }
    };
    let watching = files::try_lock(&run.watch_lock());
    let _ = writeln!(io::stderr(), "{STARTED}");
    if let Err(error) = leave_the_agents_streams(&run) {
        log::warn!("standard streams: {error}");
    }
    if let Err(error) = runner.watch_to_the_end() {
        log::error!("the exit record cannot be written: {error}");
    }
    crate::failpoint::at!("guard.exit.written");
    drop(watching);
    drop(lock);
    crate::failpoint::at!("guard.unlocked");
    stop_outliving();
    // One is enough, whichever tool of the upgrade it had: recoveries must not pile up guardians.
    let only = files::try_lock(&run.orphan_lock());
    if !matches!(only, Ok(None)) {
        let grace = Duration::from_secs(plan.orphan_grace_s);
        give_back_when_orphaned(run_dir, &plan.holders, &plan.agent_lock, grace);
    }
    ExitCode::SUCCESS
}

/// Why no tool was started.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the guardian was not given its lock")]
    Lock,
    #[error("the plan cannot be read: {0}")]
    Plan(io::Error),
    #[error("plan format {0} is not known here")]
    Format(u8),
    #[error("the image is not the file that was verified")]
    Image,
    #[error("the guardian cannot prepare itself: {0}")]
    Prepare(#[from] io::Error),
    #[error("{program} cannot be started: {source}")]
    Tool { program: String, source: io::Error },
}

fn start(run: &RunDir) -> Result<(Plan, Runner, File), Refusal> {
    let image = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let lock = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    check_lock(&lock, run)?;
    let plan: Plan = record::read(&run.plan()).map_err(Refusal::Plan)?;
    if plan.format != FORMAT {
        return Err(Refusal::Format(plan.format));
    }
    check_image(&image, &plan)?;
    prepare(run, &plan)?;
    outlive_everybody()?;
    crate::failpoint::at!("guard.tool.before");
    let runner = Runner::start(plan.clone(), run.clone(), &image, &lock)
        .map_err(|source| Refusal::Tool { program: plan.program.display().to_string(), source })?;
    crate::failpoint::at!("guard.tool.started");
    Ok((plan, runner, lock))
}

/// Whether descriptor 1 is this directory's lock and ours.
fn check_lock(lock: &File, run: &RunDir) -> Result<(), Refusal> {
    let named = std::fs::metadata(run.guardian_lock())?;
    let given = lock.metadata()?;
    let same = (named.dev(), named.ino()) == (given.dev(), given.ino());
    if same && lock.try_lock().is_ok() { Ok(()) } else { Err(Refusal::Lock) }
}

fn check_image(image: &File, plan: &Plan) -> Result<(), Refusal> {
    let given = image.metadata()?;
    let expected = (plan.image.device, plan.image.inode, plan.image.size);
    if !given.is_file() || (given.dev(), given.ino(), given.len()) != expected {
        return Err(Refusal::Image);
    }
    if plan.image.argument != ImageArgument::Descriptor {
        let named = std::fs::symlink_metadata(&plan.image.path)?;
        if (named.dev(), named.ino()) != (given.dev(), given.ino()) {
            return Err(Refusal::Image);
        }
    }
    Ok(())
}

/// The tool's own directory, with nothing of an earlier run in it, and the image under the name that
/// the tool wants.
fn prepare(run: &RunDir, plan: &Plan) -> io::Result<()> {
    let state = run.tool_state();
    match std::fs::remove_dir_all(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => files::create_private_dir(&state)?,
    }
    match &plan.image.link {
        Some(link) => std::os::unix::fs::symlink(&plan.image.path, link),
        None => Ok(()),
    }
}

/// Neither signals nor a lack of memory end the guardian while its tool runs. The tool inherits
/// the immunity from the latter, and std gives it an empty signal mask.
fn outlive_everybody() -> io::Result<()> {
    let mut signals = SigSet::empty();
    for ending in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ] {
        signals.add(ending);
    }
    signals.thread_block()?;
    // Best effort: without CAP_SYS_RESOURCE the kernel refuses.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    match nix::sys::prctl::set_child_subreaper(true) {
        // qemu-user's answer; every kernel since 3.4 knows it. Who lives is known by the lock.
        Err(Errno::EINVAL) => log::warn!("what the tool leaves behind goes to init"),
        outcome => outcome?,
    }
    std::env::set_current_dir("/")
}

/// Without its tool a guardian is a process like any other, least of all worth the router's memory.
fn stop_outliving() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "0") {
        log::warn!("oom_score_adj: {error}");
    }
}

/// The agent may die: its pipe must not matter any more, nor the lock in descriptor 1.
fn leave_the_agents_streams(run: &RunDir) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(files::PRIVATE)
        .open(run.guardian_log())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&log)?;
    Ok(())
}

/// An agent gives back what it took. Only when there has been none for `grace`, and nothing is being flashed, be it
/// in another slot, is it done here: who is given back may open the other modem's ports. Returns when nothing in
/// `run_dir` is held any more.
#[allow(clippy::disallowed_methods, reason = "for processes of their own, without a runtime")]
pub fn give_back_when_orphaned(
    run_dir: &Path,
    holders: &Programs,
    agent_lock: &Path,
    grace: Duration,
) {
    let run = RunDir::new(run_dir);
    let pause = (grace / 4).clamp(Duration::from_millis(50), Duration::from_secs(2));
    let another_runs = || run_dir.parent().is_some_and(|all| is_another_running(all, run_dir));
    let mut alone_since = None;
    while run.holders().exists() {
        if files::is_locked(agent_lock).unwrap_or(false) {
            alone_since = None;
        } else if since(*alone_since.get_or_insert_with(clock::boottime)) >= grace
            && !another_runs()
        {
            // With the lock in hand no tool starts meanwhile.
            if let Ok(Some(_lock)) = files::try_lock(&run.guardian_lock()) {
                log::warn!("no agent for {} s: giving back its holders", grace.as_secs());
                give_back(&run, holders, agent_lock);
            }
            // Where that failed it is tried again.
            alone_since = None;
        }
        std::thread::sleep(pause);
    }
}

fn since(earlier: Duration) -> Duration {
    clock::boottime().saturating_sub(earlier)
}

fn give_back(run: &RunDir, programs: &Programs, agent_lock: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let holders = Holders::new(run.path(), programs.clone());
    let given = runtime.map(|runtime| runtime.block_on(holders.give_back_orphaned(agent_lock)));
    match given {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::error!("{error}"),
        Err(error) => log::error!("{error}"),
    }
}
