//! The one writer: a thread that owns the only connection that changes the database.
//!
//! ```text
//! verbs ──▶ queue (bounded, by priority) ──▶ BEGIN · verb · SAVEPOINT verb · ... · COMMIT ──▶ answers
//! ```
//! What has queued up while the last group was being synced to disk becomes the next group. A verb
//! that refuses leaves no trace in the others' group: the first one takes the whole transaction back,
//! those after it have a savepoint each, which costs a copy of every page that they change.
//! Nobody hears an answer before the COMMIT that makes it true. Bulk work has groups of its own, when
//! nobody else is there: what shared its group would wait for it. However much of it there is, others
//! come between two of its pieces.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::health::Health;
use super::note::{Listener, Notes};
use super::{Rejection, StoreError, Turn, Tx, Unavailable};
use crate::clock::Clock;

/// A group is closed after this long even if the queue is not empty.
const GROUP_TIME: Duration = Duration::from_millis(5);
const GROUP_VERBS: usize = 1024;
const QUEUE_LIMIT: usize = 8192;
/// Low priority waits at most this long behind a queue that never empties.
const PATIENCE: Duration = Duration::from_millis(250);
/// So does a piece of bulk work, which there are many of.
const BULK_PATIENCE: Duration = Duration::from_millis(30);

/// Who goes first when the disk cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Normal,
    /// Ticks: the next one makes up for a late one.
    Low,
    /// A piece of what changes a whole batch: it takes long, and small writes go before it.
    Bulk,
}

/// A verb on its way through the writer: run once, then told what became of its group.
trait Verb: Send {
    /// False asks for the savepoint to be rolled back.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// What the store did not do for it.
    fn failure(&self) -> Option<&StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<T, R, F> {
    rule: Option<F>,
    result: Option<Result<T, Rejection<R>>>,
    reply: oneshot::Sender<Result<T, Rejection<R>>>,
}

impl<T, R, F> Verb for Pending<T, R, F>
where
    F: FnOnce(&Tx<'_>) -> Result<T, Rejection<R>> + Send,
    T: Send,
    R: Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> bool {
        self.result = self.rule.take().map(|rule| rule(tx));
        matches!(self.result, Some(Ok(_)))
    }

    fn failure(&self) -> Option<&StoreError> {
        match &self.result {
            Some(Err(Rejection::Store(error))) => Some(error),
            _ => None,
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Err(error), _) => Err(error.into()),
            (Ok(()), None) => Err(StoreError::from(Unavailable::RolledBack).into()),
        };
        // The caller may have gone away; its change stands.
        let _ = self.reply.send(result);
    }
}

