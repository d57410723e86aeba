//! What devices say of themselves, and what it proves.

use rusqlite::OptionalExtension;
use shared::event::VersionLine;
use shared::ids::{DeviceId, ImageId, Slot};
use shared::inventory::{Inventory, Modem};
use shared::manifest::Manifest;
use uuid::Uuid;

use super::column::{json, json_opt, parsed, to_json};
use super::{Never, Store, StoreError, Tx, device, event};
use crate::duplicate::Trait;

impl Store {
    /// Keeps the newest inventory and the modems in it.
    pub async fn set_inventory(
        &self,
        device: DeviceId,
        inventory: Inventory,
    ) -> Result<(), StoreError> {
        let set = self.write::<_, Never, _>(move |tx| Ok(set(tx, device, inventory)?));
        Ok(set.await?)
    }
}

fn set(tx: &Tx<'_>, id: DeviceId, mut inventory: Inventory) -> rusqlite::Result<()> {
    let told: Vec<_> = inventory.modems.iter().map(|modem| modem.versions.clone()).collect();
    let read = inventory.modems.iter_mut().map(|modem| recall(tx, id, modem));
    let read = read.collect::<rusqlite::Result<Vec<_>>>()?;
    tx.prepare_cached(
        "UPDATE devices SET inventory = ?2, inventory_at = ?3, board = ?4, modified = ?3
         WHERE id = ?1",
    )?
    .execute((id.to_string(), to_json(&inventory)?, tx.now, &inventory.board))?;
    device::set_seen(tx, id, tx.now)?;
    let traits = [(Trait::Boot, &*inventory.boot_id), (Trait::Board, &*inventory.board)];
    device::see(tx, id, &traits)?;
    tx.prepare_cached("DELETE FROM modems WHERE device = ?1")?.execute([id.to_string()])?;
    let mut insert = tx.prepare_cached(
        "INSERT OR REPLACE INTO modems (device, slot, model, imei, versions, condition, modified)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for ((modem, read_at), told) in inventory.modems.iter().zip(read).zip(&told) {
        insert.execute((
            id.to_string(),
            modem.slot.as_str(),
            &modem.model,
            &modem.imei,
            to_json(&modem.versions)?,
            &modem.unreadable,
            read_at,
        ))?;
        weigh(tx, id, modem, told)?;
        recognize(tx, id, modem, told)?;
    }
    Ok(())
}

/// A modem that nobody has assigned anything to yet, and that runs all that exactly one known image names, has
/// that one's firmware: so an upgrade of its category takes it along. Where two would do, a person has to say.
fn recognize(
    tx: &Tx<'_>,
    id: DeviceId,
    modem: &Modem,
    told: &[VersionLine],
) -> rusqlite::Result<()> {
    if modem.unreadable.is_some() || told.is_empty() || has_firmware(tx, id, modem)? {
        return Ok(());
    }
    let values: Vec<_> = told.iter().map(|line| line.value.as_str()).collect();
    let mut images = tx.prepare_cached(
        // Most images are of other versions, and need not be parsed to see that.
        "SELECT i.id, i.manifest FROM images i JOIN builds b ON b.id = i.build
             JOIN categories c ON c.id = b.category
         WHERE i.manifest IS NOT NULL AND NOT i.going
             AND (c.organization IS NULL
                  OR c.organization = (SELECT organization FROM devices WHERE id = ?1))
             AND EXISTS (SELECT 1 FROM json_each(?2) v WHERE instr(i.manifest, v.value) > 0)",
    )?;
    let images = images.query_map((id.to_string(), to_json(&values)?), |row| {
        Ok((parsed::<ImageId>(row, "id")?, row.get::<_, Vec<u8>>("manifest")?))
    })?;
    let mut found = Vec::new();
    for image in images {
        let (image, manifest) = image?;
        let is_it = Manifest::parse(&manifest).is_ok_and(|manifest| {
            manifest.fits(&modem.manufacturer, &modem.model)
                && runs(&manifest.reaches, told) == Some(true)
        });
        found.extend(is_it.then_some(image));
    }
    let [image] = found.as_slice() else { return Ok(()) };
    tx.prepare_cached(
        "INSERT INTO device_firmware (id, organization, device, slot, image, installed, evidence,
             created, modified)
         SELECT ?1, d.organization, d.id, ?3, ?4, 1, 'versions', ?5, ?5 FROM devices d
         WHERE d.id = ?2",
    )?
    .execute((
        Uuid::new_v4().to_string(),
        id.to_string(),
        modem.slot.as_str(),
        image.to_string(),
        tx.now,
    ))?;
    Ok(())
}

fn has_firmware(tx: &Tx<'_>, id: DeviceId, modem: &Modem) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM device_firmware WHERE device = ?1 AND slot = ?2")?
        .exists((id.to_string(), modem.slot.as_str()))
}

