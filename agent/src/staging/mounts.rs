//! Whether the file system is mounted that a directory is meant to lie on. Without it the same path leads to
//! the router's own flash: an image there is hidden as soon as the stick appears.

use crate::{files, settings::uci, sysfs};
use nix::sys::stat::{major, minor};
use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Directories below which something else than the router's own file system is expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts {
    points: Vec<PathBuf>,
    /// Those of them that OpenWrt mounts before it starts its services, as far as their devices are there by then.
    early: Vec<PathBuf>,
}

/// One line of `/proc/self/mounts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mounted<'a> {
    pub source: &'a str,
    pub kind: &'a str,
    pub options: &'a str,
}

impl<'a> Mounted<'a> {
    /// What `path` lies on: the longest mount point above it, the last of those mounted over each other.
    pub(super) fn find(mounts: &'a str, path: &Path) -> Option<Self> {
        let read = |line: &'a str| {
            let mut fields = line.split(' ');
            let (source, point) = (fields.next()?, Path::new(fields.next()?));
            let (kind, options) = (fields.next()?, fields.next()?);
            let mounted = Self { source, kind, options };
            path.starts_with(point).then(|| (point.components().count(), mounted))
        };
        mounts.lines().filter_map(read).max_by_key(|(depth, _)| *depth).map(|(_, mounted)| mounted)
    }
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

    /// The point that `directory` lies below, wherever links lead, where that may be mounted later than the services
    /// start: all but what an enabled entry of `fstab` has mounted and is not on USB. Those entries are gone through
    /// once, early; whatever the bus finds after that is mounted whenever it appears.
    #[must_use]
    pub fn late(&self, directory: &Path, sysfs: &Path) -> Option<&Path> {
        let real = directory.ancestors().find_map(|path| path.canonicalize().ok());
        let is_below = |point: &&PathBuf| {
            directory.starts_with(point)
                || real.as_ref().is_some_and(|real| real.starts_with(point))
        };
        let mut early = self.early.iter().filter(is_below);
        let early = early.any(|point| is_mounted(point, directory) == Some(true));
        if early && real.as_ref().is_some_and(|real| !is_on_usb(real, sysfs)) {
            return None;
        }
        self.points.iter().find(is_below).map(PathBuf::as_path)
    }

    /// The point below which nothing is mounted where `directory` would lie.
    #[must_use]
    pub fn missing(&self, directory: &Path) -> Option<&Path> {
        let points = self.points.iter().filter(|point| directory.starts_with(point));
        points.map(PathBuf::as_path).find(|point| is_mounted(point, directory) == Some(false))
    }
}

/// Whether `directory`, which is below `point`, lies on another file system than what is above that.
fn is_mounted(point: &Path, directory: &Path) -> Option<bool> {
    let outside = point.parent().and_then(device)?;
    Some(nearest(directory) != Some(outside))
}

/// `option target '/mnt/usb'`.
fn targets(fstab: &str) -> Vec<PathBuf> {
    let target = |line: &str| {
        let value = line.trim().strip_prefix("option")?.trim().strip_prefix("target")?.trim();
        Some(PathBuf::from(value.trim_matches(['\'', '"'])))
    };
    fstab.lines().filter_map(target).filter(|path| is_point(path)).collect()
}

fn enabled(fstab: &str) -> Vec<PathBuf> {
    let Ok(fstab) = uci::parse(fstab) else { return Vec::new() };
    let mounts = fstab.of_kind("mount").filter(|mount| mount.text("enabled") == Some("1"));
    let targets = mounts.filter_map(|mount| mount.text("target")).map(PathBuf::from);
    targets.filter(|path| is_point(path)).collect()
}

/// The root's own are none.
fn is_point(path: &Path) -> bool {
    path.is_absolute() && path != Path::new("/") && path != Path::new("/overlay")
}

