//! Drives batches: looks at each that something happened to, asks the planner, does what it says,
//! and tells everybody who watches.
//!
//! ```text
//! commits ──▶ mark ──▶ (a moment, so that many become one) ──▶ fly: report ─ decide ─ do ─┐
//! clock   ──▶ every unfinished batch ──▶────────────────────▶   ▲─────────────────────────┘
//! ```
//! Everything it knows is in the store, so that it goes on after a restart where it was. Whatever it
//! does the store checks once more; what changed in between makes it look again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use shared::ids::{BatchId, OperationId};
use tokio::sync::Notify;

use crate::api;
use crate::batch::decide::{Decision, Whom, decide};
use crate::batch::{Batch, Course};
use crate::feed::{Change, Feed, Subject};
use crate::store::audit::Entry;
use crate::store::batch::{BatchRefused, PIECE, Reached, Report};
use crate::store::listing::Scope;
use crate::store::{Rejection, Store, StoreError};

/// Changes of a batch within this time are looked at together.
const MOMENT: Duration = Duration::from_millis(100);
/// How often the clock alone may change something.
const TICK: Duration = Duration::from_secs(1);
/// Ticks after which silence, absence and deadlines are looked at.
const TICKS_A_LOOK: u32 = 5;
/// Decisions about one batch before the others get their turn.
const TURNS: usize = 64;
/// Members that join a wave before they do.
const A_TURN: usize = 5 * PIECE;

/// The pilot. One for the coordinator, behind an `Arc`; [`Pilot::run`] drives.
pub struct Pilot {
    store: Store,
    feed: Arc<Feed>,
    marked: Arc<Marked>,
    seen: Mutex<HashMap<BatchId, Seen>>,
    a_turn: usize,
}

/// Batches that something happened to.
#[derive(Debug, Default)]
pub struct Marked {
    batches: Mutex<HashSet<BatchId>>,
    arrived: Notify,
}

impl Marked {
    /// Call it after COMMIT; returns at once.
    pub fn mark(&self, batch: BatchId) {
        if self.lock().insert(batch) {
            self.arrived.notify_one();
        }
    }

    #[cfg(test)]
    pub(crate) fn is_marked(&self, batch: BatchId) -> bool {
        self.lock().contains(&batch)
    }

    fn take(&self) -> HashSet<BatchId> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<BatchId>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was last seen of a batch.
#[derive(Debug, Default)]
struct Seen {
    published: Bytes,
    /// When the clock alone changes something, unix milliseconds.
    due: Option<u64>,
    filling: Option<Filling>,
    /// How many of the places under `max_concurrent` were taken.
    taken: u64,
    /// Who was woken last for a place that had become free.
    woken: Reached,
}

/// A wave that has opened, and those who are still to join it.
#[derive(Debug)]
struct Filling {
    wave: u32,
    members: Vec<OperationId>,
}

impl Pilot {
    #[must_use]
    pub fn new(store: Store, feed: Arc<Feed>, marked: Arc<Marked>) -> Arc<Self> {
        Self::in_turns_of(A_TURN, store, feed, marked)
    }

    /// As [`Pilot::new`], with so many members of a wave a turn.
    pub(crate) fn in_turns_of(
        a_turn: usize,
        store: Store,
        feed: Arc<Feed>,
        marked: Arc<Marked>,
    ) -> Arc<Self> {
        Arc::new(Self { store, feed, marked, seen: Mutex::default(), a_turn })
    }

    /// Drives, for ever.
    pub async fn run(&self) {
        let (mut tick, mut ticks) = (tokio::time::interval(TICK), 0_u32);
        loop {
            let batches = tokio::select! {
                () = self.marked.arrived.notified() => {
                    tokio::time::sleep(MOMENT).await;
                    self.marked.take().into_iter().collect()
                }
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.due(ticks.is_multiple_of(TICKS_A_LOOK)).await
                }
            };
            for batch in batches {
                if let Err(error) = self.fly(batch).await {
                    tracing::error!(%batch, %error, "a batch is not driven");
                }
            }
        }
    }

