//! Where an image lies until the modem has confirmed it: which directory, whether it survives a
//! power cut, and how much room is left.
//!
//! ```text
//! <directory>/<digest of the manifest>/manifest.json  manifest.sig  image/<file name>
//! ```
//! A directory that a firmware upgrade of the router would save (keep.d) is never used: sysupgrade
//! packs those into memory.

mod decoded;
mod durability;
mod mounts;
mod staged;

pub use decoded::{Undecodable, decode};
pub use durability::{Durability, durability};
pub use mounts::Mounts;
pub use staged::{ImageFile, Staged, StagingError};

use crate::files;
use nix::sys::statvfs::statvfs;
use shared::failure::FailureKind;
use shared::hex::Sha256;
use shared::limits;
use std::io;
use std::path::{Path, PathBuf};

/// The router's staging directories and the rules for them.
#[derive(Debug, Clone)]
pub struct Staging {
    directories: Vec<PathBuf>,
    reserve: u64,
    kept: Vec<PathBuf>,
    mounts: Mounts,
}

/// A directory that is configured and cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub directory: PathBuf,
    pub reason: String,
}

/// Why nothing can be staged.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    #[error(
        "the image needs {needed} bytes and {reserve} must stay free; the best place has {free}"
    )]
    NoSpace { needed: u64, reserve: u64, free: u64 },
    #[error("no staging directory survives a power cut: {}", list(.0))]
    NotDurable(Vec<PathBuf>),
    #[error("no staging directory can be used: {}", list(.0))]
    Unusable(Vec<PathBuf>),
}

impl NoPlace {
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoSpace { .. } => FailureKind::NoSpace,
            Self::NotDurable(_) => FailureKind::NoDurableStaging,
            Self::Unusable(_) => FailureKind::Storage,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let texts: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    if texts.is_empty() { "none configured".into() } else { texts.join(", ") }
}

/// A usable directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub directory: PathBuf,
    pub durability: Durability,
    /// Bytes that may be written, the reserve among them.
    pub free: u64,
    /// Bytes an image may take, the reserve left out.
    pub room: u64,
}

impl Staging {
    /// `directories`: the preferred one first. `reserve`: bytes that stay free. `kept`: paths that
    /// survive a firmware upgrade of the router, see [`kept_paths`].
    #[must_use]
    pub fn new(directories: Vec<PathBuf>, reserve: u64, kept: Vec<PathBuf>) -> Self {
        Self { directories, reserve, kept, mounts: Mounts::default() }
    }

    /// With file systems that have to be mounted.
    #[must_use]
    pub fn on(self, mounts: Mounts) -> Self {
        Self { mounts, ..self }
    }

