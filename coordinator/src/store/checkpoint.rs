//! Moves the write-ahead log back into the database file, off the writer's path.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;

use super::StoreError;
use super::health::Health;

const INTERVAL: Duration = Duration::from_millis(500);
const WORTH_IT: u64 = 4 << 20;
/// From here on have the log begin anew, or it grows for ever under load.
const TOO_LONG: u64 = 64 << 20;
/// For that no reader may be in the log, and writers have to wait meanwhile: not for a long one, such
/// as a backup.
const PATIENCE: Duration = Duration::from_millis(10);
/// Pages that may be left to move while writers wait: a millisecond or two.
const FEW: i64 = 64;
/// Rounds of moving what came during the round before.
const ROUNDS: u32 = 8;

pub(super) struct Checkpointer {
    stop: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(
        conn: Connection,
        database: &Path,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || work(&conn, &PathBuf::from(log), &health, &stopped))
            .map_err(|error| StoreError::Open(error.to_string()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(conn: &Connection, log: &Path, health: &Health, stopped: &Receiver<()>) {
    let mut told = false;
    if let Err(error) = conn.busy_timeout(PATIENCE) {
        tracing::warn!(%error, "checkpoints may hold writers up");
    }
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let length = std::fs::metadata(log).map_or(0, |meta| meta.len());
        let done = match length {
            // Where a full disk keeps the log from growing, its beginning can be used again.
            0..WORTH_IT if !health.is_failing() => Ok(()),
            0..TOO_LONG => checkpoint(conn, "PASSIVE").map(|_| ()),
            _ => begin_anew(conn),
        };
        match done {
            Ok(()) => told = false,
            Err(error) if !told => {
                tracing::warn!(%error, length, "checkpoint");
                told = true;
            }
            Err(_) => {}
        }
    }
}

/// The bulk is moved while writers go on, and then what they wrote meanwhile, until only a little is left: that
/// is moved with them standing still.
fn begin_anew(conn: &Connection) -> rusqlite::Result<()> {
    let mut before = 0;
    for _ in 0..ROUNDS {
        let moved = checkpoint(conn, "PASSIVE")?;
        // Readers may keep the rest where it is.
        if moved - before < FEW {
            break;
        }
        before = moved;
    }
    checkpoint(conn, "RESTART").map(|_| ())
}

/// Answers how many of the log's pages are in the database file.
fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(2))
}
