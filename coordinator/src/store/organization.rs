//! Organizations: the tenants.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::hex::Sha256;
use shared::ids::{OrganizationId, OrganizationSlug};

use super::account::raise_epoch;
use super::audit::Told;
use super::column::parsed;
use super::listing::{Found, Order, Rows, Scope, Where, list};
use super::{Rejection, Store, StoreError, Tx, image};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    /// Immutable: a level of every topic.
    pub slug: OrganizationSlug,
    pub name: String,
    /// Unix milliseconds.
    pub created: u64,
    pub modified: u64,
}

/// Which organizations, in what order.
#[derive(Debug, Clone)]
pub struct OrganizationList {
    pub scope: Scope,
    pub slug: Option<OrganizationSlug>,
    /// Of the columns `slug`, `name` and `created`.
    pub order: Order,
    pub rows: Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationRefusal {
    #[error("an organization of this slug exists")]
    SlugTaken,
    #[error("there is no such organization")]
    Unknown,
    #[error("devices belong to it")]
    InUse,
}

impl Store {
    /// All of them, by slug.
    pub async fn organizations(&self) -> Result<Vec<Organization>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached("SELECT * FROM organizations ORDER BY slug")?;
            let rows = statement.query_map([], organization)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn organization(
        &self,
        slug: OrganizationSlug,
    ) -> Result<Option<Organization>, StoreError> {
        self.read(move |conn| Ok(find(conn, &slug)?)).await
    }

    pub async fn create_organization(
        &self,
        slug: OrganizationSlug,
        name: String,
    ) -> Result<Organization, Rejection<OrganizationRefusal>> {
        self.write(move |tx| {
            if find(tx, &slug)?.is_some() {
                return Err(Rejection::Refused(OrganizationRefusal::SlugTaken));
            }
            let made = insert(tx, slug, name)?;
            tx.tell(Told::of(Some(made.id)).after(shown(&made)));
            Ok(made)
        })
        .await
    }

    pub async fn organizations_of(
        &self,
        wanted: OrganizationList,
    ) -> Result<Found<Organization>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible("t.id", &wanted.scope);
            filter.and_if("t.slug = ?", wanted.slug);
            let from = ("t.*", "organizations t");
            list(conn, from, &filter, wanted.order, wanted.rows, organization)
        })
        .await
    }

    pub async fn organization_by_id(
        &self,
        id: OrganizationId,
    ) -> Result<Option<Organization>, StoreError> {
        self.read(move |conn| Ok(find_by_id(conn, id)?)).await
    }

    pub async fn rename_organization(
        &self,
        id: OrganizationId,
        name: String,
    ) -> Result<Organization, Rejection<OrganizationRefusal>> {
        self.write(move |tx| {
            let unknown = Rejection::Refused(OrganizationRefusal::Unknown);
            let before = find_by_id(tx, id)?.ok_or(unknown)?;
            tx.prepare_cached("UPDATE organizations SET name = ?2, modified = ?3 WHERE id = ?1")?
                .execute((id.to_string(), &name, tx.now))?;
            let after = Organization { name, modified: tx.now, ..before.clone() };
            tx.tell(Told::of(Some(id)).before(shown(&before)).after(shown(&after)));
            Ok(after)
        })
        .await
    }

    /// Deletes an organization that has no devices, with its firmware; answers with the files that
    /// it named.
    pub async fn delete_organization(
        &self,
        id: OrganizationId,
    ) -> Result<Vec<Sha256>, Rejection<OrganizationRefusal>> {
        self.write(move |tx| {
            let unknown = Rejection::Refused(OrganizationRefusal::Unknown);
            let before = find_by_id(tx, id)?.ok_or(unknown)?;
            let text = id.to_string();
            let used = tx
                .prepare_cached("SELECT 1 FROM devices WHERE organization = ?1")?
                .exists([&text])?;
            if used {
                return Err(Rejection::Refused(OrganizationRefusal::InUse));
            }
            let images = "SELECT i.id FROM images i JOIN builds b ON b.id = i.build
                          JOIN categories c ON c.id = b.category WHERE c.organization = ?1";
            let files = image::files(tx, images, &text)?;
            end_members(tx, &text)?;
            let delete =
                tx.prepare_cached("DELETE FROM organizations WHERE id = ?1")?.execute([&text]);
            match delete {
                // Whatever else is there of it: operations of the past, say.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    return Err(Rejection::Refused(OrganizationRefusal::InUse));
                }
                deleted => deleted?,
            };
            // The slug may come again, and the log names organizations by it.
            tx.prepare_cached("UPDATE audit SET organization = NULL WHERE organization = ?1")?
                .execute([before.slug.as_str()])?;
            tx.tell(Told::default().before(shown(&before)));
            Ok(files)
        })
        .await
    }
}

/// MQTT tokens name the organization by its slug, which may come again.
fn end_members(tx: &Tx<'_>, organization: &str) -> rusqlite::Result<()> {
    let mut statement =
        tx.prepare_cached("SELECT user FROM memberships WHERE organization = ?1")?;
    let members = statement.query_map([organization], |row| parsed(row, "user"))?;
    for member in members.collect::<Result<Vec<_>, _>>()? {
        raise_epoch(tx, member)?;
    }
    Ok(())
}

fn shown(organization: &Organization) -> Value {
    json!({
        "id": organization.id,
        "slug": organization.slug,
        "name": organization.name,
    })
}

pub(super) fn insert(
    tx: &Tx<'_>,
    slug: OrganizationSlug,
    name: String,
) -> rusqlite::Result<Organization> {
    let id = OrganizationId(uuid::Uuid::new_v4());
    tx.prepare_cached(
        "INSERT INTO organizations (id, slug, name, created, modified) VALUES (?1, ?2, ?3, ?4, ?4)",
    )?
    .execute((id.to_string(), slug.as_str(), &name, tx.now))?;
    Ok(Organization { id, slug, name, created: tx.now, modified: tx.now })
}

fn find(conn: &Connection, slug: &OrganizationSlug) -> rusqlite::Result<Option<Organization>> {
    conn.prepare_cached("SELECT * FROM organizations WHERE slug = ?1")?
        .query_row([slug.as_str()], organization)
        .optional()
}

fn find_by_id(conn: &Connection, id: OrganizationId) -> rusqlite::Result<Option<Organization>> {
    conn.prepare_cached("SELECT * FROM organizations WHERE id = ?1")?
        .query_row([id.to_string()], organization)
        .optional()
}

fn organization(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: parsed(row, "id")?,
        slug: parsed(row, "slug")?,
        name: row.get("name")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
    })
}
