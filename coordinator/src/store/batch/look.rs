//! Dry runs, and the looks with which batches begin: one of each at a time. The last dry run is kept for
//! whoever reads its other pages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::ids::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::select::{Ask, Preview, preview};
use crate::store::{Store, StoreError, Unavailable};

/// How long a look waits for others.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pages of one look are read within this time.
const KEPT_MS: u64 = 180_000;

/// Who looks. One user looks once at a time, so nobody waits behind more than one look of each other one;
/// and who begins a batch does not wait for those who only look, be it themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Looker {
    DryRun(UserId),
    Start(UserId),
}

/// Looks read every device of a selection: the other readers are for everybody else.
pub(in crate::store) struct Looks {
    dry_runs: Arc<Semaphore>,
    starts: Arc<Semaphore>,
    of_users: Mutex<HashMap<Looker, Arc<Semaphore>>>,
    last: Mutex<Option<Look>>,
}

/// Given back by being dropped.
pub(in crate::store) struct Turn {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

struct Look {
    ask: Ask,
    /// Unix milliseconds.
    at: u64,
    preview: Arc<Preview>,
}

impl Default for Looks {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        let (of_users, last) = (Mutex::default(), Mutex::default());
        Self { dry_runs: one(), starts: one(), of_users, last }
    }
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`Unavailable::Looking`] after a long wait.
    pub(in crate::store) async fn turn(&self, looker: Looker) -> Result<Turn, Unavailable> {
        let shared = match looker {
            Looker::DryRun(_) => self.dry_runs.clone(),
            Looker::Start(_) => self.starts.clone(),
        };
        let own = self.of(looker);
        let both = async {
            let own = own.acquire_owned().await.map_err(|_| Unavailable::Stopped)?;
            let shared = shared.acquire_owned().await.map_err(|_| Unavailable::Stopped)?;
            Ok(Turn { _own: own, _shared: shared })
        };
        timeout(PATIENCE, both).await.map_err(|_| Unavailable::Looking)?
    }

    fn of(&self, looker: Looker) -> Arc<Semaphore> {
        let mut users = self.of_users.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whose turn nobody has or waits for.
        users.retain(|_, own| Arc::strong_count(own) > 1);
        users.entry(looker).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
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
    pub async fn preview(&self, ask: Ask, looker: Looker) -> Result<Preview, StoreError> {
        let turn = self.shared.looks.turn(looker).await?;
        let now = self.clock().now();
        // With the query, which goes on where its asker goes away.
        self.read(move |conn| {
            let _turn = turn;
            Ok(preview(conn, &ask, now)?)
        })
        .await
    }

    /// The same for a page of it: the `first` looks, the others are of the last look, if it was at the
    /// same three minutes ago at most.
    ///
    /// # Errors
    /// As of [`Store::preview`].
    pub async fn preview_page(
        &self,
        ask: Ask,
        user: UserId,
        first: bool,
    ) -> Result<Arc<Preview>, StoreError> {
        let now = self.clock().now();
        let last = self.shared.looks.lock().as_ref().and_then(|look| {
            let same = !first && look.is_of(now) && look.ask == ask;
            same.then(|| look.preview.clone())
        });
        if let Some(preview) = last {
            return Ok(preview);
        }
        let preview = Arc::new(self.preview(ask.clone(), Looker::DryRun(user)).await?);
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
