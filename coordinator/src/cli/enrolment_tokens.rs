//! `enrolment-tokens`: the way in for devices.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Query};
use super::find;
use super::lists::{Asked, Lists};
use super::output::{Output, cell};
use super::tokens::never;
use super::when;

pub type Arguments = Lists<Verb, Filters>;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make one and print it, this once
    New(New),
    /// End one: nobody comes with it any more, who came stays
    Revoke {
        /// As `list` shows it
        id_or_name: String,
    },
}

#[derive(Debug, Args)]
pub struct Filters {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
}

#[derive(Debug, Args)]
pub struct New {
    /// For people, to tell it by
    name: String,
    /// Whose devices come with it [default: your only organization]
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Devices that come with it wait for no `devices accept`
    #[arg(long)]
    auto_accept: bool,
    /// How many devices may come with it: 1 is a one-time token [default: any number]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// How long it is good; for ever, if nothing is said
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (asked, output) = arguments.asked();
    match asked {
        Asked::List(filters) => list(client, filters, output).await?,
        Asked::Other(Verb::New(new)) => make(client, new, output).await?,
        Asked::Other(Verb::Revoke { id_or_name }) => {
            let id = find::token(client, "enrolment-tokens", &id_or_name).await?;
            client.delete(&format!("enrolment-token/{id}/")).await?;
            output.say(&Value::Null, format!("revoked: {id}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn make(client: &Client, new: New, output: Output) -> anyhow::Result<()> {
    let mut body = json!({ "name": new.name, "auto_accept": new.auto_accept });
    if let Some(slug) = new.organization {
        body["organization"] = json!(slug);
    }
    if let Some(uses) = new.uses {
        body["uses"] = json!(uses);
    }
    if let Some(expires) = new.days.and_then(when::in_days) {
        body["expires"] = json!(expires);
    }
    let made = client.send(Method::POST, "enrolment-token/", &body).await?;
    let said = format!("id: {}\nenrolment_token: {}", cell(&made["id"]), cell(&made["token"]));
    output.say(&made, said)?;
    Ok(())
}

async fn list(client: &Client, filters: Filters, output: Output) -> anyhow::Result<()> {
    let mut query = Query::new();
    query.extend(filters.organization.map(|slug| ("organization", slug)));
    let tokens = client.all("enrolment-token/", &query).await?;
    let heading =
        ["ID", "NAME", "ORGANIZATION", "DEVICES", "LEFT", "ACCEPTS", "EXPIRES", "LAST USED"];
    output.list(heading, tokens, |token| {
        vec![[
            cell(&token["id"]),
            cell(&token["name"]),
            cell(&token["organization"]),
            cell(&token["used"]),
            if token["uses_left"].is_null() { "any".to_owned() } else { cell(&token["uses_left"]) },
            if token["auto_accept"] == true { "by itself".to_owned() } else { "waits".to_owned() },
            never(&token["expires"]),
            never(&token["last_used"]),
        ]]
    })?;
    Ok(())
}
