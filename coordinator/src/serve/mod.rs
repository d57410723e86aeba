//! The composition root: puts the parts together, starts them, and ends them in order.
//!
//! ```text
//! data directory (locked) ─▶ store ─▶ admission, retained states ─▶ ports ─▶ first start ─▶ service
//!                                                                                             │
//! stop: no new connections ─▶ lines closed ─▶ ingest empty ─▶ store stopped
//! ```

mod body;
mod bootstrap;
mod changes;
mod door;
mod parts;
mod web;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::task::JoinHandle;

pub use bootstrap::Bootstrap;
use parts::Parts;
use web::Web;

use crate::clock::Clock;
use crate::config::Config;
use crate::store::{Store, StoreError};
use crate::tls::Pin;
use crate::{artifacts, ingest, lines, tls, tokens};

/// In the data directory while a restore swaps its files: they do not fit together then.
pub(crate) const RESTORING: &str = "restoring";

/// Requests and lines have this long to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// Why the coordinator does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data directory {path} cannot be used")]
    Data { path: PathBuf, source: io::Error },
    #[error("the data directory {path} is in use by another coordinator")]
    InUse { path: PathBuf },
    #[error("a restore into {path} was cut short: run it again")]
    HalfRestored { path: PathBuf },
    #[error(
        "there is firmware in {path}, and its database is new: restore a backup (`restore --replace`), or move the \
         directory away to begin anew"
    )]
    DatabaseGone { path: PathBuf },
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("TLS")]
    Tls(#[from] tls::Error),
    #[error("access tokens")]
    Tokens(#[from] tokens::Error),
    #[error("the firmware directory")]
    Artifacts(#[from] artifacts::ArtifactError),
    #[error("the machine has no randomness")]
    NoRandomness,
}

/// A coordinator at work. Dropping it ends everything at once; [`Running::stop`] in order.
pub struct Running {
    pub https: SocketAddr,
    pub mqtt: SocketAddr,
    pub pin: Pin,
    pub store: Store,
    web: Web,
    registry: Arc<lines::registry::Registry>,
    signs: ingest::Signs,
    /// Those that should never end.
    serving: Vec<JoinHandle<()>>,
    ingesting: JoinHandle<()>,
    _lock: File,
}

/// Starts a coordinator. At its first start it also makes a superuser, an organization and the
/// secrets to begin with: they are in the answer and in a private file of the data directory.
///
/// # Errors
/// See [`StartError`]; nothing keeps running then.
pub async fn start(config: Config) -> Result<(Running, Option<Bootstrap>), StartError> {
    let lock = lock(&config.data)?;
    if config.data.join(RESTORING).exists() {
        return Err(StartError::HalfRestored { path: config.data });
    }
    let parts = Parts::open(&config).await?;
    // Nobody would miss its files, and they would be cleared away.
    if parts.artifacts.used() > 0 && !parts.store.has_users().await? {
        return Err(StartError::DatabaseGone { path: config.data });
    }
    parts.recall().await?;
    // Whatever can fail comes before the secrets, which are told only once.
    let ports = (bind(config.https)?, bind(config.mqtt)?);
    let bootstrap = bootstrap::first_start(&parts.store, parts.pin, &config.data).await?;
    let running = listen(parts, &config, ports, lock)?;
    Ok((running, bootstrap))
}

type Port = (TcpListener, SocketAddr);

fn listen(
    parts: Parts,
    config: &Config,
    ((web_listener, https), (mqtt_listener, mqtt)): (Port, Port),
    lock: File,
) -> Result<Running, StartError> {
    let nofile = raise_descriptors();
    tracing::info!(%https, %mqtt, nofile, "listening");
    let (inbound, received) = tokio::sync::mpsc::channel(ingest::QUEUE);
    let listener = tokio::net::TcpListener::from_std(mqtt_listener)
        .map_err(|source| StartError::Listen { address: mqtt, source })?;
    let mut serving = parts.spawn();
    serving.push(tokio::spawn(lines::listener::serve(parts.lines(inbound)?, listener)));
    let web = Web::spawn(&parts, config, mqtt.port(), web_listener)?;
    let ingesting = tokio::spawn(ingest::run(parts.store.clone(), parts.signs.clone(), received));
    Ok(Running {
        https,
        mqtt,
        pin: parts.pin,
        store: parts.store,
        web,
        registry: parts.registry,
        signs: parts.signs,
        serving,
        ingesting,
        _lock: lock,
    })
}

impl Running {
    /// Until a part ends that never should; then the process had better end as well.
    pub async fn failed(&mut self) {
        tokio::select! {
            (_, index, _) = select_all(&mut self.serving) => {
                tracing::error!(index, "a part of the coordinator ended");
                // A handle that was awaited must not be awaited again.
                drop(self.serving.remove(index));
            }
            _ = &mut self.ingesting => tracing::error!("what devices report is not taken any more"),
            () = self.store.ended() => tracing::error!("the store's writer ended"),
            () = self.web.ended() => tracing::error!("HTTPS ended"),
        }
    }

    /// Ends it: requests get a few seconds, what was acknowledged is on disk.
    pub async fn stop(mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
        self.registry.close_all();
        self.web.stop(GRACE).await;
        // The lines hold ingest's queue: it ends when the last of them has.
        if !self.ingesting.is_finished()
            && tokio::time::timeout(GRACE, &mut self.ingesting).await.is_err()
        {
            tracing::warn!("lines were still open");
        }
        self.signs.flush().await;
        let store = self.store.clone();
        // Only a panic in there fails this, and the writer logs its own.
        let _ = tokio::task::spawn_blocking(move || store.stop()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.web.abort();
        self.registry.close_all();
        self.serving.iter().for_each(JoinHandle::abort);
        self.ingesting.abort();
    }
}

/// Makes the data directory, private, and keeps other coordinators out of it.
pub(crate) fn lock(data: &Path) -> Result<File, StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| StartError::Data { path: data.into(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(data).map_err(failed)?;
    keep_private(data);
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let file = options.open(data.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse { path: data.into() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// One that somebody else made may let others in.
fn keep_private(data: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)) {
        tracing::warn!(path = %data.display(), %error, "the data directory's mode");
    }
}

fn bind(address: SocketAddr) -> Result<Port, StartError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    });
    bound.map_err(|source| StartError::Listen { address, source })
}

/// A line is a descriptor: as many as the machine allows. Answers how many there are.
fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit = getrlimit(Resource::Nofile);
    }
    limit.current.unwrap_or(u64::MAX)
}

