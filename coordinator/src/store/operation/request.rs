//! An upgrade that is asked for: what has to be true first, and what gives way to it.

use rusqlite::OptionalExtension;
use serde_json::{Map, Value};
use shared::ids::{DeviceId, ImageId, OperationId, Slot};

use super::FROM;
use super::row::{COLUMNS, insert, operation, save};
use crate::batch::Batch;
use crate::operation::options::{self, BadOption};
use crate::operation::{Operation, Requested, cancel, expiry};
use crate::store::{Rejection, Store, Tx, batch, device, inventory};

/// Days after which an operation that nobody started is given up.
pub const EXPIRY_DAYS: u64 = 30;

/// An upgrade that somebody asks for.
#[derive(Debug, Clone)]
pub struct UpgradeRequest {
    pub device: DeviceId,
    pub slot: Slot,
    pub image: ImageId,
    pub upgrade_options: Map<String, Value>,
    /// Unix milliseconds; `None`: [`EXPIRY_DAYS`] from now.
    pub deadline: Option<u64>,
    pub retry_of: Option<OperationId>,
    /// Who asks, for the log.
    pub by: String,
}

/// Why there is no new operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefused {
    #[error("there is no such device")]
    UnknownDevice,
    #[error("the device is deactivated")]
    Deactivated,
    #[error("the device is not accepted")]
    NotAccepted,
    #[error("there is no such image")]
    UnknownImage,
    #[error("the image has no signed manifest yet: nothing can flash it")]
    NoManifest,
    #[error("operation {0} is past the point of no return: its modem may be being flashed")]
    InProgress(OperationId),
    #[error("operation {0} was asked for later, or is for the same image")]
    AskedFor(OperationId),
    #[error(
        "operation {0} was lost and its device was not heard of since: nobody knows whether its \
         modem is being flashed"
    )]
    NotHeardSince(OperationId),
    #[error(transparent)]
    Options(#[from] BadOption),
}

impl Store {
    /// Asks for an upgrade. An older operation for the slot gives way, unless it was granted.
    pub async fn request_upgrade(
        &self,
        request: UpgradeRequest,
    ) -> Result<Operation, Rejection<UpgradeRefused>> {
        self.write(move |tx| create(tx, request)).await
    }
}

/// Makes the operation within a larger transaction.
pub(in crate::store) fn create(
    tx: &Tx<'_>,
    request: UpgradeRequest,
) -> Result<Operation, Rejection<UpgradeRefused>> {
    let operation = make(tx, request, None)?;
    batch::give_up_takeovers(tx, operation.device, &operation.slot)?;
    want(tx, &operation)?;
    device::bump(tx, operation.device)?;
    Ok(operation)
}

/// Makes the operation; one of a batch waits in its pool, and its device hears nothing of it. An older one
/// for the slot gives way.
pub(in crate::store) fn make(
    tx: &Tx<'_>,
    request: UpgradeRequest,
    batch: Option<&Batch>,
) -> Result<Operation, Rejection<UpgradeRefused>> {
    let asked = check(tx, &request, batch)?;
    if let Some(older) = &asked.gives_way {
        save(tx, older)?;
        device::bump(tx, older.device)?;
    }
    Ok(write(tx, asked, request, batch)?)
}

/// As [`make`] for a member of a batch that is not launched yet: it takes nothing away from anybody. False
/// where an older operation would have to give way, and nothing is made yet.
pub(in crate::store) fn enlist(
    tx: &Tx<'_>,
    request: UpgradeRequest,
    batch: &Batch,
) -> Result<bool, Rejection<UpgradeRefused>> {
    let asked = check(tx, &request, Some(batch))?;
    if asked.gives_way.is_some() {
        return Ok(false);
    }
    write(tx, asked, request, Some(batch))?;
    Ok(true)
}

/// Whether the modem runs what is asked for, by the last that was read of it.
///
/// # Errors
/// Where the device may have no upgrade, or not this one.
pub(in crate::store) fn runs_already(
    tx: &Tx<'_>,
    request: &UpgradeRequest,
) -> Result<bool, Rejection<UpgradeRefused>> {
    options::read(&request.upgrade_options).map_err(|bad| refused(bad.into()))?;
    may_have(tx, request)?;
    if lost_in(tx, request.device, &request.slot)?.is_some() {
        return Ok(false);
    }
    Ok(inventory::runs_image(tx, request.device, &request.slot, request.image)?)
}

/// What an operation that may be made is made of.
struct Asked {
    id: OperationId,
    standing: device::Standing,
    allow_volatile_staging: bool,
    /// The older operation of the slot, as it would be then.
    gives_way: Option<Operation>,
}

fn check(
    tx: &Tx<'_>,
    request: &UpgradeRequest,
    batch: Option<&Batch>,
) -> Result<Asked, Rejection<UpgradeRefused>> {
    let job = options::read(&request.upgrade_options).map_err(|bad| refused(bad.into()))?;
    let standing = may_have(tx, request)?;
    let id = OperationId(uuid::Uuid::new_v4());
    let gives_way = gives_way(tx, request, batch, id)?;
    Ok(Asked { id, standing, allow_volatile_staging: job.allow_volatile_staging, gives_way })
}

