//! `operations`: single upgrades, each of one modem.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::batch::show;
use super::client::{Client, Query, with_query};
use super::each::each;
use super::events::Watch;
use super::find::{self, id};
use super::lists::{Asked, Lists};
use super::names::Names;
use super::output::{self, Output, cell, fields, note, say, table, time};
use super::{prompt, upgrade};

pub type Arguments = Lists<Verb, Filters>;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show one, with what its device said
    Show {
        /// Id
        #[arg(value_parser = id("operations"))]
        operation: Uuid,
    },
    /// Follow one to its end, as `upgrade --watch` does; the exit status is 0 only for a success
    Watch {
        /// Id
        #[arg(value_parser = id("operations"))]
        operation: Uuid,
    },
    /// Take some back, as long as nobody is flashing their modems
    Cancel {
        /// Ids
        #[arg(required = true, value_parser = id("operations"))]
        operations: Vec<Uuid>,
    },
    /// End some for good whose modems are in recovery or wait for a person, and that end in no other way:
    /// they have failed, and a late result is kept
    WriteOff {
        /// Ids
        #[arg(required = true, value_parser = id("operations"))]
        operations: Vec<Uuid>,
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
    /// Only those with this status: idle, in-progress, success, failed, aborted or cancelled
    #[arg(long)]
    status: Option<String>,
    /// Only those of this device: its id or name
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only those of this batch
    #[arg(long, value_name = "ID", value_parser = id("batch list"))]
    batch: Option<Uuid>,
    /// Only those with this image
    #[arg(long, value_name = "ID", value_parser = id("images"))]
    image: Option<Uuid>,
    /// At most so many, the newest
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Go on printing changes as they happen
    #[arg(long)]
    watch: bool,
}

