//! Who else is at work on this router: which process runs a program, which has a file open.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::files;

/// Longest command line looked at, in bytes.
const MAX_COMMAND_LINE: usize = 8 * 1024;

/// A process, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Its first argument's file name, or its `comm`.
    pub name: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// A process that runs `program` and was not started by a guardian of `run_dir`.
///
/// The program is known by its inode, whatever it was called by; a script by its place among the first
/// arguments. Where `program` is this very binary under another name, that name counts as well.
#[must_use]
pub fn running(proc: &Path, program: &Path, run_dir: &Path) -> Option<Process> {
    let wanted = file_id(program)?;
    let multi_call = file_id(Path::new("/proc/self/exe")) == Some(wanted);
    let script = is_script(program);
    let found = others(proc).find(|(_, process)| {
        let arguments = command_line(process);
        let runs = if script {
            names(process, &arguments, wanted)
        } else {
            file_id(&process.join("exe")) == Some(wanted)
                && (!multi_call || called(&arguments, program))
        };
        runs && !is_guarded(process, run_dir)
    });
    found.map(|(pid, process)| describe(pid, &process))
}

/// Another process that has `file` open; `file` may be a link to it.
#[must_use]
pub fn having_open(proc: &Path, file: &Path) -> Option<Process> {
    let target = fs::canonicalize(file).ok()?;
    let found = others(proc)
        .find(|(_, process)| descriptors(process).any(|open| open == target || open == file));
    found.map(|(pid, process)| describe(pid, &process))
}

fn others(proc: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (pid != std::process::id()).then(|| (pid, entry.path()))
    })
}

fn describe(pid: u32, process: &Path) -> Process {
    let first = command_line(process).into_iter().next().unwrap_or_default();
    let name = match first.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => files::read_text(&process.join("comm")).unwrap_or_default().trim().to_owned(),
    };
    Process { pid, name: shared::limits::cut(name) }
}

fn command_line(process: &Path) -> Vec<PathBuf> {
    let bytes = files::read_limited(&process.join("cmdline"), MAX_COMMAND_LINE).unwrap_or_default();
    let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| PathBuf::from(OsStr::from_bytes(part))).collect()
}

fn called(arguments: &[PathBuf], program: &Path) -> bool {
    arguments.first().is_some_and(|first| first.file_name() == program.file_name())
}

/// `sh script`, `env -S sh script`: an interpreter, perhaps an option, the script.
fn names(process: &Path, arguments: &[PathBuf], script: (u64, u64)) -> bool {
    let directory = process.join("cwd");
    arguments.iter().take(4).any(|argument| file_id(&directory.join(argument)) == Some(script))
}

fn is_script(program: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 2];
    let read = fs::File::open(program).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"#!"
}

/// What a guardian starts inherits its lock.
fn is_guarded(process: &Path, run_dir: &Path) -> bool {
    let run_dir = fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    let lock = OsStr::new("guardian.lock");
    descriptors(process)
        .any(|open| open.starts_with(&run_dir) && open.file_name().is_some_and(|n| n == lock))
}

fn descriptors(process: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok())
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test plays the other processes")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Router(tempfile::TempDir);

    impl Router {
        fn new() -> Router {
            let router = Router(tempfile::tempdir().unwrap());
            fs::create_dir_all(router.path("proc")).unwrap();
            fs::create_dir_all(router.path("run/main")).unwrap();
            router
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            fs::write(self.path(name), text).unwrap();
            self.path(name)
        }

        fn process(&self, exe: &Path, arguments: &[&str], open: &[&Path]) {
            let process = self.path("proc/4711");
            let _ = fs::remove_dir_all(&process);
            fs::create_dir_all(process.join("fd")).unwrap();
            symlink(exe, process.join("exe")).unwrap();
            symlink("/", process.join("cwd")).unwrap();
            fs::write(process.join("cmdline"), arguments.join("\0") + "\0").unwrap();
            for (number, open) in open.iter().enumerate() {
                symlink(open, process.join("fd").join(number.to_string())).unwrap();
            }
        }

        fn running(&self, program: &Path) -> Option<String> {
            let found = running(&self.path("proc"), program, &self.path("run"));
            found.map(|process| process.to_string())
        }
    }

    #[test]
    fn a_tool_is_known_by_its_file_whatever_it_was_called_by() {
        let router = Router::new();
        let tool = router.file("uxfp-1.14", "\x7fELF");
        let link = router.path("uxfp");
        symlink(&tool, &link).unwrap();
        assert_eq!(router.running(&link), None);
        router.process(&tool, &["./flash-it", "--file", "x"], &[]);
        assert_eq!(router.running(&link).as_deref(), Some("flash-it (pid 4711)"));
        let other = router.file("cat", "\x7fELF");
        router.process(&other, &["uxfp", "uxfp-1.14"], &[]);
        assert_eq!(router.running(&link), None);
    }

    #[test]
    fn a_script_is_known_by_its_interpreters_arguments() {
        let router = Router::new();
        let script = router.file("flash.sh", "#!/bin/sh\n");
        router.process(Path::new("/bin/sh"), &["/bin/sh", script.to_str().unwrap(), "x"], &[]);
        assert_eq!(router.running(&script).as_deref(), Some("sh (pid 4711)"));
        router.process(Path::new("/bin/sh"), &["/bin/sh", "/other.sh"], &[]);
        assert_eq!(router.running(&script), None);
    }

    #[test]
    fn what_a_guardian_started_is_ours() {
        let router = Router::new();
        let tool = router.file("uxfp", "\x7fELF");
        router.process(&tool, &["uxfp"], &[&router.path("run/main/guardian.lock")]);
        assert_eq!(router.running(&tool), None);
        router.process(&tool, &["uxfp"], &[&router.path("run/main/transcript")]);
        assert!(router.running(&tool).is_some());
    }

    #[test]
    fn this_binary_under_another_name_is_not_the_tool() {
        let router = Router::new();
        let own = std::env::current_exe().unwrap();
        let tool = router.path("uxfp");
        symlink(&own, &tool).unwrap();
        router.process(&own, &["/usr/sbin/modem-upgrader-agent", "guard"], &[]);
        assert_eq!(router.running(&tool), None);
        router.process(&own, &["/usr/bin/uxfp", "--file"], &[]);
        assert!(router.running(&tool).is_some());
    }

    #[test]
    fn who_has_a_port_open_is_found_through_a_link() {
        let router = Router::new();
        let port = router.file("pts7", "").canonicalize().unwrap();
        let link = router.path("ttyUSB2");
        symlink(&port, &link).unwrap();
        let proc = router.path("proc");
        let manager = Path::new("/usr/sbin/ModemManager");
        router.process(manager, &["/usr/sbin/ModemManager"], &[Path::new("/dev/null")]);
        assert_eq!(having_open(&proc, &link), None);
        router.process(manager, &["/usr/sbin/ModemManager"], &[&port]);
        let found = having_open(&proc, &link).unwrap();
        assert_eq!(found, Process { pid: 4711, name: "ModemManager".into() });
    }
}
