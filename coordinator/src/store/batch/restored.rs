//! Batches of a database that was restored from a backup.

use shared::ids::BatchId;

use super::create::{set_course, told};
use super::find;
use crate::batch::{Batch, Course, Reason};
use crate::store::audit::{self, Entry, Told};
use crate::store::column::parsed;
use crate::store::{StoreError, Tx};

/// Pauses every batch that is under way, on record; answers which. What became of them since the backup
/// is forgotten, their failures too: each goes on by a person's word.
pub(in crate::store) fn pause_all(tx: &Tx<'_>) -> Result<Vec<BatchId>, StoreError> {
    let open = open(tx)?;
    for id in &open {
        let Some(batch) = find(tx, *id)? else { continue };
        set_course(tx, *id, Course::Paused, Some(&Reason::Restored))?;
        let paused =
            Batch { course: Course::Paused, reason: Some(Reason::Restored), ..batch.clone() };
        let told = Told::of(Some(batch.organization)).before(told(&batch)).after(told(&paused));
        audit::record(tx, &Entry::system("pause", id), Some(told))?;
    }
    Ok(open)
}

fn open(tx: &Tx<'_>) -> rusqlite::Result<Vec<BatchId>> {
    let mut statement = tx.prepare_cached("SELECT id FROM batches WHERE course = 'open'")?;
    let ids = statement.query_map([], |row| parsed(row, "id"))?;
    ids.collect()
}
