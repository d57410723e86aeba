//! Batches: the rows, and the verbs that [`pilot`](crate::pilot) and operators drive them by.

mod awaited;
mod create;
mod drive;
mod grant;
mod left_out;
mod look;
mod overdue;
mod restored;
mod row;
mod select;
mod stalled;
mod takeover;
mod tally;
mod wake;

use rusqlite::{Connection, OptionalExtension};
use shared::ids::{BatchId, BuildId, OrganizationId, OrganizationSlug};

use super::build::{self, Build};
use super::column::parsed;
use super::listing::{Found, OF_ORGANIZATION, Order, Rows, Scope, Where, list};
use super::{Store, StoreError};
use crate::batch::awaited::Awaited;
use crate::batch::{Batch, Course, Tally, Wave};
use crate::operation::Status;

#[cfg(test)]
pub(super) use create::launch;
pub use create::{Chosen, Member, Members, NewBatch};
pub use drive::Withdrawal;
pub(super) use drive::skip_device;
pub(super) use grant::standing;
pub use left_out::{Absent, AbsentList};
pub use look::Looker;
pub(super) use look::Looks;
pub(super) use restored::pause_all;
pub use select::{Ask, Look, Selection, Verdict};
pub(super) use takeover::give_up as give_up_takeovers;
pub(crate) use wake::Reached;

/// Bulk work is done in pieces, so that the writer is free in between: so many at most, and no more than a
/// verb has [time](super::Tx::had_its_turn) for.
pub const PIECE: usize = 200;

/// Which batches, in what order.
#[derive(Debug, Clone)]
pub struct BatchList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    pub build: Option<BuildId>,
    pub status: Option<Status>,
    /// Of the columns `created` and `modified`.
    pub order: Order,
    pub rows: Rows,
}

/// A batch with everything that is counted of it, all of one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub batch: Batch,
    pub build: Option<Build>,
    pub tally: Tally,
    /// Those that were opened, in order.
    pub waves: Vec<Wave>,
    /// Some of those that the newest wave waits for.
    pub awaited: Vec<Awaited>,
    /// When it was read, unix milliseconds.
    pub now: u64,
}

/// Why nothing is done with a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchRefused {
    #[error("there is no such batch")]
    Unknown,
    #[error("no modem is left to upgrade")]
    Empty,
    #[error("{0}")]
    Strategy(crate::batch::strategy::BadStrategy),
    /// It is not in a state in which this can be done.
    #[error("{}", said(.0))]
    Course(Course),
    /// Something else was decided in the meantime.
    #[error("it has changed in the meantime")]
    Changed,
    /// What it is to be of was deleted, or given to others, since it was looked at.
    #[error("its {0} is not there any more")]
    Gone(&'static str),
    /// Two that are made at once would share the modems between them by chance.
    #[error("another batch of this build is being made")]
    BeingMade,
}

fn said(course: &Course) -> &'static str {
    match course {
        Course::Preparing => "it is being made",
        Course::Open => "it is under way",
        Course::Paused => "it is paused",
        Course::Cancelling => "it is being cancelled",
        Course::Expiring => "its time is over",
        Course::Finished => "it has finished",
    }
}

impl Store {
    pub async fn batches(&self, wanted: BatchList) -> Result<Found<Report>, StoreError> {
        let (since, clock) = (self.listening_since(), self.clock().clone());
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible("t.organization", &wanted.scope);
            filter.and_if(OF_ORGANIZATION, wanted.organization);
            filter.and_if("t.build = ?", wanted.build);
            filter.and_if("t.status = ?", wanted.status);
            let columns = (row::COLUMNS, row::FROM);
            let found = list(conn, columns, &filter, wanted.order, wanted.rows, row::batch)?;
            let now = clock.now();
            let rows = found.rows.into_iter().map(|batch| report(conn, batch, since, now));
            Ok(Found { count: found.count, rows: rows.collect::<rusqlite::Result<_>>()? })
        })
        .await
    }

    /// None also where `scope` does not see it.
    pub async fn batch(&self, scope: Scope, id: BatchId) -> Result<Option<Batch>, StoreError> {
        self.read(move |conn| Ok(find_in(conn, &scope, id)?)).await
    }

    /// Everything about it at one instant.
    pub async fn batch_report(
        &self,
        scope: Scope,
        id: BatchId,
    ) -> Result<Option<Report>, StoreError> {
        let (since, clock) = (self.listening_since(), self.clock().clone());
        self.read(move |conn| {
            let found = find_in(conn, &scope, id)?;
            Ok(found.map(|batch| report(conn, batch, since, clock.now())).transpose()?)
        })
        .await
    }

    /// Those that the pilot has to look at.
    pub async fn unfinished_batches(&self) -> Result<Vec<BatchId>, StoreError> {
        self.read(|conn| {
            let sql = "SELECT id FROM batches WHERE course <> 'finished'";
            let mut statement = conn.prepare_cached(sql)?;
            let ids = statement.query_map([], |row| parsed(row, "id"))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The newest of all, oldest first: what dashboards see at first.
    pub async fn newest_batches(&self, most: u32) -> Result<Vec<BatchId>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT id FROM batches ORDER BY created DESC LIMIT ?1";
            let mut statement = conn.prepare_cached(sql)?;
            let ids = statement.query_map([most], |row| parsed(row, "id"))?;
            let mut ids = ids.collect::<Result<Vec<_>, _>>()?;
            ids.reverse();
            Ok(ids)
        })
        .await
    }
}

fn report(conn: &Connection, batch: Batch, since: u64, now: u64) -> rusqlite::Result<Report> {
    let waves = tally::waves(conn, batch.id)?;
    let tally = tally::tally(conn, &batch, &waves, since, now)?;
    let build = batch.build.map_or(Ok(None), |id| build::find(conn, id))?;
    let awaited = awaited::awaited(conn, &batch, waves.last(), since, now)?;
    Ok(Report { batch, build, tally, waves, awaited, now })
}

fn find(conn: &Connection, id: BatchId) -> rusqlite::Result<Option<Batch>> {
    conn.prepare_cached(&format!("SELECT {} FROM {} WHERE t.id = ?1", row::COLUMNS, row::FROM))?
        .query_row([id.to_string()], row::batch)
        .optional()
}

/// Whether the batch is visible, and of the organization with this slug if one is named.
pub(super) fn is_of(
    conn: &Connection,
    id: BatchId,
    scope: &Scope,
    slug: Option<&OrganizationSlug>,
) -> rusqlite::Result<bool> {
    let mut statement = conn.prepare_cached(
        "SELECT o.id, o.slug FROM batches b JOIN organizations o ON o.id = b.organization
         WHERE b.id = ?1",
    )?;
    let owner: Option<(OrganizationId, OrganizationSlug)> = statement
        .query_row([id.to_string()], |row| Ok((parsed(row, "id")?, parsed(row, "slug")?)))
        .optional()?;
    Ok(owner.is_some_and(|(organization, of)| {
        scope.sees(Some(organization)) && slug.is_none_or(|slug| *slug == of)
    }))
}

fn find_in(conn: &Connection, scope: &Scope, id: BatchId) -> rusqlite::Result<Option<Batch>> {
    Ok(find(conn, id)?.filter(|batch| scope.sees(Some(batch.organization))))
}

/// How SQLite goes about a query whose parameters are not bound.
#[cfg(test)]
fn plan(sql: &str) -> String {
    let mut conn = Connection::open_in_memory().unwrap();
    super::schema::migrate(&mut conn, 0).unwrap();
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let rows = statement.raw_query().mapped(|row| row.get::<_, String>("detail"));
    rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
}
