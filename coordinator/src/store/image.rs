//! Firmware images: a build's file for one upgrade tool. The file never changes; manifest and
//! signature may follow later, once.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::{
    hex::Sha256,
    ids::{BuildId, ImageId, OrganizationId, OrganizationSlug},
    signature::KeyNumber,
};

use super::{
    Rejection, Store, StoreError, Tx,
    audit::Told,
    column::{json, parsed, parsed_opt},
    listing::{Found, Order, Rows, Where, list},
    operation::MAY_RECOVER,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub id: ImageId,
    pub build: BuildId,
    /// The upgrade tool: the name of a profile.
    pub tool: String,
    /// Boards it is for, as the predecessor kept them.
    pub boards: Vec<String>,
    pub file_name: String,
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
    /// Number of the key that signed its manifest; `None` while it has no manifest.
    pub signed_by: Option<KeyNumber>,
    /// Unix milliseconds.
    pub created: u64,
    pub modified: u64,
    /// Of its category; `None`: shared.
    pub organization: Option<OrganizationId>,
}

/// A manifest's exact bytes with their signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    pub manifest: Vec<u8>,
    /// Signify text.
    pub signature: String,
    pub signed_by: KeyNumber,
    pub sequence: u64,
}

/// A file that was stored, to be recorded as an image.
#[derive(Debug, Clone)]
pub struct NewImage {
    pub build: BuildId,
    pub tool: String,
    pub boards: Vec<String>,
    pub file_name: String,
    pub size: u64,
    pub sha256: Sha256,
    pub signed: Option<SignedManifest>,
}

/// Which images of a build, in what order.
#[derive(Debug, Clone)]
pub struct ImageList {
    pub build: BuildId,
    /// Whose category it is in.
    pub organization: Option<OrganizationSlug>,
    pub tool: Option<String>,
    pub order: Order,
    pub rows: Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefusal {
    #[error("there is no such image")]
    Unknown,
    #[error("there is no such build")]
    UnknownBuild,
    #[error("the build has an image of this type")]
    TypeTaken,
    #[error("the image has another manifest, and images never change")]
    HasManifest,
    #[error("an unfinished upgrade needs it, or one that was given up and may be going on")]
    InUse,
}

const COLUMNS: &str = "t.id, t.build, t.type, t.boards, t.file_name, t.size, t.sha256, t.signed_by,
                       t.created, t.modified, c.organization AS organization";
const FROM: &str =
    "images t JOIN builds b ON b.id = t.build JOIN categories c ON c.id = b.category";

impl Store {
    pub async fn images(&self, wanted: ImageList) -> Result<Found<Image>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.and("t.build = ?", wanted.build.to_string());
            filter.and_if(
                "c.organization = (SELECT id FROM organizations WHERE slug = ?)",
                wanted.organization,
            );
            filter.and_if("t.type = ?", wanted.tool);
            list(conn, (COLUMNS, FROM), &filter, wanted.order, wanted.rows, image)
        })
        .await
    }

    pub async fn image(&self, id: ImageId) -> Result<Option<Image>, StoreError> {
        self.read(move |conn| Ok(find(conn, id)?)).await
    }

    /// The exact bytes of its manifest, and their signature.
    pub async fn image_manifest(&self, id: ImageId) -> Result<Option<SignedManifest>, StoreError> {
        self.read(move |conn| Ok(find_manifest(conn, id)?)).await
    }

    pub async fn create_image(&self, new: NewImage) -> Result<Image, Rejection<ImageRefusal>> {
        self.write(move |tx| {
            let made = insert(tx, new)?;
            tx.tell(Told::of(made.organization).after(shown(&made)));
            Ok(made)
        })
        .await
    }

    /// Completes an image. The same manifest and signature again change nothing.
    pub async fn complete_image(
        &self,
        id: ImageId,
        signed: SignedManifest,
    ) -> Result<Image, Rejection<ImageRefusal>> {
        self.write(move |tx| {
            let unknown = Rejection::Refused(ImageRefusal::Unknown);
            let Some(before) = find(tx, id)? else { return Err(unknown) };
            match find_manifest(tx, id)? {
                Some(known) if known == signed => {}
                Some(_) => return Err(Rejection::Refused(ImageRefusal::HasManifest)),
                None => attach(tx, id, &signed)?,
            }
            let image = find(tx, id)?.ok_or(unknown)?;
            tx.tell(Told::of(image.organization).before(shown(&before)).after(shown(&image)));
            Ok(image)
        })
        .await
    }

    /// Answers with the file that it named.
    pub async fn delete_image(&self, id: ImageId) -> Result<Sha256, Rejection<ImageRefusal>> {
        let itself = "SELECT ?1";
        let parted = self.part_from_images(itself, id.to_string()).await?;
        self.write(move |tx| {
            let image = find(tx, id)?.ok_or(Rejection::Refused(ImageRefusal::Unknown))?;
            if any_in_use(tx, itself, &id.to_string())? {
                return Err(Rejection::Refused(ImageRefusal::InUse));
            }
            tx.prepare_cached("DELETE FROM images WHERE id = ?1")?.execute([id.to_string()])?;
            let mut told = shown(&image);
            told["lost_by"] = parted.shown(0);
            tx.tell(Told::of(image.organization).before(told));
            Ok(image.sha256)
        })
        .await
    }

    /// Whether any image names the file.
    pub async fn is_file_used(&self, sha256: Sha256) -> Result<bool, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT 1 FROM images WHERE sha256 = ?1";
            Ok(conn.prepare_cached(sql)?.exists([sha256.to_string()])?)
        })
        .await
    }

    /// Every file that an image names.
    pub async fn used_files(&self) -> Result<HashSet<Sha256>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached("SELECT DISTINCT sha256 FROM images")?;
            let files = statement.query_map([], |row| parsed(row, "sha256"))?;
            Ok(files.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Whether one of the images that `select` finds by `?1` is needed: by an operation that is unfinished, or that
/// was given up and may be going on, or by a member of a batch that is to take an older one's place.
pub(super) fn any_in_use(conn: &Connection, select: &str, key: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached(&in_use(select))?.exists([key])
}

fn in_use(select: &str) -> String {
    format!(
        "SELECT 1 FROM operations p INDEXED BY operations_that_may_need_an_image
         WHERE p.image IN ({select}) AND p.status IN ('idle', 'in-progress', 'failed')
             AND (p.status <> 'failed' OR {MAY_RECOVER})
         UNION ALL SELECT 1 FROM batch_takeovers w WHERE w.image IN ({select})"
    )
}

/// For the log.
fn shown(image: &Image) -> Value {
    json!({
        "id": image.id,
        "build": image.build,
        "type": image.tool,
        "size": image.size,
        "sha256": image.sha256,
        "signed_by": image.signed_by,
    })
}

/// The images that `select` finds by `?1`, for the log.
pub(super) fn all_shown(tx: &Tx<'_>, select: &str, key: &str) -> rusqlite::Result<Value> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE t.id IN ({select})");
    let mut statement = tx.prepare_cached(&sql)?;
    let images = statement.query_map([key], |row| image(row).map(|image| shown(&image)))?;
    images.collect()
}

/// The files of the images that `select` finds by `?1`.
pub(super) fn files(tx: &Tx<'_>, select: &str, key: &str) -> rusqlite::Result<Vec<Sha256>> {
    let sql = format!("SELECT DISTINCT sha256 FROM images WHERE id IN ({select})");
    let mut statement = tx.prepare_cached(&sql)?;
    let files = statement.query_map([key], |row| parsed(row, "sha256"))?;
    files.collect()
}

fn insert(tx: &Tx<'_>, new: NewImage) -> Result<Image, Rejection<ImageRefusal>> {
    let (id, build) = (ImageId(uuid::Uuid::new_v4()), new.build.to_string());
    if !tx.prepare_cached("SELECT 1 FROM builds WHERE id = ?1")?.exists([&build])? {
        return Err(Rejection::Refused(ImageRefusal::UnknownBuild));
    }
    let taken = tx
        .prepare_cached("SELECT 1 FROM images WHERE build = ?1 AND type = ?2")?
        .exists((&build, &new.tool))?;
    if taken {
        return Err(Rejection::Refused(ImageRefusal::TypeTaken));
    }
    tx.prepare_cached(
        "INSERT INTO images (id, build, type, boards, file_name, size, sha256, created, modified)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
    )?
    .execute((
        id.to_string(),
        build,
        new.tool,
        serde_json::Value::from(new.boards).to_string(),
        new.file_name,
        new.size,
        new.sha256.to_string(),
        tx.now,
    ))?;
    if let Some(signed) = &new.signed {
        attach(tx, id, signed)?;
    }
    find(tx, id)?.ok_or(Rejection::Refused(ImageRefusal::Unknown))
}

fn attach(tx: &Tx<'_>, id: ImageId, signed: &SignedManifest) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE images SET manifest = ?2, signature = ?3, signed_by = ?4, sequence = ?5,
             modified = ?6 WHERE id = ?1",
    )?
    .execute((
        id.to_string(),
        &signed.manifest,
        &signed.signature,
        signed.signed_by.to_string(),
        signed.sequence,
        tx.now,
    ))?;
    Ok(())
}

