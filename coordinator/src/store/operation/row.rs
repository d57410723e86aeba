//! An operation's row: to and from [`Operation`]. Every column is written here and nowhere else.

use rusqlite::{Row, named_params};
use serde_json::Value;
use shared::ids::{OperationId, StreamId};
use shared::stages::Phase;

use crate::batch::charge;
use crate::batch::tally::{DARK_AFTER_MS, GRACE_MS};
use crate::operation::{Granted, Operation, Status};
use crate::store::Tx;
use crate::store::column::{Cells, to_json};
use crate::store::note::Note;

/// Writes a new one, of which nothing was heard yet, and passes it on.
pub(super) fn insert(tx: &Tx<'_>, op: &Operation) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO operations (id, organization, device, slot, image, batch, retry_of,
             upgrade_options, allow_volatile_staging, status, deadline, created, modified, wave,
             held, log)
         SELECT ?1, d.organization, d.id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13, ?14
         FROM devices d WHERE d.id = ?2",
    )?
    .execute((
        op.id.to_string(),
        op.device.to_string(),
        op.slot.as_str(),
        op.image.map(|id| id.to_string()),
        op.batch.map(|id| id.to_string()),
        op.retry_of.map(|id| id.to_string()),
        Value::Object(op.upgrade_options.clone()).to_string(),
        op.allow_volatile_staging,
        op.status.as_str(),
        op.deadline,
        op.created,
        op.wave,
        op.held,
        &op.log,
    ))?;
    tx.note(Note::Operation(Box::new(op.clone())));
    Ok(())
}

/// Writes everything of an operation that can change, and passes it on.
pub(in crate::store) fn save(tx: &Tx<'_>, op: &Operation) -> rusqlite::Result<()> {
    let id = op.id.to_string();
    tx.prepare_cached(
        "UPDATE operations SET phase = :phase, attempt = :attempt, progress_percent = :percent,
             detail = :detail, stalled = :stalled, fetched = :fetched, failure = :failure,
             evidence = :evidence, late_result = :late_result, log = :log, stream = :stream,
             last_seq = :last_seq, tick_attempt = :tick_attempt, tick_n = :tick_n,
             granted_attempt = :granted_attempt, granted_stream = :granted_stream,
             granted_at = :granted_at,
             dark_expected_ms = :dark_expected, dark_longest_ms = :dark_longest,
             grants_returned = :returned, grant_unused = :unused,
             heard_at = :heard_at, modified = :modified, held = :held
         WHERE id = :id",
    )?
    .execute(named_params! {
        ":id": id,
        ":phase": op.phase.map(|phase| phase.as_str()),
        ":attempt": op.attempt,
        ":percent": op.progress_percent,
        ":detail": op.detail,
        ":stalled": op.stalled,
        ":fetched": op.fetched,
        ":failure": op.failure.as_ref().map(to_json).transpose()?,
        ":evidence": op.evidence.map(|evidence| evidence.as_str()),
        ":late_result": op.late_result.as_ref().map(to_json).transpose()?,
        ":log": op.log,
        ":stream": op.stream.map(|id| id.to_string()),
        ":last_seq": op.last_seq,
        ":tick_attempt": op.tick_attempt,
        ":tick_n": op.tick_n,
        ":granted_attempt": op.granted.map(|granted| granted.attempt),
        ":granted_stream": op.granted.map(|granted| granted.stream.to_string()),
        ":granted_at": op.granted.map(|granted| granted.at),
        ":dark_expected": op.granted.map(|granted| granted.dark_expected_ms),
        ":dark_longest": op.granted.map(|granted| granted.dark_longest_ms),
        ":returned": op.granted.map_or(0, |granted| granted.returned),
        ":unused": op.granted.is_some_and(|granted| granted.unused),
        ":heard_at": op.heard_at,
        ":modified": op.modified,
        ":held": op.held,
    })?;
    Indexed::of(op).save(tx, &id)?;
    tx.note(Note::Operation(Box::new(op.clone())));
    Ok(())
}

