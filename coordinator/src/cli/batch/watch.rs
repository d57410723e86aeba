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
use uuid::Uuid;

use super::live::View;
use super::{path, show};
use crate::cli::client::{Client, Query};
use crate::cli::events::{Heard, Watch};
use crate::cli::failure::success;
use crate::cli::find::id;
use crate::cli::names::Names;
use crate::cli::output::{Output, cell, say};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Id
    #[arg(value_parser = id("batch list"))]
    batch: Uuid,
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
    follow(client, &arguments.batch.to_string(), output).await
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
            around.look(&batch, &mut view).await?;
        }
        view.batch(&batch)?;
    }
    view.end();
    if !output.json {
        say!()?;
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
    names: Names<'a>,
    told: HashSet<String>,
    /// By status.
    known: HashMap<&'static str, Known>,
}

/// Failed or aborted ones.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// That were told of, or counted.
    all: u64,
    /// That were only counted.
    counted: u64,
}

/// What is new of them.
struct News {
    lines: Vec<String>,
    ids: Vec<String>,
    known: Known,
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
        let (names, told, known) = (Names::new(client), HashSet::new(), HashMap::new());
        Self { client, batch: batch.to_owned(), names, told, known }
    }

    /// Shows what is new. A server that does not answer now is asked again; whether it is gone, the
    /// events tell.
    async fn look(&mut self, batch: &Value, view: &mut View) -> anyhow::Result<()> {
        if let Ok(lines) = self.troubles(batch).await {
            view.troubles(&lines)?;
        }
        if view.shows_flights()
            && let Ok(flights) = self.flights(batch).await
        {
            view.flights(&flights);
        }
        Ok(())
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
                device: self.names.of(&operation["device"]).await?,
                percent: operation["progress_percent"].as_u64().unwrap_or(0),
                doing: format!("{}{stalled}", cell(&operation["phase"])),
            });
        }
        flights.sort_by(|a, b| a.operation.cmp(&b.operation));
        Ok(flights)
    }

    /// What has failed since the last look: a line each, and how many more.
    async fn troubles(&mut self, batch: &Value) -> anyhow::Result<Vec<String>> {
        let (mut lines, mut told, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for status in ["failed", "aborted"] {
            let all = batch["tally"][status].as_u64().unwrap_or(0);
            let new = self.troubles_of(status, all).await?;
            lines.extend(new.lines);
            told.extend(new.ids);
            known.push((status, new.known));
        }
        // What could not be asked for is asked for again, all of it.
        self.told.extend(told);
        self.known.extend(known);
        Ok(lines)
    }

    async fn troubles_of(&mut self, status: &'static str, all: u64) -> anyhow::Result<News> {
        let known = self.known.get(status).copied().unwrap_or_default();
        let mut new = News { lines: Vec::new(), ids: Vec::new(), known };
        if all <= known.all {
            return Ok(new);
        }
        for operation in self.operations(status, FAILURES).await? {
            let id = cell(&operation["id"]);
            if self.told.contains(&id) {
                continue;
            }
            let device = self.names.of(&operation["device"]).await?;
            new.lines.push(format!("{device} {status}: {}", show::why(&operation["failure"])));
            new.ids.push(id);
            // A late word brings an older one to the front again, which was counted.
            if !operation["late_result"].is_null() && new.known.counted > 0 {
                new.known.counted -= 1;
            } else {
                new.known.all += 1;
            }
        }
        if let more @ 1.. = all.saturating_sub(new.known.all) {
            let list = format!("operations --batch {} --status {status}", self.batch);
            new.lines.push(format!("and {more} more {status}: {list}"));
            new.known = Known { all, counted: new.known.counted + more };
        }
        Ok(new)
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::json;

    use super::*;
    use crate::cli::scripted::{Scripted, good, throttled};

    #[tokio::test]
    async fn failures_beyond_a_page_are_counted_and_none_is_told_twice() {
        let newest = Arc::new(AtomicU64::new(250));
        let late = Arc::new(AtomicU64::new(0));
        let (last, told_late) = (newest.clone(), late.clone());
        let server = Scripted::new(move |path| {
            if path.starts_with("device/") {
                return good(&json!({"name": "van"}));
            }
            let newest = last.load(Ordering::Relaxed);
            let operation = |n| json!({"id": format!("{n}"), "device": "d", "failure": null});
            let mut page: Vec<_> = (newest - 100..newest).rev().map(operation).collect();
            if let old @ 1.. = told_late.load(Ordering::Relaxed) {
                page[99] = json!({"id": format!("{old}"), "device": "d", "failure": null,
                    "late_result": "succeeded"});
            }
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
        // Who was only counted says something late, and is no new one.
        late.store(7, Ordering::Relaxed);
        newest.store(253, Ordering::Relaxed);
        assert_eq!(around.troubles(&batch(253)).await.unwrap().len(), 2);
        newest.store(254, Ordering::Relaxed);
        assert_eq!(around.troubles(&batch(254)).await.unwrap(), ["van aborted: "]);
    }

    #[tokio::test]
    async fn what_could_not_be_asked_for_is_told_at_the_next_look() {
        let broken = Arc::new(AtomicU64::new(1));
        let state = broken.clone();
        let server = Scripted::new(move |path| {
            if path.contains("status=aborted") && state.load(Ordering::Relaxed) == 1 {
                return throttled();
            }
            let status = if path.contains("status=failed") { "f" } else { "a" };
            match path.starts_with("device/") {
                true => good(&json!({"name": "van"})),
                false => {
                    let one = json!({"id": status, "device": "d", "failure": null});
                    good(&json!({"results": [one], "next": null}))
                }
            }
        });
        let server = server.await;
        let mut around = Around::new(&server.client, "b");
        let batch = json!({"tally": {"failed": 1, "aborted": 1}});
        around.troubles(&batch).await.unwrap_err();
        broken.store(0, Ordering::Relaxed);
        assert_eq!(around.troubles(&batch).await.unwrap(), ["van failed: ", "van aborted: "]);
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
