//! `batch watch`: follows a batch to its end, or to where only a person can go on.
//!
//! The batch's own state comes as live events. Which modems are in flight and which failed is asked
//! for beside it, a page at a time: a batch may have a hundred thousand of them.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::live::View;
use super::{path, show};
use crate::cli::client::{Client, Query};
use crate::cli::events::{Heard, Watch};
use crate::cli::failure::success;
use crate::cli::output::{Output, cell};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Id
    batch: String,
}

const FRAME: Duration = Duration::from_secs(1);
/// Modems in flight that are shown.
const SHOWN: usize = 10;
/// Failures of a status that are told one by one, a look: the newest.
const FAILURES: usize = 100;

pub async fn run(
    client: &Client,
    arguments: Arguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    follow(client, &arguments.batch, output).await
}

/// The exit status is 0 only if every modem succeeded.
pub async fn follow(client: &Client, id: &str, output: Output) -> anyhow::Result<ExitCode> {
    let mut states = listen(client, id).await?;
    let mut view = View::new(output)?;
    let mut around = Around::new(client, id);
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Value::Null;
    while !is_over(&batch) {
        tokio::select! {
            heard = states.recv() => match heard.unwrap_or_else(lost)?.state() {
                Ok(state) => batch = state,
                Err(notice) => {
                    view.notice(&notice);
                    continue;
                }
            },
            _ = frames.tick(), if !batch.is_null() && !output.json => {}
        }
        if !output.json {
            around.look(&batch, &mut view).await;
        }
        view.batch(&batch);
    }
    view.end();
    if !output.json {
        println!();
        show::print(client, &batch).await?;
    }
    Ok(success(batch["status"] == "success"))
}

/// The batch's states as they come; after an error no more.
async fn listen(
    client: &Client,
    id: &str,
) -> anyhow::Result<mpsc::Receiver<anyhow::Result<Heard>>> {
    let mut watch = Watch::start(client, format!("{}events/", path(id)), "batch").await?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let heard = watch.next().await;
            let broken = heard.is_err();
            if sender.send(heard).await.is_err() || broken {
                return;
            }
        }
    });
    Ok(receiver)
}

fn lost() -> anyhow::Result<Heard> {
    bail!("nobody listens to the server any more")
}

/// Finished; or paused, and every flash that had begun has ended.
fn is_over(batch: &Value) -> bool {
    match batch["phase"].as_str() {
        Some("finished") => true,
        Some("paused") => batch["tally"]["granted"] == 0,
        _ => false,
    }
}

/// What is asked for beside the batch.
struct Around<'a> {
    client: &'a Client,
    batch: String,
    names: HashMap<String, String>,
    told: HashSet<String>,
    /// Failed and aborted ones that were told of, or counted.
    known: HashMap<&'static str, u64>,
}

/// A modem under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    pub operation: String,
    pub device: String,
    pub percent: u64,
    pub doing: String,
}

impl<'a> Around<'a> {
    fn new(client: &'a Client, batch: &str) -> Self {
        let (names, told, known) = (HashMap::new(), HashSet::new(), HashMap::new());
        Self { client, batch: batch.to_owned(), names, told, known }
    }

    /// Shows what is new. A server that does not answer now is asked again; whether it is gone, the
    /// events tell.
    async fn look(&mut self, batch: &Value, view: &mut View) {
        if let Ok(lines) = self.troubles(batch).await {
            view.troubles(&lines);
        }
        if view.shows_flights()
            && let Ok(flights) = self.flights(batch).await
        {
            view.flights(&flights);
        }
    }

    /// Some of the modems under way, those heard of last.
    async fn flights(&mut self, batch: &Value) -> anyhow::Result<Vec<Flight>> {
        if batch["tally"]["in_progress"] == 0 {
            return Ok(Vec::new());
        }
        let mut flights = Vec::new();
        for operation in self.operations("in-progress", SHOWN).await? {
            let stalled = if operation["stalled"] == true { ", the tool is silent" } else { "" };
            flights.push(Flight {
                operation: cell(&operation["id"]),
                device: self.name(&operation["device"]).await?,
                percent: operation["progress_percent"].as_u64().unwrap_or(0),
                doing: format!("{}{stalled}", cell(&operation["phase"])),
            });
        }
        flights.sort_by(|a, b| a.operation.cmp(&b.operation));
        Ok(flights)
    }

