//! `upgrade`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Map, Value, json};
use shared::ids::Slot;
use uuid::Uuid;

use super::client::Client;
use super::events::Watch;
use super::failure::success;
use super::find::{self, id};
use super::output::{self, Output, cell, note, say};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The device: its id or name
    #[arg(long)]
    device: String,
    /// The firmware image; `upload` prints its id
    #[arg(long, value_name = "ID", value_parser = id("images"))]
    image: Uuid,
    /// Which of several modems
    #[arg(long)]
    slot: Option<Slot>,
    /// An option of the upgrade tool
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, Value)>,
    /// Follow the upgrade; the exit status is 0 only for a success
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    output: Output,
}

/// `speed=115200`, `debug=true`: numbers and booleans as such, the rest as words.
pub fn option(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = match value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        number => number.parse::<u64>().map_or_else(|_| json!(number), |number| json!(number)),
    };
    Ok((name.to_owned(), value))
}

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let device = find::device(client, &arguments.device).await?;
    let mut path = format!("device/{device}/modem-firmware/");
    if let Some(slot) = &arguments.slot {
        path = format!("{path}?slot={slot}");
    }
    let options: Map<String, Value> = arguments.options.iter().cloned().collect();
    let body = json!({ "image": arguments.image, "upgrade_options": options });
    let firmware = client.send(Method::PUT, &path, &body).await?;
    let Some(operation) = firmware["upgrade_operation"]["id"].as_str() else {
        arguments.output.say(&firmware, "This image is installed already: nothing to do.")?;
        return Ok(ExitCode::SUCCESS);
    };
    if !arguments.watch {
        let said = format!("Upgrade operation {operation} is requested.");
        arguments.output.say(&firmware, said)?;
        return Ok(ExitCode::SUCCESS);
    }
    follow(client, operation, arguments.output).await
}

/// Follows an operation to its end. The exit status is 0 only for a success.
pub async fn follow(client: &Client, operation: &str, output: Output) -> anyhow::Result<ExitCode> {
    let last = until_end(client, operation, output.json).await?;
    if !output.json {
        say!("{}", result(&last))?;
    }
    Ok(success(last["status"] == "success"))
}

/// Shows every change until the operation has ended; answers with its last state.
async fn until_end(client: &Client, operation: &str, json: bool) -> anyhow::Result<Value> {
    let style = "{prefix} [{bar:40}] {pos:>3}%  {elapsed}  {wide_msg}";
    let style = ProgressStyle::with_template(style).context("the progress bar's template")?;
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(100) };
    bar.set_style(style.progress_chars("#>-"));
    bar.set_prefix(operation.get(..8).unwrap_or(operation).to_owned());
    let path = format!("upgrade-operation/{operation}/events/");
    let mut watch = Watch::start(client, path, "operation").await?;
    loop {
        let state = match watch.next().await?.state() {
            Ok(state) => state,
            Err(notice) => {
                bar.suspend(|| note!("{}", output::plain(&notice)));
                continue;
            }
        };
        if json {
            output::json(&state)?;
        }
        bar.set_position(state["progress_percent"].as_u64().unwrap_or(0));
        bar.set_message(doing(&state));
        let status = state["status"].as_str().unwrap_or_default();
        if !matches!(status, "idle" | "in-progress") {
            bar.finish_and_clear();
            return Ok(state);
        }
    }
}

fn doing(state: &Value) -> String {
    let phase = match &state["phase"] {
        Value::Null => "waits for the device".to_owned(),
        phase => cell(phase),
    };
    let attempt = match state["attempt"].as_u64() {
        Some(attempt @ 2..) => format!(" (attempt {attempt})"),
        _ => String::new(),
    };
    let stalled = if state["stalled"] == true { ", the tool is silent" } else { "" };
    format!("{phase}{attempt}{stalled}  {}", cell(&state["detail"]))
}

fn result(last: &Value) -> String {
    let failure = &last["failure"];
    let mut text = format!("{}: {}", cell(&last["id"]), cell(&last["status"]));
    if !failure.is_null() {
        let part = |field: &str| cell(&failure[field]);
        let (stage, kind, condition) = (part("stage"), part("kind"), part("condition"));
        text.push_str(&format!(" in {stage}: {kind}, modem {condition}\n{}", part("detail")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_their_type() {
        assert_eq!(option("debug=true"), Ok(("debug".into(), json!(true))));
        assert_eq!(option("n=17"), Ok(("n".into(), json!(17))));
        assert_eq!(option("word=a=b"), Ok(("word".into(), json!("a=b"))));
        assert!(option("word").is_err());
    }
}