    /// Tells the states of the newest batches: after a start nobody knows them.
    pub async fn recall(&self, most: u32) -> Result<(), StoreError> {
        for id in self.store.newest_batches(most).await? {
            if let Some(report) = self.store.batch_report(Scope::Everything, id).await? {
                self.publish(&report);
            }
        }
        Ok(())
    }

    /// Does everything that is to be done with a batch now.
    pub async fn fly(&self, id: BatchId) -> Result<(), StoreError> {
        for _ in 0..TURNS {
            let Some(report) = self.store.batch_report(Scope::Everything, id).await? else {
                self.lock().remove(&id);
                return Ok(());
            };
            self.publish(&report);
            let decision = decide(&report.batch, &report.tally, report.now);
            if let Decision::Wait { until } = decision {
                self.wait(&report.batch, until);
                self.offer_places(&report.batch).await?;
                return self.fill_on(&report.batch).await;
            }
            if !self.act(&report.batch, decision).await? {
                // Whoever was faster has it looked at again, and the clock does.
                self.wait(&report.batch, None);
                return Ok(());
            }
            if self.lock().get(&id).is_some_and(|seen| seen.filling.is_some()) {
                return Ok(());
            }
        }
        self.marked.mark(id);
        Ok(())
    }

    async fn due(&self, all: bool) -> Vec<BatchId> {
        if all {
            return self.store.unfinished_batches().await.unwrap_or_else(|error| {
                tracing::error!(%error, "batches that are under way");
                Vec::new()
            });
        }
        let now = self.store.clock().now();
        let seen = self.lock();
        let due = seen.iter().filter(|(_, seen)| seen.due.is_some_and(|due| due <= now));
        due.map(|(id, _)| *id).collect()
    }

    fn wait(&self, batch: &Batch, until: Option<u64>) {
        let mut seen = self.lock();
        if batch.course == Course::Finished {
            seen.remove(&batch.id);
        } else {
            seen.entry(batch.id).or_default().due = until;
        }
    }

    /// Answers whether anything was done.
    async fn act(&self, batch: &Batch, decision: Decision) -> Result<bool, StoreError> {
        let store = &self.store;
        let on_record = |action| store.on_record(Entry::system(action, batch.id));
        let done = match decision {
            Decision::Wait { .. } => Ok(false),
            Decision::Open { wave, members } | Decision::Draft { wave, members } => {
                self.fill(batch, wave, members).await
            }
            Decision::TakeOver => store.take_over(batch.id).await.map(|some| some > 0),
            Decision::Defer { wave, whom } => self.defer(batch, wave, whom).await,
            Decision::GiveUp => self.give_up(batch).await,
            Decision::Pause(reason) => {
                tracing::warn!(batch = %batch.id, %reason, "a batch pauses");
                let store = on_record("pause");
                store.pause_batch(Scope::Everything, batch.id, reason).await.map(|_| true)
            }
            Decision::Abort(reason) => {
                tracing::warn!(batch = %batch.id, %reason, "a batch is aborted");
                let store = on_record("abort");
                store.cancel_batch(Scope::Everything, batch.id, reason).await.map(|_| true)
            }
            Decision::Expire => on_record("expire").expire_batch(batch.id).await.map(|_| true),
            Decision::Withdraw => {
                store.withdraw(batch.id).await.map(|ended| ended > 0).map_err(Rejection::from)
            }
            Decision::Finish => store.finish_batch(batch.id).await.map(|_| true),
        };
        match done {
            Err(Rejection::Store(error)) => Err(error),
            Err(Rejection::Refused(refused)) => {
                tracing::debug!(batch = %batch.id, %refused, "not done");
                Ok(false)
            }
            Ok(done) => Ok(done),
        }
    }

