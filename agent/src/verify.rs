//! What may reach the tool: a manifest whose signature the router trusts, and an open file that is
//! byte for byte what that manifest says.
//!
//! Both types have one constructor each and nothing else makes them, so holding one is the proof.
//! A [`VerifiedImage`] is never rebuilt from a path in a journal: whoever needs it after a restart
//! hashes the file again.

mod keys;

pub use keys::{KeysError, read_keyring};

use shared::failure::FailureKind;
use shared::hex::{Hasher, Sha256, sha256};
use shared::limits;
use shared::manifest::{Manifest, ManifestError};
use shared::signature::{Distrust, KeyNumber, Keyring};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes hashed at once.
const CHUNK: usize = 256 * 1024;

/// Why a manifest is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestRefused {
    #[error("the manifest is not the job's: its digest is {found}")]
    Other { found: Sha256 },
    #[error("the manifest has no signature")]
    NotSigned,
    #[error("the manifest's signature is not trusted")]
    Distrusted(#[from] Distrust),
    #[error("the manifest cannot be used")]
    Manifest(#[from] ManifestError),
}

impl ManifestRefused {
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Other { .. } | Self::Manifest(_) => FailureKind::BadManifest,
            Self::NotSigned => FailureKind::NotSigned,
            Self::Distrusted(Distrust::Form(_) | Distrust::Wrong(_)) => FailureKind::BadSignature,
            Self::Distrusted(Distrust::UnknownKey(_)) => FailureKind::UnknownKey,
            Self::Distrusted(Distrust::Revoked(_)) => FailureKind::KeyRevoked,
        }
    }
}

/// A manifest that was trusted before it was parsed.
#[derive(Debug, Clone)]
pub struct VerifiedManifest {
    manifest: Manifest,
    sha256: Sha256,
    signer: Option<KeyNumber>,
}

/// What the router demands of a manifest's signature; from its local settings alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePolicy {
    Required,
    /// Neither a signature nor a known key is needed; a wrong or revoked one is still refused.
    Optional,
    /// The bytes with the expected digest were trusted before a tool was started with their image: only a key
    /// that is revoked by now takes that back. Keys are replaced while a modem waits for its recovery.
    TrustedBefore,
}

impl VerifiedManifest {
    /// Checks that `bytes` are the manifest with the job's digest, then the signature, and only
    /// then parses.
    ///
    /// # Errors
    /// See [`ManifestRefused`].
    pub fn verify(
        bytes: &[u8],
        signature: Option<&str>,
        expected: &Sha256,
        keyring: &Keyring,
        policy: SignaturePolicy,
    ) -> Result<Self, ManifestRefused> {
        if bytes.len() > limits::MANIFEST {
            return Err(ManifestError::TooLarge(bytes.len()).into());
        }
        let found = sha256(bytes);
        if found != *expected {
            return Err(ManifestRefused::Other { found });
        }
        let signer = match (signature.filter(|text| !text.is_empty()), policy) {
            (None, SignaturePolicy::Required) => return Err(ManifestRefused::NotSigned),
            (None, SignaturePolicy::Optional | SignaturePolicy::TrustedBefore) => None,
            (Some(text), _) => match (keyring.verify(bytes, text), policy) {
                (Ok(signer), _) => Some(signer),
                (Err(Distrust::UnknownKey(_)), SignaturePolicy::Optional) => None,
                (
                    Err(Distrust::UnknownKey(_) | Distrust::Form(_) | Distrust::Wrong(_)),
                    SignaturePolicy::TrustedBefore,
                ) => None,
                (Err(distrust), _) => return Err(distrust.into()),
            },
        };
        Ok(Self { manifest: Manifest::parse(bytes)?, sha256: found, signer })
    }

    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Digest of the exact bytes.
    #[must_use]
    pub fn sha256(&self) -> &Sha256 {
        &self.sha256
    }

