//! Modems that should have been heard of long ago, found without reading the others: also by the writer,
//! which counts them at every grant.

use rusqlite::named_params;
use shared::ids::BatchId;

use crate::batch::tally::{DARK_AFTER_MS, GRACE_MS};
use crate::store::Tx;

/// The same rule as [`super::tally::silence`] has it, without those that were forgiven. `overdue_from` is
/// the earliest that it can be, which an index knows; few who are past it were heard of since.
const OVERDUE: &str = "FROM operations INDEXED BY operations_in_hand
    WHERE batch = :batch AND grant_open AND status IN ('idle', 'in-progress')
        AND overdue_from < :now
        AND (overdue_from = 0 OR :now - max(coalesce(heard_at, 0), granted_at, :since)
            > max(dark_longest_ms, :dark) + :grace)";

/// How many there are.
pub(super) fn count(tx: &Tx<'_>, batch: BatchId, since: u64, now: u64) -> rusqlite::Result<u64> {
    tx.prepare_cached(&format!("SELECT count(*) {OVERDUE}"))?.query_row(
        named_params! {
            ":batch": batch.to_string(), ":now": now, ":since": since,
            ":dark": DARK_AFTER_MS, ":grace": GRACE_MS,
        },
        |row| row.get(0),
    )
}

/// Has some of them count no more, until their next attempt; answers how many.
pub(super) fn forgive(
    tx: &Tx<'_>,
    batch: BatchId,
    since: u64,
    most: usize,
) -> rusqlite::Result<usize> {
    tx.prepare_cached(&format!(
        "UPDATE operations SET forgiven = 1, overdue_from = NULL
         WHERE rowid IN (SELECT rowid {OVERDUE} LIMIT :most)"
    ))?
    .execute(named_params! {
        ":batch": batch.to_string(), ":now": tx.now, ":since": since,
        ":dark": DARK_AFTER_MS, ":grace": GRACE_MS, ":most": most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::plan;

    #[test]
    fn they_are_found_in_an_index() {
        let plan = plan(&format!("SELECT count(*) {OVERDUE}"));
        assert!(plan.contains("operations_in_hand (batch=? AND overdue_from<?)"), "{plan}");
    }
}
