//! Organizations: the tenants.

use rusqlite::{Connection, OptionalExtension, Row};
use shared::ids::{OrganizationId, OrganizationSlug};

use super::column::parsed;
use super::{Rejection, Store, StoreError, Tx};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    /// Immutable: a level of every topic.
    pub slug: OrganizationSlug,
    pub name: String,
    /// Unix milliseconds.
    pub created: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationRefusal {
    #[error("an organization of this slug exists")]
    SlugTaken,
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
            Ok(insert(tx, slug, name)?)
        })
        .await
    }
}

pub(super) fn insert(
    tx: &Tx<'_>,
    slug: OrganizationSlug,
    name: String,
) -> rusqlite::Result<Organization> {
    let id = OrganizationId(uuid::Uuid::new_v4());
    tx.prepare_cached(
        "INSERT INTO organizations (id, slug, name, created) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((id.to_string(), slug.as_str(), &name, tx.now))?;
    Ok(Organization { id, slug, name, created: tx.now })
}

fn find(conn: &Connection, slug: &OrganizationSlug) -> rusqlite::Result<Option<Organization>> {
    conn.prepare_cached("SELECT * FROM organizations WHERE slug = ?1")?
        .query_row([slug.as_str()], organization)
        .optional()
}

fn organization(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: parsed(row, "id")?,
        slug: parsed(row, "slug")?,
        name: row.get("name")?,
        created: row.get("created")?,
    })
}
