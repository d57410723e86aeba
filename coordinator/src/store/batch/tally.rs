//! Counting a batch without reading its operations: from counters that triggers keep, and from
//! indexes of what is undecided. Those are named: SQLite, which knows no numbers of rows, would take one of
//! all that have a status for as good.

use rusqlite::{Connection, named_params};
use shared::ids::{BatchId, OperationId};

use super::row;
use crate::batch::decide::{Whom, asks_who_is_there};
use crate::batch::tally::{DARK_AFTER_MS, GRACE_MS};
use crate::batch::{Batch, Course, Silence, Tally, Wave};
use crate::store::column::{Cells, parsed};
use crate::store::{Store, StoreError};

impl Store {
    /// Some of the batch's pool that are there, at most `most`; those that were in a wave before come
    /// last.
    pub(crate) async fn draw(
        &self,
        batch: &Batch,
        most: u64,
    ) -> Result<Vec<OperationId>, StoreError> {
        let (id, seen) = (batch.id, seen_since(batch, self.clock().now()));
        self.read(move |conn| {
            let mut statement = conn.prepare_cached(&drawn())?;
            let values = named_params! { ":batch": id.to_string(), ":seen": seen, ":most": i64::try_from(most).unwrap_or(i64::MAX) };
            let ids = statement.query_map(values, |row| parsed(row, "id"))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Those who hold the batch's newest wave up, some of them.
    pub(crate) async fn holding_up(
        &self,
        batch: &Batch,
        whom: Whom,
    ) -> Result<Vec<OperationId>, StoreError> {
        let (id, seen) = (batch.id, seen_since(batch, self.clock().now()));
        self.read(move |conn| {
            let sql = format!("{} LIMIT :most", undecided(whom));
            let mut statement = conn.prepare_cached(&sql)?;
            let values = named_params! {
                ":batch": id.to_string(), ":seen": seen, ":most": super::PIECE,
            };
            let ids = statement.query_map(values, |row| parsed(row, "id"))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// A device that was heard of since is there.
fn seen_since(batch: &Batch, now: u64) -> u64 {
    now.saturating_sub(batch.strategy.offline_after_ms())
}

/// Who may be taken into a wave: devices that are there, and get jobs.
fn pool(columns: &str) -> String {
    format!(
        "SELECT {columns} FROM operations t INDEXED BY operations_in_nobodys_hands
             JOIN devices d ON d.id = t.device
         WHERE t.batch = :batch AND t.wave IS NULL AND t.status IN ('idle', 'in-progress')
             AND NOT t.grant_open
             AND (d.online OR d.last_seen >= :seen) AND d.duplicate_since IS NULL"
    )
}

fn drawn() -> String {
    format!("{} ORDER BY t.deferred, t.rowid LIMIT :most", pool("t.id"))
}

fn undecided(whom: Whom) -> String {
    let silent = match whom {
        Whom::Stalled => return stalled(),
        Whom::Offline => {
            "((NOT d.online AND coalesce(d.last_seen, 0) < :seen) OR d.duplicate_since IS NOT NULL)"
        }
        Whom::Stragglers => ":seen IS NOT NULL",
    };
    format!(
        "SELECT t.id FROM operations t INDEXED BY operations_in_nobodys_hands
             JOIN devices d ON d.id = t.device
         WHERE t.batch = :batch AND t.wave = (SELECT wave FROM batches WHERE id = :batch)
             AND t.status IN ('idle', 'in-progress') AND NOT t.grant_open
             AND t.attempts_granted = 0 AND {silent}"
    )
}

/// Between two attempts: the grant is closed, and nobody hears of the next one.
const STALLED: &str = "t.batch = :batch AND t.attempts_granted > 0 AND NOT t.grant_open
    AND t.status IN ('idle', 'in-progress') AND t.heard_at < :seen
    AND ((NOT d.online AND coalesce(d.last_seen, 0) < :seen) OR d.duplicate_since IS NOT NULL)";

fn stalled() -> String {
    format!(
        "SELECT t.id FROM operations t INDEXED BY operations_between_attempts
             JOIN devices d ON d.id = t.device
         WHERE {STALLED}"
    )
}

fn stalled_member() -> String {
    format!(
        "SELECT 1 FROM operations t JOIN devices d ON d.id = t.device
         WHERE t.id = :member AND {STALLED}"
    )
}

/// Whether this member is one of those.
pub(super) fn is_stalled(
    conn: &Connection,
    batch: &Batch,
    member: OperationId,
    now: u64,
) -> rusqlite::Result<bool> {
    conn.prepare_cached(&stalled_member())?.exists(named_params! {
        ":member": member.to_string(),
        ":batch": batch.id.to_string(),
        ":seen": seen_since(batch, now),
    })
}

/// The waves that were opened, in order.
pub(super) fn waves(conn: &Connection, id: BatchId) -> rusqlite::Result<Vec<Wave>> {
    let mut statement = conn.prepare_cached(
        "SELECT idle, in_progress, success, failed, aborted, cancelled, charged, unproved, n,
             opened_at,
             last_result
         FROM batch_waves WHERE batch = ?1 AND n >= 0 ORDER BY n",
    )?;
    let waves = statement.query_map([id.to_string()], |row| {
        let mut cells = Cells::of(row);
        Ok(Wave {
            counts: row::counts(&mut cells)?,
            n: cells.plain()?,
            opened_at: cells.plain::<Option<u64>>()?.unwrap_or(0),
            last_result: cells.plain()?,
        })
    })?;
    waves.collect()
}

/// What a decision needs; what it does not need now stays 0.
pub(super) fn tally(
    conn: &Connection,
    batch: &Batch,
    waves: &[Wave],
    listening_since: u64,
    now: u64,
) -> rusqlite::Result<Tally> {
    let of_waves: u64 = waves.iter().map(|wave| wave.counts.undecided()).sum();
    let mut tally = Tally {
        all: batch.counts,
        silence: silence(conn, batch.id, listening_since, now)?,
        wave: waves.last().copied(),
        pool: batch.counts.undecided().saturating_sub(of_waves),
        best: waves.iter().map(|wave| wave.counts.proved()).max().unwrap_or(0),
        ..Tally::default()
    };
    let settled = tally.wave.is_none_or(|wave| wave.counts.undecided() == 0);
    let seen = seen_since(batch, now);
    let most = super::PIECE.try_into().unwrap_or(u64::MAX);
    // After a start nobody was silent yet: it was the coordinator that did not listen.
    let listened = now.saturating_sub(listening_since) >= batch.strategy.offline_after_ms();
    if listened && !settled {
        tally.stalled = count(conn, &stalled(), batch.id, seen, most)?;
    }
    if tally.pool == 0 {
        return Ok(tally);
    }
    if settled {
        if !asks_who_is_there(batch, tally.wave.as_ref(), now) {
            return Ok(tally);
        }
        let next = tally.wave.map_or(0, |wave| wave.n.saturating_add(1));
        let most = batch.strategy.size(next).max(batch.strategy.gate.minimum.into());
        tally.present = count(conn, &pool("1"), batch.id, seen, most)?;
    } else {
        if listened {
            tally.offline = count(conn, &undecided(Whom::Offline), batch.id, seen, most)?;
        }
        tally.stragglers = count(conn, &undecided(Whom::Stragglers), batch.id, seen, most)?;
        // Whether there is anybody at all who could take a straggler's place.
        let asked = tally.stragglers > 0 && batch.course == Course::Open;
        tally.present = if asked { count(conn, &pool("1"), batch.id, seen, 1)? } else { 0 };
    }
    Ok(tally)
}

/// As many as `select` finds, up to `most`.
fn count(
    conn: &Connection,
    select: &str,
    batch: BatchId,
    seen: u64,
    most: u64,
) -> rusqlite::Result<u64> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    conn.prepare_cached(&format!("SELECT count(*) FROM ({select} LIMIT :most)"))?.query_row(
        named_params! { ":batch": batch.to_string(), ":seen": seen, ":most": most },
        |row| row.get(0),
    )
}

const SILENCE: &str = "SELECT count(*),
             coalesce(sum(NOT recovers AND quiet > :dark AND quiet <= expected), 0),
             coalesce(sum(NOT recovers AND quiet > expected AND quiet <= longest), 0),
             coalesce(sum(recovers OR quiet > longest), 0),
             coalesce(sum(forgiven AND (recovers OR quiet > longest)), 0)
         FROM (SELECT :now - max(coalesce(heard_at, 0), granted_at, :since) AS quiet,
                   coalesce(phase, '') IN ('recovering', 'held') AS recovers,
                   max(dark_expected_ms, :dark) + :grace AS expected,
                   max(dark_longest_ms, :dark) + :grace AS longest, forgiven
               FROM operations INDEXED BY operations_in_hand
               WHERE batch = :batch AND status IN ('idle', 'in-progress') AND grant_open)";

/// How long those have been silent that may be being flashed. While the coordinator was down,
/// nobody was. A modem in recovery is as bad as one that says nothing, however much its router talks.
pub(super) fn silence(
    conn: &Connection,
    batch: BatchId,
    listening_since: u64,
    now: u64,
) -> rusqlite::Result<Silence> {
    conn.prepare_cached(SILENCE)?.query_row(
        named_params! {
            ":batch": batch.to_string(),
            ":now": now,
            ":since": listening_since,
            ":dark": DARK_AFTER_MS,
            ":grace": GRACE_MS,
        },
        |row| {
            let mut cells = Cells::of(row);
            Ok(Silence {
                granted: cells.plain()?,
                dark: cells.plain()?,
                suspect: cells.plain()?,
                overdue: cells.plain()?,
                forgiven: cells.plain()?,
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::plan;

    #[test]
    fn what_is_counted_is_found_in_an_index() {
        for sql in [pool("1"), undecided(Whom::Offline), undecided(Whom::Stragglers)] {
            let plan = plan(&sql);
            assert!(plan.contains("operations_in_nobodys_hands (batch=? AND wave=?)"), "{plan}");
            assert!(!plan.contains("SCAN"), "{plan}");
        }
        let stalled = plan(&stalled());
        assert!(
            stalled.contains("operations_between_attempts (batch=? AND heard_at<?)"),
            "{stalled}"
        );
        let member = plan(&stalled_member());
        assert!(member.contains("SEARCH t USING INDEX sqlite_autoindex_operations_1"), "{member}");
        let drawn = plan(&drawn());
        assert!(!drawn.contains("TEMP B-TREE"), "{drawn}");
        let plan = plan(SILENCE);
        assert!(plan.contains("operations_in_hand (batch=?)"), "{plan}");
    }
}
