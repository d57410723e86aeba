//! `builds`, `images`: the firmware that a server has. `upload` brings it there.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, Query};
use super::find;
use super::output::{Output, cell, time};
use super::prompt;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_version_flag = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them
    #[command(disable_version_flag = true)]
    List(Filters),
    /// Show one
    Show {
        /// Id, or CATEGORY/VERSION
        build: String,
    },
    /// Remove one, with its images
    Remove {
        /// Id, or CATEGORY/VERSION
        build: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct Filters {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only those of the category with this name
    #[arg(long, value_name = "NAME")]
    category: Option<String>,
    /// Only those of this version
    #[arg(long)]
    version: Option<String>,
    /// Only those for this modem model
    #[arg(long)]
    model: Option<String>,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let output = arguments.output;
    match arguments.verb {
        None => list(client, arguments.filters, output).await?,
        Some(Verb::List(filters)) => list(client, filters, output).await?,
        Some(Verb::Show { build }) => {
            let path = format!("build/{}/", find::build(client, &build).await?);
            let build = client.get(&path, &[]).await?;
            output.list(HEADING, vec![build], row)?;
        }
        Some(Verb::Remove { build, yes }) => {
            let path = format!("build/{}/", find::build(client, &build).await?);
            if !yes && !is_wanted(client, &build, &path).await? {
                return Ok(ExitCode::FAILURE);
            }
            client.delete(&path).await?;
            output.say(&json!(null), format!("build {build} is removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether it is to go, with all that goes along.
async fn is_wanted(client: &Client, build: &str, path: &str) -> anyhow::Result<bool> {
    let query = [("page_size", "1".to_owned())];
    let images = client.get(&format!("{path}image/"), &query).await?;
    let along = match images["count"].as_u64().unwrap_or(0) {
        0 => String::new(),
        1 => ", and its image with it".to_owned(),
        several => format!(", and its {several} images with it"),
    };
    prompt::confirm(false, &format!("Remove build {build}{along}?"))
}

const HEADING: [&str; 5] = ["BUILD", "CATEGORY", "VERSION", "MODEL", "CREATED"];

async fn list(client: &Client, filters: Filters, output: Output) -> anyhow::Result<()> {
    let mut query: Query = vec![("ordering", "-created".to_owned())];
    query.extend(filters.organization.map(|slug| ("organization", slug)));
    query.extend(filters.version.map(|version| ("version", version)));
    query.extend(filters.model.map(|model| ("modem_model", model)));
    let mut builds = client.all("build/", &query).await?;
    if let Some(category) = filters.category {
        builds.retain(|build| build["category_relation"]["name"] == category.as_str());
    }
    output.list(HEADING, builds, row)?;
    Ok(())
}

fn row(build: &Value) -> Vec<[String; 5]> {
    vec![[
        cell(&build["id"]),
        cell(&build["category_relation"]["name"]),
        cell(&build["version"]),
        cell(&build["modem_model"]),
        time(&build["created"]),
    ]]
}
