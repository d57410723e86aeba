//! The last results of a device, so that a job it knows has its result sent again and never runs
//! again.

use crate::files;
use serde::{Deserialize, Serialize};
use shared::{
    event::Outcome,
    ids::{OperationId, Slot, StreamId},
    manifest::is_same_vendor,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// How many results are kept.
const KEPT: usize = 16;
/// How many starts of a tool are remembered: more than any cap on them allows.
const FLASHES: usize = 256;
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
}

/// One start of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Flash {
    slot: Slot,
    /// Of the modem, whatever its slot is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imei: Option<String>,
    /// Unix milliseconds; of unknown time if nobody had proved the clock.
    at: Option<u64>,
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
    version: Version,
    ended: Vec<Ended>,
    installed: Vec<Installed>,
    #[serde(default)]
    flashes: Vec<Flash>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "1")]
    V1,
}

/// The results on disk.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    content: Content,
    /// Why nothing new may be started: what is remembered is not certain.
    trouble: Option<String>,
}

impl Results {
    /// Reads `results.json` in `directory`.
    ///
    /// One that is there and cannot be read is left alone: [`Self::trouble`] says so, and nothing
    /// new may be started, for a finished job could run again. What is under way goes on.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let path = directory.join("results.json");
        match read(&path) {
            Ok(content) => Self { path, content, trouble: None },
            Err(error) => {
                let trouble = Some(format!("{}: {error}", path.display()));
                Self { path, content: Content::default(), trouble }
            }
        }
    }

    /// Why nothing new may be started, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
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
        let same = |i: &&Installed| is_same_vendor(&i.vendor, vendor) && i.model == model;
        self.content.installed.iter().filter(same).map(|i| i.sequence).max()
    }

    /// The highest sequence installed for a model in any slot, also in one that the settings do not name any
    /// more: `state_dir` is the one above all slots'.
    #[must_use]
    pub fn sequence_anywhere(state_dir: &Path, vendor: &str, model: &str) -> Option<u64> {
        everywhere(state_dir).filter_map(|results| results.sequence(vendor, model)).max()
    }

    /// Why what any slot's file remembers is not certain, also that of one which the settings do not name any more.
    #[must_use]
    pub fn trouble_anywhere(state_dir: &Path) -> Option<String> {
        everywhere(state_dir).find_map(|results| results.trouble)
    }

    /// Tool starts of the modem since `since` (unix milliseconds), whatever its slot was called then; where its IMEI
    /// is not known, those in `slot`.
    #[must_use]
    pub fn flashes_anywhere(state_dir: &Path, slot: &Slot, imei: Option<&str>, since: u64) -> u32 {
        let counts = everywhere(state_dir).map(|results| results.flashes_since(slot, imei, since));
        counts.fold(0, u32::saturating_add)
    }

    /// As [`Results::flashes_anywhere`], by this file alone. Those of unknown time count, unless a later one is known
    /// to lie before it.
    #[must_use]
    pub fn flashes_since(&self, slot: &Slot, imei: Option<&str>, since: u64) -> u32 {
        let is_ours = |flash: &Flash| match (flash.imei.as_deref(), imei) {
            (Some(flashed), Some(imei)) => flashed == imei,
            _ => flash.slot == *slot,
        };
        let flashes = &self.content.flashes;
        let before = |f: &Flash| f.at.is_some_and(|at| at < since);
        let old = flashes.iter().rposition(before).map_or(0, |last| last + 1);
        let recent = |(index, f): &(usize, &Flash)| {
            is_ours(f) && f.at.map_or(*index >= old, |at| at >= since)
        };
        let count = flashes.iter().enumerate().filter(recent).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Counts a start of the tool, before it is started.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flash(&mut self, slot: &Slot, imei: Option<&str>, at: Option<u64>) -> io::Result<()> {
        crate::failpoint::at!("results.flash");
        let imei = imei.map(str::to_owned);
        self.content.flashes.push(Flash { slot: slot.clone(), imei, at });
        let surplus = self.content.flashes.len().saturating_sub(FLASHES);
        self.content.flashes.drain(..surplus);
        self.write()
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
                .find(|i| is_same_vendor(&i.vendor, &new.vendor) && i.model == new.model)
            {
                // A signed rollback does not lower it: a lower one needs leave each time.
                Some(old) => old.sequence = old.sequence.max(new.sequence),
                None => content.installed.push(new),
            }
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        // What could not be read is not overwritten with less.
        if let Some(trouble) = &self.trouble {
            return Err(io::Error::other(trouble.clone()));
        }
        let bytes = serde_json::to_vec(&self.content)?;
        files::write_atomic(&self.path, &bytes)
    }
}

/// The results of every slot that has or had any.
fn everywhere(state_dir: &Path) -> impl Iterator<Item = Results> {
    let slots = std::fs::read_dir(state_dir).into_iter().flatten().flatten();
    slots.map(|entry| entry.path()).filter(|path| path.is_dir()).map(|slot| Results::open(&slot))
}

