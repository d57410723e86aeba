//! How many there are of what, for the metrics.

use super::{Store, StoreError};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// By their state.
    pub devices: Vec<(String, u64)>,
    /// By their status.
    pub operations: Vec<(String, u64)>,
    pub dead_letters: u64,
}

impl Store {
    pub async fn census(&self) -> Result<Census, StoreError> {
        self.read(|conn| {
            let counts = |sql: &str| -> rusqlite::Result<Vec<(String, u64)>> {
                let mut statement = conn.prepare_cached(sql)?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect()
            };
            Ok(Census {
                devices: counts("SELECT state, count(*) FROM devices GROUP BY state")?,
                operations: counts("SELECT status, count(*) FROM operations GROUP BY status")?,
                dead_letters: conn
                    .query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0))?,
            })
        })
        .await
    }
}
