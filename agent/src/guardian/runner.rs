//! One tool from its start to the end of its last process. Synchronous and alone in its process:
//! the guardian has nothing else to do.
//!
//! ```text
//! running ── total time over ──▶ asked (TERM) ── grace over ──▶ killed (KILL, again each second)
//!    └──────────────┴─ no process left ─┴──▶ exit record ◀─────────────┘
//! ```
//! Where the profile has a program to ask, there is a state between: no process left, and the
//! answer is "still running" (see `follow`).

use super::follow::{Following, Word};
use super::output::Output;
use super::record::{self, ExitRecord, FORMAT, IMAGE_FD, Plan, Progress, RunDir, Status};
use super::tree;
use super::watch::Watch;
use crate::{clock, files};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, close};
use shared::profile::BELIEVED;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often the guardian looks.
const LOOK: Duration = Duration::from_millis(50);
/// Least time between two published states.
const PUBLISH_MS: u64 = 200;
/// Most output read at one look, so that a flood does not keep the guardian from the clock.
const READ: usize = 256 * 1024;

pub struct Runner {
    plan: Plan,
    run: RunDir,
    tool: Pid,
    output: Output,
    watch: Watch,
    following: Option<Following>,
    ending: Ending,
    status: Option<Status>,
    published: Option<(Progress, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotAsked,
    /// When it was asked, CLOCK_BOOTTIME in milliseconds.
    Asked(u64),
    /// When it was last killed.
    Killed(u64),
}

impl Runner {
    /// Starts the tool with the image and the lock among its descriptors.
    ///
    /// # Errors
    /// The tool cannot be started; nothing of it ran.
    #[allow(clippy::disallowed_methods, reason = "the one place that starts the vendor's tool")]
    pub fn start(plan: Plan, run: RunDir, image: &File, lock: &File) -> io::Result<Self> {
        let output = Output::create(&run.output())?;
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.argv)
            .env_clear()
            .envs(&plan.environment)
            .current_dir(&plan.working_dir)
            .stdin(Stdio::null())
            .stdout(output.stream()?)
            .stderr(output.stream()?)
            // Not a session leader: it must not make the modem's port its terminal, whose
            // hang-up would kill it.
            .process_group(0);
        let tool = spawn_with(&mut command, image, lock)?;
        let watch = Watch::new(&plan.output, plan.timeouts.idle_ms, clock::boottime_ms());
        let following = plan
            .follow
            .clone()
            .map(|follow| Following::new(follow, plan.environment.clone(), run.answer()));
        let ending = Ending::NotAsked;
        let mut runner = Self {
            plan,
            run,
            tool,
            output,
            watch,
            following,
            ending,
            status: None,
            published: None,
        };
        // From now on an agent knows when it started, whatever becomes of this guardian.
        runner.publish();
        Ok(runner)
    }

