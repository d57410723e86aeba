//! Device firmware: which image the modem in a slot is to have, and whether it has it.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Map, Value, json};
use shared::ids::{DeviceId, ImageId, OperationId, OrganizationSlug, Slot};
use uuid::Uuid;

use super::{
    Rejection, Store, StoreError, Tx, audit, batch,
    column::{parsed, parsed_opt},
    device,
    listing::{Found, OF_ORGANIZATION, Order, Rows, Scope, Where, list},
    operation::{self, UpgradeRefused, UpgradeRequest},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFirmware {
    pub id: Uuid,
    pub device: DeviceId,
    pub slot: Slot,
    pub image: Option<ImageId>,
    /// By the versions read back from the modem, never by anybody's word.
    pub installed: bool,
    /// Unix milliseconds.
    pub created: u64,
    pub modified: u64,
}

/// Which of them, in what order.
#[derive(Debug, Clone)]
pub struct FirmwareList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    pub device: Option<DeviceId>,
    pub image: Option<ImageId>,
    pub order: Order,
    pub rows: Rows,
}

/// What the modem in a slot shall have.
#[derive(Debug, Clone)]
pub struct Assignment {
    pub device: DeviceId,
    pub slot: Slot,
    pub image: ImageId,
    pub upgrade_options: Map<String, Value>,
    /// Who asks, for the log.
    pub by: String,
}

/// What an assignment came to.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub firmware: DeviceFirmware,
    /// Whether the slot had none before.
    pub created: bool,
    /// The upgrade that brings it about; `None` where the image is installed already, or none is meant.
    pub operation: Option<OperationId>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareRefused {
    #[error("the slot has no firmware assigned")]
    Unknown,
    #[error("an unfinished upgrade is bringing it about: cancel that first")]
    InUse,
    #[error(transparent)]
    Upgrade(#[from] UpgradeRefused),
}

impl Store {
    pub async fn device_firmwares(
        &self,
        wanted: FirmwareList,
    ) -> Result<Found<DeviceFirmware>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible("t.organization", &wanted.scope);
            filter.and_if(OF_ORGANIZATION, wanted.organization);
            filter.and_if("t.device = ?", wanted.device);
            filter.and_if("t.image = ?", wanted.image);
            list(conn, ("t.*", "device_firmware t"), &filter, wanted.order, wanted.rows, firmware)
        })
        .await
    }

    pub async fn device_firmware(
        &self,
        device: DeviceId,
        slot: Slot,
    ) -> Result<Option<DeviceFirmware>, StoreError> {
        self.read(move |conn| Ok(find(conn, device, &slot)?)).await
    }

    /// The slots of a device that anything is known of, in order.
    pub async fn slots(&self, device: DeviceId) -> Result<BTreeSet<Slot>, StoreError> {
        self.read(move |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT slot FROM modems WHERE device = ?1
                 UNION SELECT slot FROM device_firmware WHERE device = ?1",
            )?;
            let slots = statement.query_map([device.to_string()], |row| parsed(row, "slot"))?;
            Ok(slots.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Assigns the image and asks for the upgrade to it, unless it is installed. The same request
    /// again finds the upgrade it asked for. Whatever is found: no batch that was begun before has this
    /// modem any more.
    pub async fn assign_firmware(
        &self,
        wanted: Assignment,
    ) -> Result<Assigned, Rejection<FirmwareRefused>> {
        self.write(move |tx| {
            let before = find(tx, wanted.device, &wanted.slot)?;
            batch::give_up_takeovers(tx, wanted.device, &wanted.slot)?;
            let operation = match &before {
                Some(found)
                    if found.installed
                        && found.image == Some(wanted.image)
                        && idle(tx, wanted.device, &wanted.slot).is_ok() =>
                {
                    None
                }
                _ if idle(tx, wanted.device, &wanted.slot).is_ok() && is_there(tx, &wanted)? => {
                    None
                }
                _ => Some(upgrade(tx, &wanted)?),
            };
            let firmware = find(tx, wanted.device, &wanted.slot)?
                .ok_or(Rejection::Refused(FirmwareRefused::Unknown))?;
            tell(tx, wanted.device, before.as_ref(), Some(&firmware), operation)?;
            Ok(Assigned { firmware, created: before.is_none(), operation })
        })
        .await
    }

    /// Leaves the slot without an image that it should have, be it known before or not.
    pub async fn clear_firmware(
        &self,
        device: DeviceId,
        slot: Slot,
    ) -> Result<Assigned, Rejection<FirmwareRefused>> {
        self.write(move |tx| {
            idle(tx, device, &slot)?;
            let before = find(tx, device, &slot)?;
            tx.prepare_cached(
                "INSERT INTO device_firmware (id, organization, device, slot, created, modified)
                 SELECT ?1, d.organization, d.id, ?3, ?4, ?4 FROM devices d WHERE d.id = ?2
                 ON CONFLICT (device, slot) DO UPDATE SET image = NULL, installed = 0,
                     evidence = NULL, modified = excluded.modified",
            )?
            .execute((
                Uuid::new_v4().to_string(),
                device.to_string(),
                slot.as_str(),
                tx.now,
            ))?;
            let cleared =
                find(tx, device, &slot)?.ok_or(Rejection::Refused(FirmwareRefused::Unknown))?;
            tell(tx, device, before.as_ref(), Some(&cleared), None)?;
            Ok(Assigned { firmware: cleared, created: before.is_none(), operation: None })
        })
        .await
    }

    pub async fn delete_firmware(
        &self,
        device: DeviceId,
        slot: Slot,
    ) -> Result<(), Rejection<FirmwareRefused>> {
        self.write(move |tx| {
            idle(tx, device, &slot)?;
            tell(tx, device, find(tx, device, &slot)?.as_ref(), None, None)?;
            let deleted = tx
                .prepare_cached("DELETE FROM device_firmware WHERE device = ?1 AND slot = ?2")?
                .execute((device.to_string(), slot.as_str()))?;
            if deleted == 0 {
                return Err(Rejection::Refused(FirmwareRefused::Unknown));
            }
            Ok(())
        })
        .await
    }
}

/// Whether the modem runs it already, as far as is known; then it is written down as installed, and nothing is to be
/// done.
fn is_there(tx: &Tx<'_>, wanted: &Assignment) -> Result<bool, Rejection<FirmwareRefused>> {
    let runs = operation::runs_already(tx, &request(wanted)).map_err(of_upgrade)?;
    if runs {
        tx.prepare_cached(
            "INSERT INTO device_firmware (id, organization, device, slot, image, installed, evidence,
                 created, modified)
             SELECT ?1, d.organization, d.id, ?3, ?4, 1, 'versions', ?5, ?5 FROM devices d
             WHERE d.id = ?2
             ON CONFLICT (device, slot) DO UPDATE SET image = excluded.image, installed = 1,
                 evidence = 'versions', modified = excluded.modified",
        )?
        .execute((
            Uuid::new_v4().to_string(),
            wanted.device.to_string(),
            wanted.slot.as_str(),
            wanted.image.to_string(),
            tx.now,
        ))?;
    }
    Ok(runs)
}

