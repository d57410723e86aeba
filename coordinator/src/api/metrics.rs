//! `/metrics`: how much the coordinator has to do, in Prometheus's text format. Counts only.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tokio::sync::Mutex;

use super::{App, error::Answer};
use crate::lines::reason::Counters;
use crate::lines::registry::Registry;
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

#[utoipa::path(get, path = "/metrics", tag = "health",
    responses(
        (status = 200, description = "Prometheus's text format.", body = String, content_type = "text/plain"),
        (status = 503),
    ))]
pub async fn metrics(State(app): State<App>) -> Answer {
    let census = app.census.get(&app.store).await?;
    let mut page = Page::default();
    open_lines(&mut page, &app.registry);
    happened(&mut page, &app.counters);
    stored(&mut page, &census, app.artifacts.used());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.0).into_response())
}

fn open_lines(page: &mut Page, registry: &Registry) {
    page.family("devices_connected", GAUGE, "Devices with a line, MQTT over TLS.");
    page.sample("devices_connected", registry.connected());
    page.family("dashboards_connected", GAUGE, "Users' lines, MQTT over TLS.");
    page.sample("dashboards_connected", registry.dashboards());
}

fn happened(page: &mut Page, counters: &Counters) {
    for (name, counter, help) in [
        ("lines_accepted_total", &counters.accepted, "Connections taken from the MQTT port."),
        ("lines_authenticated_total", &counters.authenticated, "Of them, with a good token."),
        ("uplinks_total", &counters.uplinks, "Messages taken from devices over MQTT."),
        ("ticks_dropped_total", &counters.dropped_ticks, "Of them, progress passed by newer one."),
    ] {
        page.family(name, COUNTER, help);
        page.sample(name, now(counter));
    }
    let name = "lines_refused_or_ended_total";
    page.family(name, COUNTER, "Lines refused or ended, and filters refused, by the reason.");
    for (reason, count) in counters.by_reason() {
        page.labelled(name, "reason", reason, count);
    }
}

fn stored(page: &mut Page, census: &Census, used: u64) {
    page.family("devices", GAUGE, "Devices by their state.");
    for (state, count) in &census.devices {
        page.labelled("devices", "state", state, *count);
    }
    page.family("operations", GAUGE, "Upgrade operations by their status.");
    for (status, count) in &census.operations {
        page.labelled("operations", "status", status, *count);
    }
    page.family("dead_letters", GAUGE, "Milestones that were refused and are kept.");
    page.sample("dead_letters", census.dead_letters);
    page.family("artifacts_bytes", GAUGE, "Bytes of firmware on disk.");
    page.sample("artifacts_bytes", used);
}

fn now(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

const GAUGE: &str = "gauge";
/// Counts since the process started.
const COUNTER: &str = "counter";

/// Writing to a String cannot fail.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP modem_upgrader_{name} {help}");
        let _ = writeln!(self.0, "# TYPE modem_upgrader_{name} {kind}");
    }

    fn sample(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "modem_upgrader_{name} {value}");
    }

    /// `value` is one of ours: without quotes or line ends.
    fn labelled(&mut self, name: &str, label: &str, value: impl Display, count: u64) {
        let _ = writeln!(self.0, "modem_upgrader_{name}{{{label}=\"{value}\"}} {count}");
    }
}