fn read(path: &Path) -> io::Result<Content> {
    match files::read_limited(path, LIMIT) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
        Err(error) => Err(error),
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
        }
    }

    #[test]
    fn the_last_ones_are_kept_and_the_sequence_with_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut results = Results::open(directory.path());
        for byte in 0..20 {
            results.flash(&Slot::default(), None, Some(u64::from(byte))).unwrap();
            results.add(ended(byte, Some(u64::from(byte))), None).unwrap();
        }
        let installed = Installed { vendor: "Telit".into(), model: "FN990A28".into(), sequence: 7 };
        results.add(ended(20, None), Some(installed)).unwrap();
        results.flash(&Slot::default(), None, None).unwrap();
        let results = Results::open(directory.path());
        assert!(results.of(OperationId::from_random([4; 16])).is_none());
        assert!(results.of(OperationId::from_random([5; 16])).is_some());
        assert_eq!(results.sequence("Telit", "FN990A28"), Some(7));
        assert_eq!(results.sequence("Telit", "FN990A40"), None);
        assert_eq!(results.flashes_since(&Slot::default(), None, 18), 3);
    }

    #[test]
    fn a_flash_of_unknown_time_is_no_younger_than_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut results = Results::open(directory.path());
        for at in [None, Some(10), None, Some(30)] {
            results.flash(&Slot::default(), None, at).unwrap();
        }
        let since = |since| results.flashes_since(&Slot::default(), None, since);
        assert_eq!((since(0), since(20), since(31)), (4, 2, 0));
    }

    #[test]
    fn what_was_installed_in_one_slot_counts_in_all() {
        let state = tempfile::tempdir().unwrap();
        for (slot, sequence) in [("left", 3), ("gone", 7), ("right", 5)] {
            let directory = state.path().join(slot);
            std::fs::create_dir(&directory).unwrap();
            let installed =
                Installed { vendor: "Telit".into(), model: "FN990A28".into(), sequence };
            Results::open(&directory).add(ended(1, None), Some(installed)).unwrap();
        }
        let highest = |model| Results::sequence_anywhere(state.path(), "Telit", model);
        assert_eq!((highest("FN990A28"), highest("FN990A40")), (Some(7), None));
    }

    #[test]
    fn a_modems_flashes_are_counted_whatever_its_slot_is_called() {
        let state = tempfile::tempdir().unwrap();
        let open = |slot: &str| {
            std::fs::create_dir_all(state.path().join(slot)).unwrap();
            Results::open(&state.path().join(slot))
        };
        let [old, new] = ["old", "new"].map(|name| name.parse::<Slot>().unwrap());
        let (ours, other) = (Some("351234560000014"), Some("351234560000022"));
        open("old").flash(&old, ours, Some(20)).unwrap();
        open("old").flash(&old, other, Some(21)).unwrap();
        open("new").flash(&new, ours, Some(22)).unwrap();
        let count = |slot, imei| Results::flashes_anywhere(state.path(), slot, imei, 10);
        assert_eq!((count(&new, ours), count(&new, other), count(&new, None)), (2, 1, 1));
        assert_eq!(Results::trouble_anywhere(state.path()), None);
        std::fs::write(state.path().join("old/results.json"), "{").unwrap();
        assert!(Results::trouble_anywhere(state.path()).unwrap().contains("old/results.json"));
    }

    #[test]
    fn a_makers_later_name_is_the_same_maker() {
        for (first, later) in [("Telit", "Telit Cinterion"), ("Telit Cinterion", "Telit")] {
            let state = tempfile::tempdir().unwrap();
            std::fs::create_dir(state.path().join("main")).unwrap();
            let mut results = Results::open(&state.path().join("main"));
            let installed = |vendor: &str, sequence| {
                Some(Installed { vendor: vendor.into(), model: "FN990A28".into(), sequence })
            };
            let highest = |vendor| Results::sequence_anywhere(state.path(), vendor, "FN990A28");
            results.add(ended(1, None), installed(first, 9)).unwrap();
            assert_eq!((highest(first), highest(later)), (Some(9), Some(9)));
            results.add(ended(2, None), installed(later, 4)).unwrap();
            assert_eq!((highest(first), highest(later)), (Some(9), Some(9)));
            assert_eq!(highest("Quectel"), None);
        }
    }

    #[test]
    fn an_unreadable_file_is_kept_and_nothing_new_may_start() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("results.json"), b"{").unwrap();
        let mut results = Results::open(directory.path());
        assert!(results.trouble().is_some());
        assert!(results.add(ended(1, None), None).is_err());
        assert_eq!(std::fs::read(directory.path().join("results.json")).unwrap(), b"{");
    }
}
