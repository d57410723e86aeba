//! `batch create`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use super::selection::Selection;
use super::strategy::Strategy;
use super::{preview, watch};
use crate::cli::client::Client;
use crate::cli::output::{Output, cell};
use crate::cli::prompt;
use crate::cli::upgrade::option;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    strategy: Strategy,
    /// An option of the upgrade tool
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, Value)>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Follow it to its end, as `batch watch` does
    #[arg(long)]
    watch: bool,
}

pub async fn run(
    client: &Client,
    arguments: Arguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let selected = arguments.selection.resolve(client).await?;
    if !arguments.yes && !output.json && prompt::is_attended() {
        let (count, excluded) = preview::counts(client, &selected).await?;
        let question = format!("Upgrade {count} modems ({excluded} are left out)?");
        if !prompt::yes(&question)? {
            eprintln!("Nothing was started. `batch preview` says who is left out, and why.");
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut body = selected.body();
    body.insert("build".into(), json!(selected.build));
    body.insert("strategy".into(), arguments.strategy.body());
    let options: Map<String, Value> = arguments.options.into_iter().collect();
    body.insert("upgrade_options".into(), Value::Object(options));
    let batch = client.start("batch-upgrade-operation/", &Value::Object(body)).await?;
    let id = batch["id"].as_str().context("the answer has no batch")?;
    if arguments.watch {
        return watch::follow(client, id, output).await;
    }
    let total = cell(&batch["tally"]["total"]);
    output.say(&batch, format!("batch {id}: {total} modems; `batch watch {id}` follows it"));
    Ok(ExitCode::SUCCESS)
}
