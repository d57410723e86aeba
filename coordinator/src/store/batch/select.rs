//! The dry run: every modem of a selection with its verdict, in a handful of queries however many
//! devices there are.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params_from_iter};
use shared::event::VersionLine;
use shared::identity::DeviceState;
use shared::ids::{
    BatchId, BuildId, CategoryId, DeviceId, ImageId, OperationId, OrganizationId, Slot,
};
use shared::inventory::{Inventory, Modem};
use shared::manifest::Manifest;
use uuid::Uuid;

use super::create::Member;
use crate::batch::verdict::{Active, Allowance, Candidate, Place, Reason, Router, concerns, judge};
use crate::store::column::{json, json_opt, parsed, parsed_opt, word};
use crate::store::listing::Where;

/// Which devices are looked at. Empty lists select all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    /// With any of these.
    pub tags: Vec<String>,
    pub devices: Vec<DeviceId>,
    pub models: Vec<String>,
    pub boards: Vec<String>,
    /// Modems that run any of these, by the value of a version line.
    pub from_versions: Vec<String>,
    /// Only the failed ones of this batch.
    pub retry_of: Option<BatchId>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub organization: OrganizationId,
    pub build: BuildId,
    pub category: CategoryId,
    pub selection: Selection,
    pub allowance: Allowance,
}

/// What would become of one modem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub device: DeviceId,
    pub name: String,
    pub slot: Slot,
    /// Its firmware association, where it has one.
    pub firmware: Option<Uuid>,
    /// The image it would get.
    pub image: Result<ImageId, Reason>,
    /// The failed operation that this would be another try of.
    pub retry_of: Option<OperationId>,
    /// The unfinished operation that would give way.
    pub replaces: Option<Active>,
}

/// Every modem of the selection, by the devices' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    pub verdicts: Vec<Verdict>,
    /// Devices that were named and are not there.
    pub unknown: Vec<DeviceId>,
}

impl Preview {
    /// Those that would be upgraded, in an order that has nothing to do with their names: a canary
    /// wave should not be one site's.
    pub fn members(&self) -> Vec<Member> {
        let member = |verdict: &Verdict| {
            let (device, slot) = (verdict.device, verdict.slot.clone());
            let image = verdict.image.ok()?;
            Some(Member { device, slot, image, retry_of: verdict.retry_of })
        };
        let mut members: Vec<_> = self.verdicts.iter().filter_map(member).collect();
        members.sort_by_key(|member| member.device);
        members
    }
}

type Key = (DeviceId, Slot);

/// What a retry is another try of.
#[derive(Debug, Clone, Copy)]
struct Failed {
    id: OperationId,
    /// A later operation of the slot has succeeded, or is to be.
    moved_on: bool,
}

/// What is known of slots, beside their modems.
struct Known {
    firmware: HashMap<Key, (Uuid, Option<CategoryId>)>,
    active: HashMap<Key, Active>,
    lost: HashMap<Key, OperationId>,
    /// Of a retry: what failed.
    failed: Option<HashMap<Key, Failed>>,
}

pub(super) fn preview(conn: &Connection, ask: &Ask, now: u64) -> rusqlite::Result<Preview> {
    let filter = filter(ask);
    let (images, known) = (candidates(conn, ask.build)?, known(conn, ask, &filter)?);
    let mut verdicts = Vec::new();
    let (clause, values) = filter.clause();
    let sql = format!(
        "SELECT t.id, t.name, t.state, t.deactivated, t.duplicate_since IS NOT NULL AS duplicate,
             t.inventory,
             (SELECT json_group_object(m.slot, m.versions) FROM modems m
              WHERE m.device = t.id) AS versions
         FROM devices t{clause} ORDER BY t.name, t.id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        of_device(row, ask, &images, &known, now, &mut verdicts)?;
    }
    let unknown = unknown(ask, &verdicts);
    verdicts.retain(|verdict| wanted(&known, verdict));
    Ok(Preview { verdicts, unknown })
}

fn unknown(ask: &Ask, verdicts: &[Verdict]) -> Vec<DeviceId> {
    let found: std::collections::HashSet<_> = verdicts.iter().map(|found| found.device).collect();
    // A device whose modems were all filtered out is none that is not there.
    let narrowed = !ask.selection.models.is_empty() || !ask.selection.from_versions.is_empty();
    let missing = |id: &&DeviceId| !narrowed && !found.contains(*id);
    ask.selection.devices.iter().filter(missing).copied().collect()
}

