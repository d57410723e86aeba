//! What `openwrt-package/build.sh` left in `dist/`: binaries for routers, their packages, and the emulators that
//! run them here.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A kind of router.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    pub triple: &'static str,
    pub name: &'static str,
    /// Megabytes (10^6 bytes) that the binary may have.
    pub budget: f64,
    /// Debian's name of its emulator, of the package qemu-user-static.
    emulator: &'static str,
    /// How the names of its packages go on after the version.
    packages: &'static str,
}

pub const TARGETS: [Target; 3] = [
    Target {
        triple: "aarch64-unknown-linux-musl",
        name: "aarch64",
        budget: 2.5,
        emulator: "qemu-aarch64-static",
        packages: "_aarch64_",
    },
    Target {
        triple: "armv7-unknown-linux-musleabihf",
        name: "armv7",
        budget: 2.3,
        emulator: "qemu-arm-static",
        packages: "_arm_",
    },
    Target {
        triple: "mipsel-unknown-linux-musl",
        name: "mipsel",
        budget: 3.2,
        emulator: "qemu-mipsel-static",
        packages: "_mipsel_",
    },
];

impl Target {
    /// The binary, if it was built.
    #[must_use]
    pub fn binary(&self, dist: &Path) -> Option<PathBuf> {
        let path = dist.join(self.triple).join("modem-upgrader-agent");
        path.is_file().then_some(path)
    }

    /// The packages for it whose names end with `extension`, each with its bytes.
    #[must_use]
    pub fn packages(&self, dist: &Path, extension: &str) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(dist).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.contains(self.packages) && name.ends_with(extension)
            })
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
            .collect();
        found.sort();
        found
    }

    /// The emulator's program, if this machine has it.
    #[must_use]
    pub fn emulator(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|directory| directory.join(self.emulator))
            .find(|program| program.is_file())
    }

    /// A busybox for such a router, as `.ci/busybox` puts it below the target directory.
    #[must_use]
    pub fn busybox(&self, target: &Path) -> Option<PathBuf> {
        let path = target.join("tools/busybox").join(self.triple).join("busybox");
        path.is_file().then_some(path)
    }
}
