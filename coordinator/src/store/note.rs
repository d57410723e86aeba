//! What a committed transaction changed, for those who pass it on: the feed, the lines to devices.
//!
//! A verb leaves notes in its transaction; they go out after the COMMIT, in the order of the
//! commits, and vanish with a rollback. So nobody hears of what is not on disk.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ids::{BatchId, DeviceId, OrganizationSlug, UserId};
use uuid::Uuid;

use crate::operation::Operation;

/// One thing that is different now.
#[derive(Debug, Clone)]
pub enum Note {
    /// An operation began, moved on or ended.
    Operation(Box<Operation>),
    /// A batch was made, decided about, or ended.
    Batch(BatchId),
    /// The device's jobs are not what they were.
    Desired(DeviceId),
    /// The device or user is admitted with tokens of this epoch and no other.
    Admitted {
        subject: Uuid,
        epoch: u32,
    },
    /// No MQTT token of the user from before is good any more; those of `epoch` are, if there is one.
    UserRevoked {
        user: UserId,
        epoch: Option<u32>,
    },
    /// No token of the device is good any more.
    DeviceRevoked(DeviceId),
    Presence {
        organization: OrganizationSlug,
        device: DeviceId,
        online: bool,
    },
}

/// The notes of a group of verbs.
#[derive(Default)]
pub(super) struct Notes(RefCell<Vec<Note>>);

impl Notes {
    pub(super) fn push(&self, note: Note) {
        self.0.borrow_mut().push(note);
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn truncate(&self, mark: usize) {
        self.0.borrow_mut().truncate(mark);
    }

    pub(super) fn into_inner(self) -> Vec<Note> {
        self.0.into_inner()
    }
}

type PassOn = Box<dyn FnMut(Note) + Send>;

/// Whoever passes notes on; nobody at first.
#[derive(Clone, Default)]
pub(super) struct Listener(Arc<Mutex<Option<PassOn>>>);

impl Listener {
    pub(super) fn listen(&self, pass_on: PassOn) {
        *self.lock() = Some(pass_on);
    }

    pub(super) fn tell(&self, notes: Notes) {
        if let Some(pass_on) = self.lock().as_mut() {
            notes.into_inner().into_iter().for_each(pass_on);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<PassOn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
