//! Devices: who they are, whether they are accepted, and when they were last heard of.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::hex::Hex;
use shared::identity::DeviceState;
use shared::ids::{DeviceId, OrganizationId, OrganizationSlug, SessionId, Slot};
use shared::inventory::Inventory;
use uuid::Uuid;

use super::audit::{self, Entry, Told};
use super::column::{self, json_opt, parsed, parsed_opt, to_json, word};
use super::listing::{Found, OF_ORGANIZATION, Order, Rows, Scope, Where, list};
use super::note::Note;
use super::{Never, Rejection, Store, StoreError, Tx, batch, place};
use crate::duplicate::{self, Sightings, Verdict};

#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub id: DeviceId,
    pub organization: OrganizationId,
    pub organization_slug: OrganizationSlug,
    pub name: String,
    pub board: String,
    pub public_key: Hex<32>,
    pub mac: Option<String>,
    pub serial: Option<String>,
    pub state: DeviceState,
    /// The device whose MAC address or serial number it came with under a new key.
    pub replacement_of: Option<DeviceId>,
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    /// In order.
    pub tags: Vec<String>,
    /// Of its tokens.
    pub epoch: u32,
    pub deactivated: bool,
    /// Since when, and why, it is taken for two boards: its jobs are held.
    pub duplicate: Option<(u64, String)>,
    pub online: bool,
    /// Unix milliseconds, as the other times.
    pub last_seen: Option<u64>,
    pub inventory: Option<Inventory>,
    pub inventory_at: Option<u64>,
    /// When each modem could last be asked.
    pub read_at: BTreeMap<Slot, u64>,
    pub created: u64,
    pub modified: u64,
}

/// Which devices, in what order.
#[derive(Debug, Clone)]
pub struct DeviceList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    pub state: Option<DeviceState>,
    pub name: Option<String>,
    pub board: Option<String>,
    pub online: Option<bool>,
    pub duplicate: Option<bool>,
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    pub tag: Option<String>,
    /// Of the columns `name`, `created`, `modified` and `last_seen`.
    pub order: Order,
    pub rows: Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRefusal {
    #[error("there is no such device")]
    Unknown,
    #[error("there is no such group in the device's organization")]
    UnknownGroup,
    #[error("there is no such location in the device's organization")]
    UnknownLocation,
    #[error("a revoked device cannot be accepted again: it needs a new key")]
    Revoked,
    #[error("it does not wait for an answer")]
    NotPending,
}

/// What to set; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceChange {
    pub deactivated: Option<bool>,
    pub group: Option<Option<Uuid>>,
    pub location: Option<Option<Uuid>>,
    pub tags: Option<Vec<String>>,
}

const COLUMNS: &str = "t.*,
    (SELECT slug FROM organizations o WHERE o.id = t.organization) AS organization_slug,
    (SELECT json_group_object(slot, modified) FROM modems m WHERE m.device = t.id) AS read_at,
    (SELECT json_group_array(tag) FROM device_tags g WHERE g.device = t.id) AS tags";
const FROM: &str = "devices t";

