//! What was committed, to everybody who has to know: admission and wakes at once, the feed in a
//! task of its own, in the order of the commits.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ids::OperationId;
use tokio::sync::Notify;

use crate::api;
use crate::dispatch::Dispatch;
use crate::feed::{Change, Feed, Subject};
use crate::lines::acl::Admission;
use crate::lines::registry::Registry;
use crate::operation::Operation;
use crate::pilot::Marked;
use crate::store::Store;
use crate::store::listing::Scope;
use crate::store::note::Note;

/// Who hears of commits.
pub(super) struct Audience {
    pub admission: Arc<Admission>,
    pub registry: Arc<Registry>,
    pub dispatch: Arc<Dispatch>,
    pub pending: Arc<Pending>,
    pub marked: Arc<Marked>,
}

impl Audience {
    /// Runs on the writer's thread, before the verb is answered: a device that was told that it is
    /// accepted finds the door open.
    pub(super) fn hear(self, store: &Store) {
        store.on_commit(move |note| match note {
            Note::Operation(operation) => {
                operation.batch.into_iter().for_each(|batch| self.marked.mark(batch));
                self.pending.put(operation);
            }
            Note::Batch(batch) => self.marked.mark(batch),
            Note::Desired(device) => self.dispatch.wake(device),
            Note::Admitted { subject, epoch } => self.admission.set_epoch(subject, epoch),
            Note::UserRevoked { user, epoch } => {
                match epoch {
                    Some(epoch) => self.admission.set_epoch(user.0, epoch),
                    None => self.admission.revoke(user.0),
                }
                self.registry.kick_user(user.0);
            }
            Note::DeviceRevoked(device) => {
                self.admission.revoke(device.0);
                self.registry.kick(device);
            }
            Note::Presence { organization, device, online } => {
                tracing::debug!(%organization, %device, online, "presence");
            }
        });
    }
}

/// Bytes of states that wait in memory; of more operations only the ids do, and their states are read
/// when their turn comes, which costs several times as much. Most have 1 kB, the largest log 16 KiB.
const ROOM: usize = 32 << 20;

/// Operations on their way to the feed: the newest state of each, in the order they came up. So a
/// feed that lags is behind by as many as there are, and not by all that happened to them.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<OperationId>,
    newest: HashMap<OperationId, Option<Box<Operation>>>,
    /// Bytes of the states.
    bytes: usize,
}

impl Pending {
    fn put(&self, operation: Box<Operation>) {
        self.lock().put(operation);
        self.arrived.notify_one();
    }

    /// The next one, with its state unless that is to be read.
    async fn next(&self) -> (OperationId, Option<Box<Operation>>) {
        loop {
            let next = self.lock().take();
            match next {
                Some(next) => return next,
                None => self.arrived.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn put(&mut self, operation: Box<Operation>) {
        let (id, bytes) = (operation.id, size(&operation));
        match self.newest.entry(id) {
            Entry::Occupied(mut known) => {
                if let Some(older) = known.get_mut() {
                    self.bytes = self.bytes - size(older) + bytes;
                    *older = operation;
                }
            }
            Entry::Vacant(new) => {
                let has_room = self.bytes + bytes <= ROOM;
                self.bytes += if has_room { bytes } else { 0 };
                new.insert(has_room.then_some(operation));
                self.order.push_back(id);
            }
        }
    }

    fn take(&mut self) -> Option<(OperationId, Option<Box<Operation>>)> {
        let id = self.order.pop_front()?;
        let state = self.newest.remove(&id).flatten();
        self.bytes -= state.as_deref().map_or(0, size);
        Some((id, state))
    }
}

/// What a state takes in memory, more or less.
fn size(operation: &Operation) -> usize {
    size_of::<Operation>() + operation.log.len()
}

/// Publishes operations as they come, for ever.
pub(super) async fn publish(store: Store, feed: Arc<Feed>, pending: Arc<Pending>) {
    loop {
        let operation = match pending.next().await {
            (_, Some(operation)) => operation,
            (id, None) => match store.operation(Scope::Everything, id).await {
                Ok(Some(operation)) => Box::new(operation),
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(operation = %id, %error, "its state is not published");
                    continue;
                }
            },
        };
        feed.publish(change(&operation));
    }
}

/// An operation's whole state, as the API shows it.
pub(super) fn change(operation: &Operation) -> Change {
    Change {
        organization: operation.organization.clone(),
        subject: Subject::Operation {
            device: operation.device,
            slot: operation.slot.clone(),
            operation: operation.id,
            created: operation.created,
            has_ended: operation.status.is_terminal(),
        },
        payload: api::operation::payload(operation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Pace;
    use crate::lines::reason::Reason;
    use crate::operation::tests::operation;
    use crate::store::account::UserChange;
    use crate::store::fixture::Fixture;

    #[tokio::test]
    async fn who_is_shut_out_is_off_the_line_at_once() {
        let f = Fixture::new().await;
        let (admission, registry) = (Arc::<Admission>::default(), Arc::<Registry>::default());
        let audience = Audience {
            admission: admission.clone(),
            dispatch: Dispatch::new(registry.clone(), Pace::default()),
            registry: registry.clone(),
            pending: Arc::default(),
            marked: Arc::default(),
        };
        audience.hear(&f.store);
        let user = f.store.create_user("eve".into(), false).await.unwrap();
        assert_eq!(admission.check(user.0, 1), Ok(()));
        let (seat, _) = registry.seat_dashboard(user.0, "a");
        let set = |active| UserChange { active: Some(active), ..UserChange::default() };
        f.store.change_user(user, set(false)).await.unwrap();
        assert_eq!(admission.check(user.0, 1), Err(Reason::Revoked));
        assert_eq!(seat.mail(|mail| mail.close), Some(Reason::Revoked));
        f.store.change_user(user, set(true)).await.unwrap();
        assert_eq!(admission.check(user.0, 1), Err(Reason::Revoked), "the old token stays dead");
        assert_eq!(admission.check(user.0, 2), Ok(()));
    }

    #[tokio::test]
    async fn a_feed_that_lags_gets_the_newest_state_of_each() {
        let pending = Pending::default();
        let (one, two) =
            (operation(), Operation { id: OperationId(uuid::Uuid::from_u128(9)), ..operation() });
        pending.put(Box::new(one.clone()));
        pending.put(Box::new(two.clone()));
        for modified in 1..1000 {
            pending.put(Box::new(Operation { modified, ..one.clone() }));
        }
        let (first, state) = pending.next().await;
        assert_eq!((first, state.unwrap().modified), (one.id, 999));
        assert_eq!(pending.next().await.0, two.id);
        assert!(pending.lock().take().is_none());
    }

    #[tokio::test]
    async fn of_a_fleet_only_the_ids_wait() {
        let pending = Pending::default();
        let of = |n: usize| {
            let id = OperationId(uuid::Uuid::from_u128(n as u128));
            Box::new(Operation { id, log: "x".repeat(16 * 1024), ..operation() })
        };
        let most = ROOM / size(&of(0));
        (0..most + 2).for_each(|n| pending.put(of(n)));
        pending.put(of(most));
        for n in 0..most {
            assert_eq!(pending.next().await, (of(n).id, Some(of(n))));
        }
        pending.put(of(most));
        assert_eq!(pending.next().await, (of(most).id, None), "to be read");
        assert_eq!(pending.next().await.1, None);
        assert!(pending.lock().take().is_none());
        assert_eq!(pending.lock().bytes, 0);
        pending.put(of(1));
        assert!(pending.next().await.1.is_some());
    }
}
