//! The state on disk, across crashes and power cuts.
//!
//! One file of two slots, both written in full when the file is made, so that a late save does not
//! meet a full disk. A save goes to the slot that does not hold the newest state and is synced
//! before it counts; a cut in the middle of it leaves the other slot. What a process found it writes once more
//! before it touches the other slot: whoever saved it may have died before it was on the disk.
//!
//! ```text
//! slot = "MUJRNL01" ‖ length u32 ‖ generation u64 ‖ SHA-256(generation ‖ body) ‖ body (JSON) ‖ zeros
//! ```
//!
//! Nothing readable in a file that holds something is corruption: the file is set aside, and a
//! person has to say "go on", for attempts must not start over at 0. A newer version's journal is
//! left alone.
//!
//! A disk that has become read-only, as many do after a power cut, hides nothing: what it holds is gone on
//! with, and only the saves fail. A slot that the disk refuses to read, again and again, is like a broken
//! one, if the other says that the modem was touched: what is looked at then is the modem. Beside any other
//! state it may hold the one that counts.

use crate::{files, upgrade::state::State};
use serde::{Deserialize, Serialize};
use shared::{hex::Hasher, ids};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"MUJRNL01";
const HEADER: usize = 8 + 4 + 8 + 32;
/// Bytes of a slot: a state with a job of the largest size the coordinator may send is refused
/// rather than saved.
const SLOT: usize = 32 * 1024;

/// What stands in a slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct OnDisk {
    version: Version,
    boot_id: String,
    state: State,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "1")]
    V1,
}

impl OnDisk {
    fn new(boot_id: &str, state: &State) -> Self {
        Self { version: Version::V1, boot_id: boot_id.to_owned(), state: state.clone() }
    }
}

/// What a journal held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    Empty,
    State { state: Box<State>, same_boot: bool },
}

/// What is done about a slot that the disk refuses to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It may hold the newest state: nothing is opened, and the disk asked again later.
    Whole,
    /// It has been asked often enough. The other slot is gone on with if it says that the modem was
    /// touched.
    Half,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal {path} cannot be read or written")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the journal was unreadable and is kept as {aside}; run `modem-upgrader-agent recover`"
    )]
    Corrupt { aside: PathBuf },
    #[error("the journal {path} was written by a newer version; upgrade this agent")]
    Newer { path: PathBuf },
}

/// An open journal of one slot of the device.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` while the disk gives it for reading only.
    file: Option<File>,
    boot_id: String,
    generation: u64,
    /// What was found and may be in memory only: the newest slot, as far as it is not empty.
    found: Option<Vec<u8>>,
}

/// One slot of the file as found.
enum Slot {
    Blank,
    Valid { generation: u64, on_disk: Box<OnDisk>, bytes: Vec<u8> },
    Newer { generation: u64 },
    Broken,
}

impl Journal {
    /// Opens or makes the journal. Blocking; the file is 64 KiB.
    pub fn open(
        path: &Path,
        boot_id: &str,
        reading: Reading,
    ) -> Result<(Self, Loaded), JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let (file, slots) = open(path, reading).map_err(io)?;
        let (path, boot_id) = (path.to_owned(), boot_id.to_owned());
        let mut journal = Self { path, file, boot_id, generation: 0, found: None };
        let loaded = match newest(slots) {
            Slot::Blank => Loaded::Empty,
            Slot::Valid { generation, on_disk, bytes } => {
                let OnDisk { boot_id, state, .. } = *on_disk;
                journal.generation = generation;
                journal.found = Some(bytes);
                let same_boot = boot_id == journal.boot_id;
                Loaded::State { state: Box::new(state), same_boot }
            }
            Slot::Newer { .. } => return Err(JournalError::Newer { path: journal.path }),
            Slot::Broken => return Err(set_aside(&journal.path).map_err(io)?),
        };
        Ok((journal, loaded))
    }

    /// Makes `state` what a fresh process starts from. Blocking, with an fsync.
    pub fn save(&mut self, state: &State) -> io::Result<()> {
        let body = serde_json::to_vec(&OnDisk::new(&self.boot_id, state))?;
        let generation = self.generation + 1;
        let bytes = encode(generation, &body)?;
        crate::failpoint::at!("journal.save.before");
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options().read(true).write(true).open(&self.path)?,
        };
        let file = self.file.insert(file);
        if let Some(found) = &self.found {
            file.write_all_at(found, offset(self.generation))?;
            file.sync_data()?;
            self.found = None;
        }
        file.write_all_at(&bytes, offset(generation))?;
        crate::failpoint::at!("journal.save.written");
        file.sync_data()?;
        crate::failpoint::at!("journal.save.durable");
        self.generation = generation;
        Ok(())
    }
}

