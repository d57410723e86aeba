//! What somebody sees who watches, and how late.

use crate::coordinator::{self, Coordinator};
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

/// Somebody who watches the live events and notes how old each tick is when it comes.
pub struct Watch {
    waits: Arc<Mutex<Vec<f64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Begins to watch. Whoever sends a tick or a milestone puts its time into the detail: nanoseconds
    /// since `epoch`.
    ///
    /// # Errors
    /// The coordinator does not let it.
    pub async fn start(coordinator: &Coordinator, epoch: Instant) -> anyhow::Result<Self> {
        let client = coordinator::client(&coordinator.bootstrap.pin)?;
        let url = format!("{}/api/v1/modem-upgrader/events/", coordinator.url());
        let request = client.get(url).bearer_auth(&coordinator.bootstrap.api_token);
        let mut answer = request.send().await?.error_for_status()?;
        let waits = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&waits);
        let task = tokio::spawn(async move {
            let mut text = Vec::new();
            while let Ok(Some(bytes)) = answer.chunk().await {
                text.extend_from_slice(&bytes);
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let now = epoch.elapsed().as_secs_f64();
                let sent = text[..whole].split(|byte| *byte == b'\n').filter_map(sent_at);
                noted.lock().map(|mut waits| waits.extend(sent.map(|sent| now - sent))).ok();
                text.drain(..whole);
            }
        });
        Ok(Self { waits, task })
    }

    /// The ages in seconds of what came.
    #[must_use]
    pub fn end(self) -> Vec<f64> {
        self.task.abort();
        self.waits.lock().map(|waits| waits.clone()).unwrap_or_default()
    }
}

/// Seconds, from a live event's line.
fn sent_at(line: &[u8]) -> Option<f64> {
    let line = std::str::from_utf8(line.strip_prefix(b"data: ")?).ok()?;
    let (_, rest) = line.split_once("\"detail\":\"")?;
    let nanoseconds: f64 = rest.split_once('"')?.0.parse().ok()?;
    Some(nanoseconds / 1e9)
}

/// The value below which this share of all lies.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index below the length"
)]
#[must_use]
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_event_says_when_it_was_sent() {
        let line = br#"data: {"id":"x","detail":"1500000000","log":"detail"}"#;
        assert_eq!(sent_at(line), Some(1.5));
        assert_eq!(sent_at(br#"data: {"detail":null}"#), None);
        assert_eq!(sent_at(b"id: 7"), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(values.clone(), 0.99), 100.0);
        assert_eq!(percentile(values, 0.5), 51.0);
        assert!(percentile(Vec::new(), 0.5).is_nan());
    }
}
