//! Builds: one version of a category's firmware.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::{
    hex::Sha256,
    ids::{BuildId, CategoryId, OrganizationId, OrganizationSlug},
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
pub struct Build {
    pub id: BuildId,
    pub category: CategoryId,
    pub version: String,
    pub modem_model: String,
    /// Markdown.
    pub changelog: String,
    /// Unix milliseconds.
    pub created: u64,
    pub modified: u64,
    /// Of its category; shown with the build, set with the category.
    pub category_name: String,
    pub organization: Option<OrganizationId>,
}

/// What to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct BuildChange {
    pub category: Option<CategoryId>,
    pub version: Option<String>,
    pub modem_model: Option<String>,
    pub changelog: Option<String>,
}

/// Which builds, in what order.
#[derive(Debug, Clone)]
pub struct BuildList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    pub category: Option<CategoryId>,
    pub version: Option<String>,
    pub modem_model: Option<String>,
    pub order: Order,
    pub rows: Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildRefusal {
    #[error("there is no such build")]
    Unknown,
    #[error("there is no such category")]
    UnknownCategory,
    #[error("the category has a build of this version")]
    VersionTaken,
    #[error(
        "an unfinished upgrade needs firmware of it, or one that was given up and may be going on"
    )]
    InUse,
    #[error("devices or batches of another organization use firmware of it")]
    UsedElsewhere,
}

const COLUMNS: &str = "t.*, c.name AS category_name, c.organization AS organization";
const FROM: &str = "builds t JOIN categories c ON c.id = t.category
                    LEFT JOIN organizations o ON o.id = c.organization";

impl Store {
    pub async fn builds(&self, wanted: BuildList) -> Result<Found<Build>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible_or_shared("c.organization", &wanted.scope);
            filter.and_if("o.slug = ?", wanted.organization);
            filter.and_if("t.category = ?", wanted.category);
            filter.and_if("t.version = ?", wanted.version);
            filter.and_if("t.modem_model = ?", wanted.modem_model);
            list(conn, (COLUMNS, FROM), &filter, wanted.order, wanted.rows, build)
        })
        .await
    }

    pub async fn build(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        self.read(move |conn| Ok(find(conn, id)?)).await
    }

    /// `category` is the build's, whatever `change` says of it.
    pub async fn create_build(
        &self,
        category: CategoryId,
        change: BuildChange,
    ) -> Result<Build, Rejection<BuildRefusal>> {
        self.write(move |tx| {
            let mut build = Build {
                id: BuildId(uuid::Uuid::new_v4()),
                category,
                version: String::new(),
                modem_model: String::new(),
                changelog: String::new(),
                created: tx.now,
                modified: tx.now,
                category_name: String::new(),
                organization: None,
            };
            BuildChange { category: Some(category), ..change }.apply(&mut build);
            let made = save(tx, build)?;
            tx.tell(Told::of(made.organization).after(shown(&made)));
            Ok(made)
        })
        .await
    }

    pub async fn change_build(
        &self,
        id: BuildId,
        change: BuildChange,
    ) -> Result<Build, Rejection<BuildRefusal>> {
        if let Some(category) = change.category
            && let Some(organization) =
                self.category(category).await?.and_then(|of| of.organization)
            && self.is_used_elsewhere(Whose::Build(id), organization).await?
        {
            return Err(Rejection::Refused(BuildRefusal::UsedElsewhere));
        }
        self.write(move |tx| {
            let mut build = find(tx, id)?.ok_or(Rejection::Refused(BuildRefusal::Unknown))?;
            if change.renames(&build)
                && image::any_in_use(tx, "SELECT id FROM images WHERE build = ?1", &id.to_string())?
            {
                return Err(Rejection::Refused(BuildRefusal::InUse));
            }
            let told = Told::of(build.organization).before(shown(&build));
            change.apply(&mut build);
            build.modified = tx.now;
            let changed = save(tx, build)?;
            tx.tell(told.after(shown(&changed)));
            Ok(changed)
        })
        .await
    }

    /// Deletes it with its images; answers with the files that they named.
    pub async fn delete_build(&self, id: BuildId) -> Result<Vec<Sha256>, Rejection<BuildRefusal>> {
        let of_build = "SELECT id FROM images WHERE build = ?1";
        self.delete_with_images(of_build, id.to_string(), move |tx, parted| {
            if image::any_in_use(tx, of_build, &id.to_string())? {
                return Err(Rejection::Refused(BuildRefusal::InUse));
            }
            let files = image::files(tx, of_build, &id.to_string())?;
            if let Some(build) = find(tx, id)? {
                let sql = "SELECT count(*) FROM batches WHERE build = ?1";
                let batches =
                    tx.prepare_cached(sql)?.query_row([id.to_string()], |row| row.get(0))?;
                let mut told = shown(&build);
                told["images"] = image::all_shown(tx, of_build, &id.to_string())?;
                told["lost_by"] = parted.shown(batches);
                tx.tell(Told::of(build.organization).before(told));
            }
            let sql = "DELETE FROM builds WHERE id = ?1";
            match tx.prepare_cached(sql)?.execute([id.to_string()])? {
                0 => Err(Rejection::Refused(BuildRefusal::Unknown)),
                _ => Ok(files),
            }
        })
        .await
    }
}

