//! Dry runs, and the looks with which batches begin: one of each at a time. A user's last dry run is kept
//! for its other pages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::ids::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::create::{Chosen, Members};
use super::select::{Ask, Look, Verdict, look, members, page};
use crate::store::listing::Rows;
use crate::store::{Store, StoreError, Unavailable};

/// How long a look waits for others.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pages of one look are read within this time.
const KEPT_MS: u64 = 180_000;
/// Users whose looks are kept; one of 100,000 devices takes some 4 MB.
const KEPT: usize = 8;

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
    /// Everybody's last dry run, of the newest few.
    kept: Mutex<HashMap<UserId, Kept>>,
}

/// Given back by being dropped.
pub(in crate::store) struct Turn {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

struct Kept {
    ask: Ask,
    /// Unix milliseconds.
    at: u64,
    look: Arc<Look>,
}

impl Default for Looks {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        let (of_users, kept) = (Mutex::default(), Mutex::default());
        Self { dry_runs: one(), starts: one(), of_users, kept }
    }
}

impl Looks {
    fn kept(&self) -> MutexGuard<'_, HashMap<UserId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, user: UserId, look: Kept) {
        let mut kept = self.kept();
        kept.remove(&user);
        while kept.len() >= KEPT {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.at).map(|(user, _)| *user);
            oldest.and_then(|user| kept.remove(&user));
        }
        kept.insert(user, look);
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

impl Kept {
    fn is_of(&self, now: u64) -> bool {
        (self.at..self.at.saturating_add(KEPT_MS)).contains(&now)
    }
}

impl Store {
    /// Looks at every device of the selection, one such look at a time.
    ///
    /// # Errors
    /// [`Unavailable::Looking`] where it would have to wait for long.
    pub async fn look(&self, ask: Ask, looker: Looker) -> Result<Look, StoreError> {
        let turn = self.shared.looks.turn(looker).await?;
        let now = self.clock().now();
        // With the query, which goes on where its asker goes away.
        self.read(move |conn| {
            let _turn = turn;
            Ok(look(conn, &ask, now)?)
        })
        .await
    }

    /// The same, with the verdicts on a page of it: the first page looks, the others are of the user's
    /// last look, if it was at the same three minutes ago at most.
    ///
    /// # Errors
    /// As of [`Store::look`].
    pub async fn preview(
        &self,
        ask: Ask,
        user: UserId,
        rows: Rows,
    ) -> Result<(Arc<Look>, Vec<Verdict>), StoreError> {
        let (first, now) = (rows.offset == 0, self.clock().now());
        let last = self.shared.looks.kept().get(&user).and_then(|kept| {
            let same = !first && kept.is_of(now) && kept.ask == ask;
            same.then(|| kept.look.clone())
        });
        if let Some(look) = last {
            let seen = look.clone();
            let verdicts = self.read(move |conn| Ok(page(conn, &ask, &seen, rows, now)?)).await?;
            return Ok((look, verdicts));
        }
        let turn = self.shared.looks.turn(Looker::DryRun(user)).await?;
        let (asked, now) = (ask.clone(), self.clock().now());
        let (look, verdicts) = self
            .read(move |conn| {
                let _turn = turn;
                let look = look(conn, &ask, now)?;
                let verdicts = page(conn, &ask, &look, rows, now)?;
                Ok((Arc::new(look), verdicts))
            })
            .await?;
        self.shared.looks.keep(user, Kept { ask: asked, at: now, look: look.clone() });
        Ok((look, verdicts))
    }

    /// Those of these modems that the selection would upgrade by now: something may have come between
    /// since the look.
    pub async fn chosen_members(
        &self,
        ask: Arc<Ask>,
        some: Vec<Chosen>,
    ) -> Result<Members, StoreError> {
        let now = self.clock().now();
        self.read(move |conn| Ok(members(conn, &ask, &some, now)?)).await
    }

    /// Lets go of looks that nobody may read on from.
    pub fn forget_looks(&self) {
        let now = self.clock().now();
        self.shared.looks.kept().retain(|_, kept| kept.is_of(now));
    }
}
