//! `batch pause | resume | cancel | retry`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::strategy::Strategy;
use super::{path, watch};
use crate::cli::client::Client;
use crate::cli::output::{Output, cell};

#[derive(Debug, Args)]
pub struct Retry {
    /// Id
    batch: String,
    #[command(flatten)]
    strategy: Strategy,
    /// Also routers that do not check signatures
    #[arg(long)]
    include_unsigned: bool,
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
    let path = path(&arguments.batch);
    let mut body = json!({});
    if arguments.include_unsigned {
        body["include_unsigned"] = json!(true);
    }
    if arguments.strategy.is_given() {
        // The API takes a whole one: the flags change that of the batch that failed.
        let failed = client.get(&path, &[]).await?;
        body["strategy"] = arguments.strategy.over(failed["strategy"].clone());
    }
    let answer = client.start(&format!("{path}retry/"), &body).await?;
    let new = answer["batch"].as_str().context("the answer has no batch")?;
    if arguments.watch {
        return watch::follow(client, new, output).await;
    }
    output.say(&answer, format!("batch {new}; `batch watch {new}` follows it"));
    Ok(ExitCode::SUCCESS)
}