/// The state in a journal's file of this `content`; `None` where there is none that this version
/// understands. Pure: what the fuzzer asks.
#[must_use]
pub fn understand(content: &[u8]) -> Option<State> {
    let mut slots = content.chunks(SLOT).map(judge);
    let first = slots.next().unwrap_or(Slot::Broken);
    match newest([first, slots.next().unwrap_or(Slot::Broken)]) {
        Slot::Valid { on_disk, .. } => Some(on_disk.state),
        Slot::Blank | Slot::Newer { .. } | Slot::Broken => None,
    }
}

/// What a look at a journal finds that changes nothing, for commands beside the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Nothing,
    State {
        state: Box<State>,
        /// The boot in which it was saved.
        boot_id: String,
    },
    /// Corrupt, or of a newer version.
    Unreadable,
}

/// Looks at the journal at `path`.
///
/// # Errors
/// It is there and cannot be read.
pub fn peek(path: &Path) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    Ok(match newest(slots(&file, Reading::Half)?) {
        Slot::Blank => Found::Nothing,
        Slot::Valid { on_disk, .. } => {
            let OnDisk { boot_id, state, .. } = *on_disk;
            Found::State { state: Box::new(state), boot_id }
        }
        Slot::Newer { .. } | Slot::Broken => Found::Unreadable,
    })
}

/// Where the journal of `slot` lies.
#[must_use]
pub fn path(state_dir: &Path, slot: &ids::Slot) -> PathBuf {
    state_dir.join(slot.as_str()).join("journal")
}

/// Every journal below `state_dir`, also of slots that no settings name any more: where it is, and its
/// slot. With those that lie unreadable beside their place.
///
/// # Errors
/// The directory is there and cannot be read.
pub fn all(state_dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let entries = match std::fs::read_dir(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let directory = entry?.path();
        let journal = directory.join("journal");
        let slot = directory.file_name().and_then(|name| name.to_str());
        if let Some(slot) = slot.filter(|_| journal.exists() || aside(&journal).exists()) {
            found.push((journal, slot.to_owned()));
        }
    }
    Ok(found)
}

/// Whether the journal of a slot lies unreadable beside a fresh one.
#[must_use]
pub fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".corrupt");
    PathBuf::from(name)
}

fn set_aside(path: &Path) -> io::Result<JournalError> {
    let aside = aside(path);
    std::fs::rename(path, &aside)?;
    if let Some(directory) = path.parent() {
        files::sync_dir(directory)?;
    }
    Ok(JournalError::Corrupt { aside })
}

