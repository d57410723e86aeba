//! Progress on its way: of each slot only the latest tick, taken by whoever can send it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use shared::event::Tick;
use shared::ids::Slot;
use tokio::sync::watch;

#[derive(Debug, Clone, Default)]
pub struct Ticks {
    latest: Arc<Mutex<BTreeMap<Slot, Tick>>>,
    changed: watch::Sender<()>,
}

impl Ticks {
    /// Replaces an earlier tick that was not sent yet.
    pub fn put(&self, tick: Tick) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.insert(tick.slot.clone(), tick);
        drop(latest);
        self.changed.send_replace(());
    }

    /// Everything that was not sent yet.
    #[must_use]
    pub fn take(&self) -> Vec<Tick> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *latest).into_values().collect()
    }

    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