#[derive(Default)]
struct Queue {
    normal: VecDeque<Box<dyn Verb>>,
    low: VecDeque<(Instant, Box<dyn Verb>)>,
    bulk: VecDeque<(Instant, Box<dyn Verb>)>,
    /// The last group was bulk work.
    bulk_before: bool,
    stopped: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.normal.len() + self.low.len() + self.bulk.len()
    }

    /// Who begins a group.
    fn first(&mut self) -> Option<Box<dyn Verb>> {
        let waited = |(since, _): &(Instant, _)| since.elapsed() > BULK_PATIENCE;
        let turn = !self.bulk_before && self.bulk.front().is_some_and(waited);
        let next = if turn { None } else { self.next() };
        self.bulk_before = next.is_none();
        next.or_else(|| self.bulk.pop_front().map(|(_, verb)| verb))
    }

    /// Who shares it.
    fn next(&mut self) -> Option<Box<dyn Verb>> {
        let starved = self.low.front().is_some_and(|(since, _)| since.elapsed() > PATIENCE);
        if (self.normal.is_empty() || starved)
            && let Some((_, verb)) = self.low.pop_front()
        {
            return Some(verb);
        }
        self.normal.pop_front()
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    ended: tokio::sync::Notify,
    health: Arc<Health>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Only pushes and pops happen under the lock: it cannot be left half-done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the writer's thread. The thread ends when this is dropped or stopped, after it has
/// done what was queued.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(
        conn: Connection,
        clock: Clock,
        changes: Listener,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared { health, ..Shared::default() });
        let queue = shared.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || work(&Workplace { conn, clock, changes, turn: Turn::default() }, &queue))
            .map_err(|error| StoreError::Open(error.to_string()))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a verb; its answer comes after the COMMIT of its group.
    pub(super) fn submit<T, R, F>(
        &self,
        priority: Priority,
        rule: F,
    ) -> Result<oneshot::Receiver<Result<T, Rejection<R>>>, StoreError>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, Rejection<R>> + Send + 'static,
        T: Send + 'static,
        R: Send + 'static,
    {
        if priority == Priority::Low {
            self.shared.health.try_low()?;
        }
        let (reply, answer) = oneshot::channel();
        let verb: Box<dyn Verb> = Box::new(Pending { rule: Some(rule), result: None, reply });
        let mut queue = self.shared.lock();
        if queue.stopped {
            return Err(Unavailable::Stopped.into());
        }
        if queue.len() >= QUEUE_LIMIT {
            return Err(Unavailable::QueueFull.into());
        }
        match priority {
            Priority::Normal => queue.normal.push_back(verb),
            Priority::Low => queue.low.push_back((Instant::now(), verb)),
            Priority::Bulk => queue.bulk.push_back((Instant::now(), verb)),
        }
        drop(queue);
        self.shared.arrived.notify_one();
        Ok(answer)
    }

    pub(super) fn health(&self) -> &Health {
        &self.shared.health
    }

    pub(super) async fn ended(&self) {
        self.shared.ended.notified().await;
    }

    /// Takes no more, finishes what was queued, and waits for that. Blocks.
    pub(super) fn stop(&self) {
        self.shared.lock().stopped = true;
        self.shared.arrived.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Workplace {
    conn: Connection,
    clock: Clock,
    turn: Turn,
    changes: Listener,
}

/// However the thread ends, nobody waits for it any more.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.stopped = true;
        let left = (
            std::mem::take(&mut queue.normal),
            std::mem::take(&mut queue.low),
            std::mem::take(&mut queue.bulk),
        );
        drop(queue);
        drop(left);
        self.0.ended.notify_one();
    }
}

fn work(place: &Workplace, shared: &Shared) {
    let _ending = Ending(shared);
    while let Some(first) = wait(shared) {
        run_group(place, first, shared);
    }
}

