//! What a batch says to a grant, inside the grant's own transaction.

use rusqlite::named_params;

use super::find;
use crate::batch::{Batch, Course};
use crate::operation::Operation;
use crate::operation::grant::Standing;
use crate::store::Tx;

/// Whether the operation's batch lets it start now.
pub(in crate::store) fn standing(tx: &Tx<'_>, op: &Operation) -> rusqlite::Result<Standing> {
    let Some(id) = op.batch else { return Ok(Standing::Good) };
    let Some(batch) = find(tx, id)? else { return Ok(Standing::Withdrawn) };
    Ok(match batch.course {
        Course::Cancelling | Course::Expiring | Course::Finished => Standing::Withdrawn,
        Course::Paused => Standing::Paused,
        Course::Preparing => Standing::NotYet,
        Course::Open if op.wave.is_none() => Standing::NotYet,
        Course::Open if batch.start_at.is_some_and(|start| tx.now < start) => Standing::NotYet,
        // The pilot pauses it in a moment.
        Course::Open if batch.strategy.tripped(&batch.counts, 0, &batch.forgiven).is_some() => {
            Standing::Paused
        }
        Course::Open if is_crowded(tx, &batch, op)? => Standing::Crowded,
        Course::Open => Standing::Good,
    })
}

/// A place is held from the first grant to the end. Whoever is past a failed attempt with the old
/// version running, and is silent, gives its place to others. Those between two attempts do not keep
/// each other from the next one.
fn is_crowded(tx: &Tx<'_>, batch: &Batch, op: &Operation) -> rusqlite::Result<bool> {
    let Some(most) = batch.strategy.max_concurrent else { return Ok(false) };
    let heard = tx.now.saturating_sub(batch.strategy.offline_after_ms());
    let others: u32 = tx
        .prepare_cached(
            "SELECT count(*) FROM operations
             WHERE batch = :batch AND id <> :own AND attempts_granted > 0
                 AND status IN ('idle', 'in-progress')
                 AND (grant_open OR (NOT :begun AND coalesce(heard_at, granted_at) >= :heard))",
        )?
        .query_row(
            named_params! {
                ":batch": batch.id.to_string(), ":own": op.id.to_string(), ":heard": heard,
                ":begun": op.attempts_granted > 0,
            },
            |row| row.get(0),
        )?;
    Ok(others >= most)
}
