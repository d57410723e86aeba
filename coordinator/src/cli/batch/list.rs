//! `batch list`

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::cli::client::{Client, Query};
use crate::cli::find;
use crate::cli::output::{Output, cell, time};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only those to this build: its id, or CATEGORY/VERSION
    #[arg(long)]
    build: Option<String>,
    /// Only those with this status: idle, in-progress, success, failed, aborted or cancelled
    #[arg(long)]
    status: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

pub async fn run(
    client: &Client,
    arguments: Arguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let mut query: Query = vec![("ordering", "-created".to_owned())];
    query.extend(arguments.organization.map(|slug| ("organization", slug)));
    query.extend(arguments.status.map(|status| ("status", status)));
    if let Some(build) = arguments.build {
        query.push(("build", find::build(client, &build).await?));
    }
    let batches = client.first("batch-upgrade-operation/", &query, arguments.limit).await?;
    let heading = ["BATCH", "BUILD", "STATUS", "PHASE", "SUCCESS", "FAILED", "TOTAL", "CREATED"];
    output.list(heading, batches, |batch| {
        let tally = &batch["tally"];
        vec![[
            cell(&batch["id"]),
            build(batch),
            cell(&batch["status"]),
            cell(&batch["phase"]),
            cell(&tally["success"]),
            cell(&tally["failed"]),
            cell(&tally["total"]),
            time(&batch["created"]),
        ]]
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `CATEGORY/VERSION`
pub fn build(batch: &Value) -> String {
    let build = &batch["build"];
    let (category, version) = (&build["category_relation"]["name"], cell(&build["version"]));
    if category.is_null() { version } else { format!("{}/{version}", cell(category)) }
}