/// As [`save`], where nothing but a tick came since it was read in this transaction, when its indexed columns
/// were `indexed`: ticks are many.
pub(in crate::store) fn save_tick(
    tx: &Tx<'_>,
    indexed: &Indexed,
    op: Operation,
) -> rusqlite::Result<()> {
    let id = op.id.to_string();
    tx.prepare_cached(
        "UPDATE operations SET phase = ?2, attempt = ?3, progress_percent = ?4, detail = ?5,
             stalled = ?6, fetched = ?7, stream = ?8, last_seq = ?9, tick_attempt = ?10,
             tick_n = ?11, heard_at = ?12, modified = ?13
         WHERE id = ?1",
    )?
    .execute((
        &id,
        op.phase.map(|phase| phase.as_str()),
        op.attempt,
        op.progress_percent,
        &op.detail,
        op.stalled,
        op.fetched,
        op.stream.map(|id| id.to_string()),
        op.last_seq,
        op.tick_attempt,
        op.tick_n,
        op.heard_at,
        op.modified,
    ))?;
    let now = Indexed::of(&op);
    if now != *indexed {
        now.save(tx, &id)?;
    }
    tx.note(Note::Operation(Box::new(op)));
    Ok(())
}

/// What indexes, triggers and foreign keys hang on. SQLite asks which columns a statement sets, not which of
/// them change: written with every milestone, they would cost eight indexes each time, and what is needed
/// to take it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Indexed {
    status: Status,
    wave: Option<u32>,
    attempts_granted: u32,
    finished_at: Option<u64>,
    superseded_by: Option<OperationId>,
    charged: bool,
    unproved: bool,
    granted: bool,
    overdue_from: Option<u64>,
}

impl Indexed {
    pub(in crate::store) fn of(op: &Operation) -> Self {
        Self {
            status: op.status,
            wave: op.wave,
            attempts_granted: op.attempts_granted,
            finished_at: op.finished_at,
            superseded_by: op.superseded_by,
            charged: charge::counts(op.status, op.failure.as_ref()),
            unproved: op.unproved,
            granted: op.is_granted(),
            overdue_from: overdue_from(op),
        }
    }

