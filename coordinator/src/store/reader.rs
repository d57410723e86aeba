//! The readers: a few threads, each with a connection that never changes anything, and one queue for
//! all of them. A thread that has answered takes the next query itself, so that under load nobody
//! hands a connection over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use tokio::sync::oneshot;

use super::{StoreError, Unavailable};

/// Queries that wait for a connection; more are refused, so that those that wait are answered in time.
const WAITING: usize = 4096;

/// One state of the database, as a query sees it from its beginning to its end.
pub(crate) struct Snapshot<'a> {
    reader: &'a Reader,
}

impl Deref for Snapshot<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.reader.conn
    }
}

impl<'a> Snapshot<'a> {
    fn take(reader: &'a Reader) -> Result<Self, StoreError> {
        reader.conn.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self { reader })
    }

    /// What `sql` counts, if need be from memory: to count a list's rows may take many times as long as
    /// to read a page of it.
    pub(super) fn count(&self, sql: &str, values: &[Value]) -> rusqlite::Result<u64> {
        // Another number for each state that somebody else has committed.
        let version =
            self.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if let Some(count) = self.reader.counts.borrow_mut().of(version, sql, values) {
            return Ok(count);
        }
        let count =
            self.prepare_cached(sql)?.query_row(params_from_iter(values), |row| row.get(0))?;
        self.reader.counts.borrow_mut().keep(sql, values, count);
        Ok(count)
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let ended = self.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([]));
        if let Err(error) = ended {
            tracing::error!(%error, "a reader keeps its snapshot");
        }
    }
}

/// Counts of one state of the database.
#[derive(Default)]
struct Counts {
    version: i64,
    known: Vec<(String, Vec<Value>, u64)>,
}

/// Counts kept, and bytes of the values of each: those come from outside.
const COUNTS: usize = 64;
const COUNTED: usize = 512;

impl Counts {
    fn of(&mut self, version: i64, sql: &str, values: &[Value]) -> Option<u64> {
        if self.version != version {
            self.version = version;
            self.known.clear();
        }
        let same = |known: &&(String, Vec<Value>, u64)| known.0 == sql && known.1 == values;
        self.known.iter().find(same).map(|known| known.2)
    }

    fn keep(&mut self, sql: &str, values: &[Value], count: u64) {
        let size = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        };
        if values.iter().map(size).sum::<usize>() > COUNTED {
            return;
        }
        if self.known.len() >= COUNTS {
            self.known.clear();
        }
        self.known.push((sql.to_owned(), values.to_vec(), count));
    }
}

/// A connection and what it remembers.
struct Reader {
    conn: Connection,
    counts: RefCell<Counts>,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: connect(path)?, counts: RefCell::default() })
    }
}

type Query = Box<dyn FnOnce(&Reader) + Send>;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Query>,
    idle: usize,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Shared {
    fn put(&self, query: Query) -> Result<(), Unavailable> {
        let mut queue = self.lock();
        if queue.stopped {
            return Err(Unavailable::Stopped);
        }
        if queue.waiting.len() >= WAITING {
            return Err(Unavailable::QueueFull);
        }
        queue.waiting.push_back(query);
        let someone_waits = queue.idle > 0;
        drop(queue);
        if someone_waits {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// None once it is over.
    fn next(&self) -> Option<Query> {
        let mut queue = self.lock();
        loop {
            if let Some(query) = queue.waiting.pop_front() {
                return Some(query);
            }
            if queue.stopped {
                return None;
            }
            queue.idle += 1;
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Only pushes and pops happen under the lock: it cannot be left half-done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads; they end when this is dropped.
pub(super) struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// For whoever asks on their own thread.
    near: Mutex<Reader>,
}

impl Readers {
    pub(super) fn open(path: &Path, count: usize) -> Result<Self, StoreError> {
        let near = Reader::open(path)?;
        near.conn.busy_timeout(Duration::ZERO)?;
        let (shared, threads, near) = (Arc::default(), Vec::new(), Mutex::new(near));
        let mut readers = Self { shared, threads, near };
        for _ in 0..count {
            let reader = Reader::open(path)?;
            let shared = readers.shared.clone();
            let thread = std::thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || work(&reader, &shared))
                .map_err(|error| StoreError::Open(error.to_string()))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Runs `query` on this very thread, unless somebody else is at it or it would have to wait for the
    /// database. Only for what every request asks: a few pages answer it, which are in memory for that
    /// reason, and the way to another thread and back costs more than the answer.
    pub(super) fn run_here<T>(
        &self,
        query: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        let reader = self.near.try_lock().ok()?;
        match Snapshot::take(&reader).and_then(|seen| query(&seen)) {
            Err(StoreError::Unavailable(Unavailable::Busy)) => None,
            answer => Some(answer),
        }
    }

    /// Runs `query` on one snapshot of the database, off the async threads.
    pub(super) async fn run<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.shared.put(Box::new(move |reader| {
            // Whoever has gone away meanwhile needs no answer.
            if !reply.is_closed() {
                let _ = reply.send(Snapshot::take(reader).and_then(|seen| query(&seen)));
            }
        }))?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Database("a query panicked".into())))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.arrived.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(reader: &Reader, shared: &Shared) {
    while let Some(query) = shared.next() {
        if catch_unwind(AssertUnwindSafe(|| query(reader))).is_err() {
            tracing::error!("a query panicked");
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.busy_timeout(super::BUSY_TIMEOUT)?;
    super::keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}
