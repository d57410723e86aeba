//! What devices say of themselves.

use rusqlite::OptionalExtension;
use shared::event::VersionLine;
use shared::ids::{DeviceId, ImageId};
use shared::inventory::{Inventory, Modem};

use super::column::{parsed, to_json};
use super::{Never, Store, StoreError, Tx, device, event};

impl Store {
    /// Keeps the newest inventory and the modems in it.
    pub async fn set_inventory(
        &self,
        device: DeviceId,
        inventory: Inventory,
    ) -> Result<(), StoreError> {
        let set = self.write::<_, Never, _>(move |tx| Ok(set(tx, device, &inventory)?));
        Ok(set.await?)
    }
}

pub(super) fn set(tx: &Tx<'_>, id: DeviceId, inventory: &Inventory) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE devices SET inventory = ?2, inventory_at = ?3, board = ?4, modified = ?3
         WHERE id = ?1",
    )?
    .execute((id.to_string(), to_json(inventory)?, tx.now, &inventory.board))?;
    device::set_seen(tx, id, tx.now)?;
    tx.prepare_cached("DELETE FROM modems WHERE device = ?1")?.execute([id.to_string()])?;
    let mut insert = tx.prepare_cached(
        "INSERT OR REPLACE INTO modems (device, slot, model, imei, versions, condition, modified)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for modem in &inventory.modems {
        insert.execute((
            id.to_string(),
            modem.slot.as_str(),
            &modem.model,
            &modem.imei,
            to_json(&modem.versions)?,
            &modem.unreadable,
            tx.now,
        ))?;
        contradict(tx, id, modem)?;
    }
    Ok(())
}

/// `installed` ends where the modem runs something else than the image's manifest names. What it
/// could not be asked for contradicts nothing.
fn contradict(tx: &Tx<'_>, id: DeviceId, modem: &Modem) -> rusqlite::Result<()> {
    let slot = (id.to_string(), modem.slot.as_str());
    let image: Option<ImageId> = tx
        .prepare_cached(
            "SELECT image FROM device_firmware
             WHERE device = ?1 AND slot = ?2 AND installed AND image IS NOT NULL",
        )?
        .query_row(slot.clone(), |row| parsed(row, "image"))
        .optional()?;
    let Some(image) = image else { return Ok(()) };
    let reached = event::reached_by(tx, image)?;
    let differs = |read: &VersionLine| {
        reached.iter().any(|line| {
            (&line.command, line.line) == (&read.command, read.line) && line.value != read.value
        })
    };
    if modem.versions.iter().any(differs) {
        tx.prepare_cached(
            "UPDATE device_firmware SET installed = 0, evidence = 'versions', modified = ?3
             WHERE device = ?1 AND slot = ?2",
        )?
        .execute((slot.0, slot.1, tx.now))?;
    }
    Ok(())
}
