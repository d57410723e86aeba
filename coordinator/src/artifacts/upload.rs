//! One upload: bytes in as they arrive, hashed and written by one blocking thread, never whole in RAM.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use ring::digest;
use shared::hex::{Hex, Sha256};
use tempfile::NamedTempFile;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task,
};

use super::{ArtifactError, Artifacts, Inner};

/// Chunks waiting for the disk: bounds the memory of an upload.
const QUEUED_CHUNKS: usize = 8;

/// The disk is asked for room each time this many bytes were written.
pub(super) const ROOM_STEP: u64 = 8 << 20;

/// A file being written. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    chunks: mpsc::Sender<Bytes>,
    writer: task::JoinHandle<Result<Received, ArtifactError>>,
}

/// A file that is whole and synced, but not yet stored under its name.
#[derive(Debug)]
pub struct Received {
    file: NamedTempFile,
    room: Room,
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
}

impl Artifacts {
    /// Begins an upload of `expected` bytes, if the sender said how many.
    pub fn upload(&self, expected: Option<u64>) -> Result<Upload, ArtifactError> {
        let expected = expected.unwrap_or(0);
        if expected > self.0.limits.file {
            return Err(ArtifactError::TooLarge { limit: self.0.limits.file });
        }
        if self.used().saturating_add(expected) > self.0.limits.quota {
            return Err(ArtifactError::Quota { quota: self.0.limits.quota });
        }
        self.0.room_for(expected.max(ROOM_STEP))?;
        // Each holds a thread for as long as it lasts.
        let turn = self.0.turns.clone().try_acquire_owned().map_err(|_| ArtifactError::Busy)?;
        let (chunks, queue) = mpsc::channel(QUEUED_CHUNKS);
        let inner = self.0.clone();
        let writer = task::spawn_blocking(move || receive(&inner, queue, turn));
        Ok(Upload { chunks, writer })
    }
}

impl Upload {
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), ArtifactError> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        // The writer only stops early with an error.
        match flatten((&mut self.writer).await) {
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    }

    /// Waits until everything is on disk.
    pub async fn finish(self) -> Result<Received, ArtifactError> {
        drop(self.chunks);
        flatten(self.writer.await)
    }
}

impl Received {
    /// Puts the file under its name, durably; a file that is there already stays.
    pub async fn keep(self) -> Result<(), ArtifactError> {
        flatten(task::spawn_blocking(move || self.keep_now()).await)
    }

    fn keep_now(self) -> Result<(), ArtifactError> {
        let inner = self.room.inner.clone();
        let path = inner.path(self.sha256);
        let directory = path.parent().unwrap_or(&inner.root);
        match fs::create_dir(directory) {
            Ok(()) => sync_directory(&inner.root)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        match self.file.persist_noclobber(&path) {
            Ok(_) => self.room.keep(),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.error.into()),
        }
        Ok(sync_directory(directory)?)
    }
}

fn receive(
    inner: &Arc<Inner>,
    mut queue: mpsc::Receiver<Bytes>,
    _turn: OwnedSemaphorePermit,
) -> Result<Received, ArtifactError> {
    let mut file = NamedTempFile::new_in(inner.root.join("incoming"))?;
    let mut room = Room { inner: inner.clone(), bytes: 0 };
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut until_asked = ROOM_STEP;
    while let Some(chunk) = queue.blocking_recv() {
        let length = chunk.len() as u64;
        room.take(length)?;
        if length >= until_asked {
            inner.room_for(length.max(ROOM_STEP))?;
            until_asked = ROOM_STEP;
        } else {
            until_asked -= length;
        }
        hash.update(&chunk);
        file.write_all(&chunk).map_err(|error| full_or(error, inner))?;
    }
    file.as_file().sync_all().map_err(|error| full_or(error, inner))?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.finish().as_ref());
    Ok(Received { file, sha256: Hex(sha256), size: room.bytes, room })
}

/// The part of the quota that an upload has taken; given back unless the file is kept.
#[derive(Debug)]
struct Room {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Room {
    fn take(&mut self, more: u64) -> Result<(), ArtifactError> {
        let limits = self.inner.limits;
        if self.bytes + more > limits.file {
            return Err(ArtifactError::TooLarge { limit: limits.file });
        }
        let before = self.inner.used.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if before + more > limits.quota {
            return Err(ArtifactError::Quota { quota: limits.quota });
        }
        Ok(())
    }

    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.inner.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn full_or(error: io::Error, inner: &Inner) -> ArtifactError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ArtifactError::DiskFull { reserve: inner.limits.reserve }
        }
        _ => error.into(),
    }
}

fn flatten<T>(
    joined: Result<Result<T, ArtifactError>, task::JoinError>,
) -> Result<T, ArtifactError> {
    joined.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
