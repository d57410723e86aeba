//! `firmware sign`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use shared::desired::OptionValue;
use shared::event::VersionLine;
use shared::limits;
use shared::manifest::{Decoded, Encoding, FORMAT, File, Manifest, Tool};
use shared::profile::{BUILT_IN, ToolProfile, options};
use shared::signature::SecretKey;

use super::beside;
use super::compress::compress;
use super::manifest::{Measured, measure, option, time, version, versions};
use crate::cli::output::{self, Output, say};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Secret key; one made by `signify -G -n` works as well
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Manufacturer as AT+CGMI answers
    #[arg(long)]
    vendor: String,
    /// Model as AT+CGMM answers; repeat for several
    #[arg(long = "model", value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Category, for people
    #[arg(long)]
    category: String,
    /// Counts up per vendor and model: routers refuse a lower one than they have installed
    #[arg(long)]
    sequence: u64,
    /// A version to be read back after the upgrade; repeat for several, all of which must match
    #[arg(long, value_name = "COMMAND[:LINE]=VALUE", required = true, value_parser = version)]
    reaches: Vec<VersionLine>,
    /// Versions that an upgrade may start from, separated by commas; repeat for alternatives
    /// [default: any]
    #[arg(long, value_name = "COMMAND[:LINE]=VALUE,..", value_parser = versions)]
    from: Vec<Versions>,
    /// The profile of the upgrade tool
    #[arg(long, value_name = "PROFILE")]
    tool: String,
    /// An option of the tool, signed with the rest
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, OptionValue)>,
    /// Routers refuse it after this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_after: Option<u64>,
    /// Let routers install it although they have a higher sequence
    #[arg(long)]
    allow_rollback: bool,
    /// The firmware; writes FILE.manifest.json and FILE.manifest.json.sig
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Compress it first: writes FILE.zst and signs that; routers decode it beside the download
    #[arg(long)]
    compress: bool,
    #[command(flatten)]
    output: Output,
}

/// clap would take a bare `Vec` for a repeated argument of its items.
type Versions = Vec<VersionLine>;

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let key = fs::read_to_string(&arguments.key)
        .with_context(|| format!("cannot read {}", arguments.key.display()))?;
    let key = SecretKey::parse(&key)
        .with_context(|| format!("{} is no secret key", arguments.key.display()))?;
    let firmware = if arguments.compress {
        compressed(&arguments.file)?
    } else {
        Firmware {
            path: arguments.file.clone(),
            measured: measure(&arguments.file)?,
            decoded: None,
        }
    };
    let path = beside(&firmware.path, ".manifest.json");
    let shrunk = firmware.decoded.as_ref().map(|decoded| (firmware.measured.size, decoded.size));
    let manifest = manifest(arguments, firmware)?;
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    if bytes.len() > limits::MANIFEST {
        bail!("the manifest would have {} bytes, more than {}", bytes.len(), limits::MANIFEST);
    }
    let signature = beside(&path, ".sig");
    write(&path, &bytes)?;
    let comment = format!("verify with {}", public_name(&arguments.key));
    write(&signature, key.sign(&bytes).to_text(&comment).as_bytes())?;
    let number = key.public().number;
    if arguments.output.json {
        output::json(&json!({ "manifest": path, "signature": signature, "signed_by": number }))?;
    } else {
        if let Some((size, from)) = shrunk {
            say!("firmware {}.zst: {size} bytes of {from}", arguments.file.display())?;
        }
        say!("manifest {}", path.display())?;
        say!("signature {} by key {number}", signature.display())?;
    }
    Ok(())
}

/// What is signed.
struct Firmware {
    path: PathBuf,
    measured: Measured,
    decoded: Option<Decoded>,
}

fn compressed(file: &Path) -> anyhow::Result<Firmware> {
    let plain = measure(file)?;
    let path = beside(file, ".zst");
    compress(file, &path)?;
    let decoded = Decoded { name: name(file), size: plain.size, sha256: plain.sha256 };
    Ok(Firmware { measured: measure(&path)?, path, decoded: Some(decoded) })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn manifest(arguments: &Arguments, firmware: Firmware) -> anyhow::Result<Manifest> {
    let Firmware { path, measured, decoded } = firmware;
    let options = arguments.options.iter().cloned().collect();
    if let Some((_, profile)) = BUILT_IN.iter().find(|(name, _)| *name == arguments.tool) {
        options::argv(&ToolProfile::parse(profile)?.options, &options)?;
    }
    let manifest = Manifest {
        format: FORMAT,
        vendor: arguments.vendor.clone(),
        models: arguments.models.clone(),
        category: arguments.category.clone(),
        sequence: arguments.sequence,
        not_after: arguments.not_after,
        allow_rollback: arguments.allow_rollback,
        reaches: arguments.reaches.clone(),
        from: arguments.from.clone(),
        tool: Tool { profile: arguments.tool.clone(), options },
        file: File {
            name: name(&path),
            size: measured.size,
            sha256: measured.sha256,
            encoding: if decoded.is_some() { Encoding::Zstd } else { Encoding::Identity },
            decoded,
        },
        block_size: limits::BLOCK,
        blocks: measured.blocks,
        critical: Vec::new(),
    };
    // What we sign is what routers read: no manifest leaves here that they would refuse.
    manifest.check().context("this would be no valid manifest")?;
    Ok(manifest)
}

/// As signify names a secret key's public half: `release.sec` and `release.pub`.
fn public_name(secret: &Path) -> String {
    secret.with_extension("pub").file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
