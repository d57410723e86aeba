//! Waiting for what a router and its operation come to. Nothing here has a deadline but
//! [`until`]: how long is worth waiting is the caller's to say.

use crate::{coordinator::Api, modem::Mode, router::Router};
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two looks at a process or a file of this machine.
const LOOK: Duration = Duration::from_millis(20);
/// Between two questions to the coordinator; an operator has a thousand a minute.
const ASK: Duration = Duration::from_millis(300);

/// Waits until `condition` holds, and fails with `what` after `patience`.
///
/// # Errors
/// It did not come true.
pub async fn until(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", patience.as_secs());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// The id of the device once it has told the coordinator about its modem.
///
/// # Errors
/// It does not within a minute; its log is the error.
pub async fn enrolled(api: &Api, router: &Router) -> anyhow::Result<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(id) = devices(api, router).await?.into_iter().next() {
            return Ok(id);
        }
        sleep(ASK).await;
    }
    bail!("{} did not enrol within a minute; its log:\n{}", router.name, router.agent_log())
}

/// Devices that call themselves as the router and have its modem, the newest first.
///
/// # Errors
/// The coordinator does not answer.
pub async fn devices(api: &Api, router: &Router) -> anyhow::Result<Vec<String>> {
    let devices = api.get("device/?page_size=100").await?;
    let ours = devices["results"].as_array().into_iter().flatten().filter(|device| {
        let modems = device["modems"].as_array().into_iter().flatten();
        device["name"] == router.name.as_str()
            && modems.into_iter().any(|m| m["imei"] == router.imei.as_str())
    });
    Ok(ours.filter_map(|device| device["id"].as_str().map(str::to_owned)).collect())
}

/// Gives the device's modem an image; the id of the operation that follows.
///
/// # Errors
/// The coordinator refuses, or starts nothing.
pub async fn assign(api: &Api, device: &str, image: &str) -> anyhow::Result<String> {
    let path = format!("device/{device}/modem-firmware/");
    let answer = api.send(Method::PUT, &path, &json!({ "image": image })).await?;
    let operation = answer["upgrade_operation"]["id"].as_str();
    Ok(operation.with_context(|| format!("no upgrade was started: {answer}"))?.to_owned())
}

/// # Errors
/// The coordinator does not answer.
pub async fn cancel(api: &Api, operation: &str) -> anyhow::Result<(u16, Value)> {
    api.call(Method::POST, &format!("upgrade-operation/{operation}/cancel/"), None).await
}

/// The operation once `condition` holds for it. The coordinator may be away meanwhile.
pub async fn operation(api: &Api, operation: &str, condition: impl Fn(&Value) -> bool) -> Value {
    loop {
        if let Ok(value) = api.get(&format!("upgrade-operation/{operation}/")).await
            && condition(&value)
        {
            return value;
        }
        sleep(ASK).await;
    }
}

/// The operation once it has ended.
pub async fn ended(api: &Api, id: &str) -> Value {
    operation(api, id, has_ended).await
}

#[must_use]
pub fn has_ended(operation: &Value) -> bool {
    !matches!(operation["status"].as_str(), Some("idle" | "in-progress") | None)
}

/// Waits until the modem has taken a part of the firmware.
///
/// # Errors
/// The modem's thread has stopped.
pub async fn half_flashed(router: &Router) -> anyhow::Result<()> {
    loop {
        let state = router.modem.state()?;
        if state.mode == Mode::Download && state.percent >= 40 {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Everything held is given back and no tool runs; the last of it may be behind the report.
///
/// # Errors
/// Something is still held after ten seconds.
pub async fn given_back(router: &Router) -> anyhow::Result<()> {
    let free = || router.everything_given_back() && router.tool_processes().is_empty();
    let waited = until("everything given back", Duration::from_secs(10), free).await;
    waited.with_context(|| format!("holders were called: {:?}", router.holder_calls()))
}
