//! What changed, for everybody who watches: server-sent events of the API and the dashboards' MQTT
//! topics. Owns the latest state of each slot and batch, and a bounded past to resume from.
//!
//! ```text
//! ingest, batches ──(after COMMIT)──> publish ──> ring (the past, bounded) ──> Subscription::next
//!                                         └─────> retained (latest per slot and batch) ──┘ on a gap
//! ```
//! A subscriber is a cursor into the ring and costs nothing while it sleeps. One too slow for the
//! ring loses what lay between, never the latest: it is given the retained states instead. Who
//! follows one subject is told of the gap, for what is retained of a slot may be another operation's:
//! they read the subject's state from the store.
//!
//! Event ids rise by one and begin where the clock stands (unix milliseconds × 4096), so that an id
//! of before a restart is older than all of after it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shared::ids::{BatchId, DeviceId, OperationId, OrganizationSlug, Slot};
use shared::topics::Topic;
use tokio::sync::watch;

use crate::clock::Clock;

/// The past a subscriber can resume from.
const RING_CHANGES: usize = 16 * 1024;
const RING_BYTES: usize = 16 * 1024 * 1024;
/// Batches whose latest state is kept, per organization; the oldest published go first.
const BATCHES: usize = 256;
/// Changes looked at, and states passed on, under the lock before others get it.
const LOOK: usize = 1024;
/// Larger states do not fit a dashboard's packet and are not published.
const LARGEST: usize = 64 * 1024;

/// A committed change: the whole new state of its subject as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub organization: OrganizationSlug,
    pub subject: Subject,
    /// JSON, at most 64 KiB.
    pub payload: Bytes,
}

/// Whose state a change tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Operation {
        device: DeviceId,
        slot: Slot,
        operation: OperationId,
        /// Unix milliseconds.
        created: u64,
        /// A slot has one at most that has not.
        has_ended: bool,
    },
    Batch(BatchId),
}

impl Change {
    /// The dashboards' topic for it.
    #[must_use]
    pub fn topic(&self) -> Topic {
        let organization = self.organization.clone();
        match &self.subject {
            Subject::Operation { device, slot, .. } => {
                Topic::Operation(organization, *device, slot.clone())
            }
            Subject::Batch(batch) => Topic::Batch(organization, *batch),
        }
    }
}

/// A change with its place in the order of all.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// The `id` of a server-sent event.
    pub id: u64,
    pub change: Change,
    /// An operation with a late word: a later one of its slot was told of before, and is the slot's state.
    pub outlived: bool,
}

/// The one thing that a subscriber follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum One {
    Operation(OperationId),
    Batch(BatchId),
}

/// What a subscriber may and wants to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// `None` = all (superusers).
    pub organizations: Option<Vec<OrganizationSlug>>,
    /// `None` = everything there.
    pub subject: Option<One>,
}

impl Interest {
    /// Everything of one organization.
    #[must_use]
    pub fn in_organization(organization: OrganizationSlug) -> Self {
        Interest { organizations: Some(vec![organization]), subject: None }
    }

    fn covers(&self, change: &Change) -> bool {
        let wanted = |one: &One| match &change.subject {
            Subject::Operation { operation, .. } => *one == One::Operation(*operation),
            Subject::Batch(batch) => *one == One::Batch(*batch),
        };
        self.organizations.as_ref().is_none_or(|slugs| slugs.contains(&change.organization))
            && self.subject.as_ref().is_none_or(wanted)
    }
}

/// What a subscriber reads, in order.
#[derive(Debug, Default)]
pub struct Read {
    pub changes: Vec<Arc<Published>>,
    /// Changes may be lost up to this id. Of the one subject, what the store has of it makes up for them; of all,
    /// these are the latest states, and the ends of what came before them are missing.
    pub lost: Option<u64>,
}

/// What a retained state is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Slot(DeviceId, Slot),
    Batch(BatchId),
}

impl Place {
    fn of(subject: &Subject) -> Self {
        match subject {
            Subject::Operation { device, slot, .. } => Place::Slot(*device, slot.clone()),
            Subject::Batch(batch) => Place::Batch(*batch),
        }
    }
}

struct State {
    ring: VecDeque<Arc<Published>>,
    ring_bytes: usize,
    retained: HashMap<OrganizationSlug, BTreeMap<Place, Arc<Published>>>,
    latest: u64,
}

/// The feed. One for the coordinator, behind an `Arc`.
pub struct Feed {
    state: Mutex<State>,
    latest: watch::Sender<u64>,
}

impl Feed {
    #[must_use]
    pub fn new(clock: &Clock) -> Arc<Self> {
        let latest = clock.now().saturating_mul(4096);
        let state =
            State { ring: VecDeque::new(), ring_bytes: 0, retained: HashMap::new(), latest };
        Arc::new(Feed { state: Mutex::new(state), latest: watch::Sender::new(latest) })
    }

    /// Makes a change known; call it after COMMIT, in the order of the commits. Also how the
    /// composition root restores the retained states at the start. Returns the event's id.
    pub fn publish(&self, change: Change) -> u64 {
        let mut state = self.lock();
        if change.payload.len() > LARGEST {
            tracing::error!(topic = %change.topic(), "a state too large to publish");
            return state.latest;
        }
        let id = state.push(change);
        drop(state);
        self.latest.send_replace(id);
        id
    }

    /// A deleted device's states are no longer retained.
    pub fn forget_device(&self, organization: &OrganizationSlug, device: DeviceId) {
        if let Some(places) = self.lock().retained.get_mut(organization) {
            places.retain(|place, _| !matches!(place, Place::Slot(owner, _) if *owner == device));
        }
    }

