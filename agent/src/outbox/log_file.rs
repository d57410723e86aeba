//! The outbox on disk: a line a record, each with its checksum before it.
//!
//! ```text
//! <first 16 hex digits of the JSON's SHA-256> <JSON>\n
//! ```
//! The first record is the version. An append is one write; a rewrite replaces the whole file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::event::Event;
use shared::hex;
use shared::ids::{OperationId, StreamId};

use crate::files;

pub(super) const VERSION: u32 = 1;
const CHECKSUM: usize = 16;

/// What makes an event the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    pub operation: OperationId,
    pub stream: StreamId,
    pub seq: u64,
}

impl Key {
    pub(super) fn of(event: &Event) -> Self {
        Self { operation: event.operation, stream: event.stream, seq: event.seq }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Version(u32),
    /// No number up to here may be given to an operation without a counter.
    Floor(u64),
    /// The highest number given so far.
    Counted(Key),
    Put(Event),
    Forget(Vec<Key>),
}

impl Record {
    fn line(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_string(self).map_err(io::Error::other)?;
        Ok(format!("{} {json}\n", checksum(json.as_bytes())).into_bytes())
    }

    /// `line` without its line end; `None` if it is not whole.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let (sum, rest) = line.split_at_checked(CHECKSUM)?;
        let json = rest.strip_prefix(b" ")?;
        if checksum(json).as_bytes() != sum {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

fn checksum(bytes: &[u8]) -> String {
    let mut text = hex::sha256(bytes).to_string();
    text.truncate(CHECKSUM);
    text
}

/// The open file, positioned at its end.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    records: usize,
}

impl LogFile {
    /// A file that was read whole and holds `records`. Made durable, name and content: whoever wrote
    /// it may have died before it was, and a number that is sent and then lost would be given again.
    pub(super) fn append_to(path: &Path, records: usize) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).open(path)?;
        file.sync_data()?;
        if let Some(directory) = path.parent() {
            files::durable_dir(directory)?;
        }
        Ok(Self { file, records })
    }

    /// Replaces the file.
    pub(super) fn replace(path: &Path, records: &[Record]) -> io::Result<Self> {
        let mut bytes = Record::Version(VERSION).line()?;
        for record in records {
            bytes.extend(record.line()?);
        }
        files::write_atomic(path, &bytes)?;
        Self::append_to(path, records.len() + 1)
    }

    pub(super) fn append(&mut self, record: &Record, durably: bool) -> io::Result<()> {
        self.file.write_all(&record.line()?)?;
        crate::failpoint::at!("outbox.line.written");
        self.records += 1;
        if durably { self.file.sync_data() } else { Ok(()) }
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }
}
