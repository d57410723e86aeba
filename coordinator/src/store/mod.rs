//! The truth, in SQLite: organizations, users, devices, firmware, operations and their milestones.
//!
//! [`Store`] has one async method a domain verb, in a file an entity. A verb that changes something
//! runs its rule inside one transaction on the [writer's](writer) thread and answers after the
//! COMMIT; queries run on one of a few read-only connections.

pub mod account;
pub mod audit;
pub mod batch;
pub mod bootstrap;
pub mod build;
pub mod category;
pub mod census;
mod checkpoint;
pub mod column;
pub mod desired;
pub mod device;
pub mod enrolment;
pub mod enrolment_token;
mod error;
pub mod event;
pub mod firmware;
mod health;
pub mod image;
pub mod inventory;
mod listening;
pub mod listing;
pub mod login;
pub mod membership;
pub mod note;
pub mod operation;
pub mod organization;
pub mod own_token;
pub mod place;
mod reader;
pub mod repeat;
mod restored;
pub mod retention;
mod schema;
pub mod token;
mod unlink;
pub mod user;
mod whose;
mod writer;

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use note::{Listener, Note, Notes};
use reader::Snapshot;

pub use error::{Never, Rejection, StoreError, Unavailable};
pub use writer::Priority;

use crate::clock::Clock;

const READERS: usize = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages that the writer keeps, at most: those that a group of writes changes, and more.
const CACHE_KIB: i64 = 16 << 10;
/// Bulk work leaves the writer to others after so long at most: with what it is in the middle of, and the disk's
/// sync, nobody is to wait for more than 50 ms.
const TURN: Duration = Duration::from_millis(15);
/// What a turn may take with its COMMIT before the next ones are shorter: in a large database each row is on other
/// pages, and the disk takes longer for a turn than the turn.
const WITH_COMMIT: Duration = Duration::from_millis(30);

/// A disk that takes long for any COMMIT takes no less for shorter turns, and bulk work is to come to its end there.
const SHORTEST_TURN: Duration = Duration::from_millis(4);

/// How long the next turn is after one of `turn` that took so long with its COMMIT.
fn next_turn(turn: Duration, took: Duration) -> Duration {
    let next = if took > WITH_COMMIT { turn / 2 } else { turn + turn / 8 };
    next.clamp(SHORTEST_TURN, TURN)
}

/// A transaction that a rule runs in, and the time it happens at.
pub struct Tx<'a> {
    conn: &'a Connection,
    /// Unix milliseconds.
    pub now: u64,
    notes: &'a Notes,
    told: RefCell<Option<audit::Told>>,
    off_record: Cell<bool>,
    began: Instant,
    turn: &'a Turn,
}

/// How long bulk work has the writer.
struct Turn {
    length: Cell<Duration>,
    /// Since the last COMMIT somebody has asked for it.
    asked: Cell<bool>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { length: Cell::new(TURN), asked: Cell::new(false) }
    }
}

impl Turn {
    /// After a group of writes that took so long.
    fn is_over(&self, took: Duration) {
        if self.asked.take() {
            self.length.set(next_turn(self.length.get(), took));
        }
    }
}

impl Tx<'_> {
    /// Whether the verb, if it is bulk work, is to leave the rest to another one.
    pub(crate) fn had_its_turn(&self) -> bool {
        self.turn.asked.set(true);
        self.began.elapsed() >= self.turn.length.get()
    }

    /// Passes something on once the transaction is committed.
    pub(crate) fn note(&self, note: Note) {
        self.notes.push(note);
    }

    /// What the audit log says of the change beside who made it.
    pub(crate) fn tell(&self, told: audit::Told) {
        self.told.replace(Some(told));
    }

    /// That there is nothing for the audit log in it, whoever asked for it.
    pub(crate) fn leave_off_record(&self) {
        self.off_record.set(true);
    }
}

impl Deref for Tx<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.conn
    }
}

/// The store; clones share the same database.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    /// Goes into the audit log with every change made through this clone.
    entry: Option<Arc<audit::Entry>>,
    /// The request that the change is made by, if it has a key.
    once: Option<repeat::Once>,
}

struct Shared {
    // Field order is drop order: the writer finishes before the others close.
    writer: writer::Writer,
    readers: reader::Readers,
    clock: Clock,
    changes: Listener,
    looks: batch::Looks,
    listening: listening::Listening,
    letters: Arc<event::Letters>,
    _checkpointer: checkpoint::Checkpointer,
}

