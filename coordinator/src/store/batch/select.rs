//! The dry run: every modem of a selection is judged, some hundred devices at a time, and what that comes
//! to is kept in a few bytes each, however many they are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use shared::event::VersionLine;
use shared::identity::DeviceState;
use shared::ids::{
    BatchId, BuildId, CategoryId, DeviceId, ImageId, OperationId, OrganizationId, Slot,
};
use shared::inventory::{Inventory, Modem};
use shared::manifest::Manifest;
use uuid::Uuid;

use super::create::{Chosen, Member, Members};
use crate::batch::LeftOut;
use crate::batch::verdict::{Active, Allowance, Candidate, Place, Reason, Router, concerns, judge};
use crate::store::column::{json, json_opt, parsed, parsed_opt, word};
use crate::store::listing::{Rows, Where};

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

/// A device that has modems in the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: DeviceId,
    modems: usize,
    /// So many of them would be upgraded.
    chosen: usize,
}

/// What a selection comes to. Of each device it keeps a few bytes and no verdict: those of a page, or of
/// some members, are found when they are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// By the devices' names.
    seen: Vec<Seen>,
    /// Modems that would be upgraded.
    pub count: usize,
    /// Of them those in other slots than the usual one, which few routers have.
    others: HashMap<DeviceId, Vec<Slot>>,
    pub excluded: BTreeMap<Reason, usize>,
    /// The firmware associations that would change.
    pub firmware: Vec<Uuid>,
    /// The device of each modem that has none yet and would get one.
    pub without: Vec<DeviceId>,
    /// Devices that were named and are not there.
    pub unknown: Vec<DeviceId>,
}

impl Look {
    /// Modems that were looked at.
    pub fn modems(&self) -> usize {
        self.count + self.excluded.values().sum::<usize>()
    }

    /// Those that would be upgraded, in an order that has nothing to do with their names: a canary
    /// wave should not be one site's.
    pub fn chosen(&self) -> Vec<Chosen> {
        let chosen = self.seen.iter().filter(|seen| seen.chosen > 0);
        let chosen = chosen.map(|seen| {
            let others = self.others.get(&seen.device).cloned().unwrap_or_default();
            Chosen { device: seen.device, main: seen.chosen > others.len(), others }
        });
        let mut chosen: Vec<_> = chosen.collect();
        chosen.sort_unstable();
        chosen
    }

    /// Where the modems after the first `offset` are, `limit` of them: the devices, and which modems of
    /// each.
    fn devices_of(&self, rows: Rows) -> Vec<(DeviceId, Range<usize>)> {
        let from = rows.offset as usize;
        let wanted = from..from.saturating_add(rows.limit as usize);
        let (mut before, mut found) = (0, Vec::new());
        for seen in &self.seen {
            let own = wanted.start.max(before)..wanted.end.min(before + seen.modems);
            if !own.is_empty() {
                found.push((seen.device, own.start - before..own.end - before));
            }
            before += seen.modems;
            if before >= wanted.end {
                break;
            }
        }
        found
    }

