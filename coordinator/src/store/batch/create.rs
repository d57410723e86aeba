//! A batch is made in pieces, so that the writer is free in between; until it is launched nothing of
//! it can be granted, and one that was never launched is taken back: by whoever made it, at the next
//! start, or by the pilot.

use serde_json::{Map, Value, json};
use shared::ids::{BatchId, BuildId, DeviceId, ImageId, OperationId, OrganizationId, Slot};
use uuid::Uuid;

use super::{BatchRefused, PIECE, Report, find, left_out, takeover};
use crate::batch::{Batch, Course, LeftOut, Reason, Strategy, Tally};
use crate::store::audit::Told;
use crate::store::build;
use crate::store::column::to_json;
use crate::store::note::Note;
use crate::store::operation::{UpgradeRequest, enlist};
use crate::store::place::{self, Kind};
use crate::store::{Never, Priority, Rejection, Store, StoreError, Tx};

/// What a batch is to be.
#[derive(Debug, Clone)]
pub struct NewBatch {
    pub organization: OrganizationId,
    pub build: BuildId,
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    pub upgrade_options: Map<String, Value>,
    pub strategy: Strategy,
    pub retry_of: Option<BatchId>,
    /// Unix milliseconds.
    pub start_at: Option<u64>,
    pub expires_at: u64,
}

/// One modem of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub device: DeviceId,
    pub slot: Slot,
    pub image: ImageId,
    pub retry_of: Option<OperationId>,
}

/// A device of which modems would be upgraded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chosen {
    pub device: DeviceId,
    /// That in the usual slot.
    pub(super) main: bool,
    /// Those in others.
    pub(super) others: Vec<Slot>,
}

impl Chosen {
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        let main = self.main.then(Slot::default);
        main.into_iter().chain(self.others.iter().cloned())
    }
}

/// Some modems that were chosen for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    pub members: Vec<Member>,
    /// Who is none after all.
    pub left_out: Vec<(DeviceId, Slot, LeftOut)>,
}

impl FromIterator<Member> for Members {
    fn from_iter<T: IntoIterator<Item = Member>>(members: T) -> Self {
        Self { members: members.into_iter().collect(), left_out: Vec::new() }
    }
}

impl Store {
    /// Makes an empty one.
    ///
    /// # Errors
    /// [`BatchRefused::BeingMade`] while the organization has another one of the build made,
    /// [`BatchRefused::Gone`] where what it is of was deleted since it was looked at.
    pub async fn create_batch(&self, new: NewBatch) -> Result<BatchId, Rejection<BatchRefused>> {
        self.write(move |tx| {
            if let Some(part) = gone(tx, &new)? {
                return Err(Rejection::Refused(BatchRefused::Gone(part)));
            }
            if is_being_made(tx, &new)? {
                return Err(Rejection::Refused(BatchRefused::BeingMade));
            }
            Ok(insert(tx, &new)?)
        })
        .await
    }

    /// Adds members, best some [`super::PIECE`] of them. One bad device never stops the rest: who cannot be
    /// added, because something came between, is left out, and the batch says so.
    pub async fn add_members(
        &self,
        id: BatchId,
        some: Members,
        by: String,
    ) -> Result<(), Rejection<BatchRefused>> {
        let mut left = some;
        while left != Members::default() {
            let by = by.clone();
            left = self.write_at(Priority::Bulk, move |tx| add_some(tx, id, left, &by)).await?;
        }
        Ok(())
    }

    /// From here on it is under way, and older upgrades of its modems are given no leave. They give way
    /// before the answer; where that fails, the pilot goes on.
    ///
    /// # Errors
    /// [`BatchRefused::Empty`] where nobody was added, or nobody could take over after all.
    pub async fn launch_batch(&self, id: BatchId) -> Result<Report, Rejection<BatchRefused>> {
        let report = self.launch_in(id, PIECE).await?;
        let mut left = report.batch.takeovers;
        while left > 0 {
            match self.take_over(id).await {
                Ok(0) => break,
                Ok(some) => left = left.saturating_sub(some.try_into().unwrap_or(left)),
                Err(error) => {
                    tracing::warn!(batch = %id, ?error, "older upgrades give way later");
                    break;
                }
            }
        }
        Ok(report)
    }

