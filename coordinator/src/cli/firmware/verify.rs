//! `firmware verify`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::json;
use shared::manifest::Manifest;
use shared::signature::{Distrust, Keyring, PublicKey};

use super::manifest::measure;
use crate::cli::output::{self, Output, say};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Public key; repeat for several, one of which must have signed
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
    /// The firmware, to be compared with the manifest
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bytes = fs::read(&arguments.manifest).with_context(|| cannot(&arguments.manifest))?;
    let trusted = arguments.keys.iter().map(|path| key(path)).collect::<anyhow::Result<_>>()?;
    let keyring = Keyring { trusted, revoked: Vec::new() };
    let number = keyring.verify(&bytes, &text(&arguments.signature)?).map_err(distrusted)?;
    let manifest = Manifest::parse(&bytes)?;
    if let Some(path) = &arguments.file {
        compare(&manifest, path)?;
    }
    if arguments.output.json {
        output::json(&json!({ "signed_by": number, "manifest": manifest }))?;
        return Ok(());
    }
    say!("signed by key {number}")?;
    say!("{} {}, sequence {}", manifest.vendor, manifest.models.join(" "), manifest.sequence)?;
    for version in &manifest.reaches {
        say!("reaches AT{} line {}: {}", version.command, version.line, version.value)?;
    }
    let file = &manifest.file;
    let checked = if arguments.file.is_some() { "matches" } else { "not compared" };
    say!("file {} of {} bytes, sha256 {}: {checked}", file.name, file.size, file.sha256)?;
    Ok(())
}

/// What a router would say of its own keys, said of the keys that were given.
fn distrusted(reason: Distrust) -> anyhow::Error {
    match reason {
        Distrust::UnknownKey(number) => anyhow!("signed by key {number}, which no --key is"),
        other => other.into(),
    }
}

fn key(path: &Path) -> anyhow::Result<PublicKey> {
    PublicKey::parse(&text(path)?).with_context(|| format!("{} is no public key", path.display()))
}

fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| cannot(path))
}

fn cannot(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

fn compare(manifest: &Manifest, path: &Path) -> anyhow::Result<()> {
    let measured = measure(path)?;
    let file = &manifest.file;
    if measured.size != file.size {
        let (name, found) = (path.display(), measured.size);
        bail!("{name} has {found} bytes, the manifest says {}", file.size);
    }
    if let Some(block) = measured.blocks.iter().zip(&manifest.blocks).position(|(a, b)| a != b) {
        bail!("block {block} of {} is not the manifest's", path.display());
    }
    if measured.sha256 != file.sha256 {
        bail!("{} is not the manifest's file: its SHA-256 differs", path.display());
    }
    Ok(())
}
