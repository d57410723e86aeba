//! Live progress while it runs, and the table at the end.

use super::{Run, scenario::Verdict};
use crate::coordinator::Api;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Between two looks; an operator has a thousand requests a minute.
const FRAME: Duration = Duration::from_millis(400);

/// Progress bars, one a router, fed by the coordinator's own answers.
pub struct Show {
    api: Api,
    watched: Vec<Watched>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Watched {
    operation: String,
    scenario: &'static str,
    bar: ProgressBar,
}

impl Show {
    pub fn start(api: &Api, runs: &[Run]) -> Self {
        let multi = MultiProgress::new();
        // The template is fixed and right; the fallback only looks plainer.
        let style = ProgressStyle::with_template("{prefix:10} {bar:30} {pos:>3}%  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let watched: Vec<_> = runs
            .iter()
            .map(|run| {
                let bar = multi.add(ProgressBar::new(100)).with_style(style.clone());
                bar.set_prefix(run.router.name.clone());
                let scenario = run.scenario.name();
                Watched { operation: run.operation.clone(), scenario, bar }
            })
            .collect();
        let task = tokio::spawn(follow(api.clone(), watched.clone()));
        Self { api: api.clone(), watched, task }
    }

    /// Leaves the bars where things ended.
    pub async fn end(self) {
        self.task.abort();
        look(&self.api, &self.watched).await;
        self.watched.iter().for_each(|watched| watched.bar.abandon());
    }
}

async fn follow(api: Api, watched: Vec<Watched>) {
    let mut frames = tokio::time::interval(FRAME);
    loop {
        frames.tick().await;
        look(&api, &watched).await;
    }
}

/// A bar that cannot be asked for stays as it is.
async fn look(api: &Api, watched: &[Watched]) {
    let listed = api.get("upgrade-operation/?page_size=100").await.unwrap_or_default();
    for value in listed["results"].as_array().into_iter().flatten() {
        let id = value["id"].as_str().unwrap_or_default();
        if let Some(watched) = watched.iter().find(|watched| watched.operation == id) {
            paint(&watched.bar, watched.scenario, value);
        }
    }
}

fn paint(bar: &ProgressBar, scenario: &str, operation: &Value) {
    bar.set_position(operation["progress_percent"].as_u64().unwrap_or(0));
    let word = match operation["status"].as_str() {
        Some("in-progress") => operation["phase"].as_str().unwrap_or("in-progress"),
        Some(status) => status,
        None => "?",
    };
    bar.set_message(format!("{word:12} ({scenario})"));
}

/// Prints how it ended for each; whether all ended as they should.
pub async fn table(api: &Api, runs: &[Run], verdicts: &[Verdict]) -> anyhow::Result<bool> {
    println!();
    println!(
        "{:10} {:28} {:10} {:10} {:11} {:>8} {:>11}  result",
        "device", "meets", "from", "to", "stage", "attempts", "fetched"
    );
    let mut all = true;
    for (run, verdict) in runs.iter().zip(verdicts) {
        let operation = api.get(&format!("upgrade-operation/{}/", run.operation)).await?;
        let runs_now = run.router.modem.versions()?.package;
        let from = if run.scenario.model() == crate::firmware::Model::Fn990a28 {
            super::FROM.to_owned()
        } else {
            run.scenario.model().package(2)
        };
        println!(
            "{:10} {:28} {:10} {:10} {:11} {:>8} {:>7} KiB  {}",
            run.router.name,
            run.scenario.name(),
            from,
            runs_now,
            word(&operation["stage"]),
            operation["attempt"].as_u64().unwrap_or(0),
            run.router.link.bytes_down() / 1024,
            result(&operation),
        );
        if let Err(reason) = verdict {
            all = false;
            println!("           ^ NOT AS EXPECTED: {reason}");
        }
    }
    println!();
    Ok(all)
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn result(operation: &Value) -> String {
    let failure = &operation["failure"];
    let status = word(&operation["status"]);
    if failure.is_null() {
        status
    } else {
        format!("{status}: {}, modem {}", word(&failure["kind"]), word(&failure["condition"]))
    }
}
