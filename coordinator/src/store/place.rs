//! Groups and locations: what an organization sorts its devices by. Both are a name.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::json;
use shared::ids::{OrganizationId, OrganizationSlug};
use uuid::Uuid;

use super::audit::Told;
use super::column::parsed;
use super::listing::{Found, OF_ORGANIZATION, Order, Rows, Scope, Where, list};
use super::membership::is_organization;
use super::{Priority, Rejection, Store, StoreError, Tx};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Group,
    Location,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub id: Uuid,
    pub organization: OrganizationId,
    pub organization_slug: OrganizationSlug,
    pub name: String,
    /// Unix milliseconds.
    pub created: u64,
    pub modified: u64,
}

/// Which of them, in what order.
#[derive(Debug, Clone)]
pub struct PlaceList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    pub name: Option<String>,
    /// Of the columns `name`, `created` and `modified`.
    pub order: Order,
    pub rows: Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceRefusal {
    #[error("there is none")]
    Unknown,
    #[error("the organization has one of this name")]
    NameTaken,
}

/// Devices that leave it in one transaction.
const PIECE: usize = 100;

const COLUMNS: &str = "t.*,
    (SELECT slug FROM organizations o WHERE o.id = t.organization) AS organization_slug";

impl Kind {
    fn table(self) -> &'static str {
        match self {
            Self::Group => "device_groups",
            Self::Location => "locations",
        }
    }

    /// Of a device.
    fn column(self) -> &'static str {
        match self {
            Self::Group => "device_group",
            Self::Location => "location",
        }
    }
}

impl Store {
    pub async fn places(&self, kind: Kind, wanted: PlaceList) -> Result<Found<Place>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible("t.organization", &wanted.scope);
            filter.and_if(OF_ORGANIZATION, wanted.organization);
            filter.and_if("t.name = ?", wanted.name);
            let from = format!("{} t", kind.table());
            list(conn, (COLUMNS, &from), &filter, wanted.order, wanted.rows, place)
        })
        .await
    }

    pub async fn place(&self, kind: Kind, id: Uuid) -> Result<Option<Place>, StoreError> {
        self.read(move |conn| Ok(find(conn, kind, id)?)).await
    }

    pub async fn create_place(
        &self,
        kind: Kind,
        organization: OrganizationId,
        name: String,
    ) -> Result<Place, Rejection<PlaceRefusal>> {
        self.write(move |tx| {
            let id = Uuid::new_v4();
            if !is_organization(tx, organization)? {
                return Err(Rejection::Refused(PlaceRefusal::Unknown));
            }
            free(tx, kind, (organization, id), &name)?;
            tx.prepare_cached(&format!(
                "INSERT INTO {} (id, organization, name, created, modified)
                 VALUES (?1, ?2, ?3, ?4, ?4)",
                kind.table()
            ))?
            .execute((id.to_string(), organization.to_string(), &name, tx.now))?;
            tx.tell(Told::of(Some(organization)).after(json!({ "id": id, "name": name })));
            find(tx, kind, id)?.ok_or(Rejection::Refused(PlaceRefusal::Unknown))
        })
        .await
    }

    pub async fn rename_place(
        &self,
        kind: Kind,
        id: Uuid,
        name: String,
    ) -> Result<Place, Rejection<PlaceRefusal>> {
        self.write(move |tx| {
            let unknown = Rejection::Refused(PlaceRefusal::Unknown);
            let Some(place) = find(tx, kind, id)? else { return Err(unknown) };
            free(tx, kind, (place.organization, id), &name)?;
            let table = kind.table();
            let sql = format!("UPDATE {table} SET name = ?2, modified = ?3 WHERE id = ?1");
            tx.prepare_cached(&sql)?.execute((id.to_string(), &name, tx.now))?;
            let told = Told::of(Some(place.organization)).before(json!({ "name": place.name }));
            tx.tell(told.after(json!({ "name": name })));
            find(tx, kind, id)?.ok_or(unknown)
        })
        .await
    }

    /// Its devices are in none then: they leave it before, a piece at a time, for a row of each is rewritten.
    pub async fn delete_place(&self, kind: Kind, id: Uuid) -> Result<(), Rejection<PlaceRefusal>> {
        let (quiet, mut devices) = (self.off_record(), 0);
        loop {
            let piece = move |tx: &Tx<'_>| Ok(empty(tx, kind, id)?);
            let left = quiet.write_at::<_, PlaceRefusal, _>(Priority::Bulk, piece).await?;
            devices += left;
            if left < PIECE {
                break;
            }
        }
        self.write(move |tx| {
            let unknown = Rejection::Refused(PlaceRefusal::Unknown);
            let Some(place) = find(tx, kind, id)? else { return Err(unknown) };
            let sql = format!("DELETE FROM {} WHERE id = ?1", kind.table());
            tx.prepare_cached(&sql)?.execute([id.to_string()])?;
            let told = Told::of(Some(place.organization));
            tx.tell(told.before(json!({ "id": id, "name": place.name, "devices": devices })));
            Ok(())
        })
        .await
    }
}

/// Some devices leave it; answers how many.
fn empty(tx: &Tx<'_>, kind: Kind, id: Uuid) -> rusqlite::Result<usize> {
    let column = kind.column();
    let sql = format!(
        "UPDATE devices SET {column} = NULL WHERE rowid IN (
             SELECT rowid FROM devices WHERE {column} = ?1 LIMIT ?2)"
    );
    tx.prepare_cached(&sql)?.execute((id.to_string(), PIECE))
}

fn free(
    tx: &Tx<'_>,
    kind: Kind,
    (organization, own): (OrganizationId, Uuid),
    name: &str,
) -> Result<(), Rejection<PlaceRefusal>> {
    let sql = format!(
        "SELECT 1 FROM {} WHERE organization = ?1 AND name = ?2 AND id <> ?3",
        kind.table()
    );
    let taken =
        tx.prepare_cached(&sql)?.exists((organization.to_string(), name, own.to_string()))?;
    if taken { Err(Rejection::Refused(PlaceRefusal::NameTaken)) } else { Ok(()) }
}

pub(super) fn find(conn: &Connection, kind: Kind, id: Uuid) -> rusqlite::Result<Option<Place>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM {} t WHERE t.id = ?1", kind.table()))?
        .query_row([id.to_string()], place)
        .optional()
}

fn place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place {
        id: parsed(row, "id")?,
        organization: parsed(row, "organization")?,
        organization_slug: parsed(row, "organization_slug")?,
        name: row.get("name")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
    })
}
