//! Operations that no device has begun, seen by whoever restores a backup: what an operator has taken
//! back since is asked for again.

use serde_json::json;

use super::row::{COLUMNS, operation};
use super::{FROM, save};
use crate::operation::{Operation, cancel};
use crate::store::audit::{self, Entry, Told};
use crate::store::{Never, Store, StoreError, Tx, device};

/// Cancelled in one transaction.
const PIECE: u32 = 200;
const WAITING: &str = "t.status IN ('idle', 'in-progress') AND NOT t.grant_open";

impl Store {
    /// How many there are.
    pub async fn waiting(&self) -> Result<u64, StoreError> {
        self.read(|conn| {
            let sql = format!("SELECT count(*) FROM {FROM} WHERE {WAITING}");
            Ok(conn.query_row(&sql, [], |row| row.get(0))?)
        })
        .await
    }

    /// Cancels all of them; answers how many there were.
    pub async fn cancel_waiting(&self, by: &'static str) -> Result<u64, StoreError> {
        let mut cancelled = 0;
        loop {
            let piece = self.write::<_, Never, _>(move |tx| Ok(cancel_some(tx, by)?)).await?;
            cancelled += piece;
            if piece == 0 {
                return Ok(cancelled);
            }
        }
    }
}

fn cancel_some(tx: &Tx<'_>, by: &str) -> rusqlite::Result<u64> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE {WAITING} LIMIT {PIECE}");
    let mut statement = tx.prepare_cached(&sql)?;
    let some: Vec<Operation> = statement.query_map([], operation)?.collect::<Result<_, _>>()?;
    let mut cancelled = 0;
    for mut operation in some {
        let before = operation.status;
        // Nothing here was granted, so the rule takes them all.
        if cancel::cancel(&mut operation, by, tx.now).is_ok() {
            save(tx, &operation)?;
            device::bump(tx, operation.device)?;
            let entry = Entry {
                organization: Some(operation.organization.to_string()),
                ..Entry::system("cancel", operation.id)
            };
            let told = Told::default().before(json!({"status": before}));
            let told = told.after(json!({"status": operation.status}));
            audit::record(tx, &entry, Some(told))?;
            cancelled += 1;
        }
    }
    Ok(cancelled)
}
