//! Reads an outbox back, whatever a power cut or a worn flash made of it.
//!
//! A last line that is not whole is a write that was cut off: its event was never sent, and it is
//! dropped. Anything else that is not whole is damage: the file is kept aside, and every whole
//! record in it is used.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use shared::event::Event;

use super::Trouble;
use super::log_file::{Key, Record, VERSION};
use crate::files;

const MAX_FILE_BYTES: usize = 8 << 20;

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub events: VecDeque<Event>,
    /// The highest number of each (operation, stream), the youngest last.
    pub highest: Vec<Key>,
    pub floor: u64,
    pub records: usize,
    /// The file can be appended to as it is.
    pub clean: bool,
    pub trouble: Option<Trouble>,
    /// The disk refused to read it: what it holds is not known yet.
    pub unread: bool,
}

pub(super) fn read(path: &Path) -> Recovered {
    let bytes = match files::read_limited(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Recovered::default(),
        // Reading it again would not help.
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            log::error!("{}: {error}", path.display());
            return Recovered { trouble: Some(set_aside(path)), ..Recovered::default() };
        }
        Err(error) => {
            log::error!("{}: {error}", path.display());
            let trouble = Some(Trouble::NotDurable(error.to_string()));
            return Recovered { trouble, unread: true, ..Recovered::default() };
        }
    };
    let mut recovered = Recovered::default();
    let condition = replay(&bytes, &mut recovered);
    recovered.clean = condition == Condition::Whole;
    if condition == Condition::Damaged {
        let trouble = set_aside(path);
        log::error!("{trouble}");
        recovered.trouble = Some(trouble);
    }
    recovered
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Whole,
    TornAtTheEnd,
    Damaged,
}

fn replay(bytes: &[u8], recovered: &mut Recovered) -> Condition {
    let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    // What follows the last line end: nothing, or a torn write.
    let mut condition = match lines.pop() {
        Some(rest) if !rest.is_empty() => Condition::TornAtTheEnd,
        _ => Condition::Whole,
    };
    let last = lines.len().saturating_sub(1);
    for (index, line) in lines.into_iter().enumerate() {
        let record = Record::parse(line);
        let well_begun = index > 0 || record == Some(Record::Version(VERSION));
        match record {
            Some(record) => recovered.apply(record),
            None if index == last && index > 0 && condition == Condition::Whole => {
                condition = Condition::TornAtTheEnd;
            }
            None => condition = Condition::Damaged,
        }
        if !well_begun {
            condition = Condition::Damaged;
        }
    }
    if recovered.records == 0 && !bytes.is_empty() {
        condition = Condition::Damaged;
    }
    condition
}

impl Recovered {
    fn apply(&mut self, record: Record) {
        self.records += 1;
        match record {
            Record::Version(_) => {}
            Record::Floor(floor) => self.floor = self.floor.max(floor),
            Record::Counted(key) => self.count(key),
            Record::Put(event) => {
                self.count(Key::of(&event));
                self.events.push_back(event);
            }
            Record::Forget(keys) => self.events.retain(|event| !keys.contains(&Key::of(event))),
        }
    }

    fn count(&mut self, key: Key) {
        let same = |k: &Key| (k.operation, k.stream) == (key.operation, key.stream);
        let before = self.highest.iter().find(|k| same(k)).map_or(0, |k| k.seq);
        self.highest.retain(|k| !same(k));
        self.highest.push(Key { seq: key.seq.max(before), ..key });
    }
}

/// One damaged file is kept, the latest. It stays in its place as well, until it is replaced: while the
/// disk refuses the new one, the events and numbers in it are all that there is.
fn set_aside(path: &Path) -> Trouble {
    let aside = path.with_file_name("log.damaged");
    let _ = std::fs::remove_file(&aside);
    // Not every file system of a USB stick has links.
    match std::fs::hard_link(path, &aside).or_else(|_| std::fs::copy(path, &aside).map(|_| ())) {
        Ok(()) => Trouble::Damaged(aside),
        Err(error) => {
            log::error!("{} cannot be kept: {error}", path.display());
            Trouble::Damaged(path.to_owned())
        }
    }
}
