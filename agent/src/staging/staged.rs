//! The files of one staged image, written with an eye on the room that is left.

use super::{Durability, free_bytes};
use crate::files;
use nix::errno::Errno;
use shared::failure::FailureKind;
use shared::limits;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a block was not written.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    #[error("{free} bytes are free where {reserve} must stay so")]
    NoSpace { free: u64, reserve: u64 },
    #[error("the staged image cannot be written or read")]
    Io(#[from] io::Error),
}

impl StagingError {
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoSpace { .. } => FailureKind::NoSpace,
            Self::Io(_) => FailureKind::Storage,
        }
    }
}

/// The directory of one image.
#[derive(Debug, Clone)]
pub struct Staged {
    directory: PathBuf,
    durability: Durability,
    reserve: u64,
}

impl Staged {
    pub(super) fn new(directory: PathBuf, durability: Durability, reserve: u64) -> Self {
        Self { directory, durability, reserve }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The image's path; `name` is a manifest's `file.name`, which is a plain file name.
    #[must_use]
    pub fn image_path(&self, name: &str) -> PathBuf {
        self.directory.join("image").join(name)
    }

    /// Keeps the manifest's exact bytes and its signature beside the image.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep_manifest(&self, manifest: &[u8], signature: &str) -> Result<(), StagingError> {
        // Each look at the gates of an upgrade that waits comes here, for weeks perhaps.
        let same = || self.manifest().is_ok_and(|kept| kept.0 == manifest && kept.1 == signature);
        // An earlier try may have failed at the last.
        let is_kept = || {
            let paths = ["manifest.json", "manifest.sig", ""].map(|name| self.directory.join(name));
            paths.iter().all(|path| files::sync_dir(path).is_ok())
        };
        if same() && is_kept() {
            return Ok(());
        }
        crate::failpoint::at!("staging.manifest");
        files::write_atomic(&self.directory.join("manifest.json"), manifest)
            .and_then(|()| {
                files::write_atomic(&self.directory.join("manifest.sig"), signature.as_bytes())
            })
            .map_err(|error| self.explain(error))
    }

    /// The manifest's exact bytes and its signature, to be verified again.
    ///
    /// # Errors
    /// They are not there or cannot be read.
    pub fn manifest(&self) -> io::Result<(Vec<u8>, String)> {
        let manifest =
            files::read_limited(&self.directory.join("manifest.json"), limits::MANIFEST)?;
        let signature =
            files::read_limited(&self.directory.join("manifest.sig"), limits::SIGNATURE)?;
        Ok((manifest, String::from_utf8_lossy(&signature).into_owned()))
    }

    /// Opens the image for writing, as far as it is there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_image(&self, name: &str) -> Result<ImageFile, StagingError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(files::PRIVATE)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(self.image_path(name))
            .map_err(|error| self.explain(error))?;
        files::sync_dir(&self.directory.join("image"))?;
        Ok(ImageFile { file, directory: self.directory.clone(), reserve: self.reserve })
    }

    /// Whether an image file of the whole `size` is there; its content is proved elsewhere.
    #[must_use]
    pub fn holds(&self, size: u64) -> bool {
        let files = std::fs::read_dir(self.directory.join("image")).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).any(|m| m.is_file() && m.len() == size)
    }

    pub(super) fn make(&self) -> io::Result<()> {
        crate::failpoint::at!("staging.make");
        let image = self.directory.join("image");
        DirBuilder::new().recursive(true).mode(0o700).create(&image)?;
        // The staging directory itself may be new.
        if let Some(staging) = self.directory.parent() {
            files::durable_dir(staging)?;
        }
        files::sync_dir(&self.directory)
    }

    fn explain(&self, error: io::Error) -> StagingError {
        explain(error, &self.directory, self.reserve)
    }
}

/// A staged image while it is written.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    directory: PathBuf,
    reserve: u64,
}

impl ImageFile {
    /// Bytes there.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn size(&self) -> Result<u64, StagingError> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes a block at `offset` and makes it durable.
    ///
    /// # Errors
    /// Too little would stay free, or the disk says no.
    pub fn write_block(&self, offset: u64, block: &[u8]) -> Result<(), StagingError> {
        if offset + block.len() as u64 > self.size()? {
            let free = free_bytes(&self.directory)?;
            if free < self.reserve.saturating_add(block.len() as u64) {
                return Err(StagingError::NoSpace { free, reserve: self.reserve });
            }
        }
        crate::failpoint::at!("staging.block.before");
        let written = self.file.write_all_at(block, offset);
        crate::failpoint::at!("staging.block.written");
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|error| explain(error, &self.directory, self.reserve))?;
        crate::failpoint::at!("staging.block.durable");
        Ok(())
    }

    /// Makes durable what an earlier process may have written and not synced.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sync(&self) -> Result<(), StagingError> {
        Ok(self.file.sync_data()?)
    }

    /// Fills `block` from `offset`.
    ///
    /// # Errors
    /// Fewer bytes are there, or the disk says no.
    pub fn read_block(&self, offset: u64, block: &mut [u8]) -> Result<(), StagingError> {
        Ok(self.file.read_exact_at(block, offset)?)
    }

    /// Cuts off what is more than `size` bytes.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn cut(&self, size: u64) -> Result<(), StagingError> {
        if self.size()? > size {
            self.file.set_len(size)?;
        }
        Ok(())
    }
}

pub(super) fn explain(error: io::Error, directory: &Path, reserve: u64) -> StagingError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            StagingError::NoSpace { free: free_bytes(directory).unwrap_or(0), reserve }
        }
        _ => StagingError::Io(error),
    }
}
