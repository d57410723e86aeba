//! For whoever watches the coordinator: is it alive, can it work, how much does it have to do.

use std::fmt::Write;
use std::time::{Duration, Instant};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use tokio::sync::Mutex;

use super::{App, error::Answer};
use crate::store::census::Census;
use crate::store::{Store, StoreError};

/// Anybody may ask, and counting reads whole tables.
const FRESH: Duration = Duration::from_secs(10);

/// The last census, and when it was.
#[derive(Debug, Default)]
pub struct LastCensus(Mutex<Option<(Instant, Census)>>);

impl LastCensus {
    /// At most 10 s old; those who ask while one is taken wait for it.
    async fn get(&self, store: &Store) -> Result<Census, StoreError> {
        let mut last = self.0.lock().await;
        if let Some((_, census)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(census.clone());
        }
        let census = store.census().await?;
        *last = Some((Instant::now(), census.clone()));
        Ok(census)
    }
}

/// The process answers.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// The database can be written, and there is room for the next upload's first bytes.
pub async fn ready(State(app): State<App>) -> Response {
    let problem = match app.store.check().await {
        Err(error) => Some(error.to_string()),
        Ok(()) => app.artifacts.check_room().err().map(|error| error.to_string()),
    };
    match problem {
        None => "ready\n".into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

/// Prometheus's text format, counts only.
pub async fn metrics(State(app): State<App>) -> Answer {
    let census = app.census.get(&app.store).await?;
    let connected = u64::try_from(app.registry.connected()).unwrap_or(u64::MAX);
    let dashboards = u64::try_from(app.registry.dashboards()).unwrap_or(u64::MAX);
    let mut text = String::new();
    gauge(&mut text, "devices_connected", &[("", connected)]);
    gauge(&mut text, "dashboards_connected", &[("", dashboards)]);
    gauge(&mut text, "devices", &labelled("state", &census.devices));
    gauge(&mut text, "operations", &labelled("status", &census.operations));
    gauge(&mut text, "dead_letters", &[("", census.dead_letters)]);
    gauge(&mut text, "artifacts_bytes", &[("", app.artifacts.used())]);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

fn labelled(label: &str, counts: &[(String, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(value, count)| (format!("{{{label}=\"{value}\"}}"), *count)).collect()
}

fn gauge(text: &mut String, name: &str, samples: &[(impl AsRef<str>, u64)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# TYPE modem_upgrader_{name} gauge");
    for (labels, value) in samples {
        let _ = writeln!(text, "modem_upgrader_{name}{} {value}", labels.as_ref());
    }
}
