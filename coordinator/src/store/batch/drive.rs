//! What is done with a batch on its way. Each verb looks once more whether it still may.

use rusqlite::named_params;
use shared::ids::{BatchId, DeviceId, OperationId};

use super::create::{set_course, told};
use super::{BatchRefused, PIECE, find, find_in, overdue, takeover};
use crate::batch::{Batch, Course, Forgiven, Reason};
use crate::operation::{Operation, cancel, expiry};
use crate::store::audit::Told;
use crate::store::listing::Scope;
use crate::store::note::Note;
use crate::store::operation::{self, COLUMNS, FROM, save, want};
use crate::store::{Never, Priority, Rejection, Store, StoreError, Tx, device};

type Refused<T> = Result<T, Rejection<BatchRefused>>;

/// What becomes of the members of a batch that is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    /// In an attempt's hands: these finish.
    pub will_finish: u64,
    /// In nobody's: these will not be flashed.
    pub cancelled: u64,
}

impl Store {
    /// Takes members out of the pool into the wave `n`, the newest or the next; answers how many
    /// were still there.
    pub(crate) async fn open_wave(
        &self,
        id: BatchId,
        n: u32,
        members: Vec<OperationId>,
    ) -> Refused<usize> {
        let (mut joined, mut left) = (0, members);
        loop {
            let some = move |tx: &Tx<'_>| fill_wave(tx, id, n, left);
            let (some, rest) = self.write_at(Priority::Bulk, some).await?;
            (joined, left) = (joined + some, rest);
            if left.is_empty() {
                return Ok(joined);
            }
        }
    }

    /// Puts members of wave `n` that were never granted back into the pool, to its end. A failed
    /// attempt stays in its wave, which it speaks against.
    pub(crate) async fn defer(
        &self,
        id: BatchId,
        n: u32,
        members: Vec<OperationId>,
    ) -> Refused<usize> {
        let (mut deferred, mut left) = (0, members);
        while !left.is_empty() {
            let some = move |tx: &Tx<'_>| put_back(tx, id, n, left);
            let (some, rest) = self.write_at(Priority::Bulk, some).await?;
            (deferred, left) = (deferred + some, rest);
        }
        Ok(deferred)
    }

    /// No grants from here on; what was granted finishes.
    pub async fn pause_batch(&self, scope: Scope, id: BatchId, reason: Reason) -> Refused<Batch> {
        self.steer(scope, id, &[Course::Open], move |tx, batch| {
            set_course(tx, batch.id, Course::Paused, Some(&reason))
        })
        .await
    }

    /// Grants again. Where it stopped by itself, what stopped it is forgiven.
    pub async fn resume_batch(&self, scope: Scope, id: BatchId) -> Refused<Batch> {
        let since = self.listening_since();
        // A fleet of them is forgiven beforehand: while it is paused that makes no difference.
        while self.forgive_some(scope.clone(), id, PIECE).await? >= PIECE {}
        let resumed = self.steer(scope, id, &[Course::Paused], move |tx, batch| {
            if is_of_threshold(batch) {
                overdue::forgive(tx, batch.id, since, PIECE)?;
            }
            forgive(tx, batch)?;
            set_course(tx, batch.id, Course::Open, None)
        });
        let resumed = resumed.await?;
        if let Err(error) = self.wake_wave(&resumed).await {
            // It is resumed, and whoever was not woken asks again by itself.
            tracing::warn!(batch = %id, %error, "members of a batch that goes on are not woken");
        }
        Ok(resumed)
    }

    /// Of a batch that its threshold has paused: some of those who are overdue. Answers how many.
    pub(in crate::store) async fn forgive_some(
        &self,
        scope: Scope,
        id: BatchId,
        most: usize,
    ) -> Refused<usize> {
        let (since, quiet) = (self.listening_since(), self.off_record());
        let forgiven = quiet.write_at(Priority::Bulk, move |tx| {
            let batch = at(tx, &scope, id, &[Course::Paused])?;
            if !is_of_threshold(&batch) {
                return Ok(0);
            }
            Ok(overdue::forgive(tx, id, since, most)?)
        });
        forgiven.await
    }

    /// Takes it back: nothing of it is granted from here on.
    pub async fn cancel_batch(
        &self,
        scope: Scope,
        id: BatchId,
        reason: Reason,
    ) -> Refused<Withdrawal> {
        self.write(move |tx| {
            let batch = at(tx, &scope, id, &[Course::Preparing, Course::Open, Course::Paused])?;
            set_course(tx, id, Course::Cancelling, Some(&reason))?;
            let will_finish = batch.granted;
            let cancelled = batch.members().undecided().saturating_sub(will_finish);
            tell(tx, &batch, &reread(tx, id)?);
            Ok(Withdrawal { will_finish, cancelled })
        })
        .await
    }