    /// With so many takeovers at most in one write.
    pub(in crate::store) async fn launch_in(
        &self,
        id: BatchId,
        most: usize,
    ) -> Result<Report, Rejection<BatchRefused>> {
        loop {
            match self.write(move |tx| launch(tx, id, most)).await {
                Err(Rejection::Refused(BatchRefused::Changed)) => self.leave_out(id, most).await?,
                launched => return launched,
            }
        }
    }

    /// Gives up one that could not be made to its end; the pilot ends what there is of it.
    pub async fn abandon_batch(&self, id: BatchId) -> Result<(), StoreError> {
        let abandoned = self.write::<_, Never, _>(move |tx| {
            // Somebody else may have ended it.
            if find(tx, id)?.is_some_and(|batch| batch.course == Course::Preparing) {
                set_course(tx, id, Course::Cancelling, Some(&Reason::Unfinished))?;
            }
            Ok(())
        });
        Ok(abandoned.await?)
    }

    /// Forgets one that nobody was added to.
    pub async fn discard_batch(&self, id: BatchId) -> Result<(), StoreError> {
        let discarded = self.write::<_, Never, _>(move |tx| {
            let sql = "DELETE FROM batches WHERE id = ?1 AND idle + in_progress = 0";
            tx.prepare_cached(sql)?.execute([id.to_string()])?;
            Ok(())
        });
        Ok(discarded.await?)
    }

    /// Takes back what was not launched before the coordinator stopped. Answers how many.
    pub async fn recover_batches(&self) -> Result<usize, StoreError> {
        let recovered = self.write::<_, Never, _>(|tx| {
            let reason = to_json(&Reason::Unfinished)?;
            let sql = "UPDATE batches SET course = 'cancelling', reason = ?1, modified = ?2
                       WHERE course = 'preparing'";
            Ok(tx.prepare_cached(sql)?.execute((reason, tx.now))?)
        });
        Ok(recovered.await?)
    }
}

/// With so many takeovers at most in the same transaction.
///
/// # Errors
/// [`BatchRefused::Changed`] where none of those could be one any more: they are to be left out before, in
/// writes that stay.
pub(in crate::store) fn launch(
    tx: &Tx<'_>,
    id: BatchId,
    most: usize,
) -> Result<Report, Rejection<BatchRefused>> {
    let mut batch = preparing(tx, id)?;
    let mut taken = 0;
    if batch.takeovers > 0 {
        taken = takeover::take_some(tx, &batch, most)?.joined;
        batch = preparing(tx, id)?;
        if batch.counts.total() == 0 {
            return Err(Rejection::Refused(BatchRefused::Changed));
        }
    }
    if batch.counts.total() == 0 {
        return Err(Rejection::Refused(BatchRefused::Empty));
    }
    set_course(tx, id, Course::Open, None)?;
    let batch = find(tx, id)?.ok_or(Rejection::Refused(BatchRefused::Unknown))?;
    let mut told = told(&batch);
    told["takes_over"] =
        json!(batch.takeovers.saturating_add(taken.try_into().unwrap_or(u64::MAX)));
    tx.tell(Told::of(Some(batch.organization)).after(told));
    Ok(of_new(tx, batch)?)
}

/// It, while it is being made.
pub(super) fn preparing(tx: &Tx<'_>, id: BatchId) -> Result<Batch, Rejection<BatchRefused>> {
    let batch = find(tx, id)?.ok_or(Rejection::Refused(BatchRefused::Unknown))?;
    match batch.course {
        Course::Preparing => Ok(batch),
        course => Err(Rejection::Refused(BatchRefused::Course(course))),
    }
}

/// What it names and is not there, or is another organization's by now.
fn gone(tx: &Tx<'_>, new: &NewBatch) -> rusqlite::Result<Option<&'static str>> {
    let own = new.organization;
    let sql = "SELECT 1 FROM organizations WHERE id = ?1";
    if !tx.prepare_cached(sql)?.exists([own.to_string()])? {
        return Ok(Some("organization"));
    }
    if build::find(tx, new.build)?.is_none_or(|of| of.organization.is_some_and(|of| of != own)) {
        return Ok(Some("build"));
    }
    for (part, kind, id) in
        [("group", Kind::Group, new.group), ("location", Kind::Location, new.location)]
    {
        let Some(id) = id else { continue };
        if place::find(tx, kind, id)?.is_none_or(|place| place.organization != own) {
            return Ok(Some(part));
        }
    }
    Ok(None)
}

fn is_being_made(tx: &Tx<'_>, new: &NewBatch) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT 1 FROM batches WHERE build = ?1 AND organization = ?2 AND course = 'preparing'",
    )?
    .exists((new.build.to_string(), new.organization.to_string()))
}

