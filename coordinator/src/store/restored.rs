//! A database that was restored from a backup: it has forgotten what came after.

use rusqlite::Connection;
use serde_json::json;
use shared::ids::StreamId;

use super::audit::{Entry, Told};
use super::batch::pause_all;
use super::{Never, Store, StoreError, Tx, device};
use crate::operation::{Operation, restored};

impl Store {
    /// When it was restored last, unix milliseconds.
    pub async fn restored_at(&self) -> Result<Option<u64>, StoreError> {
        self.read(|conn| Ok(restored_at(conn)?)).await
    }

    /// A new epoch: whatever devices know of generations is of another life, and they fetch anew.
    /// Nobody is connected, and no batch goes on by itself; answers how many were under way.
    pub async fn begin_anew(&self) -> Result<usize, StoreError> {
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        let store = self.on_record(Entry::system("restore", "database"));
        let begun = store.write::<_, Never, _>(move |tx| {
            tx.execute("UPDATE meta SET epoch = ?1, restored_at = ?2", (&epoch, tx.now))?;
            let paused = pause_all(tx)?;
            tx.tell(Told::default().after(json!({ "paused_batches": paused })));
            Ok(paused.len())
        });
        let paused = begun.await?;
        self.forget_presence().await?;
        Ok(paused)
    }
}

/// When the database was restored last.
fn restored_at(conn: &Connection) -> rusqlite::Result<Option<u64>> {
    conn.prepare_cached("SELECT restored_at FROM meta")?.query_row([], |row| row.get(0))
}

/// Takes a device's word for a grant that the backup has forgotten; says whether it did.
pub(super) fn adopt(
    tx: &Tx<'_>,
    op: &mut Operation,
    stream: StreamId,
    attempt: u32,
) -> rusqlite::Result<bool> {
    let forgotten = restored::is_forgotten(op, stream, attempt)
        && restored_at(tx)?.is_some_and(|restored| op.created < restored);
    if forgotten {
        if op.held {
            device::bump(tx, op.device)?;
        }
        restored::adopt(op, stream, attempt, tx.now);
    }
    Ok(forgotten)
}