    /// What has failed since the last look: a line each, and how many more.
    async fn troubles(&mut self, batch: &Value) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for status in ["failed", "aborted"] {
            lines.extend(self.troubles_of(status, &batch["tally"][status]).await?);
        }
        Ok(lines)
    }

    async fn troubles_of(
        &mut self,
        status: &'static str,
        all: &Value,
    ) -> anyhow::Result<Vec<String>> {
        let (known, all) = (self.known.get(status).copied(), all.as_u64().unwrap_or(0));
        let known = known.unwrap_or(0);
        if all <= known {
            return Ok(Vec::new());
        }
        let (mut ids, mut lines) = (Vec::new(), Vec::new());
        for operation in self.operations(status, FAILURES).await? {
            let id = cell(&operation["id"]);
            if !self.told.contains(&id) {
                let device = self.name(&operation["device"]).await?;
                lines.push(format!("{device} {status}: {}", show::why(&operation["failure"])));
                ids.push(id);
            }
        }
        let now = known + lines.len() as u64;
        if let more @ 1.. = all.saturating_sub(now) {
            let list = format!("operations --batch {} --status {status}", self.batch);
            lines.push(format!("and {more} more {status}: {list}"));
        }
        self.told.extend(ids);
        self.known.insert(status, now.max(all));
        Ok(lines)
    }

    /// Those that changed last. One that is throttled is left for the next look: nobody waits for it.
    async fn operations(&self, status: &str, most: usize) -> anyhow::Result<Vec<Value>> {
        let query: Query = vec![
            ("batch", self.batch.clone()),
            ("status", status.to_owned()),
            ("ordering", "-modified".to_owned()),
            ("page_size", most.to_string()),
        ];
        let mut listing = self.client.get("upgrade-operation/", &query).await?;
        match listing["results"].take() {
            Value::Array(operations) => Ok(operations),
            _ => Ok(Vec::new()),
        }
    }

    /// A device's name, asked for once.
    async fn name(&mut self, id: &Value) -> anyhow::Result<String> {
        let id = cell(id);
        if let Some(name) = self.names.get(&id) {
            return Ok(name.clone());
        }
        let device = self.client.get(&format!("device/{id}/"), &[]).await?;
        let name = cell(&device["name"]);
        self.names.insert(id, name.clone());
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::json;

    use super::*;
    use crate::cli::scripted::{Scripted, good};

    #[tokio::test]
    async fn failures_beyond_a_page_are_counted_and_none_is_told_twice() {
        let newest = Arc::new(AtomicU64::new(250));
        let last = newest.clone();
        let server = Scripted::new(move |path| {
            if path.starts_with("device/") {
                return good(&json!({"name": "van"}));
            }
            let newest = last.load(Ordering::Relaxed);
            let operation = |n| json!({"id": format!("{n}"), "device": "d", "failure": null});
            let page: Vec<_> = (newest - 100..newest).rev().map(operation).collect();
            good(&json!({"results": page, "next": "more"}))
        });
        let server = server.await;
        let mut around = Around::new(&server.client, "b");
        let batch = |aborted: u64| json!({"tally": {"failed": 0, "aborted": aborted}});
        let lines = around.troubles(&batch(250)).await.unwrap();
        assert_eq!(lines.len(), 101);
        assert_eq!(lines[0], "van aborted: ");
        assert_eq!(lines[100], "and 150 more aborted: operations --batch b --status aborted");
        assert!(around.troubles(&batch(250)).await.unwrap().is_empty());
        // The list is ahead of the count.
        newest.store(252, Ordering::Relaxed);
        assert_eq!(around.troubles(&batch(251)).await.unwrap().len(), 2);
        assert!(around.troubles(&batch(252)).await.unwrap().is_empty());
    }

    #[test]
    fn it_is_over_when_only_a_person_can_go_on() {
        let batch = |phase: &str, granted: u64| {
            is_over(&json!({ "phase": phase, "tally": { "granted": granted } }))
        };
        assert!(batch("finished", 0));
        assert!(batch("paused", 0));
        assert!(!batch("paused", 1), "what is granted finishes");
        assert!(!batch("wave", 0));
        assert!(!is_over(&Value::Null));
    }
}
