//! The parts of a coordinator, opened and wired, not yet reachable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use shared::ids::UserId;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::changes::{self, Audience, Pending};
use super::{StartError, clock};
use crate::artifacts::Artifacts;
use crate::config::Config;
use crate::dispatch::{Dispatch, Pace};
use crate::feed::Feed;
use crate::ingest::Signs;
use crate::lines::Inbound;
use crate::lines::acl::Admission;
use crate::lines::limits::Limits;
use crate::lines::listener::Lines;
use crate::lines::reason::Counters;
use crate::lines::registry::Registry;
use crate::pilot::{Marked, Pilot};
use crate::store::retention::Retention;
use crate::store::{Store, StoreError, Unavailable};
use crate::tls::{self, Identity, Pin};
use crate::tokens::Tokens;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(30);
/// Between two pieces of bulk work.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the past is cleared away; first when a start is over.
const CLEAR: Duration = Duration::from_secs(3600);
const SETTLED: Duration = Duration::from_secs(60);
/// Batches whose states dashboards find after a start.
const BATCHES: u32 = 256;
/// How soon what another process did to a user's tokens is known here.
const FOLLOW: Duration = Duration::from_secs(5);

pub(super) struct Parts {
    pub store: Store,
    pub artifacts: Artifacts,
    pub tokens: Arc<Tokens>,
    pub identity: Identity,
    pub pin: Pin,
    pub admission: Arc<Admission>,
    pub registry: Arc<Registry>,
    pub counters: Arc<Counters>,
    pub dispatch: Arc<Dispatch>,
    pub feed: Arc<Feed>,
    pub signs: Signs,
    pub pilot: Arc<Pilot>,
    pending: Arc<Pending>,
    retention: Retention,
}

impl Parts {
    pub(super) async fn open(config: &Config) -> Result<Self, StartError> {
        let config = config.clone();
        let opened = spawn_blocking(move || open(&config)).await;
        opened.unwrap_or_else(|_| Err(StoreError::from(Unavailable::Stopped).into()))
    }

    /// Fills what lives in memory from what is on disk.
    pub(super) async fn recall(&self) -> Result<(), StartError> {
        // Who watches has to see that the disk is full, and devices what they may.
        match self.store.forget_presence().await {
            Err(error) if error.passes() => tracing::error!(%error, "presence of before"),
            forgotten => forgotten?,
        }
        for (device, epoch) in self.store.admitted_devices().await? {
            self.admission.set_epoch(device.0, epoch);
        }
        for (user, epoch) in self.store.admitted_users().await? {
            self.admission.set_epoch(user.0, epoch);
        }
        let feed = self.feed.clone();
        let publish = move |operation| {
            feed.publish(changes::change(&operation));
        };
        self.store.tell_newest_operations(publish).await?;
        match self.store.recover_batches().await {
            // The pilot takes them back later.
            Err(error) if error.passes() => tracing::error!(%error, "batches that were being made"),
            recovered => drop(recovered?),
        }
        self.pilot.recall(BATCHES).await?;
        match self.store.finish_deletions().await {
            Ok(0) => {}
            Ok(finished) => tracing::info!(finished, "images whose deletion was interrupted"),
            Err(error) if error.passes() => tracing::error!(%error, "interrupted deletions"),
            Err(error) => return Err(error.into()),
        }
        let used = self.store.used_files().await?;
        let artifacts = self.artifacts.clone();
        let swept = spawn_blocking(move || artifacts.sweep(&used)).await;
        match swept {
            Ok(removed) => tracing::info!(removed = removed?, "files without an image"),
            Err(error) => tracing::error!(%error, "files without an image"),
        }
        Ok(())
    }

    /// The tasks that never end.
    pub(super) fn spawn(&self) -> Vec<JoinHandle<()>> {
        let (dispatch, signs, store) =
            (self.dispatch.clone(), self.signs.clone(), self.store.clone());
        let pilot = self.pilot.clone();
        vec![
            tokio::spawn(async move { dispatch.run().await }),
            tokio::spawn(async move { pilot.run().await }),
            tokio::spawn(async move { signs.run().await }),
            tokio::spawn(sweep(store.clone(), self.registry.clone())),
            tokio::spawn(clear_away(store.clone(), self.retention)),
            tokio::spawn(follow_users(store, self.admission.clone(), self.registry.clone())),
            tokio::spawn(changes::publish(
                self.store.clone(),
                self.feed.clone(),
                self.pending.clone(),
            )),
        ]
    }

