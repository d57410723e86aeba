//! The disk's rules in one place: replacing a file so that a power cut leaves the old content or
//! the new, reading with a limit, private directories, and whole-file locks.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Owner reads and writes; nobody else.
pub const PRIVATE: u32 = 0o600;

/// Replaces `path` with `bytes`, durably: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// Whatever the file system says; the old content is then still in place.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    crate::failpoint::at!("files.before");
    let temporary = write_beside(path, bytes, true)?;
    crate::failpoint::at!("files.written");
    rename(&temporary, path)?;
    crate::failpoint::at!("files.renamed");
    sync_parent(path)?;
    crate::failpoint::at!("files.durable");
    Ok(())
}

/// Replaces `path` with `bytes` for readers, without making it durable: for state on tmpfs that
/// changes several times a second.
///
/// # Errors
/// Whatever the file system says; the old content is then still in place.
pub fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes, false)?;
    rename(&temporary, path)
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] past the limit, otherwise what the file system says.
pub fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_file_limited(File::open(path)?, limit)
}

/// As [`read_limited`], from an open file at its current position.
///
/// # Errors
/// As [`read_limited`].
pub fn read_file_limited(file: File, limit: usize) -> io::Result<Vec<u8>> {
    let ceiling = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(ceiling).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

/// Reads a small text file of the kernel's (`/proc`, `/sys`), at most 64 KiB.
///
/// # Errors
/// As [`read_limited`]; [`io::ErrorKind::InvalidData`] when it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_limited(path, 64 * 1024)?)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Removes a file; that it is not there is no error.
///
/// # Errors
/// Whatever else the file system says.
pub fn remove_if_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes `path` and its parents, readable by the owner alone.
///
/// # Errors
/// Whatever the file system says.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes `path` if it is not there, in a directory that must be.
///
/// # Errors
/// Whatever the file system says.
pub fn create_private_subdir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes `path` if it is not there, and durable: its own name and the names in it. Also for one that
/// is there, for whoever made it may have died before it was.
///
/// # Errors
/// Whatever the file system says.
pub fn durable_dir(path: &Path) -> io::Result<()> {
    create_private_dir(path)?;
    sync_dir(path)?;
    sync_parent(path)
}

/// Opens for reading and writing, made private when new.
///
/// # Errors
/// Whatever the file system says.
pub fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(path)
}

/// Makes the names in a directory durable, or a file's bytes.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Takes the lock (flock) of `path`, which lives as long as the returned file and its
/// duplicates in other processes. `None`: somebody else holds it.
///
/// # Errors
/// The file cannot be made or locked at all.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_private(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether somebody holds the lock of `path` exclusively. No file: nobody does.
///
/// # Errors
/// The file is there and cannot be asked.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    // Shared, so that two who ask do not see each other.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Does disk work on a thread of its own: the agent's runtime has one, which must not wait for a
/// slow stick.
///
/// # Errors
/// The work panicked, or the runtime ends.
pub async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

fn write_beside(path: &Path, bytes: &[u8], durable: bool) -> io::Result<PathBuf> {
    let temporary = temporary_beside(path)?;
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            if durable { file.sync_all() } else { Ok(()) }
        });
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(temporary)
}

/// Gives a file written beside it the name `path`.
///
/// # Errors
/// Whatever the file system says.
pub fn rename(temporary: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(temporary, path).inspect_err(|_| {
        let _ = std::fs::remove_file(temporary);
    })
}

/// One fixed temporary name a file: what a crash left behind is overwritten, never collected.
/// Every file here has one writer.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}

/// Makes the name `path` durable.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Whether nobody holds the lock any more: children of other tests have it for a moment, between their fork
/// and their exec.
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test's own thread")]
pub fn is_free_soon(path: &Path) -> bool {
    (0..1000).any(|_| {
        let is_free = !is_locked(path).unwrap();
        if !is_free {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        is_free
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        write_atomic(&path, b"a longer first content").unwrap();
        write_atomic(&path, b"second").unwrap();
        publish(&path, b"third").unwrap();
        assert_eq!(read_limited(&path, 16).unwrap(), b"third");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn reads_no_more_than_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        std::fs::write(&path, vec![7; 100]).unwrap();
        assert_eq!(read_limited(&path, 100).unwrap().len(), 100);
        assert_eq!(read_limited(&path, 99).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn the_runtime_goes_on_while_the_disk_is_slow() {
        let (done, slow) = std::sync::mpsc::channel();
        let work = tokio::spawn(off_runtime(move || slow.recv()));
        tokio::task::yield_now().await;
        // Never reached if the work held the one thread.
        done.send(7).unwrap();
        assert_eq!(work.await.unwrap().unwrap(), Ok(7));
    }

    #[test]
    fn a_lock_is_seen_until_its_last_holder_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(!is_locked(&path).unwrap());
        let held = try_lock(&path).unwrap().unwrap();
        assert!(is_locked(&path).unwrap());
        assert!(try_lock(&path).unwrap().is_none());
        let duplicate = held.try_clone().unwrap();
        drop(held);
        assert!(is_locked(&path).unwrap());
        drop(duplicate);
        assert!(is_free_soon(&path));
    }
}
