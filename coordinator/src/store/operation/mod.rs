//! Operations: the rows, and the verbs that run the rules of [`crate::operation`] on them.

mod request;
mod row;
mod waiting;

use rusqlite::{Connection, OptionalExtension, named_params};
use serde_json::{Value, json};
use shared::grant::{Refusal, StartRequest};
use shared::ids::{BatchId, DeviceId, ImageId, OperationId, OrganizationSlug};

use super::audit::Told;
use super::column::parsed;
use super::listing::{Found, OF_ORGANIZATION, Order, Rows, Scope, Where, list};
use super::{Never, Priority, Rejection, Store, StoreError, batch, device};
use crate::operation::cancel::{self, CannotCancel};
use crate::operation::expiry::{self, CannotWriteOff};
use crate::operation::grant::{self, Leave, Standing};
use crate::operation::report::{self, Report, ReportRefused};
use crate::operation::{Operation, Status};

pub use request::{EXPIRY_DAYS, UpgradeRefused, UpgradeRequest};
pub(super) use request::{create, enlist, make, runs_already, want};
pub(super) use row::{COLUMNS, operation};
pub(super) use row::{Indexed, save, save_tick};

/// Which operations, in what order.
#[derive(Debug, Clone)]
pub struct OperationList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    pub device: Option<DeviceId>,
    pub image: Option<ImageId>,
    pub batch: Option<BatchId>,
    pub status: Option<Status>,
    /// Of the columns `created` and `modified`.
    pub order: Order,
    pub rows: Rows,
}

/// Why a device may not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartRefused {
    /// No such operation of this device.
    Unknown,
    Refused(Refusal),
}

/// Why an operator's change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused<R> {
    #[error("there is no such operation")]
    Unknown,
    #[error(transparent)]
    Rule(#[from] R),
}

pub(super) const FROM: &str = "operations t";

/// Of an operation `p` that was given up: its device may be bringing the modem back still, and need the image
/// for it, until it says how that ended, or has got leave for a later upgrade of the modem.
pub(super) const MAY_RECOVER: &str = "p.granted_attempt IS NOT NULL AND +p.status = 'failed'
    AND p.late_result IS NULL
    AND p.failure ->> 'kind' = 'attempt_lost' AND p.failure ->> 'condition' = 'unknown'
    AND EXISTS (SELECT 1 FROM devices d WHERE d.id = p.device AND d.state <> 'revoked')
    AND NOT EXISTS (SELECT 1 FROM operations n
        WHERE n.device = p.device AND n.slot = p.slot AND n.granted_attempt IS NOT NULL
            AND (n.created, n.rowid) > (p.created, p.rowid))";

/// Where in its batch an operation stands; the default is before all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    created: u64,
    row: i64,
}

impl Store {
    pub async fn operations(&self, wanted: OperationList) -> Result<Found<Operation>, StoreError> {
        self.read(move |conn| {
            // All of a batch are of one organization: no row has to be asked.
            if let Some(batch) = wanted.batch
                && !batch::is_of(conn, batch, &wanted.scope, wanted.organization.as_ref())?
            {
                return Ok(Found { count: 0, rows: Vec::new() });
            }
            list(conn, (COLUMNS, FROM), &filter(&wanted), wanted.order, wanted.rows, operation)
        })
        .await
    }

