//! Members of a batch whose attempt failed and that say nothing any more: they end as failed, which
//! they are, and hold nobody up.

use shared::ids::{BatchId, OperationId};

use super::drive::open;
use super::{BatchRefused, tally};
use crate::operation::cancel;
use crate::store::note::Note;
use crate::store::operation::{self, save};
use crate::store::{Priority, Rejection, Store, Tx, device};

const WHY: &str = "it was not heard of any more after an attempt that failed";

impl Store {
    /// Ends them, as far as they are silent still; answers how many.
    pub(crate) async fn give_up(
        &self,
        id: BatchId,
        members: Vec<OperationId>,
    ) -> Result<usize, Rejection<BatchRefused>> {
        let (mut ended, mut left) = (0, members);
        while !left.is_empty() {
            let some = move |tx: &Tx<'_>| end_some(tx, id, left);
            let (some, rest) = self.write_at(Priority::Bulk, some).await?;
            (ended, left) = (ended + some, rest);
        }
        Ok(ended)
    }
}

/// How many have ended, and those that there was no time for.
fn end_some(
    tx: &Tx<'_>,
    id: BatchId,
    members: Vec<OperationId>,
) -> Result<(usize, Vec<OperationId>), Rejection<BatchRefused>> {
    let batch = open(tx, id)?;
    let (mut ended, mut members) = (0, members.into_iter());
    for member in members.by_ref() {
        // It may have been heard of, or have begun again, since it was found.
        if tally::is_stalled(tx, &batch, member, tx.now)?
            && let Some(mut operation) = operation::find(tx, member)?
            && cancel::skip(&mut operation, WHY, tx.now).is_ok()
        {
            save(tx, &operation)?;
            device::bump(tx, operation.device)?;
            ended += 1;
        }
        if tx.had_its_turn() {
            break;
        }
    }
    tx.note(Note::Batch(id));
    Ok((ended, members.collect()))
}
