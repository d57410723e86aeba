//! `batch preview`: the dry run.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::selection::{Selected, Selection};
use crate::cli::client::Client;
use crate::cli::failure::success;
use crate::cli::flags::in_flags;
use crate::cli::output::{self, Output, cell, say, table};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Only the counts, not every device
    #[arg(long)]
    summary: bool,
}

/// The exit status is 0 only if there is something to upgrade.
pub async fn run(
    client: &Client,
    arguments: Arguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let selected = arguments.selection.resolve(client).await?;
    let preview = whole(client, &selected).await?;
    if output.json {
        output::json(&preview)?;
    } else {
        print(&preview, arguments.summary)?;
    }
    Ok(success(preview["count"] != 0))
}

/// How many modems will be upgraded, and how many are left out.
pub async fn counts(client: &Client, selected: &Selected) -> anyhow::Result<(u64, u64)> {
    let mut query = selected.query();
    query.push(("page_size", "1".to_owned()));
    let preview = client.get(&format!("build/{}/upgrade/", selected.build), &query).await?;
    let count = |field: &str| preview[field].as_u64().unwrap_or(0);
    Ok((count("count"), count("excluded")))
}

/// The dry run with the verdicts of all pages.
async fn whole(client: &Client, selected: &Selected) -> anyhow::Result<Value> {
    let path = format!("build/{}/upgrade/", selected.build);
    let (mut whole, mut verdicts) = (Value::Null, Vec::new());
    for page in 1_u32.. {
        let mut query = selected.query();
        query.extend([("page", page.to_string()), ("page_size", "100".to_owned())]);
        let mut part = client.page(&path, &query).await?;
        if let Value::Array(more) = part["verdicts"].take() {
            verdicts.extend(more);
        }
        let last = part["verdicts_next"].is_null();
        if whole.is_null() {
            whole = part;
        }
        if last {
            break;
        }
    }
    (whole["verdicts"], whole["verdicts_next"]) = (Value::Array(verdicts), json!(null));
    Ok(whole)
}

fn print(preview: &Value, summary: bool) -> anyhow::Result<()> {
    let verdicts: &[Value] = preview["verdicts"].as_array().map_or(&[], Vec::as_slice);
    let (count, excluded) = (cell(&preview["count"]), cell(&preview["excluded"]));
    say!("{count} will be upgraded, {excluded} left out.")?;
    for (batch, count) in taken(verdicts) {
        say!("{count} of them are taken from {batch}, which has not begun with them.")?;
    }
    let mut reasons = BTreeMap::<String, (usize, String)>::new();
    for verdict in verdicts.iter().filter(|verdict| verdict["will_upgrade"] != true) {
        let entry = reasons.entry(cell(&verdict["reason"])).or_default();
        *entry = (entry.0 + 1, in_flags(&cell(&verdict["detail"])));
    }
    if !reasons.is_empty() {
        say!()?;
        let rows: Vec<_> = reasons
            .into_iter()
            .map(|(reason, (count, detail))| [count.to_string(), reason, detail])
            .collect();
        table(["MODEMS", "LEFT OUT FOR", "WHICH MEANS"], &rows)?;
    }
    if !summary && !verdicts.is_empty() {
        say!()?;
        table(
            ["DEVICE", "NAME", "SLOT", "VERDICT"],
            &verdicts.iter().map(row).collect::<Vec<_>>(),
        )?;
    }
    Ok(())
}

/// From which batches modems would be taken, and how many.
fn taken(verdicts: &[Value]) -> BTreeMap<String, usize> {
    let mut taken = BTreeMap::new();
    for of in verdicts.iter().map(|verdict| &verdict["replaces"]).filter(|of| of.is_object()) {
        let from = match &of["batch"] {
            Value::Null => "single upgrades".to_owned(),
            batch => format!("batch {}", cell(batch)),
        };
        *taken.entry(from).or_default() += 1;
    }
    taken
}

fn row(verdict: &Value) -> [String; 4] {
    let reason = match verdict["will_upgrade"] == true {
        true => "upgrade".to_owned(),
        false => cell(&verdict["reason"]),
    };
    [cell(&verdict["device"]), cell(&verdict["name"]), cell(&verdict["slot"]), reason]
}
