//! `users`: who may use the server, and as what. Superusers make users; an organization's
//! administrators give them roles there; everybody changes their own password.

mod account;
mod role;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, Query};
use super::lists::{Asked, Lists};
use super::output::{Output, cell, fields, json, time};

pub type Arguments = Lists<Verb, Filters>;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show yourself
    Me,
    /// Give a user a role in an organization
    Role(role::Arguments),
    #[command(flatten)]
    Account(account::Verb),
}

#[derive(Debug, Args)]
pub struct Filters {
    /// The members of this organization, which its administrators may see
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (asked, output) = arguments.asked();
    match asked {
        Asked::List(filters) => list(client, filters, output).await?,
        Asked::Other(Verb::Me) => {
            let me = client.get("user/me/", &[]).await?;
            if output.json { json(&me)? } else { print(&me)? }
        }
        Asked::Other(Verb::Role(role)) => role::run(client, role, output).await?,
        Asked::Other(Verb::Account(verb)) => return account::run(client, verb, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, filters: Filters, output: Output) -> anyhow::Result<()> {
    if let Some(slug) = filters.organization {
        let path = role::members(client, &slug).await?;
        let members = client.all(&path, &Query::new()).await?;
        output.list(["ID", "USER", "ROLE"], members, |member| {
            vec![[cell(&member["user"]), cell(&member["username"]), cell(&member["role"])]]
        })?;
        return Ok(());
    }
    let users = client.all("user/", &[("ordering", "name".to_owned())]).await?;
    output.list(["ID", "USER", "ROLES", "STATE", "LAST LOGIN"], users, |user| {
        let state = if user["active"] == false { "inactive" } else { "active" };
        vec![[
            cell(&user["id"]),
            cell(&user["username"]),
            roles(user),
            state.to_owned(),
            time(&user["last_login"]),
        ]]
    })?;
    Ok(())
}

fn print(user: &Value) -> anyhow::Result<()> {
    fields([
        ("user", cell(&user["username"])),
        ("id", cell(&user["id"])),
        ("roles", roles(user)),
        ("last login", time(&user["last_login"])),
    ])
}

fn roles(user: &Value) -> String {
    let superuser = (user["superuser"] == true).then(|| "superuser".to_owned());
    let memberships = user["memberships"].as_array().into_iter().flatten();
    let role = |of: &Value| format!("{}={}", cell(&of["organization"]), cell(&of["role"]));
    superuser.into_iter().chain(memberships.map(role)).collect::<Vec<_>>().join(" ")
}
