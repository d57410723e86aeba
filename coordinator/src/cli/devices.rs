//! `devices`

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::output::{Output, cell, json, table};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only those in this state: accepted, pending or revoked
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut query = vec![("ordering", "name".to_owned())];
    query.extend(arguments.organization.map(|slug| ("organization", slug)));
    query.extend(arguments.state.map(|state| ("state", state)));
    let devices = client.all("device/", &query).await?;
    if arguments.output.json {
        json(&Value::Array(devices));
    } else {
        let rows: Vec<_> = devices.iter().flat_map(rows).collect();
        table(["DEVICE", "NAME", "STATE", "LINE", "SLOT", "MODEM", "VERSION", "LAST SEEN"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// A row a modem, or one for a device of whose modems nothing is known.
fn rows(device: &Value) -> Vec<[String; 8]> {
    let nothing = [Value::Null];
    let modems = match device["modems"].as_array() {
        Some(modems) if !modems.is_empty() => modems.as_slice(),
        _ => &nothing,
    };
    let line = if device["online"] == true { "online" } else { "offline" };
    let row = |modem: &Value| {
        [
            cell(&device["id"]),
            cell(&device["name"]),
            cell(&device["state"]),
            line.to_owned(),
            cell(&modem["slot"]),
            cell(&modem["model"]),
            cell(&modem["versions"][0]["value"]),
            cell(&device["last_seen"]),
        ]
    };
    modems.iter().map(row).collect()
}
