//! The outbox as the tasks share it, and how long its events have been waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::ack::Ack;
use shared::event::Event;
use shared::ids::{OperationId, StreamId};
use shared::limits;
use tokio::sync::watch;
use tokio::time::Instant;

use super::state::StateCell;
use crate::outbox::{Draft, Outbox};

/// Bytes of events in one batch: what goes round them fits as well.
const BATCH_BYTES: usize = limits::EVENTS - 1024;

/// What names an event.
pub type Key = (OperationId, StreamId, u64);

pub fn key(event: &Event) -> Key {
    (event.operation, event.stream, event.seq)
}

#[derive(Debug, Clone)]
pub struct Pending(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    guarded: Mutex<Guarded>,
    changed: watch::Sender<()>,
    state: StateCell,
}

#[derive(Debug)]
struct Guarded {
    outbox: Outbox,
    /// Since when nothing was acknowledged although something waits.
    waiting_since: Option<Instant>,
}

impl Pending {
    pub fn new(outbox: Outbox, state: StateCell) -> Self {
        let waiting_since = (!outbox.is_empty()).then(Instant::now);
        let guarded = Mutex::new(Guarded { outbox, waiting_since });
        let pending = Self(Arc::new(Inner { guarded, changed: watch::Sender::new(()), state }));
        pending.show(&pending.lock().outbox);
        pending
    }

    /// Writes to the disk before it returns.
    pub fn append(&self, draft: Draft) -> Event {
        self.with(|outbox| outbox.append(draft))
    }

    /// In memory only.
    pub fn append_volatile(&self, draft: Draft) -> Event {
        self.with(|outbox| outbox.append_volatile(draft))
    }

    fn with(&self, append: impl FnOnce(&mut Outbox) -> Event) -> Event {
        let mut guarded = self.lock();
        let event = append(&mut guarded.outbox);
        guarded.waiting_since.get_or_insert_with(Instant::now);
        self.show(&guarded.outbox);
        drop(guarded);
        self.0.changed.send_replace(());
        event
    }

    /// Returns how many events were settled.
    pub fn settle(&self, acks: &[Ack]) -> usize {
        let mut guarded = self.lock();
        let settled = guarded.outbox.settle(acks);
        if settled > 0 {
            guarded.waiting_since = (!guarded.outbox.is_empty()).then(Instant::now);
        }
        self.show(&guarded.outbox);
        drop(guarded);
        if settled > 0 {
            self.0.changed.send_replace(());
        }
        settled
    }

    /// How long the events wait without any being acknowledged; `None` if there are none.
    pub fn waiting(&self) -> Option<Duration> {
        self.lock().waiting_since.map(|since| since.elapsed())
    }

    /// The oldest events for which `wanted` holds, as many as fit into one message.
    pub fn batch(&self, count: usize, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut room = BATCH_BYTES;
        let guarded = self.lock();
        let fitting = guarded.outbox.pending().filter(|event| wanted(event)).take_while(|event| {
            let size = serde_json::to_vec(event).map_or(0, |json| json.len() + 1);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        });
        fitting.take(count.min(limits::EVENTS_COUNT)).cloned().collect()
    }

    pub fn watch(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn show(&self, outbox: &Outbox) {
        self.0.state.update(|state| {
            state.pending_events = outbox.len();
            state.outbox_trouble = outbox.trouble().map(ToString::to_string);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.0.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