/// `serve`: starts, prints what scripts and people wait for, and runs until a signal.
///
/// Standard output gets `key: value` lines with the secrets at the first start, and then
/// `ready https=<address> mqtt=<address>`.
///
/// # Errors
/// As [`start`], and [`io::Error`] wrapped as such when a part of it fails later.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let (mut running, bootstrap) = start(config).await?;
    if let Some(bootstrap) = bootstrap {
        print!("{bootstrap}");
    }
    println!("ready https={} mqtt={}", running.https, running.mqtt);
    let failed = tokio::select! {
        signal = signal() => { signal?; false }
        () = running.failed() => true,
    };
    running.stop().await;
    anyhow::ensure!(!failed, "a part of the coordinator ended; see the log");
    Ok(())
}

/// SIGTERM or SIGINT.
async fn signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The clock of a coordinator in earnest.
fn clock() -> Clock {
    Clock::System
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Fragment;

    #[tokio::test]
    async fn a_first_start_that_fails_locks_nobody_out() {
        let data = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = |mqtt| Config {
            data: data.path().into(),
            https: free,
            mqtt,
            ..Fragment::default().validate().unwrap()
        };
        let refused = start(config(taken.local_addr().unwrap())).await;
        assert!(matches!(refused, Err(StartError::Listen { .. })));
        let (running, bootstrap) = start(config(free)).await.unwrap();
        let file = data.path().join(bootstrap::FILE);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), bootstrap.unwrap().to_string());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        running.stop().await;
        let (running, again) = start(config(free)).await.unwrap();
        assert!(again.is_none());
        running.stop().await;
    }

    #[tokio::test]
    async fn firmware_without_its_database_is_not_cleared_away() {
        let data = tempfile::tempdir().unwrap();
        let config = || Config {
            data: data.path().into(),
            https: "127.0.0.1:0".parse().unwrap(),
            mqtt: "127.0.0.1:0".parse().unwrap(),
            ..Fragment::default().validate().unwrap()
        };
        let (running, _) = start(config()).await.unwrap();
        running.stop().await;
        let name = shared::hex::sha256(b"firmware").to_string();
        let file = data.path().join("artifacts").join(&name[..2]).join(name);
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        std::fs::write(&file, b"firmware").unwrap();
        for part in ["coordinator.db", "coordinator.db-wal", "coordinator.db-shm"] {
            let _ = std::fs::remove_file(data.path().join(part));
        }
        let refused = start(config()).await.err();
        assert!(matches!(refused, Some(StartError::DatabaseGone { .. })), "{refused:?}");
        assert!(file.exists());
    }
}
