//! Moves the write-ahead log back into the database file, off the writer's path.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;

use super::StoreError;

const INTERVAL: Duration = Duration::from_millis(500);
const WORTH_IT: u64 = 4 << 20;
/// From here on wait for readers and start the log anew, or it grows for ever under load.
const TOO_LONG: u64 = 64 << 20;

pub(super) struct Checkpointer {
    stop: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(conn: Connection, database: &Path) -> Result<Self, StoreError> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || work(&conn, &PathBuf::from(log), &stopped))
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

fn work(conn: &Connection, log: &Path, stopped: &Receiver<()>) {
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let length = std::fs::metadata(log).map_or(0, |meta| meta.len());
        let mode = match length {
            0..WORTH_IT => continue,
            WORTH_IT..TOO_LONG => "PASSIVE",
            _ => "RESTART",
        };
        let done = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(%error, length, "checkpoint");
        }
    }
}