impl Store {
    pub async fn devices(&self, wanted: DeviceList) -> Result<Found<Device>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible("t.organization", &wanted.scope);
            filter.and_if(OF_ORGANIZATION, wanted.organization);
            filter.and_if("t.state = ?", wanted.state.map(DeviceState::as_str));
            filter.and_if("t.name = ?", wanted.name);
            filter.and_if("t.board = ?", wanted.board);
            filter.and_if("t.online = CAST(? AS INTEGER)", wanted.online.map(u8::from));
            match wanted.duplicate {
                Some(true) => filter.only("t.duplicate_since IS NOT NULL"),
                Some(false) => filter.only("t.duplicate_since IS NULL"),
                None => &mut filter,
            };
            filter.and_if("t.device_group = ?", wanted.group);
            filter.and_if("t.location = ?", wanted.location);
            filter
                .and_if("t.id IN (SELECT g.device FROM device_tags g WHERE g.tag = ?)", wanted.tag);
            list(conn, (COLUMNS, FROM), &filter, wanted.order, wanted.rows, device)
        })
        .await
    }

    /// None also where `scope` does not see it.
    pub async fn device(&self, scope: Scope, id: DeviceId) -> Result<Option<Device>, StoreError> {
        self.read(move |conn| Ok(find_in(conn, &scope, id)?)).await
    }

    pub async fn device_by_key(&self, key: Hex<32>) -> Result<Option<Device>, StoreError> {
        self.read(move |conn| Ok(find_by_key(conn, key)?)).await
    }

    /// Accepted devices and the epoch of their tokens.
    pub async fn admitted_devices(&self) -> Result<Vec<(DeviceId, u32)>, StoreError> {
        self.read(|conn| {
            let mut statement =
                conn.prepare_cached("SELECT id, epoch FROM devices WHERE state = 'accepted'")?;
            let rows =
                statement.query_map([], |row| Ok((parsed(row, "id")?, row.get("epoch")?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Lets a pending device in; whatever else came with its hardware is revoked, so that a router
    /// has one key.
    pub async fn accept_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, |tx, device| {
            match device.state {
                DeviceState::Revoked => return Err(Rejection::Refused(DeviceRefusal::Revoked)),
                DeviceState::Accepted => return Ok(()),
                DeviceState::Pending | DeviceState::Unknown => {}
            }
            for rival in rivals(tx, device)? {
                revoke(tx, rival)?;
            }
            if takeovers(tx, device)? >= TAKEOVERS {
                hold(tx, device.id, "its hardware was taken over by new keys again and again")?;
            }
            tx.prepare_cached(
                "UPDATE devices SET state = 'accepted', modified = ?2 WHERE id = ?1",
            )?
            .execute((device.id.to_string(), tx.now))?;
            tx.note(Note::Admitted { subject: device.id.0, epoch: device.epoch });
            Ok(())
        })
        .await
    }

    /// Shuts a device out: its tokens end, and its key is worth nothing any more.
    pub async fn revoke_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, |tx, device| Ok(revoke(tx, device.id)?)).await
    }

    /// Turns a waiting device away: its key is worth nothing.
    pub async fn refuse_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, |tx, device| match device.state {
            DeviceState::Pending => Ok(revoke(tx, device.id)?),
            DeviceState::Accepted | DeviceState::Revoked | DeviceState::Unknown => {
                Err(Rejection::Refused(DeviceRefusal::NotPending))
            }
        })
        .await
    }

    /// Somebody has seen to it that the identity is one board's: its jobs go on.
    pub async fn release_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, |tx, device| {
            tx.prepare_cached(
                "UPDATE devices SET duplicate_since = NULL, duplicate_reason = NULL,
                     sightings = '{}', modified = ?2 WHERE id = ?1",
            )?
            .execute((device.id.to_string(), tx.now))?;
            Ok(bump(tx, device.id)?)
        })
        .await
    }

    /// A deactivated device keeps its line and gets no jobs.
    pub async fn deactivate_device(
        &self,
        scope: Scope,
        id: DeviceId,
        deactivated: bool,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        let change = DeviceChange { deactivated: Some(deactivated), ..DeviceChange::default() };
        self.alter_device(scope, id, change).await
    }

    /// Sets what operators say of a device.
    pub async fn alter_device(
        &self,
        scope: Scope,
        id: DeviceId,
        change: DeviceChange,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, move |tx, device| change.apply(tx, device)).await
    }

    async fn change_device(
        &self,
        scope: Scope,
        id: DeviceId,
        change: impl FnOnce(&Tx<'_>, &Device) -> Result<(), Rejection<DeviceRefusal>> + Send + 'static,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.write(move |tx| {
            let unknown = Rejection::Refused(DeviceRefusal::Unknown);
            let Some(device) = find_in(tx, &scope, id)? else { return Err(unknown) };
            change(tx, &device)?;
            let changed = find_in(tx, &scope, id)?.ok_or(unknown)?;
            let told = Told::of(Some(device.organization));
            tx.tell(told.before(shown(&device)).after(shown(&changed)));
            Ok(changed)
        })
        .await
    }

    /// After a start nobody is connected yet.
    pub async fn forget_presence(&self) -> Result<(), StoreError> {
        let forgotten = self.write::<_, Never, _>(|tx| {
            tx.execute("UPDATE devices SET online = 0, session = NULL WHERE online", [])?;
            Ok(())
        });
        Ok(forgotten.await?)
    }
}

impl DeviceChange {
    fn apply(self, tx: &Tx<'_>, device: &Device) -> Result<(), Rejection<DeviceRefusal>> {
        let id = device.id.to_string();
        if let Some(deactivated) = self.deactivated {
            tx.prepare_cached("UPDATE devices SET deactivated = ?2 WHERE id = ?1")?
                .execute((&id, deactivated))?;
            if deactivated {
                batch::skip_device(tx, device.id, "the device was deactivated")?;
            }
            bump(tx, device.id)?;
        }
        if let Some(group) = self.group {
            let is_own = is_own(tx, place::Kind::Group, group, device)?;
            is_own.then_some(()).ok_or(Rejection::Refused(DeviceRefusal::UnknownGroup))?;
            tx.prepare_cached("UPDATE devices SET device_group = ?2 WHERE id = ?1")?
                .execute((&id, group.map(|group| group.to_string())))?;
        }
        if let Some(location) = self.location {
            let is_own = is_own(tx, place::Kind::Location, location, device)?;
            is_own.then_some(()).ok_or(Rejection::Refused(DeviceRefusal::UnknownLocation))?;
            tx.prepare_cached("UPDATE devices SET location = ?2 WHERE id = ?1")?
                .execute((&id, location.map(|location| location.to_string())))?;
        }
        if let Some(tags) = self.tags {
            tx.prepare_cached("DELETE FROM device_tags WHERE device = ?1")?.execute([&id])?;
            let sql = "INSERT OR IGNORE INTO device_tags (device, tag) VALUES (?1, ?2)";
            let mut insert = tx.prepare_cached(sql)?;
            for tag in tags {
                insert.execute((&id, tag))?;
            }
        }
        tx.prepare_cached("UPDATE devices SET modified = ?2 WHERE id = ?1")?
            .execute((&id, tx.now))?;
        Ok(())
    }
}

