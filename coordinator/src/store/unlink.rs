//! Before an image goes: whatever names it is parted from it, a piece at a time. A fleet's history is tens of
//! thousands of rows, which are not one write's work.

use super::{Never, Priority, Store, StoreError, Tx};

/// Rows parted in one transaction.
const PIECE: usize = 500;

/// What the schema does when an image goes, for some of the rows. What is in use keeps its image.
const PARTINGS: [&str; 2] = [
    "UPDATE operations SET image = NULL WHERE rowid IN (
         SELECT rowid FROM operations
         WHERE +status NOT IN ('idle', 'in-progress') AND image IN ({}) LIMIT ?2)",
    "UPDATE device_firmware SET image = NULL WHERE rowid IN (
         SELECT rowid FROM device_firmware WHERE image IN ({}) LIMIT ?2)",
];

impl Store {
    /// Parts all history from the images that `select` finds by `?1`, unless one is in use: then whoever
    /// wants them gone is refused anyway.
    pub(super) async fn part_from_images(
        &self,
        select: &'static str,
        key: String,
    ) -> Result<(), StoreError> {
        let (quiet, of) = (self.off_record(), key.clone());
        if self.read(move |conn| Ok(super::image::any_in_use(conn, select, &of)?)).await? {
            return Ok(());
        }
        for parting in PARTINGS {
            loop {
                let key = key.clone();
                let piece = move |tx: &Tx<'_>| Ok(part(tx, parting, select, &key)?);
                let parted = quiet.write_at::<_, Never, _>(Priority::Bulk, piece);
                if parted.await? < PIECE {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn part(tx: &Tx<'_>, parting: &str, select: &str, key: &str) -> rusqlite::Result<usize> {
    tx.prepare_cached(&parting.replace("{}", select))?.execute((key, PIECE))
}