pub(super) fn find(conn: &Connection, id: ImageId) -> rusqlite::Result<Option<Image>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE t.id = ?1"))?
        .query_row([id.to_string()], image)
        .optional()
}

fn find_manifest(conn: &Connection, id: ImageId) -> rusqlite::Result<Option<SignedManifest>> {
    conn.prepare_cached(
        "SELECT manifest, signature, signed_by, sequence FROM images
         WHERE id = ?1 AND manifest IS NOT NULL",
    )?
    .query_row([id.to_string()], |row| {
        Ok(SignedManifest {
            manifest: row.get("manifest")?,
            signature: row.get("signature")?,
            signed_by: parsed(row, "signed_by")?,
            sequence: row.get("sequence")?,
        })
    })
    .optional()
}

fn image(row: &Row<'_>) -> rusqlite::Result<Image> {
    Ok(Image {
        id: parsed(row, "id")?,
        build: parsed(row, "build")?,
        tool: row.get("type")?,
        boards: json(row, "boards")?,
        file_name: row.get("file_name")?,
        size: row.get("size")?,
        sha256: parsed(row, "sha256")?,
        signed_by: parsed_opt(row, "signed_by")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
        organization: parsed_opt(row, "organization")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    #[test]
    fn whether_it_is_needed_is_found_in_an_index() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn, 0).unwrap();
        let sql = in_use("SELECT id FROM images WHERE build = ?1");
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map(["x"], |row| row.get::<_, String>("detail")).unwrap();
        let plan = rows.map(Result::unwrap).collect::<Vec<_>>().join("; ");
        for index in
            ["operations_that_may_need_an_image (image=?", "batch_takeovers_by_image (image=?)"]
        {
            assert!(plan.contains(index), "{plan}");
        }
        assert!(!plan.contains("SCAN p") && !plan.contains("SCAN w"), "{plan}");
    }
}
