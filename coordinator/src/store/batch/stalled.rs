//! Members of a batch whose attempt failed and that say nothing any more: they end as failed, which
//! they are, and hold nobody up.

use shared::ids::{BatchId, OperationId};

use super::BatchRefused;
use super::drive::open;
use crate::operation::cancel;
use crate::store::note::Note;
use crate::store::operation::{self, save};
use crate::store::{Rejection, Store, device};

const WHY: &str = "it was not heard of any more after an attempt that failed";

impl Store {
    /// Ends them, as far as no attempt is under way again; answers how many.
    pub(crate) async fn give_up(
        &self,
        id: BatchId,
        members: Vec<OperationId>,
    ) -> Result<usize, Rejection<BatchRefused>> {
        self.write(move |tx| {
            open(tx, id)?;
            let mut ended = 0;
            for member in members {
                let Some(mut operation) = operation::find(tx, member)? else { continue };
                let begun = operation.batch == Some(id) && operation.attempts_granted > 0;
                if begun && cancel::skip(&mut operation, WHY, tx.now).is_ok() {
                    save(tx, &operation)?;
                    device::bump(tx, operation.device)?;
                    ended += 1;
                }
            }
            tx.note(Note::Batch(id));
            Ok(ended)
        })
        .await
    }
}