impl Store {
    /// Opens or creates the database at `path` and brings it up to date. Blocks.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] for a database of a newer program, others when the file cannot
    /// be opened or written.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        let mut conn = connect(path)?;
        schema::migrate(&mut conn, clock.now())?;
        let health = Arc::<health::Health>::default();
        let checkpointer = checkpoint::Checkpointer::start(connect(path)?, path, health.clone())?;
        let readers = reader::Readers::open(path, READERS)?;
        let changes = Listener::default();
        let writer = writer::Writer::start(conn, clock.clone(), changes.clone(), health)?;
        let listening = listening::Listening::start(clock.now(), clock.awake());
        let _checkpointer = checkpointer;
        let looks = batch::Looks::default();
        let letters = Arc::default();
        let shared =
            Shared { writer, readers, clock, changes, looks, listening, letters, _checkpointer };
        Ok(Self { shared: Arc::new(shared), entry: None, once: None })
    }

    /// Whether the database is of an older program, whose server may be at it: [`Store::open`] would bring it up to
    /// date under that one's hands.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn is_older(path: &Path) -> Result<bool, StoreError> {
        Ok(schema::is_older(&connect(path)?)?)
    }

    /// The same store for somebody whose changes are on record: each commits together with this
    /// entry, and what is refused leaves none.
    pub fn on_record(&self, entry: audit::Entry) -> Self {
        Self { shared: self.shared.clone(), entry: Some(Arc::new(entry)), once: self.once.clone() }
    }

    /// The same store for what is done on the way to a change that is on record, or after it.
    pub(crate) fn off_record(&self) -> Self {
        Self { shared: self.shared.clone(), entry: None, once: None }
    }

    /// Has what is committed from now on passed on: in the order of the commits, and before the
    /// verbs are answered. It runs on the writer's thread, so it must not wait for anything.
    pub fn on_commit(&self, pass_on: impl FnMut(Note) + Send + 'static) {
        self.shared.changes.listen(Box::new(pass_on));
    }

    /// The clock that the store writes times by.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Unix milliseconds: no device was silent before.
    fn listening_since(&self) -> u64 {
        let (clock, health) = (self.clock(), self.shared.writer.health());
        self.shared.listening.since(clock.now(), clock.awake(), || health.was_deaf())
    }

    /// Runs `rule` in a transaction and answers after its COMMIT. A rule that returns an error
    /// leaves no change behind.
    pub(crate) async fn write<T, R, F>(&self, rule: F) -> Result<T, Rejection<R>>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, Rejection<R>> + Send + 'static,
        T: Send + 'static,
        R: Send + 'static,
    {
        self.write_at(Priority::Normal, rule).await
    }

    /// As [`Store::write`], with a say in who goes first.
    pub(crate) async fn write_at<T, R, F>(
        &self,
        priority: Priority,
        rule: F,
    ) -> Result<T, Rejection<R>>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, Rejection<R>> + Send + 'static,
        T: Send + 'static,
        R: Send + 'static,
    {
        let (entry, once) = (self.entry.clone(), self.once.clone());
        let on_record = move |tx: &Tx<'_>| {
            let done = rule(tx)?;
            if let Some(entry) = entry.filter(|_| !tx.off_record.get()) {
                audit::record(tx, &entry, tx.told.take())?;
            }
            if let Some(once) = once {
                repeat::done(tx, &once, &done)?;
            }
            Ok(done)
        };
        let answer = self.shared.writer.submit(priority, on_record)?;
        answer.await.unwrap_or_else(|_| Err(StoreError::from(Unavailable::RolledBack).into()))
    }

    /// Runs `query` on one snapshot of what was committed.
    pub(crate) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.shared.readers.run(query).await
    }

    /// As [`Store::read`], for what every request asks; see [`reader::Readers::run_here`].
    pub(crate) async fn read_here<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: Fn(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        match self.shared.readers.run_here(&query) {
            Some(answer) => answer,
            None => self.read(query).await,
        }
    }

    /// Whether a write gets through to the disk.
    ///
    /// # Errors
    /// What is in its way.
    pub async fn check(&self) -> Result<(), StoreError> {
        let touched = self.write::<_, Never, _>(|tx| {
            tx.execute("UPDATE meta SET epoch = epoch", [])?;
            Ok(())
        });
        Ok(touched.await?)
    }

    /// What kept writes from the disk just now, if anything did; a small one may get through again.
    pub fn trouble(&self) -> Option<Unavailable> {
        self.shared.writer.health().trouble()
    }

    /// Until the writer has ended: after [`Store::stop`], or by a defect.
    pub async fn ended(&self) {
        self.shared.writer.ended().await;
    }

    /// Takes no more writes and finishes those that were queued. Blocks.
    pub fn stop(&self) {
        self.shared.writer.stop();
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)
        .map_err(|error| StoreError::Open(format!("{}: {error}", path.display())))?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What a savepoint may have to take back, a file else.
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(256);
    Ok(conn)
}

/// A statement's plan does not depend on its values. If it did, SQLite would parse and plan many of the
/// cached ones anew each time that they are used.
fn keep_plans(conn: &Connection) -> Result<(), StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
