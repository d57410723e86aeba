//! What a committed transaction changed, for those who pass it on: the feed, the lines to devices.
//!
//! A verb leaves notes in its transaction; they go out after the COMMIT, in the order of the
//! commits, and vanish with a rollback. So nobody hears of what is not on disk.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use shared::ids::{DeviceId, OrganizationSlug};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::operation::Operation;

/// One thing that is different now.
#[derive(Debug, Clone)]
pub enum Note {
    /// An operation began, moved on or ended.
    Operation(Box<Operation>),
    /// The device's jobs are not what they were.
    Desired(DeviceId),
    /// The device or user is admitted with tokens of this epoch and no other.
    Admitted {
        subject: Uuid,
        epoch: u32,
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

/// Whoever passes notes on; nobody at first.
#[derive(Clone, Default)]
pub(super) struct Listener(Arc<Mutex<Option<UnboundedSender<Note>>>>);

impl Listener {
    pub(super) fn listen(&self, listener: UnboundedSender<Note>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    pub(super) fn tell(&self, notes: Notes) {
        let listener = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listener) = listener.as_ref() else { return };
        for note in notes.into_inner() {
            // A listener that went away wants nothing any more.
            let _ = listener.send(note);
        }
    }
}
