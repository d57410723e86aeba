//! `organizations`: whose devices and users are whose.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::client::Client;
use super::output::{Output, cell, time};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List yours
    List,
    /// Make one, as a superuser
    Create {
        /// Lower case letters, digits and -; it never changes
        slug: String,
        /// For people [default: the slug]
        #[arg(long)]
        name: Option<String>,
    },
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let output = arguments.output;
    match arguments.verb {
        None | Some(Verb::List) => {
            let organizations = client.all("organization/", &[]).await?;
            output.list(["ID", "SLUG", "NAME", "CREATED"], organizations, |one| {
                vec![[
                    cell(&one["id"]),
                    cell(&one["slug"]),
                    cell(&one["name"]),
                    time(&one["created"]),
                ]]
            })?;
        }
        Some(Verb::Create { slug, name }) => {
            let body = json!({ "slug": slug, "name": name.as_ref().unwrap_or(&slug) });
            let made = client.send(Method::POST, "organization/", &body).await?;
            output.say(&made, format!("organization {slug}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
