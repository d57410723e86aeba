//! Members of a batch whose modems have an older upgrade still. They are written down while the batch is
//! made, and are no operations yet: the older ones are as they were. From the launch on those are given no
//! leave, and one after the other they give way. So a batch that comes to nothing has taken nothing.

use rusqlite::{Row, named_params};
use shared::ids::{BatchId, DeviceId, OperationId, Slot};

use super::create::{Member, preparing, request};
use super::drive::open;
use super::{BatchRefused, PIECE, left_out};
use crate::batch::{Batch, LeftOut};
use crate::operation::Operation;
use crate::store::column::{parsed, parsed_opt};
use crate::store::note::Note;
use crate::store::operation::{enlist, make};
use crate::store::{Priority, Rejection, Store, StoreError, Tx};

/// What became of some of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub looked_at: usize,
    /// Operations by now; the others were left out, because something came between.
    pub joined: usize,
}

impl Store {
    /// Makes operations of some members that wait for it; answers how many it looked at. Whatever is left
    /// undone is done by the next call, whoever makes it.
    pub(crate) async fn take_over(&self, id: BatchId) -> Result<usize, Rejection<BatchRefused>> {
        let quiet = self.off_record();
        let some = quiet.write_at(Priority::Bulk, move |tx| {
            let batch = open(tx, id)?;
            Ok(take_some(tx, &batch, PIECE)?)
        });
        Ok(some.await?.looked_at)
    }

    /// Before the launch: those who cannot join any more are left out, up to the first who can. The others
    /// may be many, and a launch is one write.
    pub(super) async fn leave_out(
        &self,
        id: BatchId,
        most: usize,
    ) -> Result<(), Rejection<BatchRefused>> {
        let quiet = self.off_record();
        while quiet.write_at(Priority::Bulk, move |tx| leave_some_out(tx, id, most)).await? {}
        Ok(())
    }
}

/// A member that is to join when the batch is launched.
pub(super) fn note_down(
    tx: &Tx<'_>,
    batch: BatchId,
    member: &Member,
    by: &str,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        // REPLACE would fire the trigger that counts the new row, and not that of the old one.
        "INSERT INTO batch_takeovers (device, slot, batch, image, retry_of, asker)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (device, slot, batch)
             DO UPDATE SET image = ?4, retry_of = ?5, asker = ?6",
    )?
    .execute((
        member.device.to_string(),
        member.slot.as_str(),
        batch.to_string(),
        member.image.to_string(),
        member.retry_of.map(|id| id.to_string()),
        by,
    ))?;
    Ok(())
}

/// At most so many, and no more than there is time for. One bad device never stops the rest.
pub(super) fn take_some(tx: &Tx<'_>, batch: &Batch, most: usize) -> Result<Progress, StoreError> {
    let mut progress = Progress::default();
    for (member, by) in waiting(tx, batch.id, most)? {
        let key = (member.device, member.slot.clone());
        match make(tx, request(batch, member, &by), Some(batch)) {
            Ok(_) => progress.joined += 1,
            Err(Rejection::Refused(refused)) => {
                left_out::note_down(tx, batch.id, (key.0, &key.1), refused.into())?;
            }
            Err(Rejection::Store(error)) => return Err(error),
        }
        // After the operation is there: a batch without either has ended.
        forget(tx, batch.id, &key)?;
        progress.looked_at += 1;
        if tx.had_its_turn() {
            break;
        }
    }
    tx.note(Note::Batch(batch.id));
    Ok(progress)
}

/// Whether there may be more of them.
fn leave_some_out(tx: &Tx<'_>, id: BatchId, most: usize) -> Result<bool, Rejection<BatchRefused>> {
    let batch = preparing(tx, id)?;
    tx.note(Note::Batch(id));
    for (member, by) in waiting(tx, id, most)? {
        let key = (member.device, member.slot.clone());
        let can_join = match enlist(tx, request(&batch, member, &by), &batch) {
            // An older upgrade gives way to it, once the batch is launched.
            Ok(false) => return Ok(false),
            Ok(true) => true,
            Err(Rejection::Refused(refused)) => {
                left_out::note_down(tx, id, (key.0, &key.1), refused.into())?;
                false
            }
            Err(Rejection::Store(error)) => return Err(error.into()),
        };
        forget(tx, id, &key)?;
        if can_join {
            return Ok(false);
        }
        if tx.had_its_turn() {
            break;
        }
    }
    Ok(!waiting(tx, id, 1)?.is_empty())
}

