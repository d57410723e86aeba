//! `devices show`

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::operations;
use crate::cli::output::{Output, cell, fields, json, say, time};

/// Operations that are shown with a device.
const LAST: usize = 5;

pub async fn run(client: &Client, id: &str, output: Output) -> anyhow::Result<ExitCode> {
    let device = client.get(&format!("device/{id}/"), &[]).await?;
    if output.json {
        json(&device)?;
        return Ok(ExitCode::SUCCESS);
    }
    let query = [("ordering", "-created".to_owned())];
    let last = client.first(&format!("device/{id}/upgrade-operation/"), &query, LAST).await?;
    print(client, &device).await?;
    for modem in device["modems"].as_array().into_iter().flatten() {
        say!()?;
        print_modem(modem)?;
    }
    if !last.is_empty() {
        say!()?;
        let name = cell(&device["name"]);
        output.list(operations::HEADING, last, |one| vec![operations::row(one, &name)])?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(client: &Client, device: &Value) -> anyhow::Result<()> {
    let line = if device["online"] == true { "online" } else { "offline" };
    let deactivated = if device["deactivated"] == true { ", deactivated" } else { "" };
    fields([
        ("device", cell(&device["id"])),
        ("name", cell(&device["name"])),
        ("organization", cell(&device["organization_slug"])),
        ("state", format!("{}{deactivated}", cell(&device["state"]))),
        ("two boards", cell(&device["duplicate"]["reason"])),
        ("replacement of", cell(&device["replacement_of"])),
        ("line", format!("{line}, last seen {}", time(&device["last_seen"]))),
        ("board", cell(&device["board"])),
        ("mac address", cell(&device["mac_address"])),
        ("serial", cell(&device["serial"])),
        ("agent", cell(&device["agent_version"])),
        ("group", place(client, "group", &device["group"]).await?),
        ("location", place(client, "location", &device["location"]).await?),
        ("tags", cell(&device["tags"])),
        ("enrolled", time(&device["created"])),
    ])?;
    Ok(())
}

/// The name of the group or location with this id.
async fn place(client: &Client, kind: &str, id: &Value) -> anyhow::Result<String> {
    let Some(id) = id.as_str() else { return Ok(String::new()) };
    Ok(cell(&client.get(&format!("{kind}/{id}/"), &[]).await?["name"]))
}

fn print_modem(modem: &Value) -> anyhow::Result<()> {
    let version =
        |version: &Value| format!("{} {}", cell(&version["command"]), cell(&version["value"]));
    let versions = modem["versions"].as_array().into_iter().flatten().map(version);
    fields([
        ("slot", cell(&modem["slot"])),
        ("modem", format!("{} {}", cell(&modem["manufacturer"]), cell(&modem["model"]))),
        ("imei", cell(&modem["imei"])),
        ("versions", versions.collect::<Vec<_>>().join(", ")),
        ("read", time(&modem["read"])),
    ])
}
