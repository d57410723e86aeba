//! Dry runs, one at a time; the last one is kept for whoever reads its other pages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::select::{Ask, Preview, preview};
use crate::store::{Store, StoreError, Unavailable};

/// How long a dry run waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pages of one look are read within this time.
const KEPT_MS: u64 = 60_000;

/// Dry runs read every device of a selection: the other readers are for everybody else.
pub(in crate::store) struct Looks {
    pub(in crate::store) turns: Arc<Semaphore>,
    last: Mutex<Option<Look>>,
}

struct Look {
    ask: Ask,
    /// Unix milliseconds.
    at: u64,
    preview: Arc<Preview>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(1)), last: Mutex::default() }
    }
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    fn is_of(&self, now: u64) -> bool {
        (self.at..self.at.saturating_add(KEPT_MS)).contains(&now)
    }
}

impl Store {
    /// Looks at every device of the selection, one such look at a time.
    ///
    /// # Errors
    /// [`Unavailable::Looking`] where it would have to wait for long.
    pub async fn preview(&self, ask: Ask) -> Result<Preview, StoreError> {
        let turn = timeout(PATIENCE, self.shared.looks.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Unavailable::Looking)?.map_err(|_| Unavailable::Stopped)?;
        let now = self.clock().now();
        // With the query, which goes on where its asker goes away.
        self.read(move |conn| {
            let _turn = turn;
            Ok(preview(conn, &ask, now)?)
        })
        .await
    }

    /// The same for a page of it: the `first` looks, the others are of the last look, if it was at the
    /// same a minute ago at most.
    ///
    /// # Errors
    /// As of [`Store::preview`].
    pub async fn preview_page(&self, ask: Ask, first: bool) -> Result<Arc<Preview>, StoreError> {
        let now = self.clock().now();
        let last = self.shared.looks.lock().as_ref().and_then(|look| {
            let same = !first && look.is_of(now) && look.ask == ask;
            same.then(|| look.preview.clone())
        });
        if let Some(preview) = last {
            return Ok(preview);
        }
        let preview = Arc::new(self.preview(ask.clone()).await?);
        let look = Look { ask, at: now, preview: preview.clone() };
        *self.shared.looks.lock() = Some(look);
        Ok(preview)
    }

    /// Lets go of a look that nobody may read on from.
    pub fn forget_looks(&self) {
        let now = self.clock().now();
        self.shared.looks.lock().take_if(|look| !look.is_of(now));
    }
}
