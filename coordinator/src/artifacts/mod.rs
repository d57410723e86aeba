//! Firmware files on disk, named by what is in them: `<root>/ab/<sha256>`.
//!
//! ```text
//! upload ─ Upload (hashes while it writes <root>/incoming/…) ─ Received ─ keep() ─ <root>/ab/<sha256>
//!                                                                              └─ download ─ Range, ETag = sha256
//! ```
//!
//! A file is whole or absent: it is synced before it is renamed into place, and its directory after.
//! Room is counted before and while writing; the reserve belongs to the database next door.

pub mod download;
mod range;
mod upload;

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use shared::hex::Sha256;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, Semaphore};

pub use upload::{Received, Upload};

/// How much may be stored, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest file accepted.
    pub file: u64,
    /// All files together.
    pub quota: u64,
    /// What stays free on the file system whatever is uploaded: the database lives there.
    pub reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: 1 << 30, quota: 256 << 30, reserve: 1 << 30 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("the file is larger than the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("all firmware together would exceed the quota of {quota} bytes")]
    Quota { quota: u64 },
    #[error("less than {reserve} bytes would stay free on the server's disk")]
    DiskFull { reserve: u64 },
    #[error("{UPLOADS} uploads are under way")]
    Busy,
    #[error("could not read or write the stored file")]
    Io(#[from] io::Error),
}

/// Uploads at one time.
const UPLOADS: usize = 8;

/// The store of firmware files. Clones share it.
#[derive(Debug, Clone)]
pub struct Artifacts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    limits: Limits,
    /// Bytes stored or being written.
    used: AtomicU64,
    /// Held shared between storing a file and recording it, exclusively while one is removed.
    recording: Arc<RwLock<()>>,
    turns: Arc<Semaphore>,
}

/// While it lives, no file is removed: taken around "keep the file, then record it".
pub struct Hold {
    _shared: OwnedRwLockReadGuard<()>,
}

impl Artifacts {
    /// Opens the directory, making it when absent and clearing what interrupted uploads left.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, ArtifactError> {
        let incoming = root.join("incoming");
        fs::create_dir_all(root)?;
        match fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir(&incoming)?,
        }
        let mut used = 0;
        for file in stored(root)? {
            used += file.1;
        }
        Ok(Self(Arc::new(Inner {
            root: root.to_owned(),
            limits,
            used: AtomicU64::new(used),
            recording: Arc::default(),
            turns: Arc::new(Semaphore::new(UPLOADS)),
        })))
    }

    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Bytes stored or being written.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether there is room for an upload to begin.
    pub fn check_room(&self) -> Result<(), ArtifactError> {
        self.0.room_for(upload::ROOM_STEP)
    }

    pub async fn hold(&self) -> Hold {
        Hold { _shared: self.0.recording.clone().read_owned().await }
    }

    /// Removes the file unless `referenced` (asked while nothing can be recorded) says it is used.
    pub async fn remove_unless<E>(
        &self,
        sha256: Sha256,
        referenced: impl Future<Output = Result<bool, E>>,
    ) -> Result<(), E>
    where
        E: From<ArtifactError>,
    {
        let _exclusive = self.0.recording.write().await;
        if referenced.await? {
            return Ok(());
        }
        Ok(self.remove(sha256)?)
    }

    /// Removes every file whose hash is not in `referenced`: what a crash between storing and
    /// recording left behind. Returns how many. For start-up, before anything is uploaded.
    pub fn sweep(&self, referenced: &HashSet<Sha256>) -> Result<usize, ArtifactError> {
        let mut removed = 0;
        for (sha256, _) in stored(&self.0.root)? {
            if !referenced.contains(&sha256) {
                self.remove(sha256)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove(&self, sha256: Sha256) -> Result<(), ArtifactError> {
        let path = self.0.path(sha256);
        match fs::metadata(&path).and_then(|found| fs::remove_file(&path).map(|()| found.len())) {
            Ok(size) => {
                self.0.used.fetch_sub(size, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Inner {
    fn path(&self, sha256: Sha256) -> PathBuf {
        let name = sha256.to_string();
        self.root.join(&name[..2]).join(name)
    }

    /// Whether `more` bytes leave the reserve untouched.
    fn room_for(&self, more: u64) -> Result<(), ArtifactError> {
        let disk = rustix::fs::statvfs(&self.root).map_err(io::Error::from)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match free.checked_sub(self.limits.reserve) {
            Some(room) if room >= more => Ok(()),
            _ => Err(ArtifactError::DiskFull { reserve: self.limits.reserve }),
        }
    }
}

/// The stored files: hash and size.
fn stored(root: &Path) -> io::Result<Vec<(Sha256, u64)>> {
    let mut files = Vec::new();
    for directory in fs::read_dir(root)? {
        let directory = directory?;
        if directory.file_name() == "incoming" || !directory.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(directory.path())? {
            let file = file?;
            if let Some(sha256) = file.file_name().to_str().and_then(|name| name.parse().ok()) {
                files.push((sha256, file.metadata()?.len()));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