    /// The trusted key that signed it; none where the router demands none.
    #[must_use]
    pub fn signer(&self) -> Option<KeyNumber> {
        self.signer
    }
}

/// Why a staged file is not the manifest's image.
#[derive(Debug, thiserror::Error)]
pub enum ImageRefused {
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    #[error("the image has {found} bytes, not {expected}")]
    Size { expected: u64, found: u64 },
    #[error("the image's digest is {found}, first wrong block {block:?}")]
    Digest { found: Sha256, block: Option<u64> },
}

impl ImageRefused {
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Read { .. } | Self::NotAFile(_) => FailureKind::Storage,
            Self::Size { .. } | Self::Digest { .. } => FailureKind::ChecksumMismatch,
        }
    }
}

/// An open file whose every byte was found to be what the manifest says that the tool gets. The
/// tool gets this very file, not its name.
#[derive(Debug)]
pub struct VerifiedImage {
    file: File,
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
}

impl VerifiedImage {
    /// Opens and hashes the file on a thread of its own. `progress` hears the bytes done so far.
    ///
    /// The whole file's signed digest decides. The blocks' digests, signed alike, are asked only
    /// to tell which block is wrong: hashing everything twice would prove nothing more.
    ///
    /// # Errors
    /// See [`ImageRefused`].
    pub async fn open(
        path: &Path,
        manifest: &VerifiedManifest,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Self, ImageRefused> {
        let (path, manifest) = (path.to_owned(), manifest.manifest.clone());
        let unfinished = path.clone();
        let hashing =
            tokio::task::spawn_blocking(move || Self::open_blocking(path, &manifest, progress));
        hashing.await.unwrap_or_else(|error| {
            Err(ImageRefused::Read { path: unfinished, source: io::Error::other(error) })
        })
    }

    fn open_blocking(
        path: PathBuf,
        manifest: &Manifest,
        progress: impl FnMut(u64),
    ) -> Result<Self, ImageRefused> {
        let failed = |source| ImageRefused::Read { path: path.clone(), source };
        let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        let mut file =
            OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(ImageRefused::NotAFile(path));
        }
        let wanted = manifest.tool_file();
        let (expected, found) = (wanted.size, metadata.len());
        if expected != found {
            return Err(ImageRefused::Size { expected, found });
        }
        let digest = hash(&mut file, expected, progress).map_err(failed)?;
        if digest != *wanted.sha256 {
            let encoded = manifest.file.decoded.is_some();
            let block = if encoded {
                None
            } else {
                first_wrong_block(&mut file, manifest).map_err(failed)?
            };
            return Err(ImageRefused::Digest { found: digest, block });
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { file, path, device, inode, size: expected })
    }

    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name it was opened by, for tools that need one; the guardian compares the inode.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode number.
    #[must_use]
    pub fn inode(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Whether the file at `path` is the one of the manifest, encoded as it is.
///
/// # Errors
/// It cannot be read.
pub fn is_whole(path: &Path, wanted: &shared::manifest::File) -> io::Result<bool> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let size = file.metadata()?.len();
    Ok(size == wanted.size && hash(&mut file, size, |_| {})? == wanted.sha256)
}

/// Hashes exactly `size` bytes; a file that grows or shrinks meanwhile is an error.
fn hash(file: &mut File, size: u64, mut progress: impl FnMut(u64)) -> io::Result<Sha256> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < size {
        let want = usize::try_from(size - done).map_or(CHUNK, |left| left.min(CHUNK));
        file.read_exact(&mut buffer[..want])?;
        hasher.update(&buffer[..want]);
        done += want as u64;
        progress(done);
    }
    Ok(hasher.finish())
}

fn first_wrong_block(file: &mut File, manifest: &Manifest) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    for (index, expected) in (0..).zip(&manifest.blocks) {
        if hash(file, manifest.block_len(index), |_| {})? != *expected {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "verify/tests.rs"]
mod tests;
