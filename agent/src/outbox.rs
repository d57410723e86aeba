//! Milestones that the coordinator has not acknowledged yet.
//!
//! ```text
//! append ─ fsync ─▶ pending ── sent by the uplink, as often as it takes
//!                     │
//!                     ├─ accepted | duplicate ─▶ forgotten
//!                     ├─ refused ─▶ forgotten, logged (the coordinator keeps the dead letter)
//!                     └─ evicted, when full: the oldest that is no grant and no end
//! ```
//! The outbox numbers the events of an (operation, stream). A number is never given twice, or the
//! coordinator would take a new event for a duplicate: where numbers may have been lost (damage, a
//! disk that refuses), counting goes on far above everything seen.
//!
//! Answers to jobs that this router has nothing durable about are kept in memory only, and few of them: a
//! coordinator that sends jobs without end, and acknowledges nothing, must not wear or fill the disk. For the
//! same reason the ends of operations that were never granted go last, and the others never.
//!
//! It never refuses an event. When the disk does, it goes on in memory and says so, and tries the
//! disk again with every further event. What was read back and could not be made durable gets new numbers:
//! a power cut would take it, and the numbers under which it was sent would be given to other events.

mod log_file;
mod recovery;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use shared::ack::{Ack, Verdict};
use shared::event::{Event, EventBody};
use shared::ids::{OperationId, Slot, StreamId};

use crate::random;
use log_file::{Key, LogFile, Record};

/// Pending events beyond which the oldest that may go, go.
const MAX_EVENTS: usize = 512;
/// Events in memory only, beyond which the oldest go.
const MAX_VOLATILE: usize = 64;
/// Operations whose numbering is remembered one by one.
const MAX_COUNTERS: usize = 64;

/// An event before it has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub operation: OperationId,
    pub slot: Slot,
    pub stream: StreamId,
    /// 0 before the first grant.
    pub attempt: u32,
    /// Unix milliseconds, if the clock is set.
    pub at: Option<u64>,
    pub body: EventBody,
}

/// What went wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("the outbox was damaged; the damaged file is kept as {0}")]
    Damaged(PathBuf),
    #[error("the outbox cannot be kept on disk ({0}); events are kept in memory")]
    NotDurable(String),
}

/// Milestones under way, oldest first.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    /// `None` while the disk refuses.
    log: Option<LogFile>,
    events: VecDeque<Event>,
    /// Those that a restart forgets, oldest first.
    volatile: VecDeque<Event>,
    counters: VecDeque<Counter>,
    /// Numbers up to here may have been given to forgotten counters.
    floor: u64,
    trouble: Option<Trouble>,
    /// The file is there, and the disk has refused to read it so far: nothing may replace it.
    unread: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counter {
    operation: OperationId,
    stream: StreamId,
    last: u64,
}

