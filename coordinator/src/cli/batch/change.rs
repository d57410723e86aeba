//! `batch pause | resume | cancel | retry`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::strategy::Strategy;
use super::{path, show, watch};
use crate::cli::client::Client;
use crate::cli::find::id;
use crate::cli::output::{Output, cell};

#[derive(Debug, Args)]
pub struct Retry {
    /// Id
    #[arg(value_parser = id("batch list"))]
    batch: Uuid,
    #[command(flatten)]
    strategy: Strategy,
    /// Also routers that do not check signatures
    #[arg(long)]
    include_unsigned: bool,
    /// Follow the new one to its end, as `batch watch` does
    #[arg(long)]
    watch: bool,
}

pub async fn run(
    client: &Client,
    batch: Uuid,
    verb: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let answer = client
        .send(Method::POST, &format!("{}{verb}/", path(&batch.to_string())), &json!({}))
        .await?;
    let mut said = cell(&answer["message"]);
    if let Some(cancelled) = answer["cancelled"].as_u64() {
        said.push_str(&format!(" {cancelled} cancelled."));
    }
    if let Some(finish @ 1..) = answer["will_finish"].as_u64() {
        said.push_str(&format!(" {finish} had begun to flash and will finish."));
    }
    output.say(&answer, said)?;
    Ok(ExitCode::SUCCESS)
}

pub async fn retry(client: &Client, arguments: Retry, output: Output) -> anyhow::Result<ExitCode> {
    let failed = arguments.batch.to_string();
    let path = path(&failed);
    let mut body = json!({});
    if arguments.include_unsigned {
        body["include_unsigned"] = json!(true);
    }
    if arguments.strategy.is_given() {
        // The API takes a whole one: the flags change that of the batch that failed.
        let failed = show::state(client, &failed).await?;
        body["strategy"] = arguments.strategy.over(failed["strategy"].clone());
    }
    let answer = client.start(&format!("{path}retry/"), &body).await?;
    let new = answer["batch"].as_str().context("the answer has no batch")?;
    if arguments.watch {
        return watch::follow(client, new, output).await;
    }
    output.say(&answer, format!("batch {new}; `batch watch {new}` follows it"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::scripted::{Scripted, event, good};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        retry: Retry,
    }

    const OLD: &str = "6f9619ff-8b86-4011-b42d-00c04fc964ff";

    #[tokio::test]
    async fn what_is_changed_of_a_batch_is_learned_without_its_operations() {
        let server =
            Scripted::new(|path| match path.trim_start_matches("batch-upgrade-operation/") {
                path if path == format!("{OLD}/events/") => {
                    event("batch", &json!({"id": OLD, "strategy": {"canary": 3}}))
                }
                path if path == format!("{OLD}/retry/") => good(&json!({"batch": "new"})),
                other => panic!("{other} may be of any size"),
            });
        let server = server.await;
        let arguments = Line::parse_from(["x", OLD, "--soak", "1h"]).retry;
        retry(&server.client, arguments, Output { json: true }).await.unwrap();
        assert_eq!(server.asked().len(), 2);
    }
}
