//! A database that was restored from a backup: it has forgotten what came after.

use super::{Never, Store, StoreError};

impl Store {
    /// A new epoch: whatever devices know of generations is of another life, and they fetch anew.
    /// Nobody is connected.
    pub async fn begin_anew(&self) -> Result<(), StoreError> {
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        let begun = self.write::<_, Never, _>(move |tx| {
            tx.execute("UPDATE meta SET epoch = ?1", [&epoch])?;
            Ok(())
        });
        begun.await?;
        self.forget_presence().await
    }
}