    /// Its time is over.
    pub(crate) async fn expire_batch(&self, id: BatchId) -> Refused<Batch> {
        let courses = [Course::Open, Course::Paused];
        self.steer(Scope::Everything, id, &courses, |tx, batch| {
            set_course(tx, batch.id, Course::Expiring, Some(&Reason::Expired))
        })
        .await
    }

    /// Every operation has ended, and did so before it was launched: otherwise the last one ends it.
    pub(crate) async fn finish_batch(&self, id: BatchId) -> Refused<Batch> {
        self.write(move |tx| {
            let batch = reread(tx, id)?;
            if !batch.has_ended() || batch.course == Course::Finished {
                return Err(Rejection::Refused(BatchRefused::Changed));
            }
            set_course(tx, id, Course::Finished, batch.reason.as_ref())?;
            reread(tx, id)
        })
        .await
    }

    /// Ends some of what is in nobody's hands, of a batch that was taken back or is over; answers
    /// how many.
    pub async fn withdraw(&self, id: BatchId) -> Result<usize, StoreError> {
        self.withdraw_some(id, PIECE).await
    }

    /// At most so many.
    pub(in crate::store) async fn withdraw_some(
        &self,
        id: BatchId,
        most: usize,
    ) -> Result<usize, StoreError> {
        let withdrawn = self.write_at::<_, Never, _>(Priority::Bulk, move |tx| {
            let Some(batch) = find(tx, id)? else { return Ok(0) };
            let why = batch.reason.as_ref().map_or_else(String::new, Reason::to_string);
            let over = matches!(batch.course, Course::Cancelling | Course::Expiring);
            let mut ended = if over { takeover::drop_some(tx, id, most)? } else { 0 };
            for mut operation in in_nobodys_hands(tx, id, most)? {
                let done = match batch.course {
                    Course::Cancelling => {
                        let why = format!("the batch was taken back, {why}");
                        cancel::skip(&mut operation, &why, tx.now).is_ok()
                    }
                    Course::Expiring => expiry::run_out(&mut operation, tx.now),
                    Course::Preparing | Course::Open | Course::Paused | Course::Finished => false,
                };
                if done {
                    save(tx, &operation)?;
                    device::bump(tx, operation.device)?;
                    ended += 1;
                }
                if tx.had_its_turn() {
                    break;
                }
            }
            tx.note(Note::Batch(id));
            Ok(ended)
        });
        Ok(withdrawn.await?)
    }

