//! The router's own say: executables in `<hooks_dir>/{pre-check,pre-flash,post-flash}/`, run in the order of
//! their names. A pre-check that ends with anything but 0 postpones the upgrade, and its first line says
//! why; the others only take note.
//!
//! They get no arguments and an environment of a few named values. The names of what is run come from this
//! router alone, never from the network.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::limits;

use crate::commands::{self, Call};

/// How long one hook may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Most output kept of one hook, in bytes; the rest is read and dropped.
const MAX_OUTPUT: usize = 4096;

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
async fn call(hook: &Path, environment: &[(&str, String)], limit: Duration) -> Result<(), String> {
    let path = ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let environment: Vec<_> = std::iter::once(path).chain(environment.iter().cloned()).collect();
    let environment = Some(environment.as_slice());
    let call = Call { keep: MAX_OUTPUT, environment, ..Call::new(hook, &[], limit) };
    let done = commands::run(&call).await.map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&done.output);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Err(lines.next().map_or_else(|| done.status.to_string(), str::to_owned))
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
