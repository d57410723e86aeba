//! Whether the file system is mounted that a directory is meant to lie on. Without it the same path leads to
//! the router's own flash: an image there is hidden as soon as the stick appears.

use crate::{files, settings::uci};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Directories below which something else than the router's own file system is expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts {
    points: Vec<PathBuf>,
    /// Those of them that OpenWrt mounts before it starts its services.
    early: Vec<PathBuf>,
}

impl Mounts {
    /// `/mnt` and `/media`, where OpenWrt mounts what is plugged in, and the targets of `fstab`
    /// (`/etc/config/fstab`).
    #[must_use]
    pub fn read(fstab: &Path) -> Self {
        let text = files::read_text(fstab).unwrap_or_default();
        let usual = ["/mnt", "/media"].map(PathBuf::from);
        let points = usual.into_iter().chain(targets(&text)).collect();
        Self { points, early: enabled(&text) }
    }

    #[must_use]
    pub fn of(points: Vec<PathBuf>) -> Self {
        Self { points, early: Vec::new() }
    }

    /// The point that `directory` lies below, wherever links lead, where that is mounted when it is plugged in, and
    /// not with the enabled entries of `fstab`.
    #[must_use]
    pub fn late(&self, directory: &Path) -> Option<&Path> {
        let real = directory.ancestors().find_map(|path| path.canonicalize().ok());
        let is_below = |point: &&PathBuf| {
            directory.starts_with(point)
                || real.as_ref().is_some_and(|real| real.starts_with(point))
        };
        if self.early.iter().any(|point| is_below(&point)) {
            return None;
        }
        self.points.iter().find(is_below).map(PathBuf::as_path)
    }

    /// The point below which nothing is mounted where `directory` would lie.
    #[must_use]
    pub fn missing(&self, directory: &Path) -> Option<&Path> {
        let points = self.points.iter().filter(|point| directory.starts_with(point));
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

fn enabled(fstab: &str) -> Vec<PathBuf> {
    let Ok(fstab) = uci::parse(fstab) else { return Vec::new() };
    let mounts = fstab.of_kind("mount").filter(|mount| mount.text("enabled") == Some("1"));
    mounts.filter_map(|mount| mount.text("target")).map(PathBuf::from).collect()
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
        assert_eq!(read, Mounts::of(vec!["/mnt".into(), "/media".into()]));
    }

    #[test]
    fn what_fstab_mounts_is_there_before_the_services() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let entry = |target: &str, enabled: u8| {
            let target = at(target);
            format!(
                "config mount\n\toption target '{}'\n\toption enabled '{enabled}'\n",
                target.display()
            )
        };
        std::fs::write(at("fstab"), entry("data", 1) + &entry("stick", 0)).unwrap();
        let mounts = Mounts::read(&at("fstab"));
        assert_eq!(mounts.late(&at("data/state")), None);
        assert_eq!(mounts.late(&at("stick/state")), Some(at("stick").as_path()));
        assert_eq!(mounts.late(Path::new("/mnt/x/state")), Some(Path::new("/mnt")));
        std::fs::create_dir(at("stick")).unwrap();
        std::os::unix::fs::symlink(at("stick"), at("link")).unwrap();
        assert_eq!(
            mounts.late(&at("link/state")),
            Some(at("stick").as_path()),
            "by its real place"
        );
    }

    #[test]
    fn below_a_mount_point_something_is_mounted() {
        let root = tempfile::tempdir().unwrap();
        let stick = root.path().join("mnt/stick");
        std::fs::create_dir_all(&stick).unwrap();
        let mounts = Mounts::of(vec![root.path().join("mnt")]);
        for path in [stick.clone(), stick.join("staging"), root.path().join("mnt/none/staging")] {
            assert_eq!(mounts.missing(&path), Some(root.path().join("mnt").as_path()), "{path:?}");
        }
        assert_eq!(mounts.missing(&root.path().join("elsewhere")), None);
        // Something that really is another file system than the one above it.
        let other = Mounts::of(vec!["/proc".into()]);
        assert_eq!(other.missing(Path::new("/proc/self")), None);
    }
}