/// A modem that could not be asked, for instance while somebody else talks to it, stays what it was
/// when it last could, and so do the versions that ModemManager cannot tell of one; answers when it was
/// asked last.
fn recall(tx: &Tx<'_>, id: DeviceId, modem: &mut Modem) -> rusqlite::Result<u64> {
    let asked = modem.unreadable.is_none() && !modem.versions.is_empty();
    let known = tx
        .prepare_cached(
            "SELECT d.inventory, m.versions, m.modified FROM modems m
                 JOIN devices d ON d.id = m.device WHERE m.device = ?1 AND m.slot = ?2",
        )?
        .query_row((id.to_string(), modem.slot.as_str()), |row| {
            let inventory: Option<Inventory> = json_opt(row, "inventory")?;
            let versions: Vec<VersionLine> = json(row, "versions")?;
            Ok((inventory, versions, row.get("modified")?))
        })
        .optional()?;
    let Some((inventory, versions, read_at)) = known else { return Ok(tx.now) };
    let modems = inventory.map(|inventory| inventory.modems).unwrap_or_default();
    let before = modems.into_iter().find(|before| before.slot == modem.slot);
    Ok(if fill(modem, before, versions) && !asked { read_at } else { tx.now })
}

/// False where another modem has come into the slot.
fn fill(modem: &mut Modem, before: Option<Modem>, versions: Vec<VersionLine>) -> bool {
    if let Some(before) = before {
        if !modem.imei.is_empty() && modem.imei != before.imei {
            return false;
        }
        for (said, known) in [
            (&mut modem.manufacturer, before.manufacturer),
            (&mut modem.model, before.model),
            (&mut modem.imei, before.imei),
        ] {
            if said.is_empty() {
                *said = known;
            }
        }
    }
    complete(&mut modem.versions, versions);
    true
}

/// What was known and not told now stays, unless what was told is another than what was known.
fn complete(told: &mut Vec<VersionLine>, known: Vec<VersionLine>) {
    let place = |line: &VersionLine| (line.command.clone(), line.line);
    let another = |known: &VersionLine| {
        told.iter().any(|told| place(told) == place(known) && told.value != known.value)
    };
    let alike = told.is_empty() || known.iter().any(|known| told.contains(known));
    if alike && !known.iter().any(another) {
        let missing: Vec<_> = known.into_iter().filter(|line| !told.contains(line)).collect();
        told.extend(missing);
    }
}

/// `installed` follows the versions: it ends where the modem runs something else than the image's
/// manifest names, and begins where it runs all of that, by what was `told` now. What could not be asked says
/// neither.
///
/// An operation is not ended by it: a success is also the same SIM and network back, and whether
/// its holders were given back only its journal knows.
fn weigh(tx: &Tx<'_>, id: DeviceId, modem: &Modem, told: &[VersionLine]) -> rusqlite::Result<()> {
    if modem.unreadable.is_some() {
        return Ok(());
    }
    let slot = (id.to_string(), modem.slot.as_str());
    let wanted: Option<(ImageId, bool)> = tx
        .prepare_cached(
            "SELECT image, installed FROM device_firmware
             WHERE device = ?1 AND slot = ?2 AND image IS NOT NULL",
        )?
        .query_row(slot.clone(), |row| Ok((parsed(row, "image")?, row.get("installed")?)))
        .optional()?;
    let Some((image, before)) = wanted else { return Ok(()) };
    let installed = runs(&event::reached_by(tx, image)?, told).unwrap_or(before);
    if installed != before {
        tx.prepare_cached(
            "UPDATE device_firmware SET installed = ?3, evidence = 'versions', modified = ?4
             WHERE device = ?1 AND slot = ?2",
        )?
        .execute((slot.0, slot.1, installed, tx.now))?;
    }
    Ok(())
}

/// Whether the modem in the slot was seen to run all that the image's manifest names, and the image is for it. What was
/// read before somebody may have flashed it last says nothing.
pub(super) fn runs_image(
    tx: &Tx<'_>,
    device: DeviceId,
    slot: &Slot,
    image: ImageId,
) -> rusqlite::Result<bool> {
    let known = tx
        .prepare_cached(
            "SELECT m.versions, d.inventory FROM modems m JOIN devices d ON d.id = m.device
             WHERE m.device = ?1 AND m.slot = ?2 AND m.condition IS NULL
                 AND m.modified >= coalesce((SELECT max(p.finished_at) FROM operations p
                     WHERE p.device = m.device AND p.slot = m.slot
                         AND (p.granted_attempt IS NOT NULL OR p.evidence = 'reported')), 0)",
        )?
        .query_row((device.to_string(), slot.as_str()), |row| {
            Ok((json(row, "versions")?, json_opt(row, "inventory")?))
        })
        .optional()?;
    let Some::<(Vec<VersionLine>, Option<Inventory>)>((read, inventory)) = known else {
        return Ok(false);
    };
    let modems = inventory.map(|inventory| inventory.modems).unwrap_or_default();
    let Some(modem) = modems.into_iter().find(|modem| modem.slot == *slot) else {
        return Ok(false);
    };
    let manifest = event::manifest_of(tx, image)?;
    Ok(manifest.is_some_and(|manifest| {
        manifest.fits(&modem.manufacturer, &modem.model)
            && runs(&manifest.reaches, &read) == Some(true)
    }))
}

/// Whether the versions that were read are those of the manifest; `None` where that cannot be told.
fn runs(reaches: &[VersionLine], read: &[VersionLine]) -> Option<bool> {
    let differs = |line: &VersionLine| {
        read.iter().any(|read| {
            (&line.command, line.line) == (&read.command, read.line) && line.value != read.value
        })
    };
    if reaches.iter().any(differs) {
        return Some(false);
    }
    (!reaches.is_empty() && reaches.iter().all(|line| read.contains(line))).then_some(true)
}
