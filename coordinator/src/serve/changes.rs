//! What was committed, to everybody who has to know: admission and wakes at once, the feed in a
//! task of its own, in the order of the commits.

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
    newest: HashMap<OperationId, Box<Operation>>,
}

impl Pending {
    fn put(&self, operation: Box<Operation>) {
        let mut waiting = self.lock();
        let id = operation.id;
        if waiting.newest.insert(id, operation).is_none() {
            waiting.order.push_back(id);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<Box<Operation>> {
        let mut waiting = self.lock();
        let id = waiting.order.pop_front()?;
        waiting.newest.remove(&id)
    }

    async fn next(&self) -> Box<Operation> {
        loop {
            match self.take() {
                Some(operation) => return operation,
                None => self.arrived.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes operations as they come, for ever.
pub(super) async fn publish(feed: Arc<Feed>, pending: Arc<Pending>) {
    loop {
        let operation = pending.next().await;
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
        let first = pending.next().await;
        assert_eq!((first.id, first.modified), (one.id, 999));
        assert_eq!(pending.next().await.id, two.id);
        assert!(pending.take().is_none());
    }
}