    async fn fill(
        &self,
        batch: &Batch,
        wave: u32,
        members: u64,
    ) -> Result<bool, Rejection<BatchRefused>> {
        let members = self.store.draw(batch, members).await?;
        tracing::info!(batch = %batch.id, wave, members = members.len(), "a wave opens");
        self.lock().entry(batch.id).or_default().filling = None;
        let joined = self.join(batch.id, Filling { wave, members }).await?;
        Ok(joined > 0)
    }

    /// Whoever was refused because as many as allowed were being flashed asks again by itself, ever more rarely. Where
    /// a place has become free, some are told at once; two for a place, for one may be away or have a gate that is
    /// closed.
    async fn offer_places(&self, batch: &Batch) -> Result<(), StoreError> {
        let Some(most) = batch.strategy.max_concurrent.map(u64::from) else { return Ok(()) };
        if batch.course != Course::Open {
            return Ok(());
        }
        let taken = self.store.places_taken(batch).await?;
        let (before, after) = {
            let mut seen = self.lock();
            let seen = seen.entry(batch.id).or_default();
            (std::mem::replace(&mut seen.taken, taken), seen.woken)
        };
        // While there were any, nobody was refused for want of one.
        if before < most || taken >= most {
            return Ok(());
        }
        let some = usize::try_from((most - taken).saturating_mul(2)).unwrap_or(usize::MAX);
        let woken = self.store.wake_some(batch, after, some.min(PIECE)).await?;
        if let Some(seen) = self.lock().get_mut(&batch.id) {
            seen.woken = woken;
        }
        Ok(())
    }

    /// Goes on where the last turn ended, unless the wave was overtaken.
    async fn fill_on(&self, batch: &Batch) -> Result<(), StoreError> {
        let filling = self.lock().get_mut(&batch.id).and_then(|seen| seen.filling.take());
        let newest =
            |filling: &Filling| batch.course == Course::Open && batch.wave == Some(filling.wave);
        let Some(filling) = filling.filter(newest) else { return Ok(()) };
        match self.join(batch.id, filling).await {
            Err(Rejection::Store(error)) => Err(error),
            Ok(_) | Err(Rejection::Refused(_)) => Ok(()),
        }
    }

    /// In pieces: each device's job is on its way before the next ones are. After so many other batches get
    /// their turn.
    async fn join(&self, id: BatchId, filling: Filling) -> Result<usize, Rejection<BatchRefused>> {
        let Filling { wave, mut members } = filling;
        let rest = members.split_off(members.len().min(self.a_turn));
        let mut joined = 0;
        for piece in members.chunks(PIECE) {
            joined += self.store.open_wave(id, wave, piece.to_vec()).await?;
        }
        if !rest.is_empty() {
            let filling = Some(Filling { wave, members: rest });
            self.lock().entry(id).or_default().filling = filling;
            self.marked.mark(id);
        }
        Ok(joined)
    }

    async fn defer(
        &self,
        batch: &Batch,
        wave: u32,
        whom: Whom,
    ) -> Result<bool, Rejection<BatchRefused>> {
        let members: Vec<OperationId> = self.store.holding_up(batch, whom).await?;
        let deferred = self.store.defer(batch.id, wave, members).await?;
        tracing::info!(batch = %batch.id, wave, deferred, ?whom, "members wait for a later wave");
        Ok(deferred > 0)
    }

    async fn give_up(&self, batch: &Batch) -> Result<bool, Rejection<BatchRefused>> {
        let members = self.store.holding_up(batch, Whom::Stalled).await?;
        let ended = self.store.give_up(batch.id, members).await?;
        tracing::info!(batch = %batch.id, ended, "members whose attempt failed are not heard of any more");
        Ok(ended > 0)
    }

    fn publish(&self, report: &Report) {
        let payload = api::batch::payload(report);
        let mut seen = self.lock();
        let seen = seen.entry(report.batch.id).or_default();
        if seen.published != payload {
            seen.published = payload.clone();
            let organization = report.batch.organization_slug.clone();
            let subject = Subject::Batch(report.batch.id);
            self.feed.publish(Change { organization, subject, payload });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BatchId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