/// Without a look at who is there, which may be a look at all of them.
fn of_new(tx: &Tx<'_>, batch: Batch) -> rusqlite::Result<Report> {
    let build = batch.build.map_or(Ok(None), |id| build::find(tx, id))?;
    let pool = batch.counts.undecided();
    let tally = Tally { all: batch.counts, pool, ..Tally::default() };
    Ok(Report { batch, build, tally, waves: Vec::new(), awaited: Vec::new(), now: tx.now })
}

fn insert(tx: &Tx<'_>, new: &NewBatch) -> rusqlite::Result<BatchId> {
    let id = BatchId(Uuid::new_v4());
    tx.prepare_cached(
        "INSERT INTO batches (id, organization, build, device_group, location, upgrade_options,
             strategy, retry_of, course, start_at, expires_at, created, modified)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'preparing', ?9, ?10, ?11, ?11)",
    )?
    .execute((
        id.to_string(),
        new.organization.to_string(),
        new.build.to_string(),
        new.group.map(|id| id.to_string()),
        new.location.map(|id| id.to_string()),
        Value::Object(new.upgrade_options.clone()).to_string(),
        to_json(&new.strategy)?,
        new.retry_of.map(|id| id.to_string()),
        new.start_at,
        new.expires_at,
        tx.now,
    ))?;
    Ok(id)
}

/// Answers those that there was no time for.
fn add_some(
    tx: &Tx<'_>,
    id: BatchId,
    some: Members,
    by: &str,
) -> Result<Members, Rejection<BatchRefused>> {
    let batch = preparing(tx, id)?;
    let (mut left_out, mut members) = (some.left_out.into_iter(), some.members.into_iter());
    for (device, slot, why) in left_out.by_ref() {
        left_out::note_down(tx, id, (device, &slot), why)?;
        if tx.had_its_turn() {
            return Ok(Members { members: members.collect(), left_out: left_out.collect() });
        }
    }
    for member in members.by_ref() {
        add(tx, &batch, member, by)?;
        if tx.had_its_turn() {
            break;
        }
    }
    Ok(members.collect())
}

fn add(tx: &Tx<'_>, batch: &Batch, member: Member, by: &str) -> Result<(), StoreError> {
    match enlist(tx, request(batch, member.clone(), by), batch) {
        Ok(true) => Ok(()),
        Ok(false) => Ok(takeover::note_down(tx, batch.id, &member, by)?),
        Err(Rejection::Refused(refused)) => {
            Ok(left_out::note_down(tx, batch.id, (member.device, &member.slot), refused.into())?)
        }
        Err(Rejection::Store(error)) => Err(error),
    }
}

/// What is asked for a member.
pub(super) fn request(batch: &Batch, member: Member, by: &str) -> UpgradeRequest {
    UpgradeRequest {
        device: member.device,
        slot: member.slot,
        image: member.image,
        upgrade_options: batch.upgrade_options.clone(),
        deadline: Some(batch.expires_at),
        retry_of: member.retry_of,
        by: by.to_owned(),
    }
}

/// What the audit log says of it.
pub(super) fn told(batch: &Batch) -> Value {
    json!({
        "id": batch.id,
        "build": batch.build,
        "operations": batch.members().total(),
        "left_out": batch.left_out,
        "strategy": batch.strategy,
        "course": batch.course.as_str(),
        "reason": batch.reason,
    })
}

/// Sets it without asking, and passes it on.
pub(super) fn set_course(
    tx: &Tx<'_>,
    id: BatchId,
    course: Course,
    reason: Option<&Reason>,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE batches SET course = ?2, reason = ?3, modified = ?4,
             finished_at = CASE WHEN ?2 = 'finished' THEN ?4 END WHERE id = ?1",
    )?
    .execute((id.to_string(), course.as_str(), reason.map(to_json).transpose()?, tx.now))?;
    tx.note(Note::Batch(id));
    Ok(())
}
