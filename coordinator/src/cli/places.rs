//! `groups`, `locations`: what devices are put into, and batches chosen by.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::client::{Client, Query};
use super::find;
use super::lists::{Asked, Lists};
use super::output::{Output, cell, time};
use super::prompt;

pub type Arguments = Lists<Verb, Filters>;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make one
    Create {
        name: String,
        /// Whose it is [default: your only organization]
        #[arg(long, value_name = "SLUG")]
        organization: Option<String>,
    },
    /// Call one otherwise
    Rename {
        /// Id or name
        place: String,
        name: String,
    },
    /// Remove one; its devices stay
    Remove {
        /// Id or name
        place: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub struct Filters {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
}

pub async fn groups(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    run(client, arguments, "group").await
}

pub async fn locations(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    run(client, arguments, "location").await
}

async fn run(client: &Client, arguments: Arguments, kind: &str) -> anyhow::Result<ExitCode> {
    let (asked, output) = arguments.asked();
    match asked {
        Asked::List(filters) => list(client, kind, filters, output).await?,
        Asked::Other(Verb::Create { name, organization }) => {
            let mut body = json!({ "name": name });
            if let Some(slug) = organization {
                body["organization"] = json!(slug);
            }
            let made = client.send(Method::POST, &format!("{kind}/"), &body).await?;
            output.say(&made, format!("{kind} {}", cell(&made["id"])))?;
        }
        Asked::Other(Verb::Rename { place, name }) => {
            let path = path(client, kind, &place).await?;
            let changed = client.send(Method::PATCH, &path, &json!({ "name": name })).await?;
            output.say(&changed, format!("{kind} {} is {name}", cell(&changed["id"])))?;
        }
        Asked::Other(Verb::Remove { place, yes }) => {
            let path = path(client, kind, &place).await?;
            let question =
                format!("Remove {kind} {place}? Its devices stay, and are in no {kind}.");
            if !prompt::confirm(yes, &question)? {
                return Ok(ExitCode::FAILURE);
            }
            client.delete(&path).await?;
            output.say(&json!(null), format!("{kind} {place} is removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn path(client: &Client, kind: &str, word: &str) -> anyhow::Result<String> {
    Ok(format!("{kind}/{}/", find::place(client, kind, word).await?))
}

async fn list(client: &Client, kind: &str, filters: Filters, output: Output) -> anyhow::Result<()> {
    let mut query: Query = vec![("ordering", "name".to_owned())];
    query.extend(filters.organization.map(|slug| ("organization", slug)));
    let places = client.all(&format!("{kind}/"), &query).await?;
    output.list(["ID", "NAME", "ORGANIZATION", "CREATED"], places, |place| {
        vec![[
            cell(&place["id"]),
            cell(&place["name"]),
            cell(&place["organization_slug"]),
            time(&place["created"]),
        ]]
    })?;
    Ok(())
}
