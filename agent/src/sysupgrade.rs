//! A new system for the router and a flash keep out of each other's way.
//!
//! ```text
//! sysupgrade   writes no-flash with its pid ─► asks `busy --begun` ─────────► goes on
//! agent        takes begun.lock ─────────────► looks for no-flash ──────────► asks for the grant
//! agent        takes the guardian's lock ────► looks for no-flash ──────────► starts the tool
//! ```
//! Each shows itself first and looks then: whoever comes second sees the other.

use crate::files;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use std::{fs::File, io, path::Path};

const NO_FLASH: &str = "no-flash";
const BEGUN: &str = "begun.lock";

/// Why nothing may be begun: the first line of `<run_dir>/no-flash` is the pid of a process that lives, the
/// second, if there is one, when it was started (field 22 of `/proc/<pid>/stat`), for pids come again.
/// A file that names none counts, for its writer may not have come to that yet.
#[must_use]
pub fn under_way(run_dir: &Path) -> Option<String> {
    let path = run_dir.join(NO_FLASH);
    let text = match files::read_text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("{}: {error}", path.display())),
    };
    let mut lines = text.lines().map(str::trim);
    match lines.next().unwrap_or_default().parse::<i32>() {
        Ok(pid) if pid > 0 => {
            let then = lines.next().and_then(|line| line.parse::<u64>().ok());
            let another = then.zip(started(pid)).is_some_and(|(then, now)| then != now);
            (lives(pid) && !another).then(|| format!("a sysupgrade is under way (pid {pid})"))
        }
        _ => Some(format!("a sysupgrade is under way: {} names no process", path.display())),
    }
}

/// Shows that the grant is asked for, until the file is dropped. `None`: somebody looks just now.
///
/// # Errors
/// The run directory cannot be used.
pub fn begin(run_dir: &Path) -> io::Result<Option<File>> {
    files::try_lock(&run_dir.join(BEGUN))
}

/// Whether the grant is asked for, or given and its tool not started yet.
#[must_use]
pub fn is_begun(run_dir: &Path) -> bool {
    files::is_locked(&run_dir.join(BEGUN)).unwrap_or(false)
}

fn lives(pid: i32) -> bool {
    // Any other refusal than "no such process" speaks of one.
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// In clock ticks since the boot.
fn started(pid: i32) -> Option<u64> {
    let stat = files::read_text(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    // The second field is a name, in parentheses, and may have anything in it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_lives_or_is_not_known_keeps_flashes_away() {
        let run_dir = tempfile::tempdir().unwrap();
        let says = |text: &str| {
            std::fs::write(run_dir.path().join(NO_FLASH), text).unwrap();
            under_way(run_dir.path())
        };
        assert_eq!(under_way(run_dir.path()), None);
        let own = std::process::id();
        let reason = says(&format!("{own}\n/tmp/firmware.img\n")).unwrap();
        assert_eq!(reason, format!("a sysupgrade is under way (pid {own})"));
        let began = started(i32::try_from(own).unwrap()).unwrap();
        assert!(says(&format!("{own}\n{began}\n")).is_some());
        assert_eq!(says(&format!("{own}\n{}\n", began + 1)), None, "another one of that number");
        // Above the kernel's largest.
        assert_eq!(says("4194305\n"), None);
        for unclear in ["", "\n", "0", "-1", "sysupgrade", "99999999999"] {
            assert!(says(unclear).unwrap().contains("names no process"), "{unclear}");
        }
    }

    #[test]
    fn who_asks_sees_what_is_begun_until_it_is_dropped() {
        let run_dir = tempfile::tempdir().unwrap();
        assert!(!is_begun(run_dir.path()));
        let begun = begin(run_dir.path()).unwrap().unwrap();
        assert!(is_begun(run_dir.path()));
        drop(begun);
        assert!(files::is_free_soon(&run_dir.path().join(BEGUN)));
        assert!(!is_begun(run_dir.path()));
    }
}
