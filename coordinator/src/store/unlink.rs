//! Before an image goes: whatever names it is parted from it, a piece at a time. A fleet's history is tens of
//! thousands of rows, which are not one write's work.
//!
//! It is marked first, in the transaction that finds that nobody uses it: from then on nobody begins to, so that
//! nothing is parted from what stays. What was interrupted is finished at the next start.

use serde_json::{Value, json};
use shared::ids::ImageId;

use super::audit::Entry;
use super::column::parsed;
use super::{Never, Priority, Rejection, Store, StoreError, Tx};

/// Rows parted in one transaction.
const PIECE: usize = 500;

/// Rows that had an image and have none any more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parted {
    operations: usize,
    device_firmware: usize,
}

impl Parted {
    /// For the log, with how many batches are parted from their build.
    pub(super) fn shown(self, batches: u64) -> Value {
        json!({
            "operations": self.operations,
            "device_firmware": self.device_firmware,
            "batches": batches,
        })
    }
}

/// What the schema does when an image goes, for some of the rows. What is in use keeps its image.
const PARTINGS: [&str; 2] = [
    "UPDATE operations SET image = NULL WHERE rowid IN (
         SELECT rowid FROM operations
         WHERE +status NOT IN ('idle', 'in-progress') AND image IN ({}) LIMIT ?2)",
    "UPDATE device_firmware SET image = NULL WHERE rowid IN (
         SELECT rowid FROM device_firmware WHERE image IN ({}) LIMIT ?2)",
];

impl Store {
    /// Marks the images that `select` finds by `?1` as going, and parts all history from them, unless one is
    /// in use: then whoever wants them gone is refused anyway.
    pub(super) async fn part_from_images(
        &self,
        select: &'static str,
        key: String,
    ) -> Result<Parted, StoreError> {
        let (quiet, of) = (self.off_record(), key.clone());
        let marked = quiet.write::<_, Never, _>(move |tx| Ok(mark(tx, select, &of)?));
        if !marked.await? {
            return Ok(Parted::default());
        }
        let mut parted = [0; PARTINGS.len()];
        for (parting, rows) in PARTINGS.into_iter().zip(&mut parted) {
            loop {
                let key = key.clone();
                let piece = move |tx: &Tx<'_>| Ok(part(tx, parting, select, &key)?);
                let piece = quiet.write_at::<_, Never, _>(Priority::Bulk, piece).await?;
                *rows += piece;
                if piece < PIECE {
                    break;
                }
            }
        }
        let [operations, device_firmware] = parted;
        Ok(Parted { operations, device_firmware })
    }

    /// As [`Store::part_from_images`], then deletes what they belong to. Where that is refused, for an image came
    /// into use that was not there before, those that are parted go all the same: nobody can begin with them.
    pub(super) async fn delete_with_images<T, R>(
        &self,
        select: &'static str,
        key: String,
        delete: impl FnOnce(&Tx<'_>, Parted) -> Result<T, Rejection<R>> + Send + 'static,
    ) -> Result<T, Rejection<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let parted = self.part_from_images(select, key.clone()).await?;
        let deleted = self.write(move |tx| delete(tx, parted)).await;
        if let Err(Rejection::Refused(_)) = deleted {
            self.finish_deletions_of(select, key).await?;
        }
        deleted
    }

    /// Deletes the images whose deletion was interrupted; answers how many.
    pub async fn finish_deletions(&self) -> Result<usize, StoreError> {
        self.finish_deletions_of("SELECT id FROM images WHERE ?1", "1".into()).await
    }

    /// Their files stay until the next start.
    async fn finish_deletions_of(
        &self,
        select: &'static str,
        key: String,
    ) -> Result<usize, StoreError> {
        let going = self.read(move |conn| {
            let sql = format!("SELECT id FROM images WHERE going AND id IN ({select})");
            let mut statement = conn.prepare(&sql)?;
            let ids = statement.query_map([key], |row| parsed(row, "id"))?;
            Ok(ids.collect::<rusqlite::Result<Vec<ImageId>>>()?)
        });
        let mut finished = 0;
        for id in going.await? {
            let store = self.on_record(Entry::system("delete", id));
            match store.delete_image(id).await {
                Ok(_) => finished += 1,
                Err(Rejection::Store(error)) => return Err(error),
                Err(Rejection::Refused(refused)) => {
                    tracing::error!(image = %id, %refused, "a deletion is not finished");
                }
            }
        }
        Ok(finished)
    }
}

/// False where one is in use.
fn mark(tx: &Tx<'_>, select: &str, key: &str) -> rusqlite::Result<bool> {
    let free = !super::image::any_in_use(tx, select, key)?;
    if free {
        let sql = format!("UPDATE images SET going = 1 WHERE NOT going AND id IN ({select})");
        tx.prepare_cached(&sql)?.execute([key])?;
    }
    Ok(free)
}

fn part(tx: &Tx<'_>, parting: &str, select: &str, key: &str) -> rusqlite::Result<usize> {
    tx.prepare_cached(&parting.replace("{}", select))?.execute((key, PIECE))
}