    /// The directories that can be used at all, made where they were missing.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let places = self.directories.iter().map(|directory| self.place(directory));
        let warn = |unusable: &Unusable| {
            log::warn!("staging in {}: {}", unusable.directory.display(), unusable.reason);
        };
        places.filter_map(|place| place.inspect_err(warn).ok()).collect()
    }

    /// The others.
    #[must_use]
    pub fn unusable(&self) -> Vec<Unusable> {
        self.directories.iter().filter_map(|directory| self.place(directory).err()).collect()
    }

    fn place(&self, configured: &Path) -> Result<Place, Unusable> {
        let unusable = |reason| Unusable { directory: configured.to_owned(), reason };
        if let Some(point) = self.mounts.missing(configured) {
            return Err(unusable(format!("nothing is mounted below {}", point.display())));
        }
        // Only itself: what stands above it may be a stick that is not there.
        let usable = files::create_private_subdir(configured)
            .and_then(|()| configured.canonicalize())
            .and_then(|directory| Ok((free_bytes(&directory)?, directory)));
        let (free, directory) = usable.map_err(|error| unusable(error.to_string()))?;
        if let Some(kept) = self.kept.iter().find(|kept| directory.starts_with(kept)) {
            let kept = kept.display();
            return Err(unusable(format!(
                "sysupgrade would pack what is below {kept} into memory"
            )));
        }
        let durability = durability(&directory);
        Ok(Place { directory, durability, free, room: free.saturating_sub(self.reserve) })
    }

    /// Whether images of other manifests than this one take room, which will be free again.
    #[must_use]
    pub fn is_shared(&self, manifest: &Sha256) -> bool {
        let own = manifest.to_string();
        let names =
            |place: Place| std::fs::read_dir(place.directory).into_iter().flatten().flatten();
        let names = self.places().into_iter().flat_map(names);
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.any(|name| name != own && name.parse::<Sha256>().is_ok())
    }

    /// Where the image of `size` bytes goes whose manifest has this digest: where it lies already,
    /// or the first place with room. `beside`: bytes of its decoded copy. `durable`: only a place
    /// that survives a power cut.
    ///
    /// # Errors
    /// See [`NoPlace`]; nothing was made.
    pub fn stage(
        &self,
        manifest: &Sha256,
        size: u64,
        beside: u64,
        durable: bool,
    ) -> Result<Staged, NoPlace> {
        let all = self.places();
        if all.is_empty() {
            return Err(NoPlace::Unusable(self.directories.clone()));
        }
        let places: Vec<_> =
            all.iter().filter(|p| !durable || p.durability == Durability::Durable).collect();
        if places.is_empty() {
            return Err(NoPlace::NotDurable(all.into_iter().map(|p| p.directory).collect()));
        }
        // Blocks of the file system, names, manifest and signature.
        let needed = size + beside + limits::MANIFEST as u64 + limits::BLOCK / 4;
        let begun = || places.iter().filter(|p| self.staged(p, manifest).path().is_dir());
        let existing =
            begun().find(|p| self.staged(p, manifest).holds(size)).or_else(|| begun().next());
        let roomy = || places.iter().find(|place| place.room >= needed);
        let Some(place) = existing.or_else(roomy) else {
            let free = places.iter().map(|place| place.free).max().unwrap_or(0);
            return Err(NoPlace::NoSpace { needed, reserve: self.reserve, free });
        };
        let staged = self.staged(place, manifest);
        staged.make().map_err(|error| {
            log::warn!("staging in {}: {error}", place.directory.display());
            NoPlace::Unusable(vec![place.directory.clone()])
        })?;
        Ok(staged)
    }

    /// What is staged for the manifest with this digest, after a restart: those first that hold a
    /// file of the image's whole `size`. A copy that was begun elsewhere must not hide them.
    #[must_use]
    pub fn find_all(&self, manifest: &Sha256, size: u64) -> Vec<Staged> {
        // Also where nothing would be put any more: it may be all that a modem can be recovered from.
        let there = self.directories.iter().filter_map(|directory| directory.canonicalize().ok());
        let staged = there.map(|directory| {
            let durability = durability(&directory);
            Staged::new(directory.join(manifest.to_string()), durability, self.reserve)
        });
        let mut found: Vec<Staged> = staged.filter(|staged| staged.path().is_dir()).collect();
        found.sort_by_key(|staged| !staged.holds(size));
        found
    }

    /// Removes everything staged but for the manifests in `keep`.
    pub fn clean(&self, keep: &[Sha256]) {
        let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
        for place in self.places() {
            for entry in std::fs::read_dir(&place.directory).into_iter().flatten().flatten() {
                let ours = entry.file_name().to_str().is_some_and(|name| {
                    name.parse::<Sha256>().is_ok() && !keep.iter().any(|kept| kept == name)
                });
                crate::failpoint::at!("staging.clean");
                if ours && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    log::warn!("{}: {error}", entry.path().display());
                }
            }
        }
    }

    fn staged(&self, place: &Place, manifest: &Sha256) -> Staged {
        let directory = place.directory.join(manifest.to_string());
        Staged::new(directory, place.durability, self.reserve)
    }
}

/// Bytes that this process may still write below `directory`.
///
/// # Errors
/// The file system does not say.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let fs = statvfs(path)?;
    // Both are 32 bits wide on some targets and 64 on others.
    let (blocks, size) = (fs.blocks_available() as u64, fs.fragment_size() as u64);
    Ok(blocks.saturating_mul(size))
}

/// The absolute paths listed in a keep.d directory's files or in `sysupgrade.conf`: what a
/// firmware upgrade of the router packs into memory.
#[must_use]
pub fn kept_paths(keep_dir: &Path, sysupgrade_conf: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(keep_dir).into_iter().flatten().flatten().map(|e| e.path());
    let texts =
        listed.chain([sysupgrade_conf.to_owned()]).filter_map(|f| files::read_text(&f).ok());
    texts.flat_map(|text| text.lines().filter_map(kept_path).collect::<Vec<_>>()).collect()
}

/// A line is a path, perhaps with a pattern in its last parts; the part before that is taken.
fn kept_path(line: &str) -> Option<PathBuf> {
    let fixed = line.trim().split(['*', '?', '[']).next()?;
    let whole = fixed.len() == line.trim().len();
    let path = if whole { fixed } else { fixed.rsplit_once('/')?.0 };
    let path = path.trim_end_matches('/');
    // A pattern in the root would forbid everything.
    (path.starts_with('/')).then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests;
