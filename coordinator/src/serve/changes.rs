//! What was committed, to everybody who has to know: admission and wakes at once, the feed in a
//! task of its own, in the order of the commits.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::api;
use crate::dispatch::Dispatch;
use crate::feed::{Change, Feed, Subject};
use crate::lines::acl::Admission;
use crate::lines::registry::Registry;
use crate::operation::Operation;
use crate::store::Store;
use crate::store::note::Note;

/// Who hears of commits.
pub(super) struct Audience {
    pub admission: Arc<Admission>,
    pub registry: Arc<Registry>,
    pub dispatch: Arc<Dispatch>,
    pub feed: mpsc::UnboundedSender<Box<Operation>>,
}

impl Audience {
    /// Runs on the writer's thread, before the verb is answered: a device that was told that it is
    /// accepted finds the door open.
    pub(super) fn hear(self, store: &Store) {
        store.on_commit(move |note| match note {
            Note::Operation(operation) => {
                // Nobody publishes any more once the coordinator stops.
                let _ = self.feed.send(operation);
            }
            Note::Desired(device) => self.dispatch.wake(device),
            Note::Admitted { subject, epoch } => self.admission.set_epoch(subject, epoch),
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

/// Publishes operations as they come, for ever.
pub(super) async fn publish(
    feed: Arc<Feed>,
    mut operations: mpsc::UnboundedReceiver<Box<Operation>>,
) {
    while let Some(operation) = operations.recv().await {
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