fn write(
    tx: &Tx<'_>,
    asked: Asked,
    request: UpgradeRequest,
    batch: Option<&Batch>,
) -> rusqlite::Result<Operation> {
    let wanted = Requested {
        id: asked.id,
        organization: asked.standing.organization,
        device: request.device,
        slot: request.slot,
        image: request.image,
        batch: batch.map(|batch| batch.id),
        retry_of: request.retry_of,
        upgrade_options: request.upgrade_options,
        allow_volatile_staging: asked.allow_volatile_staging,
        deadline: request.deadline.unwrap_or(tx.now + EXPIRY_DAYS * 24 * 3600 * 1000),
    };
    let operation = Operation::requested(wanted, &request.by, tx.now);
    insert(tx, &operation)?;
    Ok(operation)
}

fn refused(refused: UpgradeRefused) -> Rejection<UpgradeRefused> {
    Rejection::Refused(refused)
}

/// Whether the device may have an upgrade at all, and the image can be flashed.
fn may_have(
    tx: &Tx<'_>,
    request: &UpgradeRequest,
) -> Result<device::Standing, Rejection<UpgradeRefused>> {
    let Some(standing) = device::standing(tx, request.device)? else {
        return Err(refused(UpgradeRefused::UnknownDevice));
    };
    if standing.deactivated {
        return Err(refused(UpgradeRefused::Deactivated));
    }
    if !standing.accepted {
        return Err(refused(UpgradeRefused::NotAccepted));
    }
    match has_manifest(tx, request.image, &standing)? {
        None => Err(refused(UpgradeRefused::UnknownImage)),
        Some(false) => Err(refused(UpgradeRefused::NoManifest)),
        Some(true) => Ok(standing),
    }
}

/// What stands in the way of the operation `newer`, superseded by it, unless the slot's modem may be in
/// somebody's hands.
fn gives_way(
    tx: &Tx<'_>,
    request: &UpgradeRequest,
    batch: Option<&Batch>,
    newer: OperationId,
) -> Result<Option<Operation>, Rejection<UpgradeRefused>> {
    if let Some(lost) = lost_in(tx, request.device, &request.slot)? {
        return Err(refused(UpgradeRefused::NotHeardSince(lost)));
    }
    let Some(mut older) = unfinished_in(tx, request.device, &request.slot)? else {
        return Ok(None);
    };
    if let Some(batch) = batch
        && (older.image == Some(request.image) || !is_before(tx, &older, batch)?)
    {
        return Err(refused(UpgradeRefused::AskedFor(older.id)));
    }
    cancel::supersede(&mut older, newer, tx.now)
        .map_err(|_| refused(UpgradeRefused::InProgress(older.id)))?;
    Ok(Some(older))
}

/// Whether the operation was asked for before the batch was. Batches are made in pieces: of two at once
/// the later one has the modems of both, whichever comes to a modem last.
fn is_before(tx: &Tx<'_>, op: &Operation, batch: &Batch) -> rusqlite::Result<bool> {
    let Some(other) = op.batch else { return Ok(op.created < batch.created) };
    tx.prepare_cached(
        "SELECT coalesce((SELECT rowid FROM batches WHERE id = ?1), 0)
             < (SELECT rowid FROM batches WHERE id = ?2)",
    )?
    .query_row((other.to_string(), batch.id.to_string()), |row| row.get(0))
}

/// The slot's newest operation, if it was given up after a long silence that still lasts.
fn lost_in(tx: &Tx<'_>, device: DeviceId, slot: &Slot) -> rusqlite::Result<Option<OperationId>> {
    let newest = tx
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, max(coalesce(d.last_seen, 0), coalesce(d.inventory_at, 0)) AS seen
             FROM {FROM} JOIN devices d ON d.id = t.device
             WHERE t.device = ?1 AND t.slot = ?2 ORDER BY t.created DESC, t.rowid DESC LIMIT 1"
        ))?
        .query_row((device.to_string(), slot.as_str()), |row| {
            Ok((operation(row)?, row.get::<_, u64>("seen")?))
        })
        .optional()?;
    Ok(newest.and_then(|(newest, seen)| expiry::is_lost(&newest, seen).then_some(newest.id)))
}

/// The slot's firmware association follows what is asked for.
pub(in crate::store) fn want(tx: &Tx<'_>, op: &Operation) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO device_firmware (id, organization, device, slot, image, created, modified)
         SELECT ?1, d.organization, d.id, ?3, ?4, ?5, ?5 FROM devices d WHERE d.id = ?2
         ON CONFLICT (device, slot) DO UPDATE SET image = excluded.image, installed = 0,
             evidence = NULL, modified = excluded.modified
         WHERE device_firmware.image IS NOT excluded.image",
    )?
    .execute((
        uuid::Uuid::new_v4().to_string(),
        op.device.to_string(),
        op.slot.as_str(),
        op.image.map(|id| id.to_string()),
        tx.now,
    ))?;
    Ok(())
}

/// Whether the image, which the device's organization must see, can be flashed.
fn has_manifest(
    tx: &Tx<'_>,
    image: ImageId,
    standing: &device::Standing,
) -> rusqlite::Result<Option<bool>> {
    tx.prepare_cached(
        "SELECT i.manifest IS NOT NULL FROM images i JOIN builds b ON b.id = i.build
             JOIN categories c ON c.id = b.category
         WHERE i.id = ?1 AND NOT i.going AND (c.organization IS NULL OR c.organization = ?2)",
    )?
    .query_row((image.to_string(), standing.organization_id.to_string()), |row| row.get(0))
    .optional()
}

fn unfinished_in(
    tx: &Tx<'_>,
    device: DeviceId,
    slot: &Slot,
) -> rusqlite::Result<Option<Operation>> {
    tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE t.device = ?1 AND t.slot = ?2
             AND t.status IN ('idle', 'in-progress')"
    ))?
    .query_row((device.to_string(), slot.as_str()), operation)
    .optional()
}