    async fn steer(
        &self,
        scope: Scope,
        id: BatchId,
        from: &[Course],
        change: impl FnOnce(&Tx<'_>, &Batch) -> rusqlite::Result<()> + Send + 'static,
    ) -> Refused<Batch> {
        let from = from.to_vec();
        self.write(move |tx| {
            let batch = at(tx, &scope, id, &from)?;
            change(tx, &batch)?;
            let changed = reread(tx, id)?;
            tell(tx, &batch, &changed);
            Ok(changed)
        })
        .await
    }
}

fn tell(tx: &Tx<'_>, before: &Batch, after: &Batch) {
    tx.tell(Told::of(Some(after.organization)).before(told(before)).after(told(after)));
}

fn at(tx: &Tx<'_>, scope: &Scope, id: BatchId, courses: &[Course]) -> Refused<Batch> {
    let batch = find_in(tx, scope, id)?.ok_or(Rejection::Refused(BatchRefused::Unknown))?;
    let course = if batch.has_ended() { Course::Finished } else { batch.course };
    if courses.contains(&course) {
        Ok(batch)
    } else {
        Err(Rejection::Refused(BatchRefused::Course(course)))
    }
}

pub(super) fn open(tx: &Tx<'_>, id: BatchId) -> Refused<Batch> {
    at(tx, &Scope::Everything, id, &[Course::Open])
}

fn reread(tx: &Tx<'_>, id: BatchId) -> Refused<Batch> {
    find(tx, id)?.ok_or(Rejection::Refused(BatchRefused::Unknown))
}

fn begin_wave(tx: &Tx<'_>, batch: &Batch, n: u32) -> Refused<()> {
    if n != batch.wave.map_or(0, |newest| newest.saturating_add(1)) {
        return Err(Rejection::Refused(BatchRefused::Changed));
    }
    tx.prepare_cached("UPDATE batches SET wave = ?2, modified = ?3 WHERE id = ?1")?.execute((
        batch.id.to_string(),
        n,
        tx.now,
    ))?;
    tx.prepare_cached(
        "INSERT INTO batch_waves (batch, n, opened_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (batch, n) DO UPDATE SET opened_at = excluded.opened_at",
    )?
    .execute((batch.id.to_string(), n, tx.now))?;
    Ok(())
}

/// How many joined, and those that there was no time for.
fn fill_wave(
    tx: &Tx<'_>,
    id: BatchId,
    n: u32,
    members: Vec<OperationId>,
) -> Refused<(usize, Vec<OperationId>)> {
    let batch = open(tx, id)?;
    if batch.wave == Some(n) {
        // The new ones have as much time as the first.
        tx.prepare_cached("UPDATE batch_waves SET opened_at = ?3 WHERE batch = ?1 AND n = ?2")?
            .execute((id.to_string(), n, tx.now))?;
    } else {
        begin_wave(tx, &batch, n)?;
    }
    let (mut joined, mut members) = (0, members.into_iter());
    for member in members.by_ref() {
        joined += usize::from(join(tx, id, n, member)?);
        if tx.had_its_turn() {
            break;
        }
    }
    tx.note(Note::Batch(id));
    Ok((joined, members.collect()))
}

/// False where it is not in the pool any more.
fn join(tx: &Tx<'_>, batch: BatchId, n: u32, id: OperationId) -> rusqlite::Result<bool> {
    let Some(mut operation) = operation::find(tx, id)? else { return Ok(false) };
    let waits = operation.batch == Some(batch)
        && operation.wave.is_none()
        && !operation.status.is_terminal();
    if waits {
        operation.join(n, tx.now);
        save(tx, &operation)?;
        want(tx, &operation)?;
        device::bump(tx, operation.device)?;
    }
    Ok(waits)
}

/// How many are in the pool again, and those that there was no time for.
fn put_back(
    tx: &Tx<'_>,
    id: BatchId,
    n: u32,
    members: Vec<OperationId>,
) -> Refused<(usize, Vec<OperationId>)> {
    open(tx, id)?;
    let mut put_back = tx.prepare_cached(
        "UPDATE operations SET wave = NULL, deferred = 1, modified = ?4
         WHERE id = ?1 AND batch = ?2 AND wave = ?3 AND attempts_granted = 0
             AND status IN ('idle', 'in-progress')",
    )?;
    let (mut deferred, mut members) = (0, members.into_iter());
    for member in members.by_ref() {
        if put_back.execute((member.to_string(), id.to_string(), n, tx.now))? > 0 {
            deferred += 1;
            if let Some(operation) = operation::find(tx, member)? {
                tx.note(Note::Operation(Box::new(operation)));
            }
        }
        if tx.had_its_turn() {
            break;
        }
    }
    tx.note(Note::Batch(id));
    Ok((deferred, members.collect()))
}

fn is_of_threshold(batch: &Batch) -> bool {
    matches!(batch.reason, Some(Reason::Threshold { .. }))
}

/// What has ended; [`overdue::forgive`] has the others.
fn forgive(tx: &Tx<'_>, batch: &Batch) -> rusqlite::Result<()> {
    let before = batch.forgiven;
    let forgiven = match &batch.reason {
        Some(Reason::Threshold { .. }) => {
            let failures = batch.counts.charged;
            Forgiven { failures, decided: batch.counts.proved() + failures, ..before }
        }
        Some(Reason::Gate { wave, .. }) => Forgiven { wave: Some(*wave), ..before },
        Some(Reason::Operator { .. } | Reason::Expired | Reason::Unfinished | Reason::Restored)
        | None => before,
    };
    tx.prepare_cached(
        "UPDATE batches SET forgiven_failures = ?2, forgiven_decided = ?3, forgiven_wave = ?4
         WHERE id = ?1",
    )?
    .execute((batch.id.to_string(), forgiven.failures, forgiven.decided, forgiven.wave))?;
    Ok(())
}

fn in_nobodys_hands(tx: &Tx<'_>, id: BatchId, most: usize) -> rusqlite::Result<Vec<Operation>> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} INDEXED BY operations_in_nobodys_hands
         WHERE t.batch = :batch AND t.status IN ('idle', 'in-progress') AND NOT t.grant_open
         LIMIT :most"
    ))?;
    let values = named_params! { ":batch": id.to_string(), ":most": most };
    let rows = statement.query_map(values, operation::operation)?;
    rows.collect()
}

/// A device that gets no jobs any more leaves its batches, unless it is being flashed.
pub(in crate::store) fn skip_device(tx: &Tx<'_>, id: DeviceId, why: &str) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE t.device = ?1 AND t.batch IS NOT NULL
             AND t.status IN ('idle', 'in-progress')"
    ))?;
    let rows = statement.query_map([id.to_string()], operation::operation)?;
    for mut operation in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        if cancel::skip(&mut operation, why, tx.now).is_ok() {
            save(tx, &operation)?;
        }
    }
    Ok(())
}
