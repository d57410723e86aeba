//! What is cleared away once nobody needs it any more: in small pieces, after everything that matters
//! more, so that the writer is free in between.
//!
//! Operations, devices and firmware stay. Of an operation that ended long ago go the milestones, but for
//! its end (a device that repeats it is told that it is known), and later the log.

use std::time::Duration;

use rusqlite::OptionalExtension;

use super::{Never, Priority, Store, StoreError, Tx};

/// How long things are kept; `None`: for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Since the operation ended, as the next.
    pub milestones: Option<Duration>,
    pub logs: Option<Duration>,
    pub dead_letters: Option<Duration>,
    pub audit: Option<Duration>,
}

/// How much was cleared away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleared {
    pub milestones: u64,
    pub logs: u64,
    pub dead_letters: u64,
    pub audit: u64,
}

impl Cleared {
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Rows in one transaction.
pub(super) const PIECE: u32 = 250;
/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(20);

/// Rows that went, and whether there may be more.
struct Piece {
    rows: u64,
    more: bool,
}

type Clear = fn(&Tx<'_>, u64) -> rusqlite::Result<Piece>;

impl Store {
    /// Clears away what is older than is to be kept.
    ///
    /// # Errors
    /// The store's; what was cleared stays so.
    pub async fn clear_away(&self, keep: Retention) -> Result<Cleared, StoreError> {
        Ok(Cleared {
            milestones: self.clear(keep.milestones, milestones).await?,
            logs: self.clear(keep.logs, logs).await?,
            dead_letters: self.clear(keep.dead_letters, dead_letters).await?,
            audit: self.clear(keep.audit, audit).await?,
        })
    }

    async fn clear(&self, keep: Option<Duration>, clear: Clear) -> Result<u64, StoreError> {
        let Some(keep) = keep else { return Ok(0) };
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let mut cleared = 0;
        loop {
            let piece = self.write_at::<_, Never, _>(Priority::Low, move |tx| {
                Ok(clear(tx, tx.now.saturating_sub(keep))?)
            });
            let piece = piece.await?;
            cleared += piece.rows;
            if !piece.more {
                return Ok(cleared);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn dead_letters(tx: &Tx<'_>, before: u64) -> rusqlite::Result<Piece> {
    // They came in the order of their ids.
    let gone = tx
        .prepare_cached(
            "DELETE FROM dead_letters WHERE received < ?1 AND id IN (
                 SELECT id FROM dead_letters ORDER BY id LIMIT ?2)",
        )?
        .execute((before, PIECE))?;
    Ok(piece(gone))
}

fn audit(tx: &Tx<'_>, before: u64) -> rusqlite::Result<Piece> {
    let gone = tx
        .prepare_cached(
            "DELETE FROM audit WHERE id IN (
                 SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute((before, PIECE))?;
    Ok(piece(gone))
}

fn piece(gone: usize) -> Piece {
    Piece { rows: gone as u64, more: gone as u64 >= u64::from(PIECE) }
}

fn logs(tx: &Tx<'_>, before: u64) -> rusqlite::Result<Piece> {
    walk(tx, "logs", before, |tx, operation, _| {
        let emptied = tx
            .prepare_cached("UPDATE operations SET log = '' WHERE id = ?1 AND log <> ''")?
            .execute([operation])?;
        Ok(emptied as u64)
    })
}

fn milestones(tx: &Tx<'_>, before: u64) -> rusqlite::Result<Piece> {
    walk(tx, "milestones", before, |tx, operation, room| {
        let gone = tx
            .prepare_cached(
                "DELETE FROM milestones WHERE operation = ?1 AND (stream, seq) IN (
                     SELECT stream, seq FROM milestones
                     WHERE operation = ?1 AND NOT (json_valid(body) AND body ->> 'type' IS 'finished')
                     LIMIT ?2)",
            )?
            .execute((operation, room))?;
        Ok(gone as u64)
    })
}

/// Walks over the operations that ended before, the oldest first, from where the last walk stopped.
/// `clear` takes up to so many rows of one; when it takes all it may, the operation has its turn again.
fn walk(
    tx: &Tx<'_>,
    what: &str,
    before: u64,
    clear: impl Fn(&Tx<'_>, &str, u64) -> rusqlite::Result<u64>,
) -> rusqlite::Result<Piece> {
    let (mut rows, most) = (0, u64::from(PIECE));
    let mut reached = None;
    let ended = ended(tx, what, before)?;
    let more = ended.len() as u64 >= most;
    for (finished_at, operation) in ended {
        rows += clear(tx, &operation, most - rows)?;
        if rows >= most {
            remember(tx, what, reached)?;
            return Ok(Piece { rows, more: true });
        }
        reached = Some((finished_at, operation));
    }
    remember(tx, what, reached)?;
    Ok(Piece { rows, more })
}

type Ended = (u64, String);

fn ended(tx: &Tx<'_>, what: &str, before: u64) -> rusqlite::Result<Vec<Ended>> {
    let reached: Option<Ended> = tx
        .prepare_cached("SELECT finished_at, operation FROM retention WHERE what = ?1")?
        .query_row([what], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (at, operation) = reached.unwrap_or_default();
    tx.prepare_cached(
        "SELECT finished_at, id FROM operations
         WHERE (finished_at, id) > (?1, ?2) AND finished_at < ?3
         ORDER BY finished_at, id LIMIT ?4",
    )?
    .query_map((at, operation, before, PIECE), |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

fn remember(tx: &Tx<'_>, what: &str, reached: Option<Ended>) -> rusqlite::Result<()> {
    let Some((at, operation)) = reached else { return Ok(()) };
    tx.prepare_cached(
        "INSERT INTO retention (what, finished_at, operation) VALUES (?1, ?2, ?3)
         ON CONFLICT (what) DO UPDATE SET finished_at = excluded.finished_at,
             operation = excluded.operation",
    )?
    .execute((what, at, operation))?;
    Ok(())
}
