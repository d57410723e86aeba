//! Whether what is fsynced in a directory survives a power cut, by the type of its file system.

use super::mounts::Mounted;
use crate::files;
use nix::sys::statfs::statfs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Durable,
    /// In memory, over the network, or unknown.
    Volatile,
}

/// Magic numbers from linux/magic.h and the file systems' own sources: those that keep what was
/// fsynced on a device of this router.
const DURABLE: &[u32] = &[
    0x0000_ef53, // ext2, ext3, ext4
    0xf2f5_2010, // f2fs
    0x2405_1905, // ubifs
    0x0000_72b6, // jffs2
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xca45_1a4e, // bcachefs
    0x0000_4d44, // vfat
    0x2011_bab0, // exfat
    0x7366_746e, // ntfs3
];

const OVERLAY: u32 = 0x794c_7630;

/// The durability of an existing directory. What is not known to be durable is volatile.
#[must_use]
pub fn durability(directory: &Path) -> Durability {
    match magic(directory) {
        Some(OVERLAY) => overlay(directory),
        Some(magic) if DURABLE.contains(&magic) => Durability::Durable,
        Some(_) | None => Durability::Volatile,
    }
}

/// An overlay is as durable as its upper directory. Before OpenWrt has made its flash file system
/// that one is on tmpfs.
fn overlay(directory: &Path) -> Durability {
    let mounts = files::read_text(Path::new("/proc/self/mounts")).unwrap_or_default();
    let upper = upper_directory(&mounts, directory).and_then(|upper| magic(&upper));
    match upper {
        Some(magic) if DURABLE.contains(&magic) => Durability::Durable,
        Some(_) | None => Durability::Volatile,
    }
}

/// The upper directory of the overlay that `path` lies on.
fn upper_directory(mounts: &str, path: &Path) -> Option<PathBuf> {
    let mounted = Mounted::find(mounts, path).filter(|mounted| mounted.kind == "overlay")?;
    let upper = mounted.options.split(',').find_map(|option| option.strip_prefix("upperdir="));
    upper.map(PathBuf::from)
}

/// The kernel's magic number has 32 bits, in a field of another width and sign on each target.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn magic(path: &Path) -> Option<u32> {
    statfs(path).ok().map(|fs| fs.filesystem_type().0 as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_the_unknown_are_volatile() {
        assert_eq!(durability(Path::new("/proc")), Durability::Volatile);
        assert_eq!(durability(Path::new("/nonexistent")), Durability::Volatile);
        let shm = Path::new("/dev/shm");
        if magic(shm) == Some(0x0102_1994) {
            assert_eq!(durability(shm), Durability::Volatile);
        }
    }

    #[test]
    fn an_overlay_is_found_by_its_mount() {
        let openwrt = "/dev/root /rom squashfs ro,relatime 0 0\n\
            /dev/ubi0_1 /overlay ubifs rw,noatime 0 0\n\
            overlayfs:/overlay / overlay rw,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work 0 0\n\
            tmpfs /tmp tmpfs rw 0 0\n";
        let upper = |path: &str| upper_directory(openwrt, Path::new(path));
        assert_eq!(upper("/root/staging"), Some("/overlay/upper".into()));
        assert_eq!(upper("/tmp/staging"), None);
        assert_eq!(upper("/overlay/staging"), None);
        assert_eq!(upper_directory("", Path::new("/x")), None);
    }
}
