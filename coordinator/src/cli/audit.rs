//! `audit`: who changed what.

use std::process::ExitCode;

use clap::Args;

use super::client::{Client, Query};
use super::output::{Output, cell, time};
use super::when;
use crate::api::BASE;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only changes by this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only changes by this one: user:NAME, device:ID or system
    #[arg(long, conflicts_with = "user")]
    actor: Option<String>,
    /// Only these: POST, DELETE, enrol, login, ...
    #[arg(long)]
    action: Option<String>,
    /// Only changes of this: a path as the table shows it, or an id
    #[arg(long)]
    subject: Option<String>,
    /// Only those of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Not before this time (2026-11-22T00:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    until: Option<String>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Also what was there before, and what after
    #[arg(long)]
    changes: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let user = arguments.user.map(|name| format!("user:{name}"));
    let filters = [
        ("actor", arguments.actor.or(user)),
        ("action", arguments.action),
        ("subject", arguments.subject.map(subject)),
        ("organization", arguments.organization),
        ("since", arguments.since),
        ("until", arguments.until),
    ];
    let query: Query =
        filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let entries = client.first("audit/", &query, arguments.limit).await?;
    let changes = arguments.changes;
    let heading = ["AT", "WHO", "FROM", "ACTION", "SUBJECT", "DETAIL"];
    arguments.output.list(heading, entries, |entry| {
        let mut rows = vec![[
            time(&entry["at"]),
            cell(&entry["actor"]),
            cell(&entry["peer"]),
            cell(&entry["action"]),
            cell(&entry["subject"]).replacen(&format!("{BASE}/"), "", 1),
            cell(&entry["detail"]),
        ]];
        for side in ["before", "after"].into_iter().filter(|side| changes && !entry[side].is_null())
        {
            let mut row = <[String; 6]>::default();
            row[5] = format!("{side}: {}", cell(&entry[side]));
            rows.push(row);
        }
        rows
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The table leaves out what all paths have in front.
fn subject(word: String) -> String {
    match word.contains('/') && !word.starts_with('/') {
        true => format!("{BASE}/{word}"),
        false => word,
    }
}