    /// Writes it, if the row has another.
    fn save(self, tx: &Tx<'_>, id: &str) -> rusqlite::Result<()> {
        let standing = (
            id,
            self.status.as_str(),
            self.wave,
            self.attempts_granted,
            self.finished_at,
            self.superseded_by.map(|id| id.to_string()),
            self.charged,
            self.unproved,
            self.granted,
            self.overdue_from,
        );
        let changed = "SELECT 1 FROM operations WHERE id = ?1
         AND (status, wave, attempts_granted, finished_at, superseded_by, charged, unproved,
             grant_open, overdue_from) IS NOT (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        if tx.prepare_cached(changed)?.exists(standing.clone())? {
            let set = "UPDATE operations SET status = ?2, wave = ?3, attempts_granted = ?4,
             finished_at = ?5, superseded_by = ?6, charged = ?7, unproved = ?8, grant_open = ?9,
             overdue_from = CASE WHEN forgiven AND attempts_granted = ?4 THEN NULL ELSE ?10 END,
             forgiven = forgiven AND attempts_granted = ?4
             WHERE id = ?1";
            tx.prepare_cached(set)?.execute(standing)?;
        }
        Ok(())
    }
}

/// When it would be overdue if nothing were heard of it since its grant: whatever it says only makes that
/// later, save that it is in recovery (0). It changes with a grant, and not with every tick.
fn overdue_from(op: &Operation) -> Option<u64> {
    let granted = op.granted.filter(|granted| granted.open)?;
    if matches!(op.phase, Some(Phase::Recovering | Phase::Held)) {
        return Some(0);
    }
    let longest = granted.dark_longest_ms.max(DARK_AFTER_MS).saturating_add(GRACE_MS);
    Some(granted.at.saturating_add(longest))
}

/// In the order in which [`operation`] takes them.
pub(in crate::store) const COLUMNS: &str = "t.id,
    (SELECT slug FROM organizations o WHERE o.id = t.organization),
    t.device, t.slot, t.image, t.batch, t.retry_of, t.superseded_by, t.upgrade_options,
    t.allow_volatile_staging, t.status, t.phase, t.attempt, t.progress_percent, t.detail, t.stalled,
    t.fetched, t.failure, t.evidence, t.late_result, t.log, t.stream, t.last_seq, t.tick_attempt,
    t.tick_n, t.attempts_granted, t.granted_stream, t.granted_attempt, t.granted_at,
    t.dark_expected_ms, t.dark_longest_ms, t.grant_open, t.grants_returned, t.grant_unused, t.heard_at,
    t.deadline, t.finished_at, t.created, t.modified, t.wave, t.held, t.unproved";

/// A row that begins with [`COLUMNS`].
pub(in crate::store) fn operation(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let mut cells = Cells::of(row);
    Ok(Operation {
        id: cells.parsed()?,
        organization: cells.parsed()?,
        device: cells.parsed()?,
        slot: cells.parsed()?,
        image: cells.parsed_opt()?,
        batch: cells.parsed_opt()?,
        retry_of: cells.parsed_opt()?,
        superseded_by: cells.parsed_opt()?,
        upgrade_options: cells.json()?,
        allow_volatile_staging: cells.plain()?,
        status: cells.parsed()?,
        phase: cells.word()?,
        attempt: cells.plain()?,
        progress_percent: cells.plain()?,
        detail: cells.plain()?,
        stalled: cells.plain()?,
        fetched: cells.plain()?,
        failure: cells.json_opt()?,
        evidence: cells.word()?,
        late_result: cells.json_opt()?,
        log: cells.plain()?,
        stream: cells.parsed_opt()?,
        last_seq: cells.plain()?,
        tick_attempt: cells.plain()?,
        tick_n: cells.plain()?,
        attempts_granted: cells.plain()?,
        granted: granted(&mut cells)?,
        heard_at: cells.plain()?,
        deadline: cells.plain()?,
        finished_at: cells.plain()?,
        created: cells.plain()?,
        modified: cells.plain()?,
        wave: cells.plain()?,
        held: cells.plain()?,
        unproved: cells.plain()?,
    })
}

fn granted(cells: &mut Cells<'_>) -> rusqlite::Result<Option<Granted>> {
    let stream: Option<StreamId> = cells.parsed_opt()?;
    let (attempt, at): (Option<u32>, Option<u64>) = (cells.plain()?, cells.plain()?);
    let (expected, longest): (Option<u64>, Option<u64>) = (cells.plain()?, cells.plain()?);
    let (open, returned, unused) = (cells.plain()?, cells.plain()?, cells.plain()?);
    let known = (stream, attempt, at, expected, longest);
    let (Some(stream), Some(attempt), Some(at), Some(dark_expected_ms), Some(dark_longest_ms)) =
        known
    else {
        return Ok(None);
    };
    Ok(Some(Granted {
        attempt,
        stream,
        at,
        dark_expected_ms,
        dark_longest_ms,
        open,
        returned,
        unused,
    }))
}

#[cfg(test)]
mod tests {
    use shared::event::{Outcome, Tick};
    use shared::failure::{Failure, FailureKind, ModemCondition};
    use shared::ids::BatchId;
    use uuid::Uuid;

    use super::*;
    use crate::operation::{Evidence, LateResult, Status, tick};
    use crate::store::Never;
    use crate::store::fixture::{Fixture, stream};

