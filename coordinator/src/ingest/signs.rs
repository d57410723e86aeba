//! Signs of life: ticks, presence, polls. Only the latest of each counts, so they wait in memory,
//! the newer over the older, and go to the store now and then. Who waits longest is first, with what was
//! heard last of it: however many there are, nothing old is written.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::event::{Presence, Tick};
use shared::ids::{DeviceId, OperationId};
use tokio::sync::Notify;

use crate::store::event::Sign;
use crate::store::{Store, StoreError};

/// Ticks of one operation are written this often at most.
const INTERVAL: Duration = Duration::from_millis(100);
/// That a device was heard of is written this often at most.
const SEEN_INTERVAL: Duration = Duration::from_secs(5);
/// Operations and devices that may wait; more are dropped, their next sign makes up for it.
const MOST: usize = 100_000;
/// Signs written in one transaction.
const PIECE: usize = 500;

type TickKey = (DeviceId, OperationId);

#[derive(Default)]
struct Waiting {
    ticks: HashMap<TickKey, Tick>,
    /// The keys of `ticks`, the first to come first.
    order: VecDeque<TickKey>,
    seen: HashMap<DeviceId, u64>,
}

impl Waiting {
    /// The latest ticks of those who wait longest.
    fn take_ticks(&mut self, most: usize) -> Vec<Sign> {
        let first = self.order.drain(..most.min(self.order.len()));
        let tick = |key: TickKey| Some(Sign::Tick(key.0, self.ticks.remove(&key)?));
        first.filter_map(tick).collect()
    }
}

/// Where signs of life wait; clones share the place. [`Signs::run`] takes them to the store.
#[derive(Clone)]
pub struct Signs {
    store: Store,
    waiting: Arc<Mutex<Waiting>>,
    arrived: Arc<Notify>,
}

impl Signs {
    pub fn new(store: Store) -> Self {
        Self { store, waiting: Arc::default(), arrived: Arc::default() }
    }

    /// Keeps the tick, unless a newer one waits.
    pub fn tick(&self, device: DeviceId, tick: Tick) {
        let mut waiting = self.lock();
        let Waiting { ticks, order, .. } = &mut *waiting;
        let full = ticks.len() >= MOST;
        match ticks.entry((device, tick.operation)) {
            Entry::Occupied(mut entry) => {
                let older = entry.get();
                let newer = older.stream != tick.stream
                    || (tick.attempt, tick.n) > (older.attempt, older.n);
                if newer {
                    entry.insert(tick);
                }
            }
            Entry::Vacant(entry) if !full => {
                order.push_back(*entry.key());
                entry.insert(tick);
            }
            Entry::Vacant(_) => return,
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The device was heard of just now.
    pub fn seen(&self, device: DeviceId) {
        let now = self.store.clock().now();
        let mut waiting = self.lock();
        if waiting.seen.len() < MOST {
            waiting.seen.insert(device, now);
        }
    }

    /// Presence is written at once, in the order it came.
    pub async fn presence(&self, device: DeviceId, presence: Presence) -> Result<(), StoreError> {
        self.store.record_signs(vec![Sign::Presence(device, presence)]).await
    }

    /// Takes signs to the store, for ever.
    pub async fn run(&self) {
        let mut seen = tokio::time::interval(SEEN_INTERVAL);
        loop {
            tokio::select! {
                () = self.arrived.notified() => self.flush_ticks().await,
                _ = seen.tick() => self.flush_seen().await,
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Writes everything that waits: before a shutdown.
    pub async fn flush(&self) {
        self.flush_ticks().await;
        self.flush_seen().await;
    }

    /// Those who wait now, each once.
    async fn flush_ticks(&self) {
        let mut left = self.lock().order.len();
        while left > 0 {
            let piece = self.lock().take_ticks(PIECE.min(left));
            if piece.is_empty() {
                return;
            }
            left -= piece.len();
            self.write(piece).await;
        }
    }

    async fn flush_seen(&self) {
        let seen = std::mem::take(&mut self.lock().seen);
        self.write(seen.into_iter().map(|(device, at)| Sign::Seen(device, at)).collect()).await;
    }

    async fn write(&self, signs: Vec<Sign>) {
        for piece in signs.chunks(PIECE) {
            match self.store.record_signs(piece.to_vec()).await {
                // One of them may be at fault: it must not cost the others theirs.
                Err(StoreError::Database(_)) if piece.len() > 1 => self.write_singly(piece).await,
                Err(error) => complain(&error, piece.len()),
                Ok(()) => {}
            }
        }
    }

    async fn write_singly(&self, piece: &[Sign]) {
        for sign in piece {
            if let Err(error) = self.store.record_signs(vec![sign.clone()]).await {
                complain(&error, 1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn complain(error: &StoreError, lost: usize) {
    // The store says itself that it is in trouble.
    if error.passes() {
        return tracing::debug!(%error, lost, "signs of life were not written");
    }
    tracing::warn!(%error, lost, "signs of life were not written");
}

#[cfg(test)]
mod tests {
    use shared::ids::{SessionId, Slot, StreamId};
    use shared::stages::Phase;
    use uuid::Uuid;

    use super::*;
    use crate::store::fixture::Fixture;

    fn tick(operation: OperationId, n: u64) -> Tick {
        Tick {
            v: 1,
            operation,
            slot: Slot::default(),
            stream: StreamId(Uuid::from_u128(1)),
            attempt: 0,
            n,
            phase: Phase::Downloading,
            percent: 10,
            stalled: false,
            detail: None,
            fetched: None,
        }
    }

    #[tokio::test]
    async fn who_waits_longest_is_written_first_with_its_latest_tick() {
        let f = Fixture::new().await;
        let signs = Signs::new(f.store.clone());
        let operation = |n| OperationId(Uuid::from_u128(n));
        let device = DeviceId(Uuid::from_u128(1));
        for (of, n) in [(3, 1), (1, 1), (2, 1), (1, 2), (3, 2), (3, 1)] {
            signs.tick(device, tick(operation(of), n));
        }
        let taken = |most| {
            let taken = signs.lock().take_ticks(most);
            let tick = |sign: Sign| match sign {
                Sign::Tick(_, tick) => (tick.operation.0.as_u128(), tick.n),
                other => panic!("{other:?}"),
            };
            taken.into_iter().map(tick).collect::<Vec<_>>()
        };
        assert_eq!(taken(2), [(3, 2), (1, 2)]);
        signs.tick(device, tick(operation(3), 3));
        assert_eq!(taken(9), [(2, 1), (3, 3)]);
        assert_eq!(taken(9), []);
        assert!(signs.lock().ticks.is_empty());
    }

    #[tokio::test]
    async fn a_sign_that_the_store_cannot_take_costs_nobody_else_theirs() {
        let f = Fixture::new().await;
        let (bad, good, image) = (f.device(1).await, f.device(2).await, f.image("v2").await);
        let operations =
            [f.ask(bad, image).await.unwrap().id, f.ask(good, image).await.unwrap().id];
        let presence = Presence { v: 1, session: SessionId(Uuid::from_u128(1)), online: true };
        let signs = Signs::new(f.store.clone());
        signs
            .write(vec![
                Sign::Presence(good, presence),
                Sign::Tick(bad, tick(operations[0], u64::MAX)),
                Sign::Tick(good, tick(operations[1], 1)),
            ])
            .await;
        assert_eq!(f.operation(operations[0]).await.tick_n, 0);
        assert_eq!(f.operation(operations[1]).await.tick_n, 1);
    }
}
