//! The agent as a router gets it, but for this machine: profile `small`.

use anyhow::Context;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// As `openwrt-package/build.sh` makes it for routers of this machine's kind, if it did.
#[must_use]
pub fn linked_statically(dist: &Path) -> Option<PathBuf> {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let path = dist.join(triple).join("modem-upgrader-agent");
    path.is_file().then_some(path)
}

/// Builds it, linked dynamically with the C library, from the workspace that `manifest_dir` is in, below the target directory that `tmp_dir` is in;
/// why not, if that cannot be.
///
/// # Errors
/// The directory is odd.
pub fn build(manifest_dir: &Path, tmp_dir: &Path) -> anyhow::Result<Result<PathBuf, String>> {
    let target = tmp_dir.parent().context("no target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("# building the agent with profile small");
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "agent", "--profile", "small", "--target-dir"])
        .arg(target)
        .current_dir(manifest_dir)
        .status();
    Ok(match built {
        Ok(status) if status.success() => Ok(target.join("small/modem-upgrader-agent")),
        Ok(status) => Err(format!("the build ended with {status}")),
        Err(error) => Err(format!("cargo does not start: {error}")),
    })
}
