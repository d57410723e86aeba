//! The processes of a tool, from `/proc`: who is below the guardian, who still has its lock.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Sends `signal` to each of `processes`; one that is gone is no matter.
pub fn signal(processes: &[Pid], signal: Signal) {
    for &process in processes {
        let _ = kill(process, signal);
    }
}

/// Every process below `root`. The guardian is its tool's subreaper, so this includes what
/// daemonised itself.
#[must_use]
pub fn below(root: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = processes()
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        let children = parents.iter().filter(|(_, parent)| *parent == above);
        let fresh: Vec<Pid> =
            children.map(|(pid, _)| *pid).filter(|pid| !found.contains(pid)).collect();
        found.extend(fresh);
        next += 1;
    }
    found.remove(0);
    found
}

/// Every process, but this one, that has the flock of `lock` among its descriptors.
#[must_use]
pub fn holding(lock: &Path) -> Vec<Pid> {
    let Ok(lock) = fs::metadata(lock) else { return vec![] };
    processes().filter(|&pid| pid != Pid::this() && holds(pid, lock.dev(), lock.ino())).collect()
}

fn holds(pid: Pid, device: u64, inode: u64) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        let same = fs::metadata(entry.path())
            .is_ok_and(|file| (file.dev(), file.ino()) == (device, inode));
        // Whoever only asks whether the lock is held has the file open too.
        same && fs::read_to_string(
            Path::new(&format!("/proc/{pid}/fdinfo")).join(entry.file_name()),
        )
        .is_ok_and(|info| info.lines().any(|l| l.starts_with("lock:") && l.contains("WRITE")))
    })
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// The fourth field of `/proc/<pid>/stat`; the second may contain blanks and parentheses.
fn parent(stat: &str) -> Option<Pid> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parent_behind_an_odd_name() {
        assert_eq!(parent("12 (a) b (c) S 7 12 12 0"), Some(Pid::from_raw(7)));
        assert_eq!(parent("12 (cut"), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a child to find")]
    fn finds_its_own_children() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(below(Pid::this()).contains(&pid));
        signal(&[pid], Signal::SIGKILL);
        child.wait().unwrap();
        assert!(!below(Pid::this()).contains(&pid));
    }
}
