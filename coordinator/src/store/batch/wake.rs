//! Waking a wave's members, a piece at a time: of them there may be tens of thousands.

use rusqlite::{Connection, named_params};
use shared::ids::{BatchId, DeviceId};

use super::PIECE;
use super::grant::taken;
use crate::batch::Batch;
use crate::store::column::parsed;
use crate::store::note::Note;
use crate::store::{Never, Priority, Store, StoreError};

/// Where among a wave's members a look goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reached {
    deferred: bool,
    row: i64,
}

impl Store {
    /// How many of the places under `max_concurrent` are taken, as those who ask for one are told.
    pub(crate) async fn places_taken(&self, batch: &Batch) -> Result<u64, StoreError> {
        let (batch, now) = (batch.clone(), self.clock().now());
        self.read(move |conn| Ok(taken(conn, &batch, batch.granted, now)?)).await
    }

    /// Has so many of the newest wave ask again, for whom a place has become free: those after whoever was woken
    /// last, and from the beginning again where there are none. Answers where to go on.
    pub(crate) async fn wake_some(
        &self,
        batch: &Batch,
        after: Reached,
        most: usize,
    ) -> Result<Reached, StoreError> {
        let Some(wave) = batch.wave else { return Ok(Reached::default()) };
        let (id, quiet) = (batch.id, self.off_record());
        let found = self.read(move |conn| {
            let mut found = Vec::new();
            let beginning = Reached::default();
            let deferred = Reached { deferred: true, row: 0 };
            for place in [after, deferred.max(after), beginning, deferred] {
                for (row, device) in waiting(conn, id, wave, place)? {
                    if found.len() < most && !found.iter().any(|(_, known)| *known == device) {
                        found.push((Reached { row, ..place }, device));
                    }
                }
            }
            Ok(found)
        });
        let found = found.await?;
        let Some((last, _)) = found.last().copied() else { return Ok(Reached::default()) };
        let woken = quiet.write_at::<_, Never, _>(Priority::Bulk, move |tx| {
            found.into_iter().for_each(|(_, device)| tx.note(Note::Desired(device)));
            Ok(())
        });
        woken.await?;
        Ok(last)
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
