//! What devices say of themselves.

use shared::ids::DeviceId;
use shared::inventory::Inventory;

use super::column::to_json;
use super::{Never, Store, StoreError, Tx, device};

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
    }
    Ok(())
}
