//! `operations`

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::events::Watch;
use super::output::{Output, cell, json, table};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only those with this status: idle, in-progress, success, failed, aborted or cancelled
    #[arg(long)]
    status: Option<String>,
    /// Only those of this device
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Go on printing changes as they happen
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    output: Output,
}

const HEADING: [&str; 7] =
    ["OPERATION", "DEVICE", "STATUS", "PHASE", "PROGRESS", "ATTEMPT", "FAILURE"];

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut query = vec![("ordering", "-created".to_owned())];
    query.extend(arguments.organization.clone().map(|slug| ("organization", slug)));
    query.extend(arguments.status.clone().map(|status| ("status", status)));
    query.extend(arguments.device.clone().map(|device| ("device", device)));
    let path = match &arguments.organization {
        Some(slug) => format!("events/?organization={slug}"),
        None => "events/".to_owned(),
    };
    // Listen first, look second: nothing can fall between.
    let mut watch = match arguments.watch {
        true => Some(Watch::start(client, path).await?),
        false => None,
    };
    let operations = client.all("upgrade-operation/", &query).await?;
    if arguments.output.json && watch.is_none() {
        json(&Value::Array(operations));
    } else if arguments.output.json {
        operations.iter().for_each(json);
    } else {
        table(HEADING, &operations.iter().map(row).collect::<Vec<_>>());
    }
    while let Some(watch) = &mut watch {
        let operation = watch.next().await?;
        let wanted = |asked: &Option<String>, field: &str| {
            asked.as_ref().is_none_or(|asked| operation[field] == asked.as_str())
        };
        if !wanted(&arguments.status, "status") || !wanted(&arguments.device, "device") {
            continue;
        }
        if arguments.output.json {
            json(&operation);
        } else {
            println!("{}", row(&operation).join("  "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(operation: &Value) -> [String; 7] {
    let failure = &operation["failure"];
    [
        cell(&operation["id"]),
        cell(&operation["device"]),
        cell(&operation["status"]),
        cell(&operation["phase"]),
        format!("{:>3}%", cell(&operation["progress_percent"])),
        cell(&operation["attempt"]),
        cell(&failure["kind"]),
    ]
}
