//! `backup` and `restore`: on the server's machine, for whoever owns the data directory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::say;
use crate::backup::{self, Restored, Wishes};
use crate::clock::Clock;

#[derive(Debug, Args)]
pub struct Take {
    /// Where the backup goes; it has keys in it, so only its owner may read it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    data: Data,
    /// Leave the firmware files out
    #[arg(long)]
    without_firmware: bool,
    /// FILE may exist; it is replaced once the new one is whole
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    data: Data,
    /// Move what is in the data directory aside
    #[arg(long)]
    replace: bool,
    /// Cancel the operations that no device has begun yet
    #[arg(long)]
    cancel_waiting: bool,
}

#[derive(Debug, Args)]
struct Data {
    /// The server's data directory
    #[arg(long, env = "MODEM_UPGRADER_DATA", value_name = "DIR", default_value = "data")]
    data: PathBuf,
}

pub fn take(arguments: &Take) -> anyhow::Result<ExitCode> {
    let Take { file, data, without_firmware, replace } = arguments;
    let taken = backup::take(&data.data, file, !without_firmware, *replace, &Clock::System)?;
    say!("database: {} bytes", taken.database)?;
    say!("firmware: {} files, {} bytes", taken.files, taken.firmware)?;
    say!("written: {}", file.display())?;
    Ok(ExitCode::SUCCESS)
}

pub fn restore(arguments: &Restore) -> anyhow::Result<ExitCode> {
    let Restore { file, data, replace, cancel_waiting } = arguments;
    let wishes = Wishes { replace: *replace, cancel_waiting: *cancel_waiting };
    let restored = backup::restore(file, &data.data, wishes, &Clock::System)?;
    tell(&restored)?;
    say!("restored: {}", data.data.display())?;
    Ok(ExitCode::SUCCESS)
}

fn tell(restored: &Restored) -> anyhow::Result<()> {
    if let Some(aside) = &restored.replaced {
        say!("replaced: {} (remove it once the server works)", aside.display())?;
    }
    if restored.cancelled > 0 {
        say!(
            "cancelled: {} operations. What devices were granted after the backup they finish all the \
             same, and report",
            restored.cancelled
        )?;
    }
    if restored.paused > 0 {
        say!(
            "paused: {} batches. What they came to since the backup is forgotten, failures too: `batch \
             list --status in-progress`, look at each, then `batch resume ID` or `batch cancel ID`",
            restored.paused
        )?;
    }
    if restored.waiting > 0 {
        say!(
            "waiting: {} operations that devices begin once the server runs. What was cancelled since the \
             backup is asked for again. To have none of them begin, restore again with --replace \
             --cancel-waiting before it does; when it runs, `operations --status idle` lists them",
            restored.waiting
        )?;
    }
    for sha256 in &restored.missing {
        say!("missing firmware: {sha256} (upload it again)")?;
    }
    Ok(())
}
