//! `tokens`: one's own API tokens, over the API. (`token` is the server's owner's way, on its machine.)

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::find;
use super::output::{Output, cell, time};
use super::when;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them; they themselves are not kept
    List,
    /// Make one and print it, this once
    New {
        /// For people, to tell it by
        name: String,
        #[arg(long, value_enum, default_value_t = Scope::Write)]
        scope: Scope,
        /// Of scope report: the device whose upgrades its script reports of; its id or name
        #[arg(long, required_if_eq("scope", "report"))]
        device: Option<String>,
        /// How long it is good; for ever, if nothing is said
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
    /// End one
    Revoke {
        /// As `list` shows it
        id_or_name: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    Read,
    Write,
    /// For the script of one device
    Report,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let output = arguments.output;
    match arguments.verb {
        None | Some(Verb::List) => list(client, output).await?,
        Some(Verb::New { name, scope, device, days }) => {
            let scope = match scope {
                Scope::Read => "read",
                Scope::Write => "write",
                Scope::Report => "report",
            };
            let mut body = json!({ "name": name, "scope": scope });
            if let Some(device) = device {
                body["device"] = json!(find::device(client, &device).await?);
            }
            if let Some(expires) = days.and_then(when::in_days) {
                body["expires"] = json!(expires);
            }
            let made = client.send(Method::POST, "token/", &body).await?;
            let said = format!("id: {}\napi_token: {}", cell(&made["id"]), cell(&made["token"]));
            output.say(&made, said)?;
        }
        Some(Verb::Revoke { id_or_name }) => {
            let id = find::token(client, "tokens", &id_or_name).await?;
            client.delete(&format!("token/{id}/")).await?;
            output.say(&Value::Null, format!("revoked: {id}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let tokens = client.all("token/", &[]).await?;
    let heading = ["ID", "NAME", "SCOPE", "DEVICE", "CREATED", "EXPIRES", "LAST USED"];
    output.list(heading, tokens, |token| {
        vec![[
            cell(&token["id"]),
            cell(&token["name"]),
            cell(&token["scope"]),
            cell(&token["device"]),
            time(&token["created"]),
            never(&token["expires"]),
            never(&token["last_used"]),
        ]]
    })?;
    Ok(())
}

/// A time that may not come.
pub fn never(value: &Value) -> String {
    if value.is_null() { "never".to_owned() } else { time(value) }
}
