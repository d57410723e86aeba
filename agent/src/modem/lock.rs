//! The machine-wide lock of a modem: who holds it may open its ports.
//!
//! Without it `probe` would read bytes away from a running flash: root gets past TIOCEXCL, and every other
//! lock of the tools in the field is ignored by the next tool.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::files;

/// A held lock. It goes with the last descriptor of the open file, so a child that inherits one keeps it;
/// dropping the value only closes this process's own.
#[derive(Debug)]
pub struct ModemLock {
    file: File,
}

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum Busy {
    #[error("another process uses this modem{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held {
        /// Who said so when it took the lock; for messages only.
        pid: Option<u32>,
    },
    #[error("cannot open the modem's lock {path}")]
    Unusable { path: PathBuf, source: io::Error },
}

impl ModemLock {
    /// Takes `<run_dir>/modem-<key>.lock` or says who has it; never waits.
    ///
    /// `key` is [`super::discovery::Modem::lock_key`]; characters that no file name should have become `_`.
    pub fn acquire(run_dir: &Path, key: &str) -> Result<ModemLock, Busy> {
        let path = run_dir.join(format!("modem-{}.lock", file_name_part(key)));
        let taken = files::create_private_dir(run_dir).and_then(|()| files::try_lock(&path));
        match taken {
            Ok(Some(file)) => {
                // Only for the message of whoever finds it held; the lock itself is what counts.
                if let Err(error) = sign(&file) {
                    log::debug!("cannot write the holder into {}: {error}", path.display());
                }
                Ok(ModemLock { file })
            }
            Ok(None) => Err(Busy::Held { pid: holder(&path) }),
            Err(source) => Err(Busy::Unusable { path, source }),
        }
    }
}

impl AsFd for ModemLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn sign(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(path: &Path) -> Option<u32> {
    let text = String::from_utf8(files::read_limited(path, 16).ok()?).ok()?;
    text.trim().parse().ok()
}

fn file_name_part(key: &str) -> String {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    key.chars().take(64).map(|c| if fit(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests start processes: between fork and exec those have a copy of every descriptor.
    fn acquire_when_free(dir: &Path) -> ModemLock {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            match ModemLock::acquire(dir, "1bc7") {
                Ok(lock) => return lock,
                Err(error) if std::time::Instant::now() > deadline => panic!("{error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = ModemLock::acquire(dir.path(), "1bc7").unwrap();
        match ModemLock::acquire(dir.path(), "1bc7") {
            Err(Busy::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        ModemLock::acquire(dir.path(), "2c7c").unwrap();
        drop(held);
        acquire_when_free(dir.path());
    }

    #[test]
    fn an_inherited_descriptor_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = ModemLock::acquire(dir.path(), "1bc7").unwrap();
        let inherited = held.as_fd().try_clone_to_owned().unwrap();
        drop(held);
        assert!(matches!(ModemLock::acquire(dir.path(), "1bc7"), Err(Busy::Held { .. })));
        drop(inherited);
        acquire_when_free(dir.path());
    }

    #[test]
    fn a_key_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _held = ModemLock::acquire(dir.path(), "../../etc/x").unwrap();
        assert!(dir.path().join("modem-______etc_x.lock").exists());
    }
}