pub const HEADING: [&str; 7] =
    ["OPERATION", "DEVICE", "STATUS", "PHASE", "PROGRESS", "ATTEMPT", "FAILURE"];

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (asked, output) = arguments.asked();
    match asked {
        Asked::List(filters) => list(client, filters, output).await?,
        Asked::Other(Verb::Show { operation }) => {
            let path = format!("upgrade-operation/{operation}/");
            let operation = client.get(&path, &[]).await?;
            if output.json { output::json(&operation)? } else { print(client, &operation).await? }
        }
        Asked::Other(Verb::Watch { operation }) => {
            return upgrade::follow(client, &operation.to_string(), output).await;
        }
        Asked::Other(Verb::Cancel { operations }) => {
            return post(client, operations, "cancel", output).await;
        }
        Asked::Other(Verb::WriteOff { operations, yes }) => {
            let named: Vec<_> = operations.iter().map(Uuid::to_string).collect();
            let question =
                format!("Give up, though the modem may be being flashed: {}?", named.join(", "));
            if !prompt::confirm(yes, &question)? {
                return Ok(ExitCode::FAILURE);
            }
            return post(client, operations, "write-off", output).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn post(
    client: &Client,
    operations: Vec<Uuid>,
    verb: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let post = async |id: &str| {
        let path = format!("upgrade-operation/{id}/{verb}/");
        let answer = client.send(Method::POST, &path, &json!({})).await?;
        output.say(&answer, format!("{id}: {}", cell(&answer["message"])))?;
        Ok(())
    };
    each(operations.iter().map(Uuid::to_string), post).await
}

async fn list(client: &Client, filters: Filters, output: Output) -> anyhow::Result<()> {
    let device = match &filters.device {
        Some(word) => Some(find::device(client, word).await?),
        None => None,
    };
    let asked = [
        ("organization", filters.organization),
        ("status", filters.status),
        ("device", device),
        ("batch", filters.batch.map(|id| id.to_string())),
        ("image", filters.image.map(|id| id.to_string())),
    ];
    let asked: Query = asked.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let organization: Query =
        asked.iter().filter(|(name, _)| *name == "organization").cloned().collect();
    // Listen first, look second: nothing can fall between.
    let mut watch = match filters.watch {
        true => {
            Some(Watch::start(client, with_query("events/", &organization), "operation").await?)
        }
        false => None,
    };
    let mut query = asked.clone();
    query.push(("ordering", "-created".to_owned()));
    let operations = client.first("upgrade-operation/", &query, filters.limit).await?;
    let mut told = Told::default();
    for operation in &operations {
        told.is_new(operation, output);
    }
    let mut names = Names::new(client);
    if output.json && watch.is_some() {
        operations.iter().try_for_each(output::json)?;
    } else {
        if !output.json {
            names.learn(&operations).await?;
        }
        output.list(HEADING, operations, |one| vec![row(one, &names.get(&one["device"]))])?;
    }
    while let Some(watch) = &mut watch {
        let operation = match watch.next().await?.state() {
            Ok(operation) => operation,
            Err(notice) => {
                note!("{}", output::plain(&notice));
                continue;
            }
        };
        // The stream is of that organization alone, by whatever its events call it.
        let fits = |(name, value): &(&str, String)| {
            *name == "organization" || operation[*name] == value.as_str()
        };
        if !told.is_new(&operation, output) || !asked.iter().all(fits) {
            continue;
        }
        if output.json {
            output::json(&operation)?;
        } else {
            names.learn_if_well(&operation).await?;
            say!("{}", row(&operation, &names.get(&operation["device"])).join("  "))?;
        }
    }
    Ok(())
}

/// What was printed of each operation: after a gap the server tells of all that it knows.
#[derive(Default)]
struct Told(HashMap<String, u64>);

impl Told {
    /// Whether it would be printed otherwise than the last time.
    fn is_new(&mut self, operation: &Value, output: Output) -> bool {
        let mut hasher = DefaultHasher::new();
        match output.json {
            true => operation.to_string().hash(&mut hasher),
            false => row(operation, "").hash(&mut hasher),
        }
        let now = hasher.finish();
        self.0.insert(cell(&operation["id"]), now) != Some(now)
    }
}

/// `device`: its name.
pub fn row(operation: &Value, device: &str) -> [String; 7] {
    let failure = &operation["failure"];
    [
        cell(&operation["id"]),
        device.to_owned(),
        cell(&operation["status"]),
        cell(&operation["phase"]),
        format!("{:>3}%", cell(&operation["progress_percent"])),
        cell(&operation["attempt"]),
        cell(&failure["kind"]),
    ]
}

/// What came after it was given up, and when.
fn late(result: &Value) -> String {
    if result.is_null() {
        return String::new();
    }
    let outcome = &result["outcome"];
    let why = match show::why(&outcome["failure"]) {
        none if none.is_empty() => none,
        why => format!(": {why}"),
    };
    format!("{}{why}, heard {}", cell(&outcome["result"]), time(&result["received"]))
}

async fn print(client: &Client, operation: &Value) -> anyhow::Result<()> {
    let failure = &operation["failure"];
    let mut names = Names::new(client);
    names.learn_if_well(operation).await?;
    let name = names.get(&operation["device"]);
    let part = |field: &str| cell(&failure[field]);
    let failed = match failure {
        Value::Null => String::new(),
        _ => format!("in {}: {}, modem {}", part("stage"), part("kind"), part("condition")),
    };
    fields([
        ("operation", cell(&operation["id"])),
        ("device", format!("{name} ({})", cell(&operation["device"]))),
        ("slot", cell(&operation["modem"]["slot"])),
        ("image", cell(&operation["image"])),
        ("batch", cell(&operation["batch"])),
        ("status", cell(&operation["status"])),
        ("phase", cell(&operation["phase"])),
        ("progress", format!("{}%", cell(&operation["progress_percent"]))),
        ("attempt", cell(&operation["attempt"])),
        ("failure", failed),
        ("detail", part("detail")),
        ("late result", late(&operation["late_result"])),
        ("retry of", cell(&operation["retry_of"])),
        ("superseded by", cell(&operation["superseded_by"])),
        ("deadline", time(&operation["deadline"])),
        ("created", time(&operation["created"])),
        ("finished", time(&operation["finished"])),
    ])?;
    let log = operation["log"].as_str().unwrap_or_default();
    if !log.is_empty() {
        say!()?;
        table(["LOG"], &log.lines().map(|line| [output::plain(line)]).collect::<Vec<_>>())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_result_says_what_and_when() {
        assert_eq!(late(&Value::Null), "");
        let failure = json!({"kind": "version_mismatch", "condition": "old_version"});
        let received = "2023-11-14T22:13:20.123Z";
        let failed =
            json!({"outcome": {"result": "failed", "failure": failure}, "received": received});
        let told = "failed: version_mismatch, modem old_version, heard 2023-11-14T22:13:20Z";
        assert_eq!(late(&failed), told);
        let good = json!({"outcome": {"result": "succeeded"}, "received": received});
        assert_eq!(late(&good), "succeeded, heard 2023-11-14T22:13:20Z");
    }
}
