//! `batch create`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use super::selection::{Selected, Selection};
use super::strategy::Strategy;
use super::{list, preview, watch};
use crate::cli::client::Client;
use crate::cli::output::{Output, cell, note};
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
    if !arguments.yes && !is_wanted(client, &selected, &arguments.strategy).await? {
        return Ok(ExitCode::FAILURE);
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
    output.say(&batch, format!("batch {id}: {total} modems; `batch watch {id}` follows it"))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether who sits there wants it, now that they know what it is.
async fn is_wanted(
    client: &Client,
    selected: &Selected,
    strategy: &Strategy,
) -> anyhow::Result<bool> {
    let (count, excluded) = preview::counts(client, selected).await?;
    if count == 0 {
        note!("Nobody would be upgraded: `batch preview` says why.");
        return Ok(false);
    }
    let build = client.get(&format!("build/{}/", selected.build), &[]).await?;
    let asked = question(&build, count, excluded, &strategy.body(), &selected.body());
    let wanted = prompt::confirm(false, &asked)?;
    if !wanted && excluded > 0 {
        note!("`batch preview` says who is left out, and why.");
    }
    Ok(wanted)
}

/// `Upgrade 3 modems to FN990A/45.00.012 (2 are left out), canary 1, not before 2026-11-23T01:00:00Z?`
fn question(
    build: &Value,
    count: u64,
    excluded: u64,
    strategy: &Value,
    selected: &Map<String, Value>,
) -> String {
    let modems = if count == 1 { "modem" } else { "modems" };
    let build = list::build(&json!({ "build": build }));
    let left_out = match excluded {
        0 => String::new(),
        1 => " (1 is left out)".to_owned(),
        several => format!(" ({several} are left out)"),
    };
    let canary = strategy["canary"].as_u64().unwrap_or(1);
    let start = strategy["start_at"].as_str().map(|at| format!(", not before {at}"));
    let start = start.unwrap_or_default();
    let allowed = |flag: &str| selected.get(flag) == Some(&Value::Bool(true));
    let unsigned = match allowed("include_unsigned") {
        true => ", also on routers that check no signatures",
        false => "",
    };
    let volatile = match allowed("allow_volatile_staging") {
        true => ", also where a power cut loses the image",
        false => "",
    };
    format!(
        "Upgrade {count} {modems} to {build}{left_out}, canary {canary}{start}{unsigned}{volatile}?"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_would_begin() {
        let build = json!({ "version": "45.00.012", "category_relation": { "name": "FN990A" } });
        assert_eq!(
            question(&build, 1, 0, &json!({}), &Map::new()),
            "Upgrade 1 modem to FN990A/45.00.012, canary 1?"
        );
        let selected = [("include_unsigned".to_owned(), json!(true))].into_iter().collect();
        let risky = question(&build, 2, 0, &json!({}), &selected);
        assert!(risky.ends_with("canary 1, also on routers that check no signatures?"), "{risky}");
        let strategy = json!({ "canary": 4, "start_at": "2026-11-23T01:00:00Z" });
        assert_eq!(
            question(&build, 9, 2, &strategy, &Map::new()),
            "Upgrade 9 modems to FN990A/45.00.012 (2 are left out), canary 4, not before 2026-11-23T01:00:00Z?"
        );
    }
}
