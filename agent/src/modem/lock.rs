//! The machine-wide lock of a modem: who holds it may open its ports.
//!
//! Without it `probe` would read bytes away from a running flash: root gets past TIOCEXCL, and every other
//! lock of the tools in the field is ignored by the next tool.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

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
        let unusable = |source| Busy::Unusable { path: path.clone(), source };
        std::fs::create_dir_all(run_dir).map_err(unusable)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Busy::Held { pid: holder(&mut file) }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        // Only for the message of whoever finds it held; the lock itself is what counts.
        if let Err(error) = sign(&mut file) {
            log::debug!("cannot write the holder into {}: {error}", path.display());
        }
        Ok(ModemLock { file })
    }
}

impl AsFd for ModemLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn file_name_part(key: &str) -> String {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    key.chars().take(64).map(|c| if fit(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ModemLock::acquire(dir.path(), "1bc7").unwrap();
    }

    #[test]
    fn an_inherited_descriptor_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = ModemLock::acquire(dir.path(), "1bc7").unwrap();
        let inherited = held.as_fd().try_clone_to_owned().unwrap();
        drop(held);
        assert!(matches!(ModemLock::acquire(dir.path(), "1bc7"), Err(Busy::Held { .. })));
        drop(inherited);
        ModemLock::acquire(dir.path(), "1bc7").unwrap();
    }

    #[test]
    fn a_key_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _held = ModemLock::acquire(dir.path(), "../../etc/x").unwrap();
        assert!(dir.path().join("modem-______etc_x.lock").exists());
    }
}
