//! Whether the file system is mounted that a directory is meant to lie on. Without it the same path leads to
//! the router's own flash: an image there is hidden as soon as the stick appears.

use crate::files;
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Directories below which something else than the router's own file system is expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// `/mnt` and `/media`, where OpenWrt mounts what is plugged in, and the targets of `fstab`
    /// (`/etc/config/fstab`).
    #[must_use]
    pub fn read(fstab: &Path) -> Self {
        let text = files::read_text(fstab).unwrap_or_default();
        let usual = ["/mnt", "/media"].map(PathBuf::from);
        Self(usual.into_iter().chain(targets(&text)).collect())
    }

    #[must_use]
    pub fn of(points: Vec<PathBuf>) -> Self {
        Self(points)
    }

    /// The point that `directory` lies below, whether something is mounted there or not.
    #[must_use]
    pub fn point_of(&self, directory: &Path) -> Option<&Path> {
        self.0.iter().map(PathBuf::as_path).find(|point| directory.starts_with(point))
    }

    /// The point below which nothing is mounted where `directory` would lie.
    #[must_use]
    pub fn missing(&self, directory: &Path) -> Option<&Path> {
        let points = self.0.iter().filter(|point| directory.starts_with(point));
        points.map(PathBuf::as_path).find(|point| {
            let outside = point.parent().and_then(device);
            outside.is_some() && nearest(directory) == outside
        })
    }
}

/// `option target '/mnt/usb'`, but for the root's own.
fn targets(fstab: &str) -> Vec<PathBuf> {
    let target = |line: &str| {
        let value = line.trim().strip_prefix("option")?.trim().strip_prefix("target")?.trim();
        let path = PathBuf::from(value.trim_matches(['\'', '"']));
        (path.is_absolute() && path != Path::new("/") && path != Path::new("/overlay"))
            .then_some(path)
    };
    fstab.lines().filter_map(target).collect()
}

/// The file system of `path`, or of what is there of it.
fn nearest(path: &Path) -> Option<u64> {
    path.ancestors().find_map(device)
}

fn device(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routers_own_mount_points_are_known() {
        let text = "config mount\n\toption target '/srv/stick'\n\toption enabled '1'\n\
                    config mount\n\toption target /overlay\nconfig swap\n\toption device x\n";
        assert_eq!(targets(text), [PathBuf::from("/srv/stick")]);
        let read = Mounts::read(Path::new("/nonexistent"));
        assert_eq!(read, Mounts(vec!["/mnt".into(), "/media".into()]));
    }

    #[test]
    fn below_a_mount_point_something_is_mounted() {
        let root = tempfile::tempdir().unwrap();
        let stick = root.path().join("mnt/stick");
        std::fs::create_dir_all(&stick).unwrap();
        let mounts = Mounts(vec![root.path().join("mnt")]);
        for path in [stick.clone(), stick.join("staging"), root.path().join("mnt/none/staging")] {
            assert_eq!(mounts.missing(&path), Some(root.path().join("mnt").as_path()), "{path:?}");
        }
        assert_eq!(mounts.missing(&root.path().join("elsewhere")), None);
        // Something that really is another file system than the one above it.
        let other = Mounts(vec!["/proc".into()]);
        assert_eq!(other.missing(Path::new("/proc/self")), None);
    }
}