    /// Watches until the whole tree is gone and writes the exit record.
    ///
    /// # Errors
    /// The record cannot be written.
    #[allow(
        clippy::disallowed_methods,
        reason = "the guardian is a process of its own without a runtime"
    )]
    pub fn watch_to_the_end(mut self) -> io::Result<()> {
        while self.reap() {
            let heard_all = self.listen();
            self.keep_time();
            self.publish();
            if heard_all {
                std::thread::sleep(LOOK);
            }
        }
        crate::failpoint::at!("guard.tool.ended");
        while !self.listen() {}
        self.follow();
        self.watch.finish();
        self.publish();
        self.leave()
    }

    /// No process is left, and somebody else may be at work for the tool.
    #[allow(
        clippy::disallowed_methods,
        reason = "the guardian is a process of its own without a runtime"
    )]
    fn follow(&mut self) {
        let Some(mut following) = self.following.take() else { return };
        // Beyond its time there is nothing to end, and it is reported as any other timeout. But a modem that is
        // still written must not get a second tool, nor those back who open its ports.
        while self.ending == Ending::NotAsked {
            following.log(&mut self.watch, clock::boottime_ms());
            if !following.is_running() || self.is_over(BELIEVED) {
                self.keep_time();
            }
            self.publish();
            match following.ask(clock::boottime_ms()) {
                Word::Later | Word::Running => std::thread::sleep(LOOK),
                Word::Ended(answer) => {
                    following.log(&mut self.watch, clock::boottime_ms());
                    self.watch.hear(&answer, clock::boottime_ms());
                    break;
                }
            }
        }
        // What it has started to answer ends with it.
        while self.reap() {
            tree::signal(&tree::below(Pid::this()), Signal::SIGKILL);
            std::thread::sleep(LOOK);
        }
    }

    /// Whether any process of the tool is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(WaitStatus::Exited(pid, code)) if pid == self.tool => {
                    self.status = Some(Status::Exited(u8::try_from(code & 0xff).unwrap_or(0xff)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.tool => {
                    self.status = Some(Status::Signaled(signal as i32));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Whether nothing more is there at present.
    fn listen(&mut self) -> bool {
        if let Some(following) = &mut self.following {
            following.log(&mut self.watch, clock::boottime_ms());
        }
        let mut buffer = [0; 16 * 1024];
        let mut total = 0;
        while total < READ {
            match self.output.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => {
                    self.watch.hear(&buffer[..count], clock::boottime_ms());
                    total += count;
                }
                Err(error) => {
                    log::warn!("the tool's output cannot be read: {error}");
                    return true;
                }
            }
        }
        false
    }

    /// Whether so many times the tool's total time has passed.
    fn is_over(&self, times: u64) -> bool {
        let elapsed = clock::boottime_ms().saturating_sub(self.watch.started_ms());
        elapsed >= self.plan.timeouts.total_ms.saturating_mul(times)
    }

    fn keep_time(&mut self) {
        let now = clock::boottime_ms();
        let over = |since: u64, limit: u64| now.saturating_sub(since) >= limit;
        match self.ending {
            Ending::NotAsked if over(self.watch.started_ms(), self.plan.timeouts.total_ms) => {
                log::warn!("the tool's time is over: asking it to end");
                tree::signal(&self.tree(), Signal::SIGTERM);
                self.ending = Ending::Asked(now);
            }
            Ending::Asked(since) if over(since, self.plan.timeouts.grace_ms) => self.kill(now),
            // What was started in between, and what the kernel holds up.
            Ending::Killed(last) if over(last, 1_000) => self.kill(now),
            Ending::NotAsked | Ending::Asked(_) | Ending::Killed(_) => {}
        }
    }

    fn kill(&mut self, now: u64) {
        tree::signal(&self.tree(), Signal::SIGKILL);
        self.ending = Ending::Killed(now);
    }

    /// Every process of the tool; at least the tool itself, should `/proc` not answer.
    fn tree(&self) -> Vec<Pid> {
        let mut tree = tree::below(Pid::this());
        if self.status.is_none() && !tree.contains(&self.tool) {
            tree.push(self.tool);
        }
        tree
    }

    /// Progress is for people: a full tmpfs must not disturb the tool.
    fn publish(&mut self) {
        let now = clock::boottime_ms();
        let progress = self.watch.progress(self.plan.id, now);
        if let Some((last, at)) = &self.published
            && (*last == progress
                || (now.saturating_sub(*at) < PUBLISH_MS && self.status.is_none()))
        {
            return;
        }
        let written =
            record::to_json(&progress).and_then(|json| files::publish(&self.run.progress(), &json));
        match written {
            Ok(()) => self.published = Some((progress, now)),
            Err(error) => log::warn!("progress cannot be published: {error}"),
        }
    }

    fn leave(self) -> io::Result<()> {
        let record = ExitRecord {
            format: FORMAT,
            plan: self.plan.id,
            boot_id: self.plan.boot_id.clone(),
            // Nobody else can have reaped it; a signal that does not exist says so.
            status: self.status.unwrap_or(Status::Signaled(0)),
            timed_out: self.ending != Ending::NotAsked,
            hints: self.watch.hints().clone(),
            percent: self.watch.progress(self.plan.id, 0).percent,
            last_lines: self.watch.transcript().last_lines(512),
            started_ms: self.watch.started_ms(),
            ended_ms: clock::boottime_ms(),
        };
        let transcript = self.watch.transcript().text();
        if let Err(error) = files::publish(&self.run.transcript(), transcript.as_bytes()) {
            log::warn!("the tool's output cannot be kept: {error}");
        }
        crate::failpoint::at!("guard.exit.before");
        let _ = files::remove_if_present(&self.run.output());
        files::write_atomic(&self.run.exit(), &record::to_json(&record)?)
    }
}

/// Spawns with `image` as [`IMAGE_FD`] and `lock` as some descriptor, both kept through exec.
/// This process has one thread, so nothing else is started while they are open for inheritance.
fn spawn_with(command: &mut Command, image: &File, lock: &File) -> io::Result<Pid> {
    let image_fd = duplicate(image)?;
    let spawned = if image_fd == IMAGE_FD {
        duplicate(lock).and_then(|lock_fd| {
            let spawned = command.spawn();
            let _ = close(lock_fd);
            spawned
        })
    } else {
        Err(io::Error::other(format!("descriptor {IMAGE_FD} is taken")))
    };
    let _ = close(image_fd);
    let id = i32::try_from(spawned?.id()).map_err(io::Error::other)?;
    Ok(Pid::from_raw(id))
}

/// The lowest free descriptor from [`IMAGE_FD`] on, not closed on exec.
fn duplicate(file: &impl AsFd) -> io::Result<i32> {
    Ok(fcntl(file, FcntlArg::F_DUPFD(IMAGE_FD))?)
}
