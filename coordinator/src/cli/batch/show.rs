//! `batch show`, and what it says at the end of `batch watch`.

use std::process::ExitCode;

use serde_json::Value;

use super::list::build;
use super::path;
use super::strategy::in_words as strategy;
use crate::cli::client::{Client, Query};
use crate::cli::events::Watch;
use crate::cli::names::Names;
use crate::cli::output::{Output, cell, fields, say, table, time};

/// Troubles that are listed, and modems that were left out; `operations --batch` and `--json` have the rest.
const MOST: usize = 20;

pub async fn run(client: &Client, id: &str, output: Output) -> anyhow::Result<ExitCode> {
    if output.json {
        client.print(&path(id)).await?;
    } else {
        print(client, &state(client, id).await?).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A batch without its operations, of which there may be a hundred thousand: its live events begin
/// with that.
pub async fn state(client: &Client, id: &str) -> anyhow::Result<Value> {
    let mut watch = Watch::start(client, format!("{}events/", path(id)), "batch").await?;
    loop {
        if let Ok(state) = watch.next().await?.state() {
            return Ok(state);
        }
    }
}

/// A batch with its waves, the modems that had trouble, and what to do next.
pub async fn print(client: &Client, batch: &Value) -> anyhow::Result<()> {
    let id = cell(&batch["id"]);
    fields([
        ("batch", id.clone()),
        ("build", build(batch)),
        ("status", format!("{} ({})", cell(&batch["status"]), phase(batch))),
        ("stopped", cell(&batch["paused_reason"])),
        ("modems", tally(&batch["tally"])),
        ("strategy", strategy(&batch["strategy"])),
        ("starts", time(&batch["strategy"]["start_at"])),
        ("expires", time(&batch["strategy"]["expires_at"])),
        ("created", time(&batch["created"])),
    ])?;
    let waves: &[Value] = batch["waves"].as_array().map_or(&[], Vec::as_slice);
    if !waves.is_empty() {
        say!()?;
        let rows: Vec<_> = waves.iter().map(wave).collect();
        let heading = ["WAVE", "MODEMS", "DONE", "SUCCESS", "FAILED", "ABORTED", "OPENED"];
        table(heading, &rows)?;
    }
    let awaited: Vec<_> = batch["awaited"].as_array().into_iter().flatten().map(awaited).collect();
    if !awaited.is_empty() {
        say!()?;
        table(["WAITS FOR", "OPERATION", "WHY"], &awaited)?;
    }
    let troubles = troubles(client, &id).await?;
    if !troubles.is_empty() {
        say!()?;
        table(["DEVICE", "STATUS", "WHY"], &troubles)?;
    }
    let left_out = left_out(client, &id, &batch["tally"]).await?;
    if !left_out.is_empty() {
        say!()?;
        table(["LEFT OUT", "SLOT", "WHY"], &left_out)?;
    }
    if let Some(next) = next(batch) {
        say!("\n{next}")?;
    }
    Ok(())
}

/// `20 success, 4 in progress of 24 (1 dark); 2 left out`, without zeroes; who is silent is one of those in
/// progress, and who was left out is none of them.
pub fn tally(tally: &Value) -> String {
    let part = |word: &&str| {
        let count = tally[*word].as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {}", word.replace('_', " ")))
    };
    let parts = |words: &[&str]| words.iter().filter_map(part).collect::<Vec<_>>().join(", ");
    let all = parts(&["success", "failed", "aborted", "cancelled", "in_progress", "idle"]);
    let silent = match parts(&["dark", "suspect", "overdue", "stalled"]) {
        none if none.is_empty() => none,
        silent => format!(" ({silent})"),
    };
    let left_out = match parts(&["left_out"]) {
        none if none.is_empty() => none,
        some => format!("; {some}"),
    };
    format!("{all} of {}{silent}{left_out}", cell(&tally["total"]))
}

fn wave(wave: &Value) -> [String; 7] {
    let [size, done, success, failed, aborted] =
        ["size", "done", "success", "failed", "aborted"].map(|field| cell(&wave[field]));
    let opened = match &wave["opened"] {
        Value::Null => "not yet".to_owned(),
        at => time(at),
    };
    [name(&wave["n"]), size, done, success, failed, aborted, opened]
}

fn awaited(member: &Value) -> [String; 3] {
    ["name", "operation", "why"].map(|field| cell(&member[field]))
}

/// The wave with this number.
pub fn name(wave: &Value) -> String {
    match wave.as_u64() {
        Some(0) => "canary".to_owned(),
        _ => format!("wave {}", cell(wave)),
    }
}

/// What the batch is doing.
pub fn phase(batch: &Value) -> String {
    match batch["phase"].as_str() {
        Some("wave") => name(&batch["wave"]),
        Some("soaking") => format!("soaking after {}", name(&batch["wave"])),
        _ => cell(&batch["phase"]),
    }
}

async fn troubles(client: &Client, batch: &str) -> anyhow::Result<Vec<[String; 3]>> {
    let (mut rows, mut names) = (Vec::new(), Names::new(client));
    for status in ["failed", "aborted"] {
        let query: Query = vec![("batch", batch.to_owned()), ("status", status.to_owned())];
        let operations = client.first("upgrade-operation/", &query, MOST - rows.len()).await?;
        names.learn(&operations).await?;
        rows.extend(operations.iter().map(|one| trouble(one, names.get(&one["device"]))));
        if rows.len() >= MOST {
            break;
        }
    }
    Ok(rows)
}

fn trouble(operation: &Value, device: String) -> [String; 3] {
    [device, cell(&operation["status"]), why(&operation["failure"])]
}

async fn left_out(client: &Client, batch: &str, tally: &Value) -> anyhow::Result<Vec<[String; 3]>> {
    let all = tally["left_out"].as_u64().unwrap_or(0);
    if all == 0 {
        return Ok(Vec::new());
    }
    let some = client.first(&format!("{}left-out/", path(batch)), &[], MOST).await?;
    let row = |modem: &Value| ["name", "slot", "detail"].map(|field| cell(&modem[field]));
    let mut rows: Vec<_> = some.iter().map(row).collect();
    let more = all.saturating_sub(rows.len() as u64);
    if more > 0 {
        rows.push([format!("and {more} more"), String::new(), String::new()]);
    }
    Ok(rows)
}

/// A failure in few words.
pub fn why(failure: &Value) -> String {
    match failure {
        Value::Null => String::new(),
        failure => format!("{}, modem {}", cell(&failure["kind"]), cell(&failure["condition"])),
    }
}

/// What an operator can do now.
pub fn next(batch: &Value) -> Option<String> {
    let id = cell(&batch["id"]);
    let count = |field: &str| batch["tally"][field].as_u64().unwrap_or(0);
    let troubled = count("failed") + count("aborted") > 0;
    match batch["phase"].as_str()? {
        "paused" => {
            let look = match troubled {
                true => format!("Look at what failed: operations --batch {id} --status failed\n"),
                false => String::new(),
            };
            Some(format!("{look}Go on with: batch resume {id}\nEnd it with: batch cancel {id}"))
        }
        "finished" if troubled => Some(format!(
            "Once the cause is known, what failed can be tried again: batch retry {id}"
        )),
        _ if count("overdue") > 0 => Some(
            "Overdue modems were to be back long ago: see that their routers have power, and \
             look at them before more are flashed."
                .to_owned(),
        ),
        _ if count("stalled") > 0 => Some(format!(
            "Stalled modems had an attempt that failed, and nothing is heard of them: see that their routers \
             have power. They are in: operations --batch {id} --status in-progress"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::scripted::{Scripted, good};

    #[test]
    fn a_tally_says_what_there_is() {
        let counts = json!({ "total": 24, "success": 20, "failed": 1, "in_progress": 3, "idle": 0, "suspect": 2 });
        assert_eq!(tally(&counts), "20 success, 1 failed, 3 in progress of 24 (2 suspect)");
        let counts = json!({ "total": 2, "success": 2, "left_out": 1 });
        assert_eq!(tally(&counts), "2 success of 2; 1 left out");
    }

    #[tokio::test]
    async fn who_was_left_out_is_told_up_to_some() {
        let server = Scripted::new(|path| {
            assert!(path.starts_with("batch-upgrade-operation/b/left-out/?"), "{path}");
            let modem = |n: usize| json!({ "name": format!("van {n}"), "slot": "main", "reason": "deactivated", "detail": "The device is deactivated." });
            let all: Vec<_> = (0..MOST).map(modem).collect();
            good(&json!({ "count": MOST + 3, "next": "more", "results": all }))
        });
        let server = server.await;
        let rows = left_out(&server.client, "b", &json!({ "left_out": MOST + 3 })).await.unwrap();
        assert_eq!(rows.len(), MOST + 1);
        assert_eq!(rows[0], ["van 0", "main", "The device is deactivated."]);
        assert_eq!(rows[MOST][0], "and 3 more");
        assert!(left_out(&server.client, "b", &json!({ "left_out": 0 })).await.unwrap().is_empty());
        assert_eq!(server.asked().len(), 1);
    }

    #[test]
    fn a_paused_batch_says_how_to_go_on() {
        let batch = |phase: &str, failed: u64| json!({ "id": "b", "phase": phase, "tally": { "failed": failed } });
        let failed = next(&batch("paused", 1)).unwrap();
        assert!(failed.contains("--status failed") && failed.contains("batch resume b"));
        assert!(!next(&batch("paused", 0)).unwrap().contains("failed"));
        assert!(next(&batch("finished", 1)).unwrap().contains("batch retry b"));
        assert_eq!(next(&batch("finished", 0)), None);
        assert_eq!(next(&batch("wave", 0)), None);
    }
}