impl Outbox {
    /// Opens or makes the outbox in `<state>/outbox`. Trouble is found in [`Self::trouble`].
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let directory = state_dir.join("outbox");
        let path = directory.join("log");
        let recovered = recovery::read(&path);
        let mut outbox = Self {
            path,
            log: None,
            events: recovered.events,
            volatile: VecDeque::new(),
            counters: VecDeque::new(),
            floor: recovered.floor,
            trouble: recovered.trouble,
            unread: recovered.unread,
        };
        for key in recovered.highest {
            outbox.count(key.operation, key.stream, key.seq);
        }
        if outbox.trouble.is_some() {
            outbox.leap();
        }
        if outbox.unread {
            // Until it can be read, events are kept in memory.
        } else if let Err(error) = crate::files::durable_dir(&directory) {
            outbox.lose_disk(&error);
        } else if recovered.clean {
            match LogFile::append_to(&outbox.path, recovered.records) {
                Ok(log) => outbox.log = Some(log),
                Err(error) => outbox.lose_disk(&error),
            }
        } else {
            outbox.rewrite();
        }
        if outbox.log.is_none() {
            outbox.renumber();
        }
        outbox
    }

    /// Numbers and keeps an event. When this returns, the event is on disk, unless
    /// [`Self::is_durable`] says otherwise.
    pub fn append(&mut self, draft: Draft) -> Event {
        self.make_room();
        let seq = self.next(draft.operation, draft.stream);
        let mut event = number(draft, seq);
        crate::failpoint::at!("outbox.append.before");
        let written = self.log.as_mut().map(|log| log.append(&Record::Put(event.clone()), true));
        crate::failpoint::at!("outbox.append.durable");
        if let Some(Err(error)) = written {
            self.lose_disk(&error);
            // The number may or may not be on disk: it is not used.
            event.seq = self.next(event.operation, event.stream);
        }
        self.events.push_back(event.clone());
        if self.log.is_none() || self.is_wasteful() {
            self.rewrite();
        }
        event
    }

    /// Numbers an event that is kept in memory only; of an operation the latest.
    pub fn append_volatile(&mut self, draft: Draft) -> Event {
        let seq = self.next(draft.operation, draft.stream);
        let event = number(draft, seq);
        self.volatile.retain(|earlier| earlier.operation != event.operation);
        if self.volatile.len() >= MAX_VOLATILE {
            self.volatile.pop_front();
        }
        self.volatile.push_back(event.clone());
        event
    }

    /// Takes the coordinator's answers. Returns how many events were settled.
    pub fn settle(&mut self, acks: &[Ack]) -> usize {
        let mut settled = Vec::new();
        for ack in acks {
            let key = Key { operation: ack.operation, stream: ack.stream, seq: ack.seq };
            match &ack.verdict {
                Verdict::Accepted | Verdict::Duplicate => settled.push(key),
                Verdict::Refused { reason } => {
                    log::warn!("event {} of {} was refused: {reason}", key.seq, key.operation);
                    settled.push(key);
                }
                Verdict::Unknown => {}
            }
        }
        let before = self.events.len();
        self.events.retain(|event| !settled.contains(&Key::of(event)));
        let gone = before - self.events.len();
        let before = self.volatile.len();
        self.volatile.retain(|event| !settled.contains(&Key::of(event)));
        let volatile = before - self.volatile.len();
        if gone > 0 {
            self.note_forgotten(settled);
        }
        gone + volatile
    }

    /// Pending events, oldest first, and behind them those in memory only.
    pub fn pending(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().chain(&self.volatile)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len() + self.volatile.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether events are on disk, or in memory only.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.log.is_some()
    }

    /// What went wrong last, and still matters.
    #[must_use]
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    fn next(&mut self, operation: OperationId, stream: StreamId) -> u64 {
        let last = self
            .counters
            .iter()
            .find(|c| c.operation == operation && c.stream == stream)
            .map_or(self.floor, |c| c.last);
        self.count(operation, stream, last + 1);
        last + 1
    }

    /// Notes a number as given, the counter becoming the youngest.
    fn count(&mut self, operation: OperationId, stream: StreamId, seq: u64) {
        self.counters.retain(|c| (c.operation, c.stream) != (operation, stream));
        self.counters.push_back(Counter { operation, stream, last: seq });
        if self.counters.len() > MAX_COUNTERS {
            let dropped = self.counters.pop_front().map_or(0, |c| c.last);
            self.floor = self.floor.max(dropped);
        }
    }

    /// Goes on numbering far above everything that may have been given.
    fn leap(&mut self) {
        let distance = random::bytes().map_or(1 << 31, u32::from_le_bytes);
        let seen = self.counters.iter().map(|c| c.last).max().unwrap_or(0).max(self.floor);
        self.floor = seen + 1_000_000 + u64::from(distance);
        self.counters.clear();
    }

    fn make_room(&mut self) {
        if self.events.len() < MAX_EVENTS {
            return;
        }
        let oldest = |gone: fn(&Event) -> bool| self.events.iter().position(gone);
        let oldest =
            oldest(|event| !event.body.must_be_kept()).or_else(|| oldest(is_ungranted_end));
        if let Some(oldest) = oldest
            && let Some(event) = self.events.remove(oldest)
        {
            log::warn!("the outbox is full: event {} of {} goes", event.seq, event.operation);
            self.note_forgotten(vec![Key::of(&event)]);
        }
    }

    /// Not synced: what is forgotten too late is only sent once more.
    fn note_forgotten(&mut self, keys: Vec<Key>) {
        crate::failpoint::at!("outbox.forget.before");
        let written = self.log.as_mut().map(|log| log.append(&Record::Forget(keys), false));
        crate::failpoint::at!("outbox.forget.written");
        if let Some(Err(error)) = written {
            self.lose_disk(&error);
        }
        if self.is_wasteful() {
            self.rewrite();
        }
    }

    /// Flash wears: the file is only rewritten when most of it is history.
    fn is_wasteful(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.records() > 2 * self.events.len() + 256)
    }

    /// Takes over what the file held when it could not be read; false: it still cannot.
    fn read_at_last(&mut self) -> bool {
        let recovered = recovery::read(&self.path);
        self.unread = recovered.unread;
        if self.unread {
            return false;
        }
        for event in recovered.events.into_iter().rev() {
            self.events.push_front(event);
        }
        for Key { operation, stream, seq } in recovered.highest {
            let same = |c: &&Counter| (c.operation, c.stream) == (operation, stream);
            let given = self.counters.iter().find(same).map_or(self.floor, |c| c.last);
            self.count(operation, stream, seq.max(given));
        }
        self.floor = self.floor.max(recovered.floor);
        self.trouble = recovered.trouble.or(self.trouble.take());
        true
    }

    fn rewrite(&mut self) {
        let taken_over = self.unread;
        if self.unread && !self.read_at_last() {
            return;
        }
        let mut records = vec![Record::Floor(self.floor)];
        records.extend(self.counters.iter().map(|c| {
            Record::Counted(Key { operation: c.operation, stream: c.stream, seq: c.last })
        }));
        records.extend(self.events.iter().cloned().map(Record::Put));
        crate::failpoint::at!("outbox.rewrite");
        match LogFile::replace(&self.path, &records) {
            Ok(log) => {
                self.log = Some(log);
                if matches!(self.trouble, Some(Trouble::NotDurable(_))) {
                    log::info!("the outbox is on disk again");
                    self.trouble = None;
                }
            }
            Err(error) => {
                self.lose_disk(&error);
                if taken_over {
                    self.renumber();
                }
            }
        }
    }

    /// Gives every event a number that no file has had.
    fn renumber(&mut self) {
        for mut event in std::mem::take(&mut self.events) {
            event.seq = self.next(event.operation, event.stream);
            self.events.push_back(event);
        }
    }

    fn lose_disk(&mut self, error: &std::io::Error) {
        let trouble = Trouble::NotDurable(error.to_string());
        if !matches!(self.trouble, Some(Trouble::NotDurable(_))) {
            log::error!("{trouble}");
        }
        // Each time: what was refused may be on disk all the same, and a restart goes on from there.
        self.leap();
        self.log = None;
        self.trouble = Some(trouble);
    }
}

/// The router keeps the result, and no modem was touched.
fn is_ungranted_end(event: &Event) -> bool {
    event.attempt == 0 && matches!(event.body, EventBody::Finished { .. })
}

fn number(draft: Draft, seq: u64) -> Event {
    let Draft { operation, slot, stream, attempt, at, body } = draft;
    Event { operation, slot, stream, seq, attempt, at, body }
}

#[cfg(test)]
mod tests;