fn is_own(
    tx: &Tx<'_>,
    kind: place::Kind,
    id: Option<Uuid>,
    device: &Device,
) -> rusqlite::Result<bool> {
    let Some(id) = id else { return Ok(true) };
    let found = place::find(tx, kind, id)?;
    Ok(found.is_some_and(|found| found.organization == device.organization))
}

/// What rules need to know of a device.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub organization: OrganizationSlug,
    pub organization_id: OrganizationId,
    pub accepted: bool,
    pub deactivated: bool,
    /// Two boards use its identity: no job begins.
    pub duplicate: bool,
}

pub(super) fn standing(conn: &Connection, id: DeviceId) -> rusqlite::Result<Option<Standing>> {
    conn.prepare_cached(
        "SELECT t.organization, o.slug, t.state = 'accepted' AS accepted, t.deactivated,
             t.duplicate_since IS NOT NULL AS duplicate
         FROM devices t JOIN organizations o ON o.id = t.organization WHERE t.id = ?1",
    )?
    .query_row([id.to_string()], |row| {
        Ok(Standing {
            organization: parsed(row, "slug")?,
            organization_id: parsed(row, "organization")?,
            accepted: row.get("accepted")?,
            deactivated: row.get("deactivated")?,
            duplicate: row.get("duplicate")?,
        })
    })
    .optional()
}

/// For the log.
fn shown(device: &Device) -> Value {
    json!({
        "name": device.name,
        "state": device.state,
        "deactivated": device.deactivated,
        "duplicate": device.duplicate.as_ref().map(|(_, reason)| reason),
        "group": device.group,
        "location": device.location,
        "tags": device.tags,
    })
}

/// Takes note of what a device says of itself; holds its jobs where that shows two boards.
pub(super) fn see(
    tx: &Tx<'_>,
    id: DeviceId,
    traits: &[(duplicate::Trait, &str)],
) -> rusqlite::Result<()> {
    let found: Option<Sightings> = tx
        .prepare_cached("SELECT sightings FROM devices WHERE id = ?1")?
        .query_row([id.to_string()], |row| column::json(row, "sightings"))
        .optional()?;
    let Some(mut sightings) = found else { return Ok(()) };
    let verdicts: Vec<_> =
        traits.iter().map(|(what, value)| sightings.see(*what, value, tx.now)).collect();
    if verdicts.iter().all(|verdict| *verdict == Verdict::Known) {
        return Ok(());
    }
    tx.prepare_cached("UPDATE devices SET sightings = ?2 WHERE id = ?1")?
        .execute((id.to_string(), to_json(&sightings)?))?;
    for verdict in verdicts {
        if let Verdict::Duplicate(what) = verdict {
            hold(tx, id, what.reason())?;
        }
    }
    Ok(())
}

/// Holds the device's jobs; what was granted goes on.
fn hold(tx: &Tx<'_>, id: DeviceId, reason: &str) -> rusqlite::Result<()> {
    let held = tx
        .prepare_cached(
            "UPDATE devices SET duplicate_since = ?2, duplicate_reason = ?3, modified = ?2
             WHERE id = ?1 AND duplicate_since IS NULL",
        )?
        .execute((id.to_string(), tx.now, reason))?;
    if held == 0 {
        return Ok(());
    }
    let entry = Entry {
        actor: "coordinator".into(),
        organization: standing(tx, id)?.map(|standing| standing.organization.to_string()),
        action: "hold".into(),
        subject: id.to_string(),
        detail: Some(format!("duplicate identity: {reason}")),
        peer: None,
    };
    audit::record(tx, &entry, None)?;
    bump(tx, id)
}

/// Replacements of the same hardware within [`TAKEOVER_DAYS`] after which a person has to look.
const TAKEOVERS: u32 = 3;
const TAKEOVER_DAYS: u64 = 7;