fn of_upgrade(rejection: Rejection<UpgradeRefused>) -> Rejection<FirmwareRefused> {
    match rejection {
        Rejection::Refused(refused) => Rejection::Refused(refused.into()),
        Rejection::Store(error) => error.into(),
    }
}

fn request(wanted: &Assignment) -> UpgradeRequest {
    UpgradeRequest {
        device: wanted.device,
        slot: wanted.slot.clone(),
        image: wanted.image,
        upgrade_options: wanted.upgrade_options.clone(),
        deadline: None,
        retry_of: None,
        by: wanted.by.clone(),
    }
}

fn upgrade(tx: &Tx<'_>, wanted: &Assignment) -> Result<OperationId, Rejection<FirmwareRefused>> {
    let options = Value::Object(wanted.upgrade_options.clone()).to_string();
    let same: Option<OperationId> = tx
        .prepare_cached(
            "SELECT id FROM operations WHERE device = ?1 AND slot = ?2 AND image = ?3
                 AND upgrade_options = ?4 AND status IN ('idle', 'in-progress') AND NOT held",
        )?
        .query_row(
            (wanted.device.to_string(), wanted.slot.as_str(), wanted.image.to_string(), options),
            |row| parsed(row, "id"),
        )
        .optional()?;
    if let Some(operation) = same {
        return Ok(operation);
    }
    Ok(operation::create(tx, request(wanted)).map_err(of_upgrade)?.id)
}

/// For the log.
fn tell(
    tx: &Tx<'_>,
    device: DeviceId,
    before: Option<&DeviceFirmware>,
    after: Option<&DeviceFirmware>,
    operation: Option<OperationId>,
) -> rusqlite::Result<()> {
    let organization = device::standing(tx, device)?.map(|standing| standing.organization_id);
    let shown = |firmware: &DeviceFirmware| {
        json!({
            "id": firmware.id,
            "device": firmware.device,
            "slot": firmware.slot,
            "image": firmware.image,
            "installed": firmware.installed,
            "upgrade_operation": operation,
        })
    };
    tx.tell(audit::Told { organization, before: before.map(shown), after: after.map(shown) });
    Ok(())
}

/// Refuses while an upgrade of the slot is unfinished.
fn idle(tx: &Tx<'_>, device: DeviceId, slot: &Slot) -> Result<(), Rejection<FirmwareRefused>> {
    let busy = tx
        .prepare_cached(
            "SELECT 1 FROM operations
             WHERE device = ?1 AND slot = ?2 AND status IN ('idle', 'in-progress')",
        )?
        .exists((device.to_string(), slot.as_str()))?;
    if busy { Err(Rejection::Refused(FirmwareRefused::InUse)) } else { Ok(()) }
}

fn find(
    conn: &Connection,
    device: DeviceId,
    slot: &Slot,
) -> rusqlite::Result<Option<DeviceFirmware>> {
    conn.prepare_cached("SELECT * FROM device_firmware WHERE device = ?1 AND slot = ?2")?
        .query_row((device.to_string(), slot.as_str()), firmware)
        .optional()
}

fn firmware(row: &Row<'_>) -> rusqlite::Result<DeviceFirmware> {
    Ok(DeviceFirmware {
        id: parsed(row, "id")?,
        device: parsed(row, "device")?,
        slot: parsed(row, "slot")?,
        image: parsed_opt(row, "image")?,
        installed: row.get("installed")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
    })
}
