//! What a batch says to a grant, inside the grant's own transaction: from counters and a few entries of
//! an index, however many operations it has.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{find, overdue, row, takeover};
use crate::batch::{Batch, Course};
use crate::operation::Operation;
use crate::operation::grant::Standing;
use crate::store::Tx;
use crate::store::column::Cells;

/// Where `batch_waves` counts those that are in no wave.
const POOL: i64 = -1;

/// Whether the operation's batch lets it start now. Nobody was silent before `listening_since`.
pub(in crate::store) fn standing(
    tx: &Tx<'_>,
    op: &Operation,
    listening_since: u64,
) -> rusqlite::Result<Standing> {
    if takeover::gives_way(tx, op)? {
        return Ok(Standing::GivesWay);
    }
    let Some(id) = op.batch else { return Ok(Standing::Good) };
    let Some(batch) = find(tx, id)? else { return Ok(Standing::Withdrawn) };
    Ok(match batch.course {
        Course::Cancelling | Course::Expiring | Course::Finished => Standing::Withdrawn,
        Course::Paused => Standing::Paused,
        Course::Preparing => Standing::NotYet,
        Course::Open if op.wave.is_none() => Standing::NotYet,
        Course::Open if batch.start_at.is_some_and(|start| tx.now < start) => Standing::NotYet,
        // The pilot pauses it when it has looked.
        Course::Open if has_tripped(tx, &batch, listening_since)? => Standing::Paused,
        Course::Open if is_lost(tx, &batch)? => Standing::Paused,
        Course::Open if is_crowded(tx, &batch, op)? => Standing::Crowded,
        Course::Open => Standing::Good,
    })
}

fn has_tripped(tx: &Tx<'_>, batch: &Batch, listening_since: u64) -> rusqlite::Result<bool> {
    let counts = batch.granted > 0 && batch.strategy.has_threshold();
    let overdue = if counts { overdue::count(tx, batch.id, listening_since, tx.now)? } else { 0 };
    Ok(batch.strategy.tripped(&batch.counts, overdue, &batch.forgiven).is_some())
}

/// The gate of the newest wave cannot be passed any more, and there are others whom it is to keep.
fn is_lost(tx: &Tx<'_>, batch: &Batch) -> rusqlite::Result<bool> {
    let Some(newest) = batch.wave.filter(|n| !batch.forgiven.has_wave(*n)) else {
        return Ok(false);
    };
    let counts = |n: i64| {
        tx.prepare_cached(
            "SELECT idle, in_progress, success, failed, aborted, cancelled, charged, unproved
             FROM batch_waves WHERE batch = ?1 AND n = ?2",
        )?
        .query_row((batch.id.to_string(), n), |row| row::counts(&mut Cells::of(row)))
        .optional()
    };
    let lost = counts(newest.into())?.is_some_and(|wave| batch.strategy.is_lost(&wave));
    Ok(lost && counts(POOL)?.is_some_and(|pool| pool.undecided() > 0))
}

/// A place is held from the first grant to the end. Whoever is past a failed attempt with the old
/// version running, and is silent, gives its place to others. Those between two attempts do not keep
/// each other from the next one.
fn is_crowded(tx: &Tx<'_>, batch: &Batch, op: &Operation) -> rusqlite::Result<bool> {
    let Some(most) = batch.strategy.max_concurrent.map(u64::from) else { return Ok(false) };
    let others = batch.granted.saturating_sub(u64::from(op.is_granted()));
    if others >= most || op.attempts_granted > 0 {
        return Ok(others >= most);
    }
    Ok(taken(tx, batch, others, tx.now)? >= most)
}

/// The places that are taken, counted up to all that there are: `granted`, and those between two attempts.
pub(super) fn taken(
    conn: &Connection,
    batch: &Batch,
    granted: u64,
    now: u64,
) -> rusqlite::Result<u64> {
    let most = batch.strategy.max_concurrent.map_or(u64::MAX, u64::from);
    let heard = now.saturating_sub(batch.strategy.offline_after_ms());
    let between: u64 = conn.prepare_cached(BETWEEN)?.query_row(
        named_params! {
            ":batch": batch.id.to_string(), ":heard": heard,
            ":room": i64::try_from(most.saturating_sub(granted)).unwrap_or(i64::MAX),
        },
        |row| row.get(0),
    )?;
    Ok(granted + between)
}

const BETWEEN: &str =
    "SELECT count(*) FROM (SELECT 1 FROM operations INDEXED BY operations_between_attempts
    WHERE batch = :batch AND attempts_granted > 0 AND NOT grant_open
        AND status IN ('idle', 'in-progress') AND heard_at >= :heard LIMIT :room)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::plan;

    #[test]
    fn a_place_is_looked_for_in_an_index() {
        let plan = plan(BETWEEN);
        let index = "operations_between_attempts (batch=? AND heard_at>?)";
        assert!(plan.contains(index), "{plan}");
    }
}
