//! A database that was restored from a backup: it has forgotten what came after.

use serde_json::json;

use super::audit::{Entry, Told};
use super::batch::pause_all;
use super::{Never, Store, StoreError};

impl Store {
    /// A new epoch: whatever devices know of generations is of another life, and they fetch anew.
    /// Nobody is connected, and no batch goes on by itself; answers how many were under way.
    pub async fn begin_anew(&self) -> Result<usize, StoreError> {
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        let store = self.on_record(Entry::system("restore", "database"));
        let begun = store.write::<_, Never, _>(move |tx| {
            tx.execute("UPDATE meta SET epoch = ?1", [&epoch])?;
            let paused = pause_all(tx)?;
            tx.tell(Told::default().after(json!({ "paused_batches": paused })));
            Ok(paused.len())
        });
        let paused = begun.await?;
        self.forget_presence().await?;
        Ok(paused)
    }
}
