//! `images`: the firmware files of a build, or of all.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Client;
use super::find::{self, id};
use super::lists::{Asked, Lists};
use super::output::{Output, cell, json as print_json, table};
use super::prompt;

pub type Arguments = Lists<Verb, Filters>;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the signed manifest of one
    Manifest {
        /// Id
        #[arg(value_parser = id("images"))]
        image: Uuid,
    },
    /// Remove one
    Remove {
        /// Id, or CATEGORY/VERSION
        #[arg(long)]
        build: String,
        /// Id
        #[arg(value_parser = id("images"))]
        image: Uuid,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub struct Filters {
    /// Only those of this build: its id, or CATEGORY/VERSION
    #[arg(long)]
    build: Option<String>,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (asked, output) = arguments.asked();
    match asked {
        Asked::List(filters) => list(client, filters, output).await?,
        Asked::Other(Verb::Manifest { image }) => {
            let manifest = client.get(&format!("image/{image}/manifest/"), &[]).await?;
            output.say(&manifest, format!("{manifest:#}"))?;
        }
        Asked::Other(Verb::Remove { build, image, yes }) => {
            let question = format!("Remove image {image} of build {build}?");
            let build = find::build(client, &build).await?;
            if !prompt::confirm(yes, &question)? {
                return Ok(ExitCode::FAILURE);
            }
            client.delete(&format!("build/{build}/image/{image}/")).await?;
            output.say(&json!(null), format!("image {image} is removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The API lists images by build.
async fn list(client: &Client, filters: Filters, output: Output) -> anyhow::Result<()> {
    let builds = match &filters.build {
        Some(word) => {
            let id = find::build(client, word).await?;
            vec![client.get(&format!("build/{id}/"), &[]).await?]
        }
        None => client.all("build/", &[("ordering", "-created".to_owned())]).await?,
    };
    let (mut images, mut rows) = (Vec::new(), Vec::new());
    for build in &builds {
        let path = format!("build/{}/image/", cell(&build["id"]));
        let found = client.all(&path, &[]).await?;
        rows.extend(found.iter().map(|image| row(build, image)));
        images.extend(found);
    }
    if output.json {
        print_json(&Value::Array(images))?;
    } else {
        table(["IMAGE", "BUILD", "TOOL", "BOARDS", "SIZE", "SIGNED BY"], &rows)?;
    }
    Ok(())
}

fn row(build: &Value, image: &Value) -> [String; 6] {
    let category = cell(&build["category_relation"]["name"]);
    let size = image["size"].as_u64().unwrap_or(0);
    let signed_by = match &image["signed_by"] {
        Value::Null => "nobody: not flashed".to_owned(),
        key => cell(key),
    };
    [
        cell(&image["id"]),
        format!("{category}/{}", cell(&build["version"])),
        cell(&image["type"]),
        cell(&image["boards"]),
        HumanBytes(size).to_string(),
        signed_by,
    ]
}
