//! `operations`: single upgrades, each of one modem.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Query, with_query};
use super::events::Watch;
use super::find;
use super::output::{self, Output, cell, fields, table, time};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List upgrade operations
    List(Filters),
    /// Show one, with what its device said
    Show {
        /// Id
        operation: String,
    },
    /// Take one back, as long as its modem is untouched
    Cancel {
        /// Ids
        #[arg(required = true)]
        operations: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Filters {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only those with this status: idle, in-progress, success, failed, aborted or cancelled
    #[arg(long)]
    status: Option<String>,
    /// Only those of this device: its id or name
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only those of this batch
    #[arg(long, value_name = "ID")]
    batch: Option<String>,
    /// Only those with this image
    #[arg(long, value_name = "ID")]
    image: Option<String>,
    /// At most so many, the newest
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Go on printing changes as they happen
    #[arg(long)]
    watch: bool,
}

pub const HEADING: [&str; 7] =
    ["OPERATION", "DEVICE", "STATUS", "PHASE", "PROGRESS", "ATTEMPT", "FAILURE"];

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let output = arguments.output;
    match arguments.verb {
        None => list(client, arguments.filters, output).await?,
        Some(Verb::List(filters)) => list(client, filters, output).await?,
        Some(Verb::Show { operation }) => {
            let path = format!("upgrade-operation/{operation}/");
            let operation = client.get(&path, &[]).await?;
            if output.json { output::json(&operation) } else { print(&operation) }
        }
        Some(Verb::Cancel { operations }) => {
            for operation in operations {
                let path = format!("upgrade-operation/{operation}/cancel/");
                let answer = client.send(Method::POST, &path, &json!({})).await?;
                output.say(&answer, format!("{operation}: {}", cell(&answer["message"])));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, filters: Filters, output: Output) -> anyhow::Result<()> {
    let device = match &filters.device {
        Some(word) => Some(find::device(client, word).await?),
        None => None,
    };
    let asked = [
        ("organization", filters.organization),
        ("status", filters.status),
        ("device", device),
        ("batch", filters.batch),
        ("image", filters.image),
    ];
    let asked: Query = asked.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let organization: Query =
        asked.iter().filter(|(name, _)| *name == "organization").cloned().collect();
    // Listen first, look second: nothing can fall between.
    let mut watch = match filters.watch {
        true => {
            Some(Watch::start(client, with_query("events/", &organization), "operation").await?)
        }
        false => None,
    };
    let mut query = asked.clone();
    query.push(("ordering", "-created".to_owned()));
    let operations = client.first("upgrade-operation/", &query, filters.limit).await?;
    if output.json && watch.is_some() {
        operations.iter().for_each(output::json);
    } else {
        output.list(HEADING, operations, rows);
    }
    while let Some(watch) = &mut watch {
        let operation = watch.next().await?;
        // The stream is of that organization alone, by whatever its events call it.
        let fits = |(name, value): &(&str, String)| {
            *name == "organization" || operation[*name] == value.as_str()
        };
        if !asked.iter().all(fits) {
            continue;
        }
        if output.json {
            output::json(&operation);
        } else {
            rows(&operation).iter().for_each(|row| println!("{}", row.join("  ")));
        }
    }
    Ok(())
}

pub fn rows(operation: &Value) -> Vec<[String; 7]> {
    let failure = &operation["failure"];
    vec![[
        cell(&operation["id"]),
        cell(&operation["device"]),
        cell(&operation["status"]),
        cell(&operation["phase"]),
        format!("{:>3}%", cell(&operation["progress_percent"])),
        cell(&operation["attempt"]),
        cell(&failure["kind"]),
    ]]
}

fn print(operation: &Value) {
    let failure = &operation["failure"];
    let part = |field: &str| cell(&failure[field]);
    let failed = match failure {
        Value::Null => String::new(),
        _ => format!("in {}: {}, modem {}", part("stage"), part("kind"), part("condition")),
    };
    fields([
        ("operation", cell(&operation["id"])),
        ("device", cell(&operation["device"])),
        ("slot", cell(&operation["modem"]["slot"])),
        ("image", cell(&operation["image"])),
        ("batch", cell(&operation["batch"])),
        ("status", cell(&operation["status"])),
        ("phase", cell(&operation["phase"])),
        ("progress", format!("{}%", cell(&operation["progress_percent"]))),
        ("attempt", cell(&operation["attempt"])),
        ("failure", failed),
        ("detail", part("detail")),
        ("late result", cell(&operation["late_result"])),
        ("retry of", cell(&operation["retry_of"])),
        ("superseded by", cell(&operation["superseded_by"])),
        ("deadline", time(&operation["deadline"])),
        ("created", time(&operation["created"])),
        ("finished", time(&operation["finished"])),
    ]);
    let log = operation["log"].as_str().unwrap_or_default();
    if !log.is_empty() {
        println!();
        table(["LOG"], &log.lines().map(|line| [output::plain(line)]).collect::<Vec<_>>());
    }
}