impl BuildChange {
    /// Whether it would be another build by its name, under the hands of those who upgrade to it.
    fn renames(&self, build: &Build) -> bool {
        self.version.as_ref().is_some_and(|version| *version != build.version)
            || self.modem_model.as_ref().is_some_and(|model| *model != build.modem_model)
    }

    fn apply(self, build: &mut Build) {
        if let Some(category) = self.category {
            build.category = category;
        }
        if let Some(version) = self.version {
            build.version = version;
        }
        if let Some(modem_model) = self.modem_model {
            build.modem_model = modem_model;
        }
        if let Some(changelog) = self.changelog {
            build.changelog = changelog;
        }
    }
}

/// For the log.
fn shown(build: &Build) -> Value {
    json!({
        "id": build.id,
        "category": build.category,
        "version": build.version,
        "modem_model": build.modem_model,
        "changelog": build.changelog,
    })
}

/// Saves it and reads it back with what its category says.
fn save(tx: &Tx<'_>, build: Build) -> Result<Build, Rejection<BuildRefusal>> {
    let (id, category) = (build.id.to_string(), build.category.to_string());
    if !tx.prepare_cached("SELECT 1 FROM categories WHERE id = ?1")?.exists([&category])? {
        return Err(Rejection::Refused(BuildRefusal::UnknownCategory));
    }
    let taken = tx
        .prepare_cached("SELECT 1 FROM builds WHERE category = ?1 AND version = ?2 AND id <> ?3")?
        .exists((&category, &build.version, &id))?;
    if taken {
        return Err(Rejection::Refused(BuildRefusal::VersionTaken));
    }
    tx.prepare_cached(
        "INSERT INTO builds (id, category, version, modem_model, changelog, created, modified)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET category = excluded.category, version = excluded.version,
             modem_model = excluded.modem_model, changelog = excluded.changelog,
             modified = excluded.modified",
    )?
    .execute((
        id,
        category,
        &build.version,
        &build.modem_model,
        &build.changelog,
        build.created,
        build.modified,
    ))?;
    find(tx, build.id)?.ok_or(Rejection::Refused(BuildRefusal::Unknown))
}

pub(super) fn find(conn: &Connection, id: BuildId) -> rusqlite::Result<Option<Build>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE t.id = ?1"))?
        .query_row([id.to_string()], build)
        .optional()
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        id: parsed(row, "id")?,
        category: parsed(row, "category")?,
        version: row.get("version")?,
        modem_model: row.get("modem_model")?,
        changelog: row.get("changelog")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
        category_name: row.get("category_name")?,
        organization: parsed_opt(row, "organization")?,
    })
}