    /// The latest states of an organization, and the id up to which they hold.
    #[must_use]
    pub fn retained(&self, organization: &OrganizationSlug) -> (Vec<Arc<Published>>, u64) {
        let state = self.lock();
        let places = state.retained.get(organization);
        (places.into_iter().flat_map(BTreeMap::values).cloned().collect(), state.latest)
    }

    /// All changes of `interest` from now on.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, interest: Interest) -> Subscription {
        let after = self.lock().latest;
        self.resume(interest, after)
    }

    /// All changes of `interest` after `last_event_id`. Where those are not all known any more, the
    /// latest states come first, with word that others are lost; of one subject, that word alone.
    #[must_use]
    pub fn resume(self: &Arc<Self>, interest: Interest, last_event_id: u64) -> Subscription {
        let latest = self.latest.subscribe();
        Subscription { feed: self.clone(), interest, after: last_event_id, latest }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, change: Change) -> u64 {
        self.latest += 1;
        let outlived = self.is_outlived(&change);
        let published = Arc::new(Published { id: self.latest, change, outlived });
        if !outlived {
            self.retain(published.clone());
        }
        self.ring_bytes += published.change.payload.len();
        self.ring.push_back(published);
        while self.ring.len() > RING_CHANGES || self.ring_bytes > RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.change.payload.len();
        }
        self.latest
    }

    /// Whether a later operation of the slot was told of already.
    fn is_outlived(&self, change: &Change) -> bool {
        let Subject::Operation { operation, created, has_ended: true, .. } = &change.subject else {
            return false;
        };
        let places = self.retained.get(&change.organization);
        let known = places.and_then(|places| places.get(&Place::of(&change.subject)));
        known.is_some_and(|known| match &known.change.subject {
            Subject::Operation { operation: known, created: later, has_ended, .. } => {
                known != operation && (!has_ended || later > created)
            }
            Subject::Batch(_) => false,
        })
    }

    fn retain(&mut self, published: Arc<Published>) {
        let change = &published.change;
        let places = self.retained.entry(change.organization.clone()).or_default();
        places.insert(Place::of(&change.subject), published.clone());
        let batches = || places.iter().filter(|(place, _)| matches!(place, Place::Batch(_)));
        if matches!(change.subject, Subject::Batch(_)) && batches().count() > BATCHES {
            let oldest =
                batches().min_by_key(|(_, state)| state.id).map(|(place, _)| place.clone());
            oldest.map(|place| places.remove(&place));
        }
    }

    /// The next changes of `interest` after the cursor, which moves past what was looked at.
    fn read(&self, cursor: &mut u64, interest: &Interest) -> Read {
        let first = self.latest + 1 - self.ring.len() as u64;
        if *cursor > self.latest || *cursor + 1 < first {
            let changes = match interest.subject {
                Some(_) => {
                    *cursor = self.latest;
                    Vec::new()
                }
                None => self.catch_up(cursor, interest),
            };
            return Read { changes, lost: Some(*cursor) };
        }
        // The ring is at most RING_CHANGES long, so this fits.
        let skip = usize::try_from(*cursor + 1 - first).unwrap_or(usize::MAX);
        let looked: Vec<_> = self.ring.iter().skip(skip).take(LOOK).collect();
        if let Some(last) = looked.last() {
            *cursor = last.id;
        }
        let wanted = looked.into_iter().filter(|published| interest.covers(&published.change));
        Read { changes: wanted.cloned().collect(), lost: None }
    }

    /// A cursor that fell out of the ring, or is of another life: the latest states instead, a page
    /// of the oldest at a time.
    fn catch_up(&self, cursor: &mut u64, interest: &Interest) -> Vec<Arc<Published>> {
        let missed_since = if *cursor > self.latest { 0 } else { *cursor };
        *cursor = self.latest;
        let states = self.retained.values().flat_map(BTreeMap::values);
        let mut states: Vec<_> = states
            .filter(|state| state.id > missed_since && interest.covers(&state.change))
            .collect();
        if states.len() > LOOK {
            states.select_nth_unstable_by_key(LOOK - 1, |state| state.id);
            states.truncate(LOOK);
            *cursor = states.iter().map(|state| state.id).max().unwrap_or(self.latest);
        }
        states.sort_unstable_by_key(|state| state.id);
        states.into_iter().cloned().collect()
    }
}

/// A subscriber's cursor.
pub struct Subscription {
    feed: Arc<Feed>,
    interest: Interest,
    after: u64,
    latest: watch::Receiver<u64>,
}

impl Subscription {
    /// What there is by now, two thousand at most, and the id up to which that is all.
    pub fn now(&mut self) -> (Read, u64) {
        let mut all = Read::default();
        let state = self.feed.lock();
        loop {
            let read = state.read(&mut self.after, &self.interest);
            all.changes.extend(read.changes);
            all.lost = all.lost.or(read.lost);
            if self.after >= state.latest || all.changes.len() >= LOOK {
                return (all, self.after);
            }
        }
    }

    /// The next changes in order, at least one, or word that some are lost. Safe to cancel: nothing is
    /// passed over.
    pub async fn next(&mut self) -> Read {
        loop {
            let known = *self.latest.borrow_and_update();
            loop {
                let read = self.feed.lock().read(&mut self.after, &self.interest);
                if !read.changes.is_empty() || read.lost.is_some() {
                    return read;
                }
                if self.after >= known {
                    break;
                }
            }
            // The sender lives in the feed, which we hold.
            if self.latest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