/// Drops some of a batch that is taken back or is over; answers how many.
pub(super) fn drop_some(tx: &Tx<'_>, batch: BatchId, most: usize) -> rusqlite::Result<usize> {
    let mut dropped = 0;
    for (member, _) in waiting(tx, batch, most)? {
        left_out::note_down(tx, batch, (member.device, &member.slot), LeftOut::BatchEnded)?;
        dropped += forget(tx, batch, &(member.device, member.slot))?;
        if tx.had_its_turn() {
            break;
        }
    }
    Ok(dropped)
}

/// Somebody has asked for something else for this modem: no batch that was begun before has it.
pub(in crate::store) fn give_up(
    tx: &Tx<'_>,
    device: DeviceId,
    slot: &Slot,
) -> rusqlite::Result<()> {
    let mut given_up = tx.prepare_cached(
        "DELETE FROM batch_takeovers WHERE device = ?1 AND slot = ?2 RETURNING batch",
    )?;
    let batches =
        given_up.query_map((device.to_string(), slot.as_str()), |row| parsed(row, "batch"))?;
    for batch in batches.collect::<rusqlite::Result<Vec<_>>>()? {
        left_out::note_down(tx, batch, (device, slot), LeftOut::AskedSince)?;
        tx.note(Note::Batch(batch));
    }
    Ok(())
}

const PROMISED: &str = "SELECT 1 FROM batch_takeovers w JOIN batches b ON b.id = w.batch
    WHERE w.device = ?1 AND w.slot = ?2 AND b.course IN ('open', 'paused')
        AND b.rowid > coalesce((SELECT rowid FROM batches WHERE id = ?3), 0)";

/// Whether the operation is about to give way to a batch that was launched.
pub(super) fn gives_way(tx: &Tx<'_>, op: &Operation) -> rusqlite::Result<bool> {
    let own = op.batch.map(|id| id.to_string());
    tx.prepare_cached(PROMISED)?.exists((op.device.to_string(), op.slot.as_str(), own))
}

const WAITING: &str = "SELECT device, slot, image, retry_of, asker FROM batch_takeovers
    WHERE batch = :batch LIMIT :most";

fn waiting(tx: &Tx<'_>, batch: BatchId, most: usize) -> rusqlite::Result<Vec<(Member, String)>> {
    let mut statement = tx.prepare_cached(WAITING)?;
    let values = named_params! { ":batch": batch.to_string(), ":most": most };
    let rows = statement.query_map(values, member)?;
    rows.collect()
}

fn member(row: &Row<'_>) -> rusqlite::Result<(Member, String)> {
    let retry_of: Option<OperationId> = parsed_opt(row, "retry_of")?;
    let (device, slot, image) =
        (parsed(row, "device")?, parsed(row, "slot")?, parsed(row, "image")?);
    Ok((Member { device, slot, image, retry_of }, row.get("asker")?))
}

fn forget(
    tx: &Tx<'_>,
    batch: BatchId,
    (device, slot): &(DeviceId, Slot),
) -> rusqlite::Result<usize> {
    tx.prepare_cached("DELETE FROM batch_takeovers WHERE device = ?1 AND slot = ?2 AND batch = ?3")?
        .execute((device.to_string(), slot.as_str(), batch.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::plan;

    #[test]
    fn members_are_found_in_an_index() {
        let promised = plan(PROMISED);
        assert!(
            promised.contains("SEARCH w USING PRIMARY KEY (device=? AND slot=?)"),
            "{promised}"
        );
        let waiting = plan(WAITING);
        assert!(waiting.contains("batch_takeovers_by_batch (batch=?)"), "{waiting}");
    }
}