    /// Some operations of a batch after the place `after`, in the order in which they were made, with
    /// their logs or without; each with its place.
    pub async fn operations_of_batch(
        &self,
        batch: BatchId,
        after: Place,
        most: u32,
        logs: bool,
    ) -> Result<Vec<(Place, Operation)>, StoreError> {
        self.read(move |conn| {
            let columns =
                if logs { COLUMNS.to_owned() } else { COLUMNS.replace("t.log", "'' AS log") };
            let sql = format!(
                "SELECT {columns}, t.rowid AS place FROM {FROM}
                 WHERE t.batch = ?1 AND t.created >= ?2 AND (t.created, t.rowid) > (?2, ?3)
                 ORDER BY t.created, t.rowid LIMIT ?4"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let Place { created, row } = after;
            let rows = statement.query_map((batch.to_string(), created, row, most), |row| {
                let operation = operation(row)?;
                let place = Place { created: operation.created, row: row.get("place")? };
                Ok((place, operation))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// None also where `scope` does not see it.
    pub async fn operation(
        &self,
        scope: Scope,
        id: OperationId,
    ) -> Result<Option<Operation>, StoreError> {
        self.read(move |conn| Ok(find_in(conn, &scope, id)?)).await
    }

    /// Tells the newest operation of every slot, one after the other, in the order in which they
    /// changed: what dashboards see first.
    pub async fn tell_newest_operations(
        &self,
        mut tell: impl FnMut(Operation) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.read(move |conn| {
            let sql = format!(
                "SELECT {COLUMNS} FROM {FROM} WHERE t.id = (
                     SELECT id FROM operations n WHERE n.device = t.device AND n.slot = t.slot
                     ORDER BY n.created DESC, n.rowid DESC LIMIT 1)
                 ORDER BY t.modified"
            );
            let mut statement = conn.prepare(&sql)?;
            for row in statement.query_map([], operation)? {
                tell(row?);
            }
            Ok(())
        })
        .await
    }

    /// The grant, in one transaction.
    pub async fn start(
        &self,
        device: DeviceId,
        id: OperationId,
        request: StartRequest,
    ) -> Result<Leave, Rejection<StartRefused>> {
        let since = self.listening_since();
        self.write(move |tx| {
            let found = find(tx, id)?.filter(|operation| operation.device == device);
            let mut operation = found.ok_or(Rejection::Refused(StartRefused::Unknown))?;
            let standing = match device::standing(tx, device)? {
                Some(device::Standing {
                    accepted: true, deactivated: false, duplicate, ..
                }) => {
                    if duplicate {
                        Standing::Doubtful
                    } else {
                        batch::standing(tx, &operation, since)?
                    }
                }
                Some(_) | None => Standing::Quarantined,
            };
            let leave = grant::start(&mut operation, standing, &request, tx.now)
                .map_err(|refusal| Rejection::Refused(StartRefused::Refused(refusal)))?;
            if leave == Leave::New {
                save(tx, &operation)?;
            }
            Ok(leave)
        })
        .await
    }

    /// Takes an operation back, at once and exactly, or says why not.
    pub async fn cancel_operation(
        &self,
        scope: Scope,
        id: OperationId,
        by: String,
    ) -> Result<Operation, Rejection<ChangeRefused<CannotCancel>>> {
        let rule = move |operation: &mut Operation, now| cancel::cancel(operation, &by, now);
        self.change(scope, id, Matters::All, rule).await
    }

    /// Gives up an operation that would never end.
    pub async fn write_off_operation(
        &self,
        scope: Scope,
        id: OperationId,
        by: String,
    ) -> Result<Operation, Rejection<ChangeRefused<CannotWriteOff>>> {
        let rule = move |operation: &mut Operation, now| expiry::write_off(operation, &by, now);
        self.change(scope, id, Matters::All, rule).await
    }

    /// Takes a device script's report over.
    pub async fn report_operation(
        &self,
        scope: Scope,
        id: OperationId,
        report: Report,
    ) -> Result<Operation, Rejection<ChangeRefused<ReportRefused>>> {
        let rule = move |operation: &mut Operation, now| report::apply(operation, report, now);
        self.change(scope, id, Matters::NewStatus, rule).await
    }

    async fn change<R: Send + 'static>(
        &self,
        scope: Scope,
        id: OperationId,
        matters: Matters,
        rule: impl FnOnce(&mut Operation, u64) -> Result<(), R> + Send + 'static,
    ) -> Result<Operation, Rejection<ChangeRefused<R>>> {
        self.write(move |tx| {
            let found = find_in(tx, &scope, id)?;
            let mut operation = found.ok_or(Rejection::Refused(ChangeRefused::Unknown))?;
            let (wanted, before) = (operation.is_wanted(), shown(&operation));
            let was = operation.status;
            rule(&mut operation, tx.now)
                .map_err(|refused| Rejection::Refused(ChangeRefused::Rule(refused)))?;
            if matters == Matters::NewStatus && operation.status == was {
                tx.leave_off_record();
            }
            save(tx, &operation)?;
            if wanted != operation.is_wanted() {
                device::bump(tx, operation.device)?;
            }
            let organization = device::standing(tx, operation.device)?;
            let told = Told::of(organization.map(|standing| standing.organization_id));
            tx.tell(told.before(before).after(shown(&operation)));
            Ok(operation)
        })
        .await
    }

    /// Ends operations whose time has come, some at a time; answers how many.
    pub async fn expire_operations(&self) -> Result<usize, StoreError> {
        let (since, now) = (self.listening_since(), self.clock().now());
        // All that is unfinished is looked at, which is not the writer's work.
        let due = self.read(move |conn| Ok(due(conn, since, now)?)).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let ended = self.write_at::<_, Never, _>(Priority::Bulk, move |tx| {
            let mut ended = 0;
            for id in due {
                let Some(mut operation) = find(tx, id)? else { continue };
                if expiry::expire(&mut operation, since, tx.now) {
                    save(tx, &operation)?;
                    device::bump(tx, operation.device)?;
                    ended += 1;
                }
                if tx.had_its_turn() {
                    break;
                }
            }
            Ok(ended)
        });
        Ok(ended.await?)
    }
}

/// SQLite does not know that a device has few operations, and an organization many: what is no key has a sign.
fn filter(wanted: &OperationList) -> Where {
    let mut filter = Where::default();
    let sign = if wanted.device.is_some() { "+" } else { "" };
    if wanted.batch.is_none() {
        filter.visible(&format!("{sign}t.organization"), &wanted.scope);
        filter.and_if(&format!("{sign}{OF_ORGANIZATION}"), wanted.organization.as_ref());
    }
    filter.and_if("t.device = ?", wanted.device);
    filter.and_if("t.image = ?", wanted.image);
    filter.and_if("t.batch = ?", wanted.batch);
    filter.and_if("t.status = ?", wanted.status);
    let begun = wanted.status.is_none_or(|status| status == Status::InProgress);
    let narrowed = wanted.status.is_some() || wanted.image.is_some() || wanted.device.is_some();
    if wanted.batch.is_some() && !begun {
        // As the index has it that knows their order.
        filter.only("t.status <> 'in-progress'");
    } else if narrowed && wanted.order.column == "modified" {
        // By the time of their last word they are sorted, rather than looked for among all others.
        filter.gathered();
    }
    filter
}

/// What of a change goes on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matters {
    All,
    /// How far it has come a script may say without end, and one that was stolen too.
    NewStatus,
}

/// For the log.
fn shown(operation: &Operation) -> Value {
    json!({
        "device": operation.device,
        "status": operation.status,
        "progress_percent": operation.progress_percent,
    })
}

/// Bulk work is done in pieces, so that the writer is free in between.
const PIECE: u32 = 200;

/// The same rule as [`expiry`]'s, so that a piece is never full of what is not due.
fn due(conn: &Connection, since: u64, now: u64) -> rusqlite::Result<Vec<OperationId>> {
    let sql = format!(
        "SELECT t.id FROM {FROM} WHERE t.status IN ('idle', 'in-progress')
             AND ((NOT t.grant_open AND t.deadline <= :now)
                  OR (t.grant_open
                      AND max(coalesce(t.heard_at, 0), t.granted_at, :since) + t.dark_longest_ms
                          + :patience <= :now))
         LIMIT {PIECE}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let times = named_params! { ":now": now, ":since": since, ":patience": expiry::PATIENCE_MS };
    let rows = statement.query_map(times, |row| parsed(row, "id"))?;
    rows.collect()
}

pub(super) fn find(conn: &Connection, id: OperationId) -> rusqlite::Result<Option<Operation>> {
    find_in(conn, &Scope::Everything, id)
}

fn find_in(
    conn: &Connection,
    scope: &Scope,
    id: OperationId,
) -> rusqlite::Result<Option<Operation>> {
    let found = conn
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, t.organization AS organization_id FROM {FROM} WHERE t.id = ?1"
        ))?
        .query_row([id.to_string()], |row| Ok((parsed(row, "organization_id")?, operation(row)?)))
        .optional()?;
    Ok(found.and_then(|(organization, found)| scope.sees(Some(organization)).then_some(found)))
}

/// The jobs that a device still has, oldest first.
pub(super) fn wanted_of(conn: &Connection, device: DeviceId) -> rusqlite::Result<Vec<Operation>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE t.device = ?1 AND t.status IN ('idle', 'in-progress')
             AND NOT t.held ORDER BY t.created"
    ))?;
    let rows = statement.query_map([device.to_string()], operation)?;
    rows.collect()
}