fn wait(shared: &Shared) -> Option<Box<dyn Verb>> {
    let mut queue = shared.lock();
    loop {
        if let Some(verb) = queue.first() {
            return Some(verb);
        }
        if queue.stopped {
            return None;
        }
        queue = shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

fn run_group(place: &Workplace, first: Box<dyn Verb>, shared: &Shared) {
    let conn = &place.conn;
    let opened = Instant::now();
    let (mut verbs, notes) = (Vec::new(), Notes::default());
    let mut outcome = run_statement(conn, "BEGIN IMMEDIATE");
    let (mut next, mut alone) = (Some(first), true);
    while let Some(mut verb) = next.take() {
        if outcome.is_ok() {
            outcome = run_verb(place, verb.as_mut(), &notes, alone).map(|kept| alone &= !kept);
        }
        verbs.push(verb);
        if outcome.is_ok() && verbs.len() < GROUP_VERBS && opened.elapsed() < GROUP_TIME {
            next = shared.lock().next();
        }
    }
    let outcome = outcome.and_then(|()| run_statement(conn, "COMMIT"));
    place.turn.is_over(opened.elapsed());
    match &outcome {
        Ok(()) => place.changes.tell(notes),
        Err(error) => {
            tracing::debug!(%error, verbs = verbs.len(), "a group of writes was rolled back");
            if !conn.is_autocommit() {
                let _ = conn.execute_batch("ROLLBACK");
            }
        }
    }
    note_health(&shared.health, outcome.as_ref().err(), &verbs);
    for verb in verbs {
        verb.answer(outcome.clone());
    }
}

/// The disk may have refused the group, or one of its verbs in the middle of it.
fn note_health(health: &Health, lost: Option<&StoreError>, verbs: &[Box<dyn Verb>]) {
    let mut failures = lost.into_iter().chain(verbs.iter().filter_map(|verb| verb.failure()));
    let of_the_disk = failures.find_map(|error| match error {
        StoreError::Unavailable(reason) if reason.is_of_the_disk() => Some(*reason),
        _ => None,
    });
    match (of_the_disk, lost) {
        (Some(reason), _) => health.failed(reason),
        (None, None) => health.worked(),
        (None, Some(error)) => tracing::error!(%error, "a group of writes was rolled back"),
    }
}

/// Runs one verb, and says whether its changes stay. `alone`: the transaction has no others yet. An
/// error means that the whole group is lost.
fn run_verb(
    place: &Workplace,
    verb: &mut dyn Verb,
    notes: &Notes,
    alone: bool,
) -> Result<bool, StoreError> {
    let conn = &place.conn;
    if !alone {
        run_statement(conn, "SAVEPOINT verb")?;
    }
    let mark = notes.len();
    let (now, began) = (place.clock.now(), Instant::now());
    let tx = Tx {
        conn,
        now,
        notes,
        told: RefCell::default(),
        off_record: Cell::default(),
        began,
        turn: &place.turn,
    };
    let kept = catch_unwind(AssertUnwindSafe(|| verb.run(&tx))).unwrap_or_else(|_| {
        tracing::error!("a verb panicked; its changes are rolled back");
        false
    });
    // A full disk or an I/O error makes SQLite roll back everything at once.
    if conn.is_autocommit() {
        let cause = verb.failure().filter(|error| error.passes()).cloned();
        return Err(cause.unwrap_or_else(|| Unavailable::RolledBack.into()));
    }
    if !kept {
        notes.truncate(mark);
    }
    let end: &[&str] = match (alone, kept) {
        (true, true) => &[],
        (true, false) => &["ROLLBACK", "BEGIN IMMEDIATE"],
        (false, true) => &["RELEASE verb"],
        (false, false) => &["ROLLBACK TO verb", "RELEASE verb"],
    };
    end.iter().try_for_each(|sql| run_statement(conn, sql))?;
    Ok(kept)
}

fn run_statement(conn: &Connection, sql: &str) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Verb for Nothing {
        fn run(&mut self, _: &Tx<'_>) -> bool {
            true
        }

        fn failure(&self) -> Option<&StoreError> {
            None
        }

        fn answer(self: Box<Self>, _: Result<(), StoreError>) {}
    }

    #[test]
    fn however_many_want_bulk_work_done_others_come_between_two_pieces() {
        let long_ago = Instant::now().checked_sub(BULK_PATIENCE * 4).unwrap();
        let mut queue = Queue::default();
        for _ in 0..4 {
            queue.bulk.push_back((long_ago, Box::new(Nothing)));
        }
        queue.normal.extend((0..8).map(|_| -> Box<dyn Verb> { Box::new(Nothing) }));
        for _ in 0..4 {
            queue.first().unwrap();
            // Whose piece was done comes with the next one, and the others have waited by then.
            queue.bulk.push_back((long_ago, Box::new(Nothing)));
            let normal = queue.normal.len();
            queue.first().unwrap();
            assert_eq!((queue.bulk.len(), queue.normal.len()), (4, normal - 1));
        }
        queue.normal.clear();
        queue.first().unwrap();
        queue.first().unwrap();
        assert_eq!(queue.bulk.len(), 2, "with nobody else there, one after the other");
    }
}
