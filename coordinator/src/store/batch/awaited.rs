//! Whom the newest wave waits for: some of them, read from the indexes of what is undecided.

use rusqlite::{Connection, Row, named_params};

use crate::batch::awaited::{Awaited, Quiet, Standing, why};
use crate::batch::{Batch, Course, Wave};
use crate::store::column::Cells;

/// Those past their grant, and as many of the others.
const MOST: u32 = 10;

/// Those who matter most: in an attempt's hands for longest, and first in the wave.
pub(super) fn awaited(
    conn: &Connection,
    batch: &Batch,
    newest: Option<&Wave>,
    since: u64,
    now: u64,
) -> rusqlite::Result<Vec<Awaited>> {
    let Some(wave) = newest.filter(|wave| wave.counts.undecided() > 0) else {
        return Ok(Vec::new());
    };
    if batch.course == Course::Preparing {
        return Ok(Vec::new());
    }
    let mut awaited = Vec::new();
    for sql in [in_hand(), in_nobodys_hands()] {
        let mut statement = conn.prepare_cached(&sql)?;
        let values = named_params! {
            ":batch": batch.id.to_string(), ":wave": wave.n, ":since": since, ":now": now,
            ":seen": now.saturating_sub(batch.strategy.offline_after_ms()), ":most": MOST,
        };
        for member in statement.query_map(values, member)? {
            awaited.push(member?);
        }
    }
    Ok(awaited)
}

/// In the order in which [`member`] takes them.
const COLUMNS: &str = "SELECT t.device, d.name, t.slot, t.id, t.phase, t.detail,
        t.attempts_granted > 0, NOT d.online AND coalesce(d.last_seen, 0) < :seen,
        d.duplicate_since IS NOT NULL, t.grant_open,
        max(0, :now - max(coalesce(t.heard_at, 0), coalesce(t.granted_at, 0), :since)),
        coalesce(t.dark_expected_ms, 0), coalesce(t.dark_longest_ms, 0)
    FROM operations t INDEXED BY {index} JOIN devices d ON d.id = t.device
    WHERE t.batch = :batch AND t.wave = :wave AND t.status IN ('idle', 'in-progress')";

fn in_hand() -> String {
    let columns = COLUMNS.replace("{index}", "operations_in_hand");
    format!("{columns} AND t.grant_open ORDER BY t.overdue_from LIMIT :most")
}

fn in_nobodys_hands() -> String {
    let columns = COLUMNS.replace("{index}", "operations_in_nobodys_hands");
    format!("{columns} AND NOT t.grant_open ORDER BY t.deferred, t.rowid LIMIT :most")
}

fn member(row: &Row<'_>) -> rusqlite::Result<Awaited> {
    let mut cells = Cells::of(row);
    let (device, name) = (cells.parsed()?, cells.plain()?);
    let (slot, operation) = (cells.parsed()?, cells.parsed()?);
    let mut standing = Standing {
        phase: cells.word()?,
        detail: cells.plain()?,
        begun: cells.plain()?,
        away: cells.plain()?,
        duplicate: cells.plain()?,
        granted: None,
    };
    let granted: bool = cells.plain()?;
    let quiet = Quiet { since: cells.plain()?, expected: cells.plain()?, longest: cells.plain()? };
    standing.granted = granted.then_some(quiet);
    Ok(Awaited { device, name, slot, operation, why: why(&standing) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::plan;

    #[test]
    fn they_are_found_in_an_index() {
        for (sql, index) in [
            (in_hand(), "operations_in_hand (batch=?)"),
            (in_nobodys_hands(), "operations_in_nobodys_hands (batch=? AND wave=?)"),
        ] {
            let plan = plan(&sql);
            assert!(plan.contains(index) && !plan.contains("TEMP"), "{plan}");
        }
    }
}
