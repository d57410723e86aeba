//! `devices accept | refuse | revoke | release | activate | deactivate | group | location | tag`

use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::each::each;
use crate::cli::failure::usage;
use crate::cli::find;
use crate::cli::output::{Output, cell};
use crate::cli::prompt;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Let pending devices in; one that replaces another ends that one's access
    Accept {
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Turn pending devices away: their keys are not taken again
    Refuse {
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Let the jobs of devices go on whose identity two boards used, once only one does
    Release {
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Shut devices out for good: their keys are not taken again
    Revoke {
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Give devices jobs again
    Activate {
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Give devices no jobs
    Deactivate {
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Put devices into a group
    Group {
        /// Id or name of the group; - takes devices out of theirs
        group: String,
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Put devices into a location
    Location {
        /// Id or name of the location; - takes devices out of theirs
        location: String,
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Give devices tags, or take them away
    Tag {
        /// A tag to give; repeat for several
        #[arg(long = "add", value_name = "TAG")]
        add: Vec<String>,
        /// A tag to take away; repeat for several
        #[arg(long = "remove", value_name = "TAG")]
        remove: Vec<String>,
        /// Ids or names
        #[arg(required = true)]
        devices: Vec<String>,
    },
}

pub async fn run(client: &Client, verb: Verb, output: Output) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Accept { devices } => post(client, &devices, "accept", output).await,
        Verb::Refuse { devices } => post(client, &devices, "refuse", output).await,
        Verb::Release { devices } => post(client, &devices, "release", output).await,
        Verb::Revoke { devices, yes } => {
            let question = format!("Shut out for good, with their keys: {}?", devices.join(", "));
            if !prompt::confirm(yes, &question)? {
                return Ok(ExitCode::FAILURE);
            }
            post(client, &devices, "revoke", output).await
        }
        Verb::Activate { devices } => {
            patch(client, &devices, &json!({ "deactivated": false }), output).await
        }
        Verb::Deactivate { devices } => {
            patch(client, &devices, &json!({ "deactivated": true }), output).await
        }
        Verb::Group { group, devices } => {
            let group = place(client, "group", &group).await?;
            patch(client, &devices, &json!({ "group": group }), output).await
        }
        Verb::Location { location, devices } => {
            let location = place(client, "location", &location).await?;
            patch(client, &devices, &json!({ "location": location }), output).await
        }
        Verb::Tag { add, remove, devices } => {
            if add.is_empty() && remove.is_empty() {
                return Err(usage("give --add or --remove"));
            }
            let change = json!({ "add_tags": add, "remove_tags": remove });
            patch(client, &devices, &change, output).await
        }
    }
}

async fn place(client: &Client, kind: &str, word: &str) -> anyhow::Result<Option<String>> {
    match word {
        "-" => Ok(None),
        word => find::place(client, kind, word).await.map(Some),
    }
}

async fn post(
    client: &Client,
    devices: &[String],
    verb: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let devices = find::devices(client, devices).await?;
    let post = async |id: &str| {
        let path = format!("device/{id}/{verb}/");
        say(&client.send(Method::POST, &path, &json!({})).await?, output)
    };
    each(devices, post).await
}

async fn patch(
    client: &Client,
    devices: &[String],
    change: &Value,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let devices = find::devices(client, devices).await?;
    let patch = async |id: &str| {
        say(&client.send(Method::PATCH, &format!("device/{id}/"), change).await?, output)
    };
    each(devices, patch).await
}

fn say(device: &Value, output: Output) -> anyhow::Result<()> {
    let tags = match cell(&device["tags"]) {
        tags if tags.is_empty() => tags,
        tags => format!(", tags {tags}"),
    };
    let (id, name, state) = (cell(&device["id"]), cell(&device["name"]), cell(&device["state"]));
    let deactivated = if device["deactivated"] == true { ", deactivated" } else { "" };
    let said = format!("{id}  {name}: {state}{deactivated}{tags}");
    output.say(device, said)
}
