//! Other programs of this router, run to their end: init scripts, netifd's and ModemManager's commands,
//! hooks. Never through a shell; bounded in time and in what is kept of their output.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How long the output may take once the program ended: what it left behind may have it open.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub program: &'a Path,
    pub arguments: &'a [&'a str],
    /// After it the program and those of its process group are killed.
    pub limit: Duration,
    /// Bytes kept of its standard output; the rest is read and dropped. 0: it goes to `/dev/null`.
    pub keep: usize,
    /// Instead of this process's own.
    pub environment: Option<&'a [(&'a str, String)]>,
}

impl<'a> Call<'a> {
    #[must_use]
    pub fn new(program: &'a Path, arguments: &'a [&'a str], limit: Duration) -> Self {
        Self { program, arguments, limit, keep: 0, environment: None }
    }
}

/// A program that ended by itself.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub output: Vec<u8>,
}

/// Why a program did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    #[error("cannot be run: {0}")]
    Run(#[from] io::Error),
    #[error("did not end within {} s", .0.as_secs())]
    Late(Duration),
}

impl NotDone {
    /// Whether there is no such program.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, NotDone::Run(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Runs a program and waits for its end.
///
/// # Errors
/// It could not be started, or was killed because its time was over.
#[allow(clippy::disallowed_methods, reason = "the one place that runs the router's programs")]
pub async fn run(call: &Call<'_>) -> Result<Done, NotDone> {
    let mut command = tokio::process::Command::new(call.program);
    command.args(call.arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(if call.keep == 0 { Stdio::null() } else { Stdio::piped() });
    if let Some(environment) = call.environment {
        command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    }
    let mut child = command.kill_on_drop(true).process_group(0).spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut reading = tokio::spawn(first_bytes(child.stdout.take(), call.keep));
    let ended = timeout(call.limit, child.wait()).await;
    if ended.is_err()
        && let Some(group) = group
    {
        // Gone already is as good.
        let _ = killpg(group, Signal::SIGKILL);
    }
    let output = timeout(AFTERWARDS, &mut reading).await;
    reading.abort();
    let output = output.ok().and_then(Result::ok).unwrap_or_default();
    match ended {
        Ok(status) => Ok(Done { status: status?, output }),
        Err(_late) => Err(NotDone::Late(call.limit)),
    }
}

/// As [`run`], where there is no runtime.
///
/// # Errors
/// As [`run`].
pub fn run_blocking(call: &Call<'_>) -> Result<Done, NotDone> {
    // On a thread of its own, so that it may be called from anywhere.
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(call))
    };
    let panicked = |_| NotDone::Run(io::Error::other("the thread that waits for it panicked"));
    std::thread::scope(|scope| scope.spawn(run).join()).map_err(panicked)?
}

async fn first_bytes(stream: Option<impl AsyncRead + Unpin>, keep: usize) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let mut kept = Vec::new();
    let most = u64::try_from(keep).unwrap_or(u64::MAX);
    if (&mut stream).take(most).read_to_end(&mut kept).await.is_ok() {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::script;

    #[tokio::test]
    async fn output_is_kept_as_far_as_wanted_and_time_ends() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        script(&program, "echo \"$1 $A$HOME\"; head -c 300000 /dev/zero; exit 3");
        let limit = Duration::from_secs(20);
        let environment = [("A", "set".to_owned()), ("PATH", "/bin:/usr/bin".to_owned())];
        let call = Call {
            keep: 6,
            environment: Some(&environment),
            ..Call::new(&program, &["hi"], limit)
        };
        let done = run(&call).await.unwrap();
        assert_eq!((done.status.code(), done.output.as_slice()), (Some(3), &b"hi set"[..]));
        let absent = run(&Call::new(&directory.path().join("none"), &[], limit)).await;
        assert!(absent.is_err_and(|error| error.is_absent()));
    }

    #[tokio::test]
    async fn who_is_late_goes_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let (program, pid) = (directory.path().join("late"), directory.path().join("pid"));
        script(&program, "sleep 1000 & echo $! > $1; wait");
        let path = pid.to_str().unwrap();
        let late = run(&Call::new(&program, &[path], Duration::from_millis(500))).await;
        assert!(matches!(late, Err(NotDone::Late(_))), "{late:?}");
        let sleeper: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        // A zombie that nobody reaps here has no memory any more.
        let gone = || {
            let status = std::fs::read_to_string(format!("/proc/{sleeper}/status"));
            status.map_or(true, |text| text.contains("State:\tZ"))
        };
        while !gone() {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn it_works_without_a_runtime() {
        let arguments = ["-c", "exit 4"];
        let done = run_blocking(&Call::new(Path::new("/bin/sh"), &arguments, AFTERWARDS * 20));
        assert_eq!(done.unwrap().status.code(), Some(4));
    }
}
