//! Devices: who they are, and how they stand.

mod change;
mod sightings;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row};
use shared::hex::Hex;
use shared::identity::DeviceState;
use shared::ids::{DeviceId, OrganizationId, OrganizationSlug, Slot};
use shared::inventory::Inventory;
use uuid::Uuid;

use super::column::{self, json_opt, parsed, parsed_opt, word};
use super::listing::{Found, OF_ORGANIZATION, Order, Rows, Scope, Where, list};
use super::note::Note;
use super::{Store, StoreError, Tx};

pub(super) use change::shown;
pub use change::{DeviceChange, DeviceRefusal, TAGS};
pub(super) use sightings::{see, set_presence, set_seen};

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
    /// The device with the same MAC address or serial number whose place it took, or would take if it were let in: the
    /// accepted one; `first` where there is none.
    pub replacement_of: Option<DeviceId>,
    /// The one that came with the hardware first, under whatever key.
    pub first: Option<DeviceId>,
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

/// Whether `r` says to be the same hardware as `t`. Each way has its index; with OR all of the organization's devices would
/// be looked at.
const RIVALS: &str = "r.id <> t.id AND r.id IN (
    SELECT id FROM devices WHERE organization = t.organization AND mac = t.mac
    UNION SELECT id FROM devices WHERE organization = t.organization AND serial = t.serial
    UNION SELECT id FROM devices WHERE replacement_of = t.id
    UNION SELECT id FROM devices WHERE replacement_of = t.replacement_of
    UNION SELECT t.replacement_of)";

static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "t.*,
    coalesce(t.replaced, CASE WHEN t.state = 'pending' AND t.replacement_of IS NOT NULL THEN (
        SELECT r.id FROM devices r WHERE {RIVALS} AND +r.state = 'accepted'
        ORDER BY +r.created DESC LIMIT 1) END, t.replacement_of) AS replaces,
    (SELECT slug FROM organizations o WHERE o.id = t.organization) AS organization_slug,
    (SELECT json_group_object(slot, modified) FROM modems m WHERE m.device = t.id) AS read_at,
    (SELECT json_group_array(tag) FROM device_tags g WHERE g.device = t.id) AS tags"
    )
});
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
            list(conn, (COLUMNS.as_str(), FROM), &filter, wanted.order, wanted.rows, device)
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

/// What is desired of the device is not what it was.
pub(super) fn bump(tx: &Tx<'_>, id: DeviceId) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE devices SET generation = generation + 1 WHERE id = ?1")?
        .execute([id.to_string()])?;
    tx.note(Note::Desired(id));
    Ok(())
}

pub(super) fn find_by_key(conn: &Connection, key: Hex<32>) -> rusqlite::Result<Option<Device>> {
    conn.prepare_cached(&format!("SELECT {} FROM {FROM} WHERE t.public_key = ?1", *COLUMNS))?
        .query_row([key.0], device)
        .optional()
}

fn find_in(conn: &Connection, scope: &Scope, id: DeviceId) -> rusqlite::Result<Option<Device>> {
    let found = conn
        .prepare_cached(&format!("SELECT {} FROM {FROM} WHERE t.id = ?1", *COLUMNS))?
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
        replacement_of: parsed_opt(row, "replaces")?,
        first: parsed_opt(row, "replacement_of")?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    #[test]
    fn rivals_are_found_in_an_index() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn, 0).unwrap();
        let one = format!("SELECT {} FROM {FROM} WHERE t.id = ?1", *COLUMNS);
        let all =
            format!("SELECT r.id, r.state FROM {FROM} JOIN devices r ON {RIVALS} WHERE t.id = ?1");
        for sql in [one, all] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = statement.query_map(["x"], |row| row.get::<_, String>("detail")).unwrap();
            let plan = rows.map(Result::unwrap).collect::<Vec<_>>().join("; ");
            assert!(
                plan.contains("SEARCH r USING INDEX sqlite_autoindex_devices_1 (id=?)"),
                "{plan}"
            );
            for key in
                ["organization=? AND mac=?", "organization=? AND serial=?", "replacement_of=?"]
            {
                assert!(plan.contains(key), "{plan}");
            }
        }
    }
}