fn wanted(known: &Known, verdict: &Verdict) -> bool {
    let key = (verdict.device, verdict.slot.clone());
    known.failed.as_ref().is_none_or(|failed| failed.contains_key(&key))
}

fn filter(ask: &Ask) -> Where {
    let selection = &ask.selection;
    let mut filter = Where::default();
    filter.and("t.organization = ?", ask.organization.to_string());
    filter.and_if("t.device_group = ?", selection.group);
    filter.and_if("t.location = ?", selection.location);
    if !selection.tags.is_empty() {
        let tags = serde_json::Value::from(selection.tags.clone()).to_string();
        filter.and(
            "t.id IN (SELECT g.device FROM device_tags g
                      WHERE g.tag IN (SELECT value FROM json_each(?)))",
            tags,
        );
    }
    if !selection.boards.is_empty() {
        filter.one_of("t.board", &selection.boards);
    }
    if !selection.devices.is_empty() {
        let ids: Vec<_> = selection.devices.iter().map(DeviceId::to_string).collect();
        filter.one_of("t.id", &ids);
    }
    if let Some(batch) = selection.retry_of {
        filter.and(
            "t.id IN (SELECT f.device FROM operations f WHERE f.batch = ?)",
            batch.to_string(),
        );
    }
    filter
}

fn candidates(conn: &Connection, build: BuildId) -> rusqlite::Result<Vec<Candidate>> {
    let mut statement = conn.prepare_cached(
        "SELECT id, type, boards, manifest, signed_by FROM images
         WHERE build = ?1 AND NOT going ORDER BY created, rowid",
    )?;
    let images = statement.query_map([build.to_string()], |row| {
        let manifest: Option<Vec<u8>> = row.get("manifest")?;
        Ok(Candidate {
            id: parsed(row, "id")?,
            tool: row.get("type")?,
            boards: json(row, "boards")?,
            manifest: manifest.and_then(|bytes| Manifest::parse(&bytes).ok()),
            signed_by: row.get("signed_by")?,
        })
    })?;
    images.collect()
}

fn known(conn: &Connection, ask: &Ask, filter: &Where) -> rusqlite::Result<Known> {
    Ok(Known {
        firmware: by_slot(
            conn,
            filter,
            "f.device, f.slot, f.id, b.category FROM device_firmware f
                 JOIN devices t ON t.id = f.device
                 LEFT JOIN images i ON i.id = f.image LEFT JOIN builds b ON b.id = i.build",
            "",
            |row| Ok((parsed(row, "id")?, parsed_opt(row, "category")?)),
        )?,
        active: by_slot(
            conn,
            filter,
            "p.device, p.slot, p.id, p.image, p.grant_open, p.batch FROM operations p
                 JOIN devices t ON t.id = p.device",
            " AND p.status IN ('idle', 'in-progress')",
            |row| {
                Ok(Active {
                    id: parsed(row, "id")?,
                    image: parsed_opt(row, "image")?,
                    granted: row.get("grant_open")?,
                    batch: parsed_opt(row, "batch")?,
                })
            },
        )?,
        lost: by_slot(
            conn,
            filter,
            "p.device, p.slot, p.id FROM operations p JOIN devices t ON t.id = p.device",
            // As `operation::expiry::is_lost` has it.
            " AND p.status = 'failed' AND p.late_result IS NULL
                 AND json_extract(p.failure, '$.kind') = 'attempt_lost'
                 AND json_extract(p.failure, '$.condition') = 'unknown'
                 AND max(coalesce(t.last_seen, 0), coalesce(t.inventory_at, 0)) <= p.finished_at
                 AND NOT EXISTS (SELECT 1 FROM operations n
                     WHERE n.device = p.device AND n.slot = p.slot
                         AND (n.created, n.rowid) > (p.created, p.rowid))",
            |row| parsed(row, "id"),
        )?,
        failed: ask.selection.retry_of.map(|batch| failed_of(conn, batch)).transpose()?,
    })
}

/// Rows about slots of the selected devices, by the slot.
fn by_slot<T>(
    conn: &Connection,
    filter: &Where,
    what: &str,
    and: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<HashMap<Key, T>> {
    let (clause, values) = filter.clause();
    let mut statement = conn.prepare_cached(&format!("SELECT {what}{clause}{and}"))?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        Ok(((parsed(row, "device")?, parsed(row, "slot")?), read(row)?))
    })?;
    rows.collect()
}

