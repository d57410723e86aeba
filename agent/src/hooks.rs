//! The router's own say: executables in `<hooks_dir>/{pre-check,pre-flash,post-flash}/`, run in the order of
//! their names. A pre-check that ends with anything but 0 postpones the upgrade, and its first line says
//! why; the others only take note.
//!
//! They get no arguments and an environment of a few named values. The names of what is run come from this
//! router alone, never from the network.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use shared::limits;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How long one hook may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long its output may take after it ended.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// Most output kept of one hook, in bytes; the rest is read and dropped.
const MAX_OUTPUT: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    PreCheck,
    PreFlash,
    PostFlash,
}

impl Stage {
    fn directory(self) -> &'static str {
        match self {
            Stage::PreCheck => "pre-check",
            Stage::PreFlash => "pre-flash",
            Stage::PostFlash => "post-flash",
        }
    }
}

/// A pre-check wants the upgrade later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Postponed {
    pub reason: String,
}

/// Runs the hooks of `stage`; `environment` is all they get beside `PATH`.
///
/// # Errors
/// The first pre-check that did not end with 0. Other stages never fail.
pub async fn run(
    directory: &Path,
    stage: Stage,
    environment: &[(&str, String)],
) -> Result<(), Postponed> {
    run_within(directory, stage, environment, LIMIT).await
}

async fn run_within(
    directory: &Path,
    stage: Stage,
    environment: &[(&str, String)],
    limit: Duration,
) -> Result<(), Postponed> {
    for hook in hooks(&directory.join(stage.directory())) {
        let Err(reason) = call(&hook, environment, limit).await else { continue };
        let name = hook.file_name().unwrap_or_default().to_string_lossy();
        let reason = limits::cut(format!("{} {name}: {reason}", stage.directory()));
        if stage == Stage::PreCheck {
            return Err(Postponed { reason });
        }
        log::warn!("{reason}");
    }
    Ok(())
}

fn hooks(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut hooks: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|p| runs(p)).collect();
    hooks.sort();
    hooks
}

fn runs(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let executable = std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
    executable && !hidden
}

/// Why the hook did not say yes.
#[allow(clippy::disallowed_methods, reason = "the one place that runs the router's hooks")]
async fn call(hook: &Path, environment: &[(&str, String)], limit: Duration) -> Result<(), String> {
    let mut child = tokio::process::Command::new(hook)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let mut reading = tokio::spawn(first_bytes(child.stdout.take()));
    let ended = timeout(limit, child.wait()).await;
    // What a hook leaves behind with its output open is not waited for.
    let text = timeout(AFTERWARDS, &mut reading).await;
    reading.abort();
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    match ended {
        Err(_) => Err(format!("did not end within {} s", limit.as_secs())),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => match text.lines().map(str::trim).find(|line| !line.is_empty()) {
            Some(line) => Err(line.to_owned()),
            None => Err(status.to_string()),
        },
        Ok(Err(error)) => Err(error.to_string()),
    }
}

async fn first_bytes(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let read = (&mut stream).take(MAX_OUTPUT).read_to_end(&mut kept).await;
    if read.is_ok() {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::script;
    use std::fs;

    struct Hooks(tempfile::TempDir);

    impl Hooks {
        fn new(stage: Stage, scripts: &[(&str, &str)]) -> Hooks {
            let hooks = Hooks(tempfile::tempdir().unwrap());
            let directory = hooks.0.path().join(stage.directory());
            fs::create_dir_all(&directory).unwrap();
            for (name, body) in scripts {
                script(&directory.join(name), body);
            }
            hooks
        }

        async fn run(&self, stage: Stage) -> Result<(), String> {
            let out = self.0.path().join("out").display().to_string();
            let environment = [("OUT", out), ("SLOT", "main".to_owned())];
            run(self.0.path(), stage, &environment).await.map_err(|p| p.reason)
        }

        fn out(&self) -> String {
            fs::read_to_string(self.0.path().join("out")).unwrap_or_default()
        }
    }

    #[tokio::test]
    async fn without_hooks_nothing_is_postponed() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(run(&empty.path().join("none"), Stage::PreCheck, &[]).await, Ok(()));
    }

    #[tokio::test]
    async fn pre_checks_run_in_order_until_one_says_no_and_its_first_line_says_why() {
        let hooks = Hooks::new(
            Stage::PreCheck,
            &[
                ("20-busy", "echo 'a call is under way'; echo more; exit 3"),
                ("10-first", "echo \"first $SLOT $# $HOME\" >> $OUT"),
                ("30-never", "echo never >> $OUT"),
            ],
        );
        let postponed = hooks.run(Stage::PreCheck).await;
        assert_eq!(postponed, Err("pre-check 20-busy: a call is under way".into()));
        assert_eq!(hooks.out(), "first main 0 \n");
    }

    #[tokio::test]
    async fn other_stages_fail_nothing_and_all_of_their_hooks_run() {
        let hooks = Hooks::new(Stage::PostFlash, &[("1", "exit 1"), ("2", "echo second >> $OUT")]);
        assert_eq!(hooks.run(Stage::PostFlash).await, Ok(()));
        assert_eq!(hooks.out(), "second\n");
    }

    #[tokio::test]
    async fn a_hook_that_hangs_or_floods_holds_nothing_up() {
        let hangs = Hooks::new(Stage::PreCheck, &[("hangs", "exec sleep 100")]);
        let limit = Duration::from_millis(200);
        let postponed = run_within(hangs.0.path(), Stage::PreCheck, &[], limit).await;
        assert!(postponed.unwrap_err().reason.contains("did not end"));
        let flood = "head -c 3000000 /dev/zero; exit 1";
        let floods = Hooks::new(Stage::PreCheck, &[("floods", flood)]);
        let reason = floods.run(Stage::PreCheck).await.unwrap_err();
        assert!(reason.len() <= limits::DETAIL, "{}", reason.len());
    }
}
