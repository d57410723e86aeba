//! Waiting for what a router and its operation come to: for the condition and never for a time, with a
//! deadline that is the same for all.

use crate::{coordinator::Api, modem::Mode, router::Router};
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longest time for what ends by itself, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a process or a file of this machine.
const LOOK: Duration = Duration::from_millis(20);
/// Between two questions to the coordinator; an operator has a thousand a minute.
const ASK: Duration = Duration::from_millis(300);

/// Looks again and again until `look` finds what it looks for.
///
/// # Errors
/// It finds nothing; `what` says what it was.
pub async fn poll<T>(
    what: &str,
    pace: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(pace).await;
    }
}

/// Waits until `condition` holds on this machine.
///
/// # Errors
/// It does not come true; `what` says what it was.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    found(what, || condition().then_some(())).await
}

/// What `look` finds on this machine, once it does.
///
/// # Errors
/// It finds nothing; `what` says what it was.
pub async fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    poll(what, LOOK, async || look()).await
}

/// The id of the device once it has told the coordinator about its modem.
///
/// # Errors
/// It does not; its log is the error.
pub async fn enrolled(api: &Api, router: &Router) -> anyhow::Result<String> {
    another(api, router, "").await
}

/// The id of a device that is the router and not `known`: what a new key makes of it.
///
/// # Errors
/// It does not enrol; its log is the error.
pub async fn another(api: &Api, router: &Router, known: &str) -> anyhow::Result<String> {
    let ours = poll("enrolled", ASK, async || {
        let devices = devices(api, router).await.unwrap_or_default();
        devices.into_iter().find(|id| id != known)
    });
    ours.await.with_context(|| format!("{}'s log:\n{}", router.name, router.agent_log()))
}

/// Waits until the device's line to the coordinator stands, which may be away meanwhile.
///
/// # Errors
/// It does not come back by itself.
pub async fn online(api: &Api, device: &str) -> anyhow::Result<()> {
    let path = format!("device/{device}/");
    poll("online", ASK, async || (api.get(&path).await.ok()?["online"] == true).then_some(())).await
}

/// Waits until the coordinator knows so many modems of the device by their IMEI.
///
/// # Errors
/// They are not told of.
pub async fn modems(api: &Api, device: &str, count: usize) -> anyhow::Result<()> {
    let path = format!("device/{device}/");
    poll("the device's modems", ASK, async || {
        let device = api.get(&path).await.ok()?;
        let modems = device["modems"].as_array().into_iter().flatten();
        let known = modems.filter(|modem| modem["imei"].as_str().is_some_and(|i| !i.is_empty()));
        (known.count() >= count).then_some(())
    })
    .await
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
    assign_to(api, device, "main", image).await
}

/// As [`assign`], to the modem of a slot.
///
/// # Errors
/// As [`assign`].
pub async fn assign_to(api: &Api, device: &str, slot: &str, image: &str) -> anyhow::Result<String> {
    let path = format!("device/{device}/modem-firmware/?slot={slot}");
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
///
/// # Errors
/// It does not come so far; the error says how far it came.
pub async fn operation(
    api: &Api,
    id: &str,
    condition: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let path = format!("upgrade-operation/{id}/");
    let mut last = Value::Null;
    let found = poll("the operation", ASK, async || {
        last = api.get(&path).await.ok()?;
        condition(&last).then(|| last.clone())
    });
    found.await.with_context(|| format!("{last:#}"))
}

/// The operation once it has ended.
///
/// # Errors
/// It does not end.
pub async fn ended(api: &Api, id: &str) -> anyhow::Result<Value> {
    operation(api, id, has_ended).await
}

#[must_use]
pub fn has_ended(operation: &Value) -> bool {
    !matches!(operation["status"].as_str(), Some("idle" | "in-progress") | None)
}

/// Waits until the modem has taken a part of the firmware.
///
/// # Errors
/// The tool does not come so far.
pub async fn half_flashed(router: &Router) -> anyhow::Result<()> {
    let half = || {
        let state = router.modem.state();
        state.is_ok_and(|state| state.mode == Mode::Download && state.percent >= 40)
    };
    until("half flashed", half).await
}

/// Waits until [`crate::link::Link::cut_after`] has struck.
///
/// # Errors
/// So much does not go to the router.
pub async fn cut(router: &Router) -> anyhow::Result<()> {
    until("the link is cut", || !router.link.is_up()).await
}

/// Everything held is given back and no tool runs; the last of it may be behind the report.
///
/// # Errors
/// Something is still held.
pub async fn given_back(router: &Router) -> anyhow::Result<()> {
    let free = || router.everything_given_back() && router.tool_processes().is_empty();
    let waited = until("everything given back", free).await;
    waited.with_context(|| format!("holders were called: {:?}", router.holder_calls()))
}
