//! The readers: a few connections that never change anything, each used by one query at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::{StoreError, Unavailable};

/// Queries that wait for a connection; more are refused, so that those that wait are answered in time.
const WAITING: usize = 4096;

#[derive(Clone)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path, count: usize) -> Result<Self, StoreError> {
        let idle = (0..count).map(|_| connect(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            idle: Arc::new(Mutex::new(idle)),
            permits: Arc::new(Semaphore::new(count)),
            places: Arc::new(Semaphore::new(WAITING)),
        })
    }

    /// Runs `query` on one snapshot of the database, off the async threads.
    pub(super) async fn run<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let stopped = || StoreError::from(Unavailable::Stopped);
        let _place = self.places.try_acquire().map_err(|_| Unavailable::QueueFull)?;
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| stopped())?;
        let idle = self.idle.clone();
        tokio::task::spawn_blocking(move || {
            let lease = Lease::take(&idle).ok_or_else(stopped)?;
            let result = snapshot(&lease.conn, query);
            drop(lease);
            drop(permit);
            result
        })
        .await
        .map_err(|error| StoreError::Database(error.to_string()))?
    }
}

fn snapshot<T>(
    conn: &Option<Connection>,
    query: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let conn = conn.as_ref().ok_or(Unavailable::Stopped)?;
    let tx = conn.unchecked_transaction()?;
    let result = query(&tx)?;
    tx.finish()?;
    Ok(result)
}

/// A connection out of the pool; goes back when dropped, also by a panic.
struct Lease<'a> {
    conn: Option<Connection>,
    pool: &'a Mutex<Vec<Connection>>,
}

impl<'a> Lease<'a> {
    fn take(pool: &'a Mutex<Vec<Connection>>) -> Option<Self> {
        let conn = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        conn.map(|conn| Self { conn: Some(conn), pool })
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.busy_timeout(super::BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}
