//! `devices`: routers, the modems in them, and where they belong.

mod change;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, Query};
use super::find;
use super::lists::{Asked, Lists};
use super::output::{Output, cell, time};

pub type Arguments = Lists<Verb, Filters>;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show one, with its modems and their last upgrades
    Show {
        /// Id or name
        device: String,
    },
    #[command(flatten)]
    Change(change::Verb),
}

#[derive(Debug, Args)]
pub struct Filters {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only those in this state: accepted, pending or revoked
    #[arg(long)]
    state: Option<String>,
    /// Only those of this name
    #[arg(long)]
    name: Option<String>,
    /// Only those of this board
    #[arg(long)]
    board: Option<String>,
    /// Only those with a line to the server
    #[arg(long)]
    online: bool,
    /// Only those whose identity two boards use: their jobs are held
    #[arg(long)]
    duplicate: bool,
    /// Only those in this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Only those in this location
    #[arg(long, value_name = "LOCATION")]
    location: Option<String>,
    /// Only those with this tag
    #[arg(long)]
    tag: Option<String>,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (asked, output) = arguments.asked();
    match asked {
        Asked::List(filters) => list(client, filters, output).await,
        Asked::Other(Verb::Show { device }) => {
            show::run(client, &find::device(client, &device).await?, output).await
        }
        Asked::Other(Verb::Change(verb)) => change::run(client, verb, output).await,
    }
}

async fn list(client: &Client, filters: Filters, output: Output) -> anyhow::Result<ExitCode> {
    let mut query: Query = vec![("ordering", "name".to_owned())];
    query.extend(filters.organization.map(|slug| ("organization", slug)));
    query.extend(filters.state.map(|state| ("state", state)));
    query.extend(filters.name.map(|name| ("name", name)));
    query.extend(filters.board.map(|board| ("board", board)));
    query.extend(filters.online.then(|| ("online", "true".to_owned())));
    query.extend(filters.duplicate.then(|| ("duplicate", "true".to_owned())));
    query.extend(filters.tag.map(|tag| ("tag", tag)));
    if let Some(group) = filters.group {
        query.push(("group", find::place(client, "group", &group).await?));
    }
    if let Some(location) = filters.location {
        query.push(("location", find::place(client, "location", &location).await?));
    }
    let devices = client.all("device/", &query).await?;
    let heading = ["DEVICE", "NAME", "STATE", "LINE", "SLOT", "MODEM", "VERSION", "LAST SEEN"];
    output.list(heading, devices, rows)?;
    Ok(ExitCode::SUCCESS)
}

/// A row a modem, or one for a device of whose modems nothing is known.
fn rows(device: &Value) -> Vec<[String; 8]> {
    let nothing = [Value::Null];
    let modems = match device["modems"].as_array() {
        Some(modems) if !modems.is_empty() => modems.as_slice(),
        _ => &nothing,
    };
    let state = match (&device["deactivated"], &device["duplicate"]) {
        (Value::Bool(true), _) => "deactivated".to_owned(),
        (_, Value::Object(_)) => "duplicate".to_owned(),
        _ => cell(&device["state"]),
    };
    let line = if device["online"] == true { "online" } else { "offline" };
    let row = |modem: &Value| {
        [
            cell(&device["id"]),
            cell(&device["name"]),
            state.clone(),
            line.to_owned(),
            cell(&modem["slot"]),
            cell(&modem["model"]),
            cell(&modem["versions"][0]["value"]),
            time(&device["last_seen"]),
        ]
    };
    modems.iter().map(row).collect()
}