    #[tokio::test]
    async fn every_column_comes_back_as_itself() {
        let f = Fixture::new().await;
        let (device, image) = (f.device(1).await, f.image("v2").await);
        let (older, newer) = (f.device(2).await, f.device(3).await);
        let older = f.ask(older, image).await.unwrap().id;
        let newer = f.ask(newer, image).await.unwrap().id;
        let asked = f.ask(device, image).await.unwrap();
        let failure = Failure::new(
            Phase::Probing,
            FailureKind::AttemptLost,
            ModemCondition::OldVersion,
            "why",
        );
        let whole = Operation {
            id: OperationId(Uuid::from_u128(5)),
            slot: "second".parse().unwrap(),
            batch: Some(BatchId(Uuid::from_u128(6))),
            wave: Some(7),
            held: true,
            retry_of: Some(older),
            superseded_by: Some(newer),
            allow_volatile_staging: true,
            status: Status::Failed,
            phase: Some(Phase::Probing),
            attempt: 1,
            progress_percent: 12,
            detail: Some("detail".into()),
            stalled: true,
            fetched: 13,
            failure: Some(failure),
            evidence: Some(Evidence::Reported),
            unproved: true,
            late_result: Some(LateResult { outcome: Outcome::Cancelled, received: 14 }),
            log: "log".into(),
            stream: Some(stream(15)),
            last_seq: 16,
            tick_attempt: 17,
            tick_n: 18,
            attempts_granted: 2,
            granted: Some(Granted {
                attempt: 3,
                stream: stream(19),
                at: 20,
                dark_expected_ms: 21,
                dark_longest_ms: 22,
                open: true,
                returned: 28,
                unused: true,
            }),
            heard_at: Some(23),
            deadline: Some(24),
            finished_at: Some(25),
            created: 26,
            modified: 27,
            ..asked
        };
        let saved = whole.clone();
        f.store
            .write::<_, Never, _>(move |tx| {
                insert(tx, &saved)?;
                Ok(save(tx, &saved)?)
            })
            .await
            .unwrap();
        assert_eq!(f.operation(whole.id).await, whole);
    }
    #[tokio::test]
    async fn a_tick_is_written_as_it_was_applied() {
        let f = Fixture::new().await;
        let (device, image) = (f.device(1).await, f.image("v2").await);
        let asked = f.ask(device, image).await.unwrap();
        let granted = Granted {
            attempt: 2,
            stream: stream(2),
            at: 1,
            dark_expected_ms: 2,
            dark_longest_ms: 3,
            open: true,
            returned: 0,
            unused: false,
        };
        let before = Operation {
            stream: Some(stream(1)),
            last_seq: 9,
            attempts_granted: 2,
            granted: Some(granted),
            ..asked
        };
        let tick = Tick {
            v: 1,
            operation: before.id,
            slot: before.slot.clone(),
            stream: stream(2),
            attempt: 2,
            n: 3,
            phase: Phase::Installing,
            percent: 44,
            stalled: true,
            detail: Some("erasing".into()),
            fetched: Some(5),
        };
        let mut after = before.clone();
        assert!(tick::apply(&mut after, &tick, before.modified + 1));
        let saved = after.clone();
        let written = f.store.write::<_, Never, _>(move |tx| {
            save(tx, &before)?;
            Ok(save_tick(tx, &Indexed::of(&before), saved)?)
        });
        written.await.unwrap();
        assert_eq!(f.operation(after.id).await, after);
    }

    #[tokio::test]
    async fn what_indexes_hang_on_is_written_where_it_changed() {
        let f = Fixture::new().await;
        let (device, image) = (f.device(1).await, f.image("v2").await);
        let asked = f.ask(device, image).await.unwrap();
        let (newer, other) = (f.ask(f.device(2).await, image).await.unwrap().id, asked.id);
        let heard = Operation { log: "more".into(), modified: asked.modified + 1, ..asked };
        let changed = [
            heard.clone(),
            Operation { status: Status::InProgress, ..heard.clone() },
            Operation { wave: Some(1), ..heard.clone() },
            Operation { attempts_granted: 1, ..heard.clone() },
            Operation { superseded_by: Some(newer), ..heard.clone() },
            Operation { status: Status::Success, finished_at: Some(1), ..heard.clone() },
            heard,
        ];
        for (index, state) in changed.into_iter().enumerate() {
            let saved = state.clone();
            let rows = f.store.write::<_, Never, _>(move |tx| {
                let before = tx.total_changes();
                save(tx, &saved)?;
                Ok(tx.total_changes() - before)
            });
            assert_eq!(rows.await.unwrap(), if index == 0 { 1 } else { 2 }, "{state:?}");
            assert_eq!(f.operation(other).await, state);
        }
    }
}