    fn add(&mut self, verdicts: Vec<Verdict>) {
        for Verdict { device, slot, firmware, image, .. } in verdicts {
            if image.is_ok() && slot != Slot::default() {
                self.others.entry(device).or_default().push(slot);
            }
            match self.seen.last_mut() {
                Some(last) if last.device == device => {
                    last.modems += 1;
                    last.chosen += usize::from(image.is_ok());
                }
                _ => self.seen.push(Seen { device, modems: 1, chosen: image.is_ok().into() }),
            }
            match (image, firmware) {
                (Err(reason), _) => *self.excluded.entry(reason).or_default() += 1,
                (Ok(_), Some(firmware)) => self.firmware.push(firmware),
                (Ok(_), None) => self.without.push(device),
            }
            self.count += usize::from(image.is_ok());
        }
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

/// Devices whose modems are judged together, in a handful of queries.
const TOGETHER: usize = if cfg!(test) { 3 } else { 500 };

/// Every modem of the selection is judged.
pub(super) fn look(conn: &Connection, ask: &Ask, now: u64) -> rusqlite::Result<Look> {
    let (filter, images) = (filter(ask), candidates(conn, ask.build)?);
    let (clause, values) = filter.clause();
    let sql = format!("SELECT t.id FROM devices t{clause} ORDER BY t.name, t.id");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| parsed(row, "id"))?;
    let devices: Vec<DeviceId> = rows.collect::<Result<_, _>>()?;
    let mut look = Look { unknown: unknown(ask, &devices), ..Look::default() };
    for some in devices.chunks(TOGETHER) {
        look.add(judged(conn, ask, &images, some, now)?);
    }
    Ok(look)
}

/// The verdicts on a page of its modems, as they are by now. Who is not of the selection any more is
/// missing, and nobody moves to another page for it.
pub(super) fn page(
    conn: &Connection,
    ask: &Ask,
    look: &Look,
    rows: Rows,
    now: u64,
) -> rusqlite::Result<Vec<Verdict>> {
    let (devices, modems): (Vec<_>, Vec<_>) = look.devices_of(rows).into_iter().unzip();
    let mut found = HashMap::<_, Vec<_>>::new();
    for verdict in judged(conn, ask, &candidates(conn, ask.build)?, &devices, now)? {
        found.entry(verdict.device).or_default().push(verdict);
    }
    let own = |(device, modems): (DeviceId, Range<usize>)| {
        let verdicts = found.remove(&device).unwrap_or_default();
        verdicts.into_iter().skip(modems.start).take(modems.len())
    };
    Ok(devices.into_iter().zip(modems).flat_map(own).collect())
}

/// Those of these modems that would be upgraded by now, and why the others would not.
pub(super) fn members(
    conn: &Connection,
    ask: &Ask,
    chosen: &[Chosen],
    now: u64,
) -> rusqlite::Result<Members> {
    let devices: Vec<_> = chosen.iter().map(|chosen| chosen.device).collect();
    let verdicts = judged(conn, ask, &candidates(conn, ask.build)?, &devices, now)?;
    let key = |verdict: Verdict| ((verdict.device, verdict.slot.clone()), verdict);
    let mut found: HashMap<_, _> = verdicts.into_iter().map(key).collect();
    let mut some = Members::default();
    for chosen in chosen {
        let device = chosen.device;
        for slot in chosen.slots() {
            let (image, retry_of) = match found.remove(&(device, slot.clone())) {
                Some(verdict) => (verdict.image.map_err(LeftOut::Unfit), verdict.retry_of),
                None => (Err(LeftOut::NotSelected), None),
            };
            match image {
                Ok(image) => some.members.push(Member { device, slot, image, retry_of }),
                Err(why) => some.left_out.push((device, slot, why)),
            }
        }
    }
    Ok(some)
}

/// The modems of those of these devices that are of the selection, by the devices' names.
fn judged(
    conn: &Connection,
    ask: &Ask,
    images: &[Candidate],
    devices: &[DeviceId],
    now: u64,
) -> rusqlite::Result<Vec<Verdict>> {
    let ids: Vec<_> = devices.iter().map(DeviceId::to_string).collect();
    let ids = serde_json::Value::from(ids).to_string();
    let (filter, known) = (filter(ask), known(conn, ask, &ids)?);
    let (clause, values) = filter.clause();
    let sql = format!(
        "SELECT t.id, t.name, t.state, t.deactivated, t.duplicate_since IS NOT NULL AS duplicate,
             t.inventory,
             (SELECT json_group_object(m.slot, m.versions) FROM modems m
              WHERE m.device = t.id) AS versions
         FROM json_each(?) some CROSS JOIN devices t ON t.id = some.value{clause}
         ORDER BY t.name, t.id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let ids = Value::from(ids);
    let mut rows = statement.query(params_from_iter(std::iter::once(&ids).chain(values)))?;
    let mut verdicts = Vec::new();
    while let Some(row) = rows.next()? {
        of_device(row, ask, images, &known, now, &mut verdicts)?;
    }
    verdicts.retain(|verdict| wanted(&known, verdict));
    Ok(verdicts)
}

fn unknown(ask: &Ask, found: &[DeviceId]) -> Vec<DeviceId> {
    let named = &ask.selection.devices;
    if named.is_empty() {
        return Vec::new();
    }
    let found: HashSet<_> = found.iter().collect();
    named.iter().filter(|id| !found.contains(id)).copied().collect()
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

/// Of the devices of this list.
fn known(conn: &Connection, ask: &Ask, devices: &str) -> rusqlite::Result<Known> {
    Ok(Known {
        firmware: by_slot(
            conn,
            devices,
            "p.device, p.slot, p.id, b.category",
            "device_firmware p ON p.device = some.value
                 LEFT JOIN images i ON i.id = p.image LEFT JOIN builds b ON b.id = i.build",
            |row| Ok((parsed(row, "id")?, parsed_opt(row, "category")?)),
        )?,
        active: by_slot(
            conn,
            devices,
            "p.device, p.slot, p.id, p.image, p.grant_open, p.batch",
            "operations p ON p.device = some.value WHERE p.status IN ('idle', 'in-progress')",
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
            devices,
            "p.device, p.slot, p.id",
            // As `operation::expiry::is_lost` has it.
            "operations p ON p.device = some.value JOIN devices t ON t.id = p.device
             WHERE p.status = 'failed' AND p.late_result IS NULL
                 AND json_extract(p.failure, '$.kind') = 'attempt_lost'
                 AND json_extract(p.failure, '$.condition') = 'unknown'
                 AND max(coalesce(t.last_seen, 0), coalesce(t.inventory_at, 0)) <= p.finished_at
                 AND NOT EXISTS (SELECT 1 FROM operations n
                     WHERE n.device = p.device AND n.slot = p.slot
                         AND (n.created, n.rowid) > (p.created, p.rowid))",
            |row| parsed(row, "id"),
        )?,
        failed: ask.selection.retry_of.map(|batch| failed_of(conn, batch, devices)).transpose()?,
    })
}

/// Rows about slots of these devices, by the slot. The devices come first: each has a handful of rows.
fn by_slot<T>(
    conn: &Connection,
    devices: &str,
    what: &str,
    of: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<HashMap<Key, T>> {
    let sql = format!("SELECT {what} FROM json_each(?) some CROSS JOIN {of}");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([devices], |row| {
        Ok(((parsed(row, "device")?, parsed(row, "slot")?), read(row)?))
    })?;
    rows.collect()
}

/// What may be tried again: what failed, or was given up for a reason that may have gone.
fn failed_of(
    conn: &Connection,
    batch: BatchId,
    devices: &str,
) -> rusqlite::Result<HashMap<Key, Failed>> {
    let mut statement = conn.prepare_cached(
        // The sign keeps it from reading the whole batch for each of the devices.
        "SELECT f.device, f.slot, f.id, EXISTS (SELECT 1 FROM operations n
                 WHERE n.device = f.device AND n.slot = f.slot AND n.created >= f.created
                     AND (n.created, n.rowid) > (f.created, f.rowid)
                     AND n.status IN ('success', 'idle', 'in-progress')) AS moved_on
         FROM json_each(?2) some CROSS JOIN operations f ON f.device = some.value
         WHERE +f.batch = ?1 AND f.status IN ('failed', 'aborted')",
    )?;
    let rows = statement.query_map((batch.to_string(), devices), |row| {
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
