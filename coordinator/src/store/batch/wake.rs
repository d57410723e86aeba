//! Waking a wave's members, a piece at a time: of them there may be tens of thousands.

use rusqlite::{Connection, named_params};
use shared::ids::{BatchId, DeviceId};

use super::PIECE;
use crate::batch::Batch;
use crate::store::column::parsed;
use crate::store::note::Note;
use crate::store::{Never, Priority, Store, StoreError};

/// Where among a wave's members a look goes on.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    deferred: bool,
    row: i64,
}

impl Store {
    /// Has some of the newest wave ask again, for whom a place has become free: those after `row`, and from the
    /// beginning again where there are none. Answers where to go on.
    pub(crate) async fn wake_some(
        &self,
        batch: &Batch,
        row: i64,
        most: usize,
    ) -> Result<i64, StoreError> {
        let Some(wave) = batch.wave else { return Ok(0) };
        let (id, quiet) = (batch.id, self.off_record());
        let starts = if row > 0 { &[row, 0][..] } else { &[0] };
        for row in starts.iter().copied() {
            let reached = Reached { deferred: false, row };
            let mut some = self.read(move |conn| Ok(waiting(conn, id, wave, reached)?)).await?;
            some.truncate(most);
            let Some((last, _)) = some.last().copied() else { continue };
            let woken = quiet.write_at::<_, Never, _>(Priority::Bulk, move |tx| {
                some.into_iter().for_each(|(_, device)| tx.note(Note::Desired(device)));
                Ok(())
            });
            woken.await?;
            return Ok(last);
        }
        Ok(0)
    }

    /// Has those who were refused while the batch was paused ask again at once. What is lost of it is no
    /// more than time: they ask again by themselves.
    pub(super) async fn wake_wave(&self, batch: &Batch) -> Result<(), StoreError> {
        let Some(wave) = batch.wave else { return Ok(()) };
        let (id, quiet) = (batch.id, self.off_record());
        for deferred in [false, true] {
            let mut reached = Reached { deferred, row: 0 };
            loop {
                let piece = self.read(move |conn| Ok(waiting(conn, id, wave, reached)?)).await?;
                let Some((row, _)) = piece.last().copied() else { break };
                reached.row = row;
                let woken = quiet.write_at::<_, Never, _>(Priority::Bulk, move |tx| {
                    piece.into_iter().for_each(|(_, device)| tx.note(Note::Desired(device)));
                    Ok(())
                });
                woken.await?;
            }
        }
        Ok(())
    }
}

const WAITING: &str = "SELECT rowid, device FROM operations INDEXED BY operations_in_nobodys_hands
    WHERE batch = :batch AND wave = :wave AND deferred = :deferred AND NOT grant_open
        AND status IN ('idle', 'in-progress') AND rowid > :row
    ORDER BY rowid LIMIT :most";

fn waiting(
    conn: &Connection,
    batch: BatchId,
    wave: u32,
    after: Reached,
) -> rusqlite::Result<Vec<(i64, DeviceId)>> {
    let mut statement = conn.prepare_cached(WAITING)?;
    let values = named_params! {
        ":batch": batch.to_string(), ":wave": wave, ":deferred": after.deferred, ":row": after.row,
        ":most": PIECE,
    };
    let rows =
        statement.query_map(values, |row| Ok((row.get("rowid")?, parsed(row, "device")?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::plan;

    #[test]
    fn a_piece_is_read_from_an_index() {
        let plan = plan(WAITING);
        let index = "operations_in_nobodys_hands (batch=? AND wave=? AND deferred=? AND rowid>?)";
        assert!(plan.contains(index) && !plan.contains("TEMP"), "{plan}");
    }
}