    pub(super) fn lines(&self, inbound: mpsc::Sender<Inbound>) -> Result<Arc<Lines>, StartError> {
        Ok(Arc::new(Lines {
            tls: self.identity.mqtt()?,
            tokens: self.tokens.clone(),
            admission: self.admission.clone(),
            registry: self.registry.clone(),
            feed: self.feed.clone(),
            inbound,
            counters: self.counters.clone(),
            limits: Limits::default(),
        }))
    }
}

fn open(config: &Config) -> Result<Parts, StartError> {
    let store = Store::open(&config.data.join("coordinator.db"), clock())?;
    let identity = Identity::load(&source(config))?;
    let admission = Arc::new(Admission::default());
    let registry = Arc::new(Registry::default());
    let dispatch = Dispatch::new(registry.clone(), Pace::default());
    let pending = Arc::new(Pending::default());
    let (marked, feed) = (Arc::new(Marked::default()), Feed::new(&clock()));
    let audience = Audience {
        admission: admission.clone(),
        registry: registry.clone(),
        dispatch: dispatch.clone(),
        pending: pending.clone(),
        marked: marked.clone(),
    };
    audience.hear(&store);
    Ok(Parts {
        artifacts: Artifacts::open(&config.data.join("artifacts"), config.artifacts)?,
        tokens: Arc::new(Tokens::load(&config.data, clock())?),
        pin: identity.pin(),
        identity,
        admission,
        registry,
        counters: Arc::default(),
        dispatch,
        pilot: Pilot::new(store.clone(), feed.clone(), marked),
        feed,
        signs: Signs::new(store.clone()),
        pending,
        retention: config.retention,
        store,
    })
}

fn source(config: &Config) -> tls::Source {
    match config.certificate.clone() {
        Some((certificate, key)) => tls::Source::Given { certificate, key },
        None if config.names.is_empty() => {
            let names = tls::default_names(config.https.ip());
            tls::Source::Own { folder: config.data.clone(), names }
        }
        None => {
            let (folder, names) = (config.data.clone(), config.names.clone());
            tls::Source::Own { folder, names }
        }
    }
}

/// The command line revokes users' tokens in the database, where nobody hears of it.
async fn follow_users(store: Store, admission: Arc<Admission>, registry: Arc<Registry>) {
    let mut known = HashMap::new();
    let mut interval = tokio::time::interval(FOLLOW);
    loop {
        interval.tick().await;
        let users = match store.admitted_users().await {
            Ok(users) => users,
            Err(error) => {
                tracing::error!(%error, "users' epochs");
                continue;
            }
        };
        let active: HashSet<_> = users.iter().map(|(user, _)| *user).collect();
        known.retain(|user: &UserId, _| {
            let stays = active.contains(user);
            if !stays {
                admission.revoke(user.0);
                registry.kick_user(user.0);
            }
            stays
        });
        for (user, epoch) in users {
            let before = known.insert(user, epoch);
            if before != Some(epoch) {
                admission.raise_epoch(user.0, epoch);
            }
            if before.is_some_and(|before| before != epoch) {
                registry.kick_user(user.0);
            }
        }
    }
}

/// Ends operations whose time has come, and the presence of lines whose end was not written, for ever.
async fn sweep(store: Store, registry: Arc<Registry>) {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        store.forget_looks();
        let seated = registry.clone();
        match store.take_offline(move |device| seated.is_connected(device)).await {
            Ok(0) => {}
            Ok(offline) => tracing::info!(offline, "devices whose line's end was not written"),
            Err(error) => tracing::error!(%error, "devices whose line's end was not written"),
        }
        loop {
            match store.expire_operations().await {
                Ok(0) => break,
                Ok(ended) => tracing::info!(ended, "operations whose time had come"),
                Err(error) => {
                    tracing::error!(%error, "operations whose time has come");
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Clears away what is older than is to be kept, for ever.
async fn clear_away(store: Store, keep: Retention) {
    tokio::time::sleep(SETTLED).await;
    let mut interval = tokio::time::interval(CLEAR);
    loop {
        interval.tick().await;
        match store.clear_away(keep).await {
            Ok(cleared) if cleared.is_nothing() => {}
            Ok(cleared) => tracing::info!(?cleared, "what was older than is to be kept"),
            Err(error) => tracing::error!(%error, "what is older than is to be kept"),
        }
        if let Err(error) = store.sweep_tokens().await {
            tracing::error!(%error, "tokens that ended long ago");
        }
    }
}