/// What may be tried again: what failed, or was given up for a reason that may have gone.
fn failed_of(conn: &Connection, batch: BatchId) -> rusqlite::Result<HashMap<Key, Failed>> {
    let mut statement = conn.prepare_cached(
        "SELECT f.device, f.slot, f.id, EXISTS (SELECT 1 FROM operations n
                 WHERE n.device = f.device AND n.slot = f.slot AND n.created >= f.created
                     AND (n.created, n.rowid) > (f.created, f.rowid)
                     AND n.status IN ('success', 'idle', 'in-progress')) AS moved_on
         FROM operations f WHERE f.batch = ?1 AND f.status IN ('failed', 'aborted')",
    )?;
    let rows = statement.query_map([batch.to_string()], |row| {
        let failed = Failed { id: parsed(row, "id")?, moved_on: row.get("moved_on")? };
        Ok(((parsed(row, "device")?, parsed(row, "slot")?), failed))
    })?;
    rows.collect()
}

fn of_device(
    row: &Row<'_>,
    ask: &Ask,
    images: &[Candidate],
    known: &Known,
    now: u64,
    verdicts: &mut Vec<Verdict>,
) -> rusqlite::Result<()> {
    let (device, name): (DeviceId, String) = (parsed(row, "id")?, row.get("name")?);
    // One damaged row must not keep all the others from their upgrade.
    let inventory: Option<Inventory> = json_opt(row, "inventory").unwrap_or_else(|error| {
        tracing::error!(%device, %error, "an inventory is damaged");
        None
    });
    let router = Router {
        state: word(row, "state")?.unwrap_or(DeviceState::Unknown),
        deactivated: row.get("deactivated")?,
        duplicate: row.get("duplicate")?,
        inventory: inventory.as_ref(),
    };
    let read: HashMap<String, Option<String>> = json(row, "versions")?;
    let mut add = |slot: Slot, modem: Option<&Modem>| {
        let key = (device, slot.clone());
        if !belongs(&ask.selection, modem) {
            return;
        }
        let firmware = known.firmware.get(&key);
        let failed = known.failed.as_ref().and_then(|failed| failed.get(&key)).copied();
        let place = Place {
            category: firmware.and_then(|(_, category)| *category),
            active: known.active.get(&key).copied(),
            lost: known.lost.get(&key).copied(),
            moved_on: failed.is_some_and(|failed| failed.moved_on),
        };
        let image = judge(&router, modem, &place, images, &ask.allowance, now)
            .and_then(|image| concerns(&place, ask.category, &ask.allowance).map(|()| image));
        let firmware = firmware.map(|(id, _)| *id);
        let retry_of = failed.map(|failed| failed.id);
        let replaces = place.active.filter(|_| image.is_ok());
        let name = name.clone();
        verdicts.push(Verdict { device, name, slot, firmware, image, retry_of, replaces });
    };
    match inventory.as_ref().map(|inventory| inventory.modems.as_slice()) {
        Some(modems @ [_, ..]) => {
            for modem in modems {
                add(modem.slot.clone(), Some(&current(modem, &read)));
            }
        }
        Some([]) | None => add(Slot::default(), None),
    }
    Ok(())
}

/// The modem with what was read of it since its router's last inventory.
fn current(modem: &Modem, read: &HashMap<String, Option<String>>) -> Modem {
    let lines = read.get(modem.slot.as_str()).and_then(Option::as_deref);
    let newer: Option<Vec<VersionLine>> = lines.and_then(|lines| serde_json::from_str(lines).ok());
    let mut modem = modem.clone();
    for line in newer.unwrap_or_default() {
        modem.versions.retain(|old| (&old.command, old.line) != (&line.command, line.line));
        modem.versions.push(line);
    }
    modem
}

/// Whether the modem belongs to the selection.
fn belongs(selection: &Selection, modem: Option<&Modem>) -> bool {
    let model = selection.models.is_empty()
        || modem.is_some_and(|modem| selection.models.contains(&modem.model));
    let runs = |modem: &Modem| {
        modem.versions.iter().any(|line| selection.from_versions.contains(&line.value))
    };
    let version = selection.from_versions.is_empty() || modem.is_some_and(runs);
    model && version
}