/// Whether the block device that `path` lies on is plugged in by USB. One that has gone from sysfs counts.
fn is_on_usb(path: &Path, sysfs: &Path) -> bool {
    let place = |number: u64| {
        let link = sysfs.join(format!("dev/block/{}:{}", major(number), minor(number)));
        link.canonicalize().ok()
    };
    let Some(number) = device(path) else { return true };
    match (place(number), major(number)) {
        (Some(place), _) => sysfs::is_on_usb(&place),
        // Not one device's: memory, raw flash, or btrfs.
        (None, 0) => source(path)
            .is_some_and(|number| place(number).is_none_or(|place| sysfs::is_on_usb(&place))),
        (None, _) => true,
    }
}

/// The block device that is mounted where `path` lies.
fn source(path: &Path) -> Option<u64> {
    let mounts = files::read_text(Path::new("/proc/self/mounts")).ok()?;
    let source = std::fs::metadata(Mounted::find(&mounts, path)?.source).ok()?;
    source.file_type().is_block_device().then(|| source.rdev())
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

    /// An fstab with entries for these targets, enabled or not.
    fn fstab(path: &Path, entries: &[(&Path, u8)]) -> Mounts {
        let entry = |(target, enabled): &(&Path, u8)| {
            format!(
                "config mount\n\toption target '{}'\n\toption enabled '{enabled}'\n",
                target.display()
            )
        };
        std::fs::write(path, entries.iter().map(entry).collect::<String>()).unwrap();
        Mounts::read(path)
    }

    #[test]
    fn what_fstab_mounts_is_there_before_the_services() {
        let root = tempfile::tempdir().unwrap();
        let (at, sysfs) = (|name: &str| root.path().join(name), root.path().join("sys"));
        // Something that really is another file system than the one above it, and no block device.
        let proc = Path::new("/proc");
        let mounts = fstab(&at("fstab"), &[(proc, 1), (&at("data"), 1), (&at("stick"), 0)]);
        assert_eq!(mounts.late(&proc.join("self"), &sysfs), None);
        let late = |path: &Path| mounts.late(path, &sysfs).map(Path::to_owned);
        assert_eq!(late(&at("data/state")), Some(at("data")), "nothing is mounted there now");
        assert_eq!(late(&at("stick/state")), Some(at("stick")));
        assert_eq!(late(Path::new("/mnt/x/state")), Some("/mnt".into()));
        assert_eq!(late(Path::new("/etc/state")), None);
        std::fs::create_dir(at("stick")).unwrap();
        std::os::unix::fs::symlink(at("stick"), at("link")).unwrap();
        assert_eq!(late(&at("link/state")), Some(at("stick")), "by its real place");
        let root = fstab(&at("fstab"), &[(Path::new("/"), 1), (Path::new("/overlay"), 1)]);
        assert_eq!(root.late(Path::new("/mnt/x"), &sysfs), Some(Path::new("/mnt")));
    }

    #[test]
    fn what_is_on_usb_may_be_mounted_late_whatever_fstab_says() {
        let root = tempfile::tempdir().unwrap();
        let (sysfs, proc) = (root.path().join("sys"), Path::new("/proc"));
        let mounts = fstab(&root.path().join("fstab"), &[(proc, 1)]);
        let number = device(proc).unwrap();
        let link = sysfs.join(format!("dev/block/{}:{}", major(number), minor(number)));
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        for (place, expected) in [
            ("11230000.mmc/mmc_host/mmc0/mmc0:0001/block/mmcblk0/mmcblk0p7", None),
            ("11200000.usb/usb2/2-1/2-1:1.0/host0/target0:0:0/block/sda/sda1", Some(proc)),
        ] {
            let place = sysfs.join("devices/platform/soc").join(place);
            std::fs::create_dir_all(&place).unwrap();
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&place, &link).unwrap();
            assert_eq!(mounts.late(&proc.join("self"), &sysfs), expected, "{place:?}");
        }
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
