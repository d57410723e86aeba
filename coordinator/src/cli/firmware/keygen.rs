//! `firmware keygen`

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use shared::signature::SecretKey;

use super::beside;
use crate::cli::output::{self, Output, say};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Write NAME.sec and NAME.pub
    name: PathBuf,
    /// Comment in both files
    #[arg(long, default_value = "modem-upgrader")]
    comment: String,
    #[command(flatten)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (secret, public) = (beside(&arguments.name, ".sec"), beside(&arguments.name, ".pub"));
    if public.exists() {
        bail!("{} exists: keys are never overwritten", public.display());
    }
    let key = SecretKey::from_random(random()?, random()?)?;
    let comment = &arguments.comment;
    write_new(&secret, 0o600, &key.to_text(&format!("{comment} secret key")))?;
    write_new(&public, 0o644, &key.public().to_text(&format!("{comment} public key")))?;
    let number = key.public().number;
    if arguments.output.json {
        output::json(&json!({ "secret": secret, "public": public, "number": number }))?;
    } else {
        say!("key {number}")?;
        say!("secret {}: keep it offline; it has no passphrase", secret.display())?;
        say!("public {}: goes to /etc/modem-upgrader/keys on the routers", public.display())?;
    }
    Ok(())
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("no random numbers"))?;
    Ok(bytes)
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists: keys are never overwritten", path.display());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}
