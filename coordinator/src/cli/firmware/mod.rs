//! `firmware`: keys, manifests and signatures, made where the secret key is and without a server.

mod compress;
mod keygen;
mod manifest;
mod sign;
mod verify;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key pair (Ed25519, in the form of signify and usign)
    Keygen(keygen::Arguments),
    /// Describe a firmware file in a manifest, and sign that
    Sign(sign::Arguments),
    /// Check a manifest's signature, and the file if it is given
    Verify(verify::Arguments),
}

pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Keygen(arguments) => keygen::run(&arguments)?,
        Command::Sign(arguments) => sign::run(&arguments)?,
        Command::Verify(arguments) => verify::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The path with more at its end: `firmware.bin` and `.manifest.json`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
