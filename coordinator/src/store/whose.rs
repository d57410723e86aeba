//! Whose devices use firmware: it is not given to one organization while another one works with it.

use rusqlite::named_params;
use shared::ids::{BuildId, CategoryId, OrganizationId};

use super::{Store, StoreError};

/// Firmware that is to be another organization's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    Category(CategoryId),
    Build(BuildId),
}

impl Store {
    /// Whether a batch that ever was, an assignment or an unfinished upgrade of another organization
    /// than this one is of it. Who may change it sees all of it, so nothing is told that was hidden.
    pub(super) async fn is_used_elsewhere(
        &self,
        whose: Whose,
        organization: OrganizationId,
    ) -> Result<bool, StoreError> {
        let (builds, key) = match whose {
            Whose::Category(id) => ("SELECT id FROM builds WHERE category = :key", id.to_string()),
            Whose::Build(id) => (":key", id.to_string()),
        };
        let images = format!("SELECT id FROM images WHERE build IN ({builds})");
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM batches WHERE build IN ({builds}) AND organization <> :of)
                 OR EXISTS (SELECT 1 FROM device_firmware
                     WHERE image IN ({images}) AND organization <> :of)
                 OR EXISTS (SELECT 1 FROM operations WHERE image IN ({images})
                     AND status IN ('idle', 'in-progress') AND organization <> :of)"
        );
        self.read(move |conn| {
            let values = named_params! { ":key": key, ":of": organization.to_string() };
            Ok(conn.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?)
        })
        .await
    }
}
