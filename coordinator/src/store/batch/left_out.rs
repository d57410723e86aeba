//! Who was chosen for a batch and is no member of it: the batch says so, and why.

use rusqlite::Row;
use shared::ids::{BatchId, DeviceId, Slot};

use crate::batch::LeftOut;
use crate::store::column::{json, parsed, to_json};
use crate::store::listing::{Found, Order, Rows, Where, list};
use crate::store::operation::UpgradeRefused;
use crate::store::{Store, StoreError, Tx};

/// A modem that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    pub device: DeviceId,
    /// The device's.
    pub name: String,
    pub slot: Slot,
    pub why: LeftOut,
    /// Unix milliseconds.
    pub created: u64,
}

/// Which of them, in what order.
#[derive(Debug, Clone)]
pub struct AbsentList {
    pub batch: BatchId,
    /// Of the column `created`.
    pub order: Order,
    pub rows: Rows,
}

impl Store {
    /// How many of a batch were left out for what.
    pub async fn left_out_for(&self, batch: BatchId) -> Result<Vec<(LeftOut, u64)>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT reason, count(*) AS modems FROM batch_left_out
                       WHERE batch = ?1 GROUP BY reason ORDER BY modems DESC";
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map([batch.to_string()], |row| {
                Ok((json(row, "reason")?, row.get("modems")?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn left_out(&self, wanted: AbsentList) -> Result<Found<Absent>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.and("t.batch = ?", wanted.batch.to_string());
            let columns = "t.device, d.name, t.slot, t.reason, t.created";
            let from = "batch_left_out t JOIN devices d ON d.id = t.device";
            list(conn, (columns, from), &filter, wanted.order, wanted.rows, absent)
        })
        .await
    }
}

fn absent(row: &Row<'_>) -> rusqlite::Result<Absent> {
    Ok(Absent {
        device: parsed(row, "device")?,
        name: row.get("name")?,
        slot: parsed(row, "slot")?,
        why: json(row, "reason")?,
        created: row.get("created")?,
    })
}

/// Once: what came first stays.
pub(super) fn note_down(
    tx: &Tx<'_>,
    batch: BatchId,
    (device, slot): (DeviceId, &Slot),
    why: LeftOut,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO batch_left_out (batch, device, slot, reason, created)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?
    .execute((
        batch.to_string(),
        device.to_string(),
        slot.as_str(),
        to_json(&why)?,
        tx.now,
    ))?;
    Ok(())
}

impl From<UpgradeRefused> for LeftOut {
    fn from(refused: UpgradeRefused) -> Self {
        use crate::batch::verdict::Reason;
        Self::Unfit(match refused {
            UpgradeRefused::UnknownDevice => return Self::NotSelected,
            UpgradeRefused::Options(_) => return Self::OptionsRefused,
            UpgradeRefused::Deactivated => Reason::Deactivated,
            // It was accepted when it was chosen, and that is taken back by a revocation alone.
            UpgradeRefused::NotAccepted => Reason::Revoked,
            UpgradeRefused::UnknownImage => Reason::NoImage,
            UpgradeRefused::NoManifest => Reason::ImageWithoutManifest,
            UpgradeRefused::InProgress(_) | UpgradeRefused::AskedFor(_) => Reason::OperationActive,
            UpgradeRefused::NotHeardSince(_) => Reason::Lost,
        })
    }
}
