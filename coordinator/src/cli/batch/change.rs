//! `batch pause | resume | cancel | retry`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::{path, watch};
use crate::cli::client::Client;
use crate::cli::output::{Output, cell};

#[derive(Debug, Args)]
pub struct Retry {
    /// Id
    batch: String,
    /// Follow the new one to its end, as `batch watch` does
    #[arg(long)]
    watch: bool,
}

pub async fn run(
    client: &Client,
    batch: &str,
    verb: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let answer = client.send(Method::POST, &format!("{}{verb}/", path(batch)), &json!({})).await?;
    let mut said = cell(&answer["message"]);
    if let Some(cancelled) = answer["cancelled"].as_u64() {
        said.push_str(&format!(" {cancelled} cancelled."));
    }
    if let Some(finish @ 1..) = answer["will_finish"].as_u64() {
        said.push_str(&format!(" {finish} had begun to flash and will finish."));
    }
    output.say(&answer, said);
    Ok(ExitCode::SUCCESS)
}

pub async fn retry(client: &Client, arguments: Retry, output: Output) -> anyhow::Result<ExitCode> {
    let answer = client.start(&format!("{}retry/", path(&arguments.batch)), &json!({})).await?;
    let new = answer["batch"].as_str().context("the answer has no batch")?;
    if arguments.watch {
        return watch::follow(client, new, output).await;
    }
    output.say(&answer, format!("batch {new}; `batch watch {new}` follows it"));
    Ok(ExitCode::SUCCESS)
}
