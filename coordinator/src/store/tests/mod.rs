//! The verbs together, on a database on disk.

mod batch;
mod enrolment;
mod event;
mod inventory;
mod migration;
mod place;
mod plans;
mod presence;
mod preview;
mod reader;
mod restored;
mod retention;
mod silence;
mod upgrade;
mod writer;

use std::sync::mpsc::channel;

use shared::ack::Verdict;
use shared::event::{EventBody, Outcome, Presence, Tick, VersionLine};
use shared::grant::RefusalCode;
use shared::identity::DeviceState;
use shared::ids::{DeviceId, OperationId, SessionId, Slot};
use shared::stages::Phase;
use uuid::Uuid;

use crate::operation::cancel::CannotCancel;
use crate::operation::event::Refused;
use crate::operation::grant::Leave;
use crate::operation::{Operation, Status};
use crate::store::enrolment::EnrolRefusal;
use crate::store::event::{Reported, Sign};
use crate::store::fixture::*;
use crate::store::listing::{Order, Rows, Scope};
use crate::store::note::Note;
use crate::store::operation::{ChangeRefused, OperationList, StartRefused, UpgradeRefused};
use crate::store::{Never, Rejection, Store};

async fn tell(
    f: &Fixture,
    device: DeviceId,
    op: OperationId,
    seq: u64,
    body: EventBody,
) -> Verdict {
    let attempt = u32::from(seq > 1);
    let events = vec![reported(device, event(op, seq, attempt, body))];
    f.store.record_events(events).await.unwrap().remove(0).verdict
}

fn refused(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Refused { reason } => Some(reason),
        Verdict::Accepted | Verdict::Duplicate | Verdict::Unknown => None,
    }
}

async fn count(store: &Store, table: &'static str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.read(move |conn| Ok(conn.query_row(&sql, [], |row| row.get(0))?)).await.unwrap()
}

async fn installed(store: &Store, device: DeviceId) -> bool {
    store.device_firmware(device, Slot::default()).await.unwrap().unwrap().installed
}

/// The newest operation of every slot.
async fn newest(store: &Store) -> Vec<Operation> {
    let (sender, found) = channel();
    let tell = move |operation| sender.send(operation).unwrap();
    store.tell_newest_operations(tell).await.unwrap();
    found.into_iter().collect()
}
