//! `batch`: one build to many modems, in waves, with a stop of its own.

mod change;
mod create;
mod list;
mod live;
mod preview;
mod selection;
pub mod show;
mod strategy;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::client::Client;
use super::find::id;
use super::output::Output;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show which modems a batch would upgrade, and why it would leave the others out
    Preview(preview::Arguments),
    /// Start a batch
    Create(Box<create::Arguments>),
    /// List batches, the newest first
    List(list::Arguments),
    /// Show one: its waves, its failures, what to do next
    Show {
        /// Id
        #[arg(value_parser = id("batch list"))]
        batch: Uuid,
    },
    /// Follow one until it has ended or is paused; the exit status is 0 only if every modem succeeded
    Watch(watch::Arguments),
    /// Start no more flashes; those that began finish
    Pause {
        /// Id
        #[arg(value_parser = id("batch list"))]
        batch: Uuid,
    },
    /// Go on, also after it has paused by itself
    Resume {
        /// Id
        #[arg(value_parser = id("batch list"))]
        batch: Uuid,
    },
    /// Cancel whatever has not begun to flash
    Cancel {
        /// Id
        #[arg(value_parser = id("batch list"))]
        batch: Uuid,
    },
    /// Start a new batch for the modems of one that failed
    Retry(Box<change::Retry>),
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let output = arguments.output;
    match arguments.verb {
        Verb::Preview(arguments) => preview::run(client, arguments, output).await,
        Verb::Create(arguments) => create::run(client, *arguments, output).await,
        Verb::List(arguments) => list::run(client, arguments, output).await,
        Verb::Show { batch } => show::run(client, &batch.to_string(), output).await,
        Verb::Watch(arguments) => watch::run(client, arguments, output).await,
        Verb::Pause { batch } => change::run(client, batch, "pause", output).await,
        Verb::Resume { batch } => change::run(client, batch, "resume", output).await,
        Verb::Cancel { batch } => change::run(client, batch, "cancel", output).await,
        Verb::Retry(arguments) => change::retry(client, *arguments, output).await,
    }
}

/// Where a batch is.
fn path(batch: &str) -> String {
    format!("batch-upgrade-operation/{batch}/")
}