/// Keys of this device's hardware that gave way to another one lately.
fn takeovers(tx: &Tx<'_>, device: &Device) -> rusqlite::Result<u32> {
    tx.prepare_cached(
        "SELECT count(*) FROM devices
         WHERE organization = ?1 AND id <> ?2 AND state = 'revoked' AND epoch > 1
             AND modified > ?6 AND (mac = ?3 OR serial = ?4 OR id = ?5 OR replacement_of = ?5)
             AND inventory IS NOT NULL",
    )?
    .query_row(
        (
            device.organization.to_string(),
            device.id.to_string(),
            &device.mac,
            &device.serial,
            device.replacement_of.map(|id| id.to_string()),
            tx.now.saturating_sub(TAKEOVER_DAYS * 24 * 3600 * 1000),
        ),
        |row| row.get(0),
    )
}

/// What is desired of the device is not what it was.
pub(super) fn bump(tx: &Tx<'_>, id: DeviceId) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE devices SET generation = generation + 1 WHERE id = ?1")?
        .execute([id.to_string()])?;
    tx.note(Note::Desired(id));
    Ok(())
}

/// Takes a connection's word for itself; an old session's will says nothing about a newer one.
pub(super) fn set_presence(
    tx: &Tx<'_>,
    id: DeviceId,
    session: SessionId,
    online: bool,
) -> rusqlite::Result<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE devices SET online = ?3, session = ?2, last_seen = ?4
             WHERE id = ?1 AND (?3 OR session IS ?2)",
        )?
        .execute((id.to_string(), session.to_string(), online, tx.now))?;
    if changed > 0
        && let Some(standing) = standing(tx, id)?
    {
        let organization = standing.organization;
        tx.note(Note::Presence { organization, device: id, online });
    }
    Ok(())
}

/// `last_seen` is late by this at most, in milliseconds. It is in two indexes: written with every
/// milestone, it would double the pages of a commit.
const SEEN_FINE: u64 = 5_000;

pub(super) fn set_seen(tx: &Tx<'_>, id: DeviceId, at: u64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE devices SET last_seen = ?2
         WHERE id = ?1 AND (last_seen IS NULL OR last_seen + ?3 <= ?2)",
    )?
    .execute((id.to_string(), at, SEEN_FINE))?;
    Ok(())
}

/// The accepted and waiting devices that say to be the same hardware as this one.
fn rivals(tx: &Tx<'_>, device: &Device) -> rusqlite::Result<Vec<DeviceId>> {
    let mut statement = tx.prepare_cached(
        "SELECT id FROM devices
         WHERE organization = ?1 AND id <> ?2 AND state <> 'revoked'
             AND (mac = ?3 OR serial = ?4 OR id = ?5 OR replacement_of IN (?2, ?5))",
    )?;
    let rivals = statement.query_map(
        (
            device.organization.to_string(),
            device.id.to_string(),
            &device.mac,
            &device.serial,
            device.replacement_of.map(|id| id.to_string()),
        ),
        |row| parsed(row, "id"),
    )?;
    rivals.collect()
}

fn revoke(tx: &Tx<'_>, id: DeviceId) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE devices SET state = 'revoked', epoch = epoch + 1, online = 0, modified = ?2
         WHERE id = ?1 AND state <> 'revoked'",
    )?
    .execute((id.to_string(), tx.now))?;
    batch::skip_device(tx, id, "the device was revoked")?;
    tx.note(Note::DeviceRevoked(id));
    Ok(())
}

pub(super) fn find_by_key(conn: &Connection, key: Hex<32>) -> rusqlite::Result<Option<Device>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE t.public_key = ?1"))?
        .query_row([key.0], device)
        .optional()
}

fn find_in(conn: &Connection, scope: &Scope, id: DeviceId) -> rusqlite::Result<Option<Device>> {
    let found = conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE t.id = ?1"))?
        .query_row([id.to_string()], device)
        .optional()?;
    Ok(found.filter(|device| scope.sees(Some(device.organization))))
}

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        id: parsed(row, "id")?,
        organization: parsed(row, "organization")?,
        organization_slug: parsed(row, "organization_slug")?,
        name: row.get("name")?,
        board: row.get("board")?,
        public_key: Hex(row.get("public_key")?),
        mac: row.get("mac")?,
        serial: row.get("serial")?,
        state: word(row, "state")?.unwrap_or(DeviceState::Unknown),
        replacement_of: parsed_opt(row, "replacement_of")?,
        group: parsed_opt(row, "device_group")?,
        location: parsed_opt(row, "location")?,
        tags: column::json(row, "tags")?,
        epoch: row.get("epoch")?,
        deactivated: row.get("deactivated")?,
        duplicate: match row.get("duplicate_since")? {
            Some(since) => Some((since, row.get("duplicate_reason")?)),
            None => None,
        },
        online: row.get("online")?,
        last_seen: row.get("last_seen")?,
        inventory: json_opt(row, "inventory")?,
        inventory_at: row.get("inventory_at")?,
        read_at: column::json(row, "read_at")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
    })
}