fn open(path: &Path, reading: Reading) -> io::Result<(Option<File>, [Slot; 2])> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => {
            let slots = slots(&file, reading)?;
            // Whoever made it may have died before its name was durable. A disk that refuses this is
            // met again by the next save; what can be read is worth going on with.
            if let Some(directory) = path.parent()
                && let Err(error) = files::durable_dir(directory)
            {
                log::warn!("{}: {error}", directory.display());
            }
            Ok((Some(file), slots))
        }
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            let slots = slots(&File::open(path)?, reading)?;
            log::error!("{}: {error}: what it says is gone on with in memory", path.display());
            Ok((None, slots))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                files::durable_dir(directory)?;
            }
            files::write_atomic(path, &[0; 2 * SLOT])?;
            crate::failpoint::at!("journal.made");
            let file = File::options().read(true).write(true).open(path)?;
            Ok((Some(file), [Slot::Blank, Slot::Blank]))
        }
        Err(error) => Err(error),
    }
}

fn offset(generation: u64) -> u64 {
    generation % 2 * SLOT as u64
}

fn encode(generation: u64, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    if HEADER + body.len() > SLOT {
        return Err(io::Error::other(format!("a state of {length} bytes does not fit")));
    }
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes.extend_from_slice(&digest(generation, body));
    bytes.extend_from_slice(body);
    Ok(bytes)
}

fn digest(generation: u64, body: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(&generation.to_be_bytes());
    hasher.update(body);
    hasher.finish().0
}

fn slots(file: &File, reading: Reading) -> io::Result<[Slot; 2]> {
    readable([read(file, 0), read(file, 1)], reading)
}

/// Both slots, one of which the disk may refuse to read if the other is enough.
fn readable(slots: [io::Result<Slot>; 2], reading: Reading) -> io::Result<[Slot; 2]> {
    let enough =
        |slot: &Slot| matches!(slot, Slot::Valid { on_disk, .. } if on_disk.state.has_touched());
    match slots {
        [Ok(a), Ok(b)] => Ok([a, b]),
        [Ok(slot), Err(error)] | [Err(error), Ok(slot)]
            if reading == Reading::Half && enough(&slot) =>
        {
            log::error!(
                "one half of the journal cannot be read ({error}); the other is gone on with"
            );
            Ok([slot, Slot::Broken])
        }
        [Err(error), _] | [_, Err(error)] => Err(error),
    }
}

fn read(file: &File, index: u64) -> io::Result<Slot> {
    let mut bytes = vec![0; SLOT];
    let mut filled = 0;
    while filled < SLOT {
        match file.read_at(&mut bytes[filled..], index * SLOT as u64 + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(judge(&bytes[..filled]))
}

fn judge(bytes: &[u8]) -> Slot {
    // A file that ends early was cut, whatever the rest says.
    if bytes.iter().all(|b| *b == 0) {
        return if bytes.len() == SLOT { Slot::Blank } else { Slot::Broken };
    }
    decode(bytes).unwrap_or(Slot::Broken)
}

fn decode(bytes: &[u8]) -> Option<Slot> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<32>()?;
    let body = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let generation = u64::from_be_bytes(*generation);
    if magic != MAGIC || *sum != digest(generation, body) {
        return None;
    }
    // The digest holds, so what cannot be understood was written by somebody else than us.
    Some(match serde_json::from_slice(body) {
        Ok(on_disk) => {
            let bytes = bytes[..HEADER + body.len()].to_vec();
            Slot::Valid { generation, on_disk: Box::new(on_disk), bytes }
        }
        Err(_) => Slot::Newer { generation },
    })
}

/// The slot that counts. One broken slot beside a valid one is a save that a cut interrupted,
/// before anything was done about it.
fn newest([a, b]: [Slot; 2]) -> Slot {
    let generation = |slot: &Slot| match slot {
        Slot::Valid { generation, .. } | Slot::Newer { generation } => Some(*generation),
        Slot::Blank | Slot::Broken => None,
    };
    match (generation(&a), generation(&b)) {
        (Some(x), Some(y)) if x < y => b,
        (Some(_), _) => a,
        (None, Some(_)) => b,
        // The very first save was interrupted: nothing had happened yet.
        (None, None) if matches!(a, Slot::Blank) || matches!(b, Slot::Blank) => Slot::Blank,
        (None, None) => Slot::Broken,
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
