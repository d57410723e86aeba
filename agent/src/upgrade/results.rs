//! The last results of a device, so that a job it knows has its result sent again and never runs
//! again.

use crate::files;
use serde::{Deserialize, Serialize};
use shared::{
    event::Outcome,
    ids::{OperationId, Slot, StreamId},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// How many results are kept.
const KEPT: usize = 16;
const LIMIT: usize = 64 * 1024;

/// How one operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub operation: OperationId,
    pub slot: Slot,
    pub stream: StreamId,
    pub attempt: u32,
    pub outcome: Outcome,
    /// Unix milliseconds, if the clock was set.
    pub at: Option<u64>,
    /// Installed sequence, for the refusal of lower ones and the cap on flashes.
    #[serde(default)]
    pub flashed: u32,
}

/// The highest sequence that was installed for a model, beyond which no older one goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub vendor: String,
    pub model: String,
    pub sequence: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Content {
    ended: Vec<Ended>,
    installed: Vec<Installed>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum OnDisk {
    #[serde(rename = "1")]
    V1(Content),
}

/// The results on disk.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    content: Content,
}

impl Results {
    /// Reads `results.json` in `directory`.
    ///
    /// # Errors
    /// It is there and cannot be read or understood: without it a finished job could run again, so
    /// nothing is flashed until a person has looked.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("results.json");
        let content = match files::read_limited(&path, LIMIT) {
            Ok(bytes) => match serde_json::from_slice(&bytes)? {
                OnDisk::V1(content) => content,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, content })
    }

    #[must_use]
    pub fn of(&self, operation: OperationId) -> Option<&Ended> {
        self.content.ended.iter().find(|ended| ended.operation == operation)
    }

    #[must_use]
    pub fn last(&self) -> Option<&Ended> {
        self.content.ended.last()
    }

    /// The highest sequence installed for a model.
    #[must_use]
    pub fn sequence(&self, vendor: &str, model: &str) -> Option<u64> {
        let same = |i: &&Installed| i.vendor == vendor && i.model == model;
        self.content.installed.iter().find(same).map(|i| i.sequence)
    }

    /// Tool starts in `slot` since `since` (unix milliseconds); those of unknown time count.
    #[must_use]
    pub fn flashes_since(&self, slot: &Slot, since: u64) -> u32 {
        let recent = |e: &&Ended| &e.slot == slot && e.at.is_none_or(|at| at >= since);
        self.content.ended.iter().filter(recent).map(|e| e.flashed).sum()
    }

    /// Keeps how an operation ended and, after a success, the sequence it installed.
    pub fn add(&mut self, ended: Ended, installed: Option<Installed>) -> io::Result<()> {
        let content = &mut self.content;
        content.ended.retain(|e| e.operation != ended.operation);
        content.ended.push(ended);
        let surplus = content.ended.len().saturating_sub(KEPT);
        content.ended.drain(..surplus);
        if let Some(new) = installed {
            match content
                .installed
                .iter_mut()
                .find(|i| i.vendor == new.vendor && i.model == new.model)
            {
                // After a signed rollback the lower one counts from there on.
                Some(old) => old.sequence = new.sequence,
                None => content.installed.push(new),
            }
        }
        let bytes = serde_json::to_vec(&OnDisk::V1(content.clone()))?;
        files::write_atomic(&self.path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(byte: u8, at: Option<u64>) -> Ended {
        Ended {
            operation: OperationId::from_random([byte; 16]),
            slot: Slot::default(),
            stream: StreamId::from_random([byte; 16]),
            attempt: 1,
            outcome: Outcome::Cancelled,
            at,
            flashed: 1,
        }
    }

    #[test]
    fn the_last_ones_are_kept_and_the_sequence_with_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut results = Results::open(directory.path()).unwrap();
        for byte in 0..20 {
            results.add(ended(byte, Some(u64::from(byte))), None).unwrap();
        }
        let installed = Installed { vendor: "Telit".into(), model: "FN990A28".into(), sequence: 7 };
        results.add(ended(20, None), Some(installed)).unwrap();
        let results = Results::open(directory.path()).unwrap();
        assert!(results.of(OperationId::from_random([4; 16])).is_none());
        assert!(results.of(OperationId::from_random([5; 16])).is_some());
        assert_eq!(results.sequence("Telit", "FN990A28"), Some(7));
        assert_eq!(results.sequence("Telit", "FN990A40"), None);
        assert_eq!(results.flashes_since(&Slot::default(), 18), 3);
    }

    #[test]
    fn an_unreadable_file_is_an_error_and_not_an_empty_memory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("results.json"), b"{").unwrap();
        assert!(Results::open(directory.path()).is_err());
    }
}
