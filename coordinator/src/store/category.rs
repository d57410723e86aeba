//! Categories: firmware by vendor or model family, of one organization or shared by all.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::{
    hex::Sha256,
    ids::{CategoryId, OrganizationId, OrganizationSlug},
};

use super::whose::Whose;
use super::{
    Rejection, Store, StoreError, Tx,
    audit::Told,
    column::{parsed, parsed_opt},
    image,
    listing::{Found, Order, Rows, Scope, Where, list},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    pub id: CategoryId,
    /// `None`: shared by all organizations.
    pub organization: Option<OrganizationId>,
    pub name: String,
    pub description: String,
    /// Unix milliseconds.
    pub created: u64,
    pub modified: u64,
}

/// What to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct CategoryChange {
    pub organization: Option<Option<OrganizationId>>,
    pub name: Option<String>,
    pub description: Option<String>,
}

/// Which categories, in what order.
#[derive(Debug, Clone)]
pub struct CategoryList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    pub name: Option<String>,
    pub order: Order,
    pub rows: Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CategoryRefusal {
    #[error("there is no such category")]
    Unknown,
    #[error("the organization has a category of this name")]
    NameTaken,
    #[error("there is no such organization")]
    UnknownOrganization,
    #[error(
        "an unfinished upgrade needs firmware of it, or one that was given up and may be going on"
    )]
    InUse,
    #[error("devices or batches of another organization use firmware of it")]
    UsedElsewhere,
}

const COLUMNS: &str = "t.*";
const FROM: &str = "categories t LEFT JOIN organizations o ON o.id = t.organization";

impl Store {
    pub async fn categories(&self, wanted: CategoryList) -> Result<Found<Category>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible_or_shared("t.organization", &wanted.scope);
            filter.and_if("o.slug = ?", wanted.organization);
            filter.and_if("t.name = ?", wanted.name);
            list(conn, (COLUMNS, FROM), &filter, wanted.order, wanted.rows, category)
        })
        .await
    }

    pub async fn category(&self, id: CategoryId) -> Result<Option<Category>, StoreError> {
        self.read(move |conn| Ok(find(conn, id)?)).await
    }

    pub async fn create_category(
        &self,
        change: CategoryChange,
    ) -> Result<Category, Rejection<CategoryRefusal>> {
        self.write(move |tx| {
            let mut category = Category {
                id: CategoryId(uuid::Uuid::new_v4()),
                organization: None,
                name: String::new(),
                description: String::new(),
                created: tx.now,
                modified: tx.now,
            };
            change.apply(&mut category);
            save(tx, &category)?;
            tx.tell(Told::of(category.organization).after(shown(&category)));
            Ok(category)
        })
        .await
    }

    pub async fn change_category(
        &self,
        id: CategoryId,
        change: CategoryChange,
    ) -> Result<Category, Rejection<CategoryRefusal>> {
        if let Some(Some(organization)) = change.organization
            && self.is_used_elsewhere(Whose::Category(id), organization).await?
        {
            return Err(Rejection::Refused(CategoryRefusal::UsedElsewhere));
        }
        self.write(move |tx| {
            let mut category = find(tx, id)?.ok_or(Rejection::Refused(CategoryRefusal::Unknown))?;
            let told = Told::of(category.organization).before(shown(&category));
            change.apply(&mut category);
            category.modified = tx.now;
            save(tx, &category)?;
            tx.tell(told.after(shown(&category)));
            Ok(category)
        })
        .await
    }

    /// Deletes it with its builds and images; answers with the files that they named.
    pub async fn delete_category(
        &self,
        id: CategoryId,
    ) -> Result<Vec<Sha256>, Rejection<CategoryRefusal>> {
        let of_category = "SELECT i.id FROM images i JOIN builds b ON b.id = i.build
                           WHERE b.category = ?1";
        self.delete_with_images(of_category, id.to_string(), move |tx, parted| {
            if image::any_in_use(tx, of_category, &id.to_string())? {
                return Err(Rejection::Refused(CategoryRefusal::InUse));
            }
            let files = image::files(tx, of_category, &id.to_string())?;
            if let Some(category) = find(tx, id)? {
                let sql = "SELECT count(*) FROM batches
                         WHERE build IN (SELECT id FROM builds WHERE category = ?1)";
                let batches =
                    tx.prepare_cached(sql)?.query_row([id.to_string()], |row| row.get(0))?;
                let mut told = shown(&category);
                told["images"] = image::all_shown(tx, of_category, &id.to_string())?;
                told["lost_by"] = parted.shown(batches);
                tx.tell(Told::of(category.organization).before(told));
            }
            let sql = "DELETE FROM categories WHERE id = ?1";
            match tx.prepare_cached(sql)?.execute([id.to_string()])? {
                0 => Err(Rejection::Refused(CategoryRefusal::Unknown)),
                _ => Ok(files),
            }
        })
        .await
    }
}

impl CategoryChange {
    fn apply(self, category: &mut Category) {
        if let Some(organization) = self.organization {
            category.organization = organization;
        }
        if let Some(name) = self.name {
            category.name = name;
        }
        if let Some(description) = self.description {
            category.description = description;
        }
    }
}

/// For the log.
fn shown(category: &Category) -> Value {
    json!({
        "id": category.id,
        "name": category.name,
        "description": category.description,
        "organization": category.organization,
    })
}

fn save(tx: &Tx<'_>, category: &Category) -> Result<(), Rejection<CategoryRefusal>> {
    let organization = category.organization.map(|id| id.to_string());
    let id = category.id.to_string();
    if let Some(organization) = &organization {
        let known = tx
            .prepare_cached("SELECT 1 FROM organizations WHERE id = ?1")?
            .exists([organization])?;
        if !known {
            return Err(Rejection::Refused(CategoryRefusal::UnknownOrganization));
        }
    }
    let taken = tx
        .prepare_cached(
            "SELECT 1 FROM categories
             WHERE coalesce(organization, '') = coalesce(?1, '') AND name = ?2 AND id <> ?3",
        )?
        .exists((&organization, &category.name, &id))?;
    if taken {
        return Err(Rejection::Refused(CategoryRefusal::NameTaken));
    }
    tx.prepare_cached(
        "INSERT INTO categories (id, organization, name, description, created, modified)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET organization = excluded.organization, name = excluded.name,
             description = excluded.description, modified = excluded.modified",
    )?
    .execute((
        id,
        organization,
        &category.name,
        &category.description,
        category.created,
        category.modified,
    ))?;
    Ok(())
}

fn find(conn: &Connection, id: CategoryId) -> rusqlite::Result<Option<Category>> {
    conn.prepare_cached("SELECT * FROM categories WHERE id = ?1")?
        .query_row([id.to_string()], category)
        .optional()
}

fn category(row: &Row<'_>) -> rusqlite::Result<Category> {
    Ok(Category {
        id: parsed(row, "id")?,
        organization: parsed_opt(row, "organization")?,
        name: row.get("name")?,
        description: row.get("description")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
    })
}
