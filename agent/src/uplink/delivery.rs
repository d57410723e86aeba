//! Sends over HTTPS: events that MQTT does not get acknowledged, ticks while there is no line,
//! and the inventory.

use std::sync::Arc;
use std::time::Duration;

use shared::ack::{Ack, Verdict};
use shared::event::{Event, Events};
use shared::inventory::Inventory;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::api::{Api, ApiError};
use super::backoff::Backoff;
use super::causes;
use super::pending::{Key, Pending, key};
use super::rest::Rest;
use super::sign_in::SignIn;
use super::ticks::Ticks;
use crate::{random, settings};

/// Events in a request.
const BATCH: usize = 32;
/// Progress without a line is for the patient: each tick is a whole request.
const TICK_INTERVAL: Duration = Duration::from_secs(5);

/// What the three tasks share.
#[derive(Clone)]
pub struct Delivery {
    pub api: Api,
    pub sign_in: Arc<SignIn>,
    pub settings: settings::Uplink,
    pub pending: Pending,
    /// Whether the MQTT connection stands.
    pub line: watch::Receiver<bool>,
    pub rest: Rest,
}

impl Delivery {
    pub async fn events(mut self) {
        let mut backoff = self.backoff();
        let mut batch = BATCH;
        // Blamed, and not to be given up: the others go first, then these once more.
        let mut last: Vec<Key> = Vec::new();
        loop {
            self.overdue().await;
            match self.send_events(batch, &last).await {
                Ok(Some(settled)) if settled > 0 => {
                    backoff.reset();
                    batch = BATCH;
                    continue;
                }
                Ok(Some(_)) => log::warn!("events were answered, but none acknowledged"),
                Ok(None) => last.clear(),
                // One of them is not acceptable: find out which.
                Err(error) if error.blames_content() && batch > 1 => batch = 1,
                Err(error) if error.blames_content() => last.extend(self.pass_first(&last, &error)),
                Err(error) => log::info!("events: {}", causes(&error)),
            }
            if self.rest.pause(backoff.next(random::share()), None).await {
                backoff.reset();
            }
        }
    }

    /// Ticks while there is no line, the latest of each slot.
    pub async fn ticks(mut self, ticks: Ticks) {
        let mut changed = ticks.watch();
        // There may be some from before this task began.
        changed.mark_changed();
        loop {
            if changed.changed().await.is_err() || self.line.wait_for(|up| !up).await.is_err() {
                return;
            }
            let credentials = self.sign_in.credentials().await;
            for tick in ticks.take() {
                if let Err(error) = self.api.tick(&credentials.api_token, &tick).await {
                    self.note(&error, credentials.number);
                    log::debug!("tick: {}", causes(&error));
                }
            }
            sleep(TICK_INTERVAL).await;
        }
    }

    /// The inventory when it changes, and from time to time.
    pub async fn inventory(mut self, mut inventory: watch::Receiver<Option<Inventory>>) {
        let mut backoff = self.backoff();
        loop {
            let Ok(current) = inventory.wait_for(Option::is_some).await.map(|i| i.clone()) else {
                return;
            };
            inventory.mark_unchanged();
            let Some(current) = current else { continue };
            match self.send_inventory(&current).await {
                Ok(()) => {
                    backoff.reset();
                    let changed = timeout(self.settings.inventory_interval, inventory.changed());
                    if let Ok(Err(_)) = changed.await {
                        return;
                    }
                }
                Err(error) => {
                    log::info!("inventory: {}", causes(&error));
                    let pause = backoff.next(random::share());
                    if self.rest.pause(pause, error.retry_after()).await {
                        backoff.reset();
                    }
                }
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.settings.retry, self.settings.retry_max)
    }

    /// Waits until events are to be sent this way.
    async fn overdue(&self) {
        let mut changed = self.pending.watch();
        let mut line = self.line.clone();
        loop {
            let up = *line.borrow_and_update();
            let patience = if up { self.settings.mqtt_patience } else { Duration::ZERO };
            let left = self.pending.waiting().map(|waiting| patience.saturating_sub(waiting));
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                _ = line.changed() => {}
                () = sleep(left.unwrap_or(Duration::MAX)), if left.is_some() => {}
            }
        }
    }

    /// How many events were settled; `None`: there is none but `last`.
    async fn send_events(&self, count: usize, last: &[Key]) -> Result<Option<usize>, ApiError> {
        let events = self.pending.batch(count, |event| !last.contains(&key(event)));
        if events.is_empty() {
            return Ok(None);
        }
        let credentials = self.sign_in.credentials().await;
        let acks = self
            .api
            .events(&credentials.api_token, &Events::new(events))
            .await
            .inspect_err(|error| self.note(error, credentials.number))?;
        Ok(Some(self.pending.settle(&acks.acks)))
    }

    /// The first event must not block those behind it. It is given up when the coordinator will
    /// never take it; the key of one that must be kept, or that somebody else blames, is returned.
    fn pass_first(&self, last: &[Key], error: &ApiError) -> Option<Key> {
        let first = self.pending.batch(1, |event| !last.contains(&key(event)));
        let event = first.first()?;
        let reason = causes(error);
        if error.is_final() && !event.body.must_be_kept() {
            self.pending.settle(&[refused(event, reason)]);
            return None;
        }
        log::warn!("event {} of {} is kept: {reason}", event.seq, event.operation);
        Some(key(event))
    }

    async fn send_inventory(&self, inventory: &Inventory) -> Result<(), ApiError> {
        let credentials = self.sign_in.credentials().await;
        self.api
            .put_inventory(&credentials.api_token, inventory)
            .await
            .inspect_err(|error| self.note(error, credentials.number))
    }

    fn note(&self, error: &ApiError, number: u32) {
        if error.is_unauthorized() {
            self.sign_in.refuse(number);
        }
    }
}

fn refused(event: &Event, reason: String) -> Ack {
    Ack {
        operation: event.operation,
        stream: event.stream,
        seq: event.seq,
        verdict: Verdict::Refused { reason },
    }
}
