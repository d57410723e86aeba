//! Putting a backup back: everything is unpacked and checked beside the present data first, and only
//! then swapped in. What was there is kept.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use shared::hex::Sha256;

use super::archive::{ArchiveError, Reader};
use super::{ARTIFACTS, DATABASE, KEYS, check, make_private, name_of, sync, used_files};
use crate::clock::Clock;
use crate::serve::{self, StartError};
use crate::store::{Store, StoreError};

/// Where a restore unpacks, in the data directory.
const FRESH: &str = "restore.new";
/// Top-level names that are swapped, in this order; the last ones only go away.
const SWAPPED: [&str; 4] = [ARTIFACTS, "tls", "tokens", DATABASE];
const GONE: [&str; 3] = ["coordinator.db-wal", "coordinator.db-shm", "first-start"];
/// A sane bound on the database: the archive says how long it is, and the disk is finite.
const LARGEST_KEY: u64 = 256 * 1024;

/// Why nothing was restored. Before the swap the data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0} has a database: --replace moves it aside, or name another data directory")]
    Exists(PathBuf),
    #[error("the backup {path}")]
    Archive { path: PathBuf, source: ArchiveError },
    #[error("the backup {path} has no database")]
    NoDatabase { path: PathBuf },
    #[error("the backup's database is damaged: {0}")]
    Damaged(String),
    #[error("the backup's database")]
    Database(#[from] rusqlite::Error),
    #[error("the backup's database")]
    Store(#[from] StoreError),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// What an operator says to a restore.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// What is in the data directory may go aside.
    pub replace: bool,
    /// Operations that no device has begun are cancelled.
    pub cancel_waiting: bool,
}

/// Firmware that the database names and nobody has.
pub type Missing = Vec<Sha256>;

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub missing: Missing,
    /// Operations that wait for their devices, after the restore as before the backup.
    pub waiting: u64,
    pub cancelled: u64,
    /// Batches that were under way.
    pub paused: usize,
    /// Where the data from before are, if there were any.
    pub replaced: Option<PathBuf>,
}

/// Puts the backup in `file` in the place of what is in `data`. The server must not run. Blocks.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    file: &Path,
    data: &Path,
    wishes: Wishes,
    clock: &Clock,
) -> Result<Restored, RestoreError> {
    let _lock = serve::lock(data)?;
    let interrupted = data.join(serve::RESTORING).exists();
    if data.join(DATABASE).exists() && !wishes.replace && !interrupted {
        return Err(RestoreError::Exists(data.into()));
    }
    let fresh = data.join(FRESH);
    let done = prepare(file, data, &fresh, wishes, clock)
        .and_then(|restored| Ok(Restored { replaced: swap(data, &fresh, clock)?, ..restored }));
    if done.is_err() && fresh.exists() {
        // The next attempt removes it as well.
        let _ = fs::remove_dir_all(&fresh);
    }
    done
}

/// A whole data directory in `fresh`, checked, with an epoch of its own.
fn prepare(
    file: &Path,
    data: &Path,
    fresh: &Path,
    wishes: Wishes,
    clock: &Clock,
) -> Result<Restored, RestoreError> {
    let failed = |source| RestoreError::Write { path: fresh.into(), source };
    match fs::remove_dir_all(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => make_private(&fresh.join(ARTIFACTS)).map_err(failed)?,
    }
    let opened = |source| RestoreError::Archive { path: file.into(), source };
    unpack(file, fresh).map_err(opened)?;
    let database = fresh.join(DATABASE);
    if !database.is_file() {
        return Err(RestoreError::NoDatabase { path: file.into() });
    }
    let conn = Connection::open(&database)?;
    check(&conn)?.map_or(Ok(()), |damage| Err(RestoreError::Damaged(damage)))?;
    conn.close().map_err(|(_, error)| error)?;
    let begun = begin_anew(&database, wishes, clock)?;
    let conn = Connection::open(&database)?;
    conn.pragma_update(None, "journal_mode", "delete")?;
    let used = used_files(&conn)?;
    conn.close().map_err(|(_, error)| error)?;
    let missing = keep_present(&used, data, fresh).map_err(failed)?;
    sync_all(fresh).map_err(failed)?;
    Ok(Restored { missing, ..begun })
}

fn unpack(file: &Path, fresh: &Path) -> Result<(), ArchiveError> {
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, File::open(file)?));
    while let Some(entry) = reader.entry()? {
        if !is_ours(&entry.name) || (KEYS.contains(&&*entry.name) && entry.size > LARGEST_KEY) {
            return Err(ArchiveError::Foreign("it has files in it that no backup has"));
        }
        let path = fresh.join(&entry.name);
        path.parent().map_or(Ok(()), make_private)?;
        let mut out = open_private(&path)?;
        reader.copy(&entry, &mut out)?;
        out.sync_all()?;
    }
    Ok(())
}

/// Exactly the names that a backup has: nothing else leads anywhere.
fn is_ours(name: &str) -> bool {
    let firmware = || {
        let sha256 = name.rsplit_once('/').and_then(|(_, last)| last.parse::<Sha256>().ok());
        sha256.is_some_and(|sha256| name_of(sha256) == name)
    };
    name == DATABASE || KEYS.contains(&name) || firmware()
}

fn open_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Brings the database up to this program, as somebody who has forgotten what came after it.
fn begin_anew(database: &Path, wishes: Wishes, clock: &Clock) -> Result<Restored, RestoreError> {
    let store = Store::open(database, clock.clone())?;
    // One thread is enough for two verbs, and a restore has no runtime of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| StoreError::Open(error.to_string()))?;
    let begun = runtime.block_on(async {
        let paused = store.begin_anew().await?;
        let cancelled = match wishes.cancel_waiting {
            true => store.cancel_waiting("restore").await?,
            false => 0,
        };
        let waiting = store.waiting().await?;
        let (missing, replaced) = (Missing::new(), None);
        Ok::<_, StoreError>(Restored { missing, waiting, cancelled, paused, replaced })
    });
    store.stop();
    Ok(begun?)
}

/// Links firmware that the backup lacks and the present data has; answers with what neither has.
fn keep_present(used: &[Sha256], data: &Path, fresh: &Path) -> io::Result<Missing> {
    let mut missing = Vec::new();
    for sha256 in used {
        let (present, wanted) = (data.join(name_of(*sha256)), fresh.join(name_of(*sha256)));
        if wanted.exists() {
            continue;
        }
        wanted.parent().map_or(Ok(()), make_private)?;
        match fs::hard_link(&present, &wanted) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(*sha256),
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Every directory below, and this one.
fn sync_all(folder: &Path) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        sync(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                _ => File::open(entry.path())?.sync_all()?,
            }
        }
    }
    Ok(())
}

/// While the mark is there no server starts: a restore that was cut short is made again.
fn swap(data: &Path, fresh: &Path, clock: &Clock) -> Result<Option<PathBuf>, RestoreError> {
    let aside = data.join(format!("replaced-{}", clock.now()));
    let mark = data.join(serve::RESTORING);
    let swapped = || -> io::Result<bool> {
        match open_private(&mark) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync(data)?,
        }
        let comes = |name: &&str| fresh.join(name).exists();
        let goes: BTreeSet<&str> = SWAPPED.into_iter().filter(comes).chain(GONE).collect();
        for name in goes.iter().filter(|name| data.join(name).exists()) {
            make_private(&aside)?;
            fs::rename(data.join(name), aside.join(name))?;
        }
        for name in SWAPPED.iter().filter(|name| comes(name)) {
            fs::rename(fresh.join(name), data.join(name))?;
        }
        fs::remove_dir_all(fresh)?;
        sync(data)?;
        if aside.exists() {
            sync(&aside)?;
        }
        fs::remove_file(&mark)?;
        sync(data)?;
        Ok(aside.exists())
    };
    let kept = swapped().map_err(|source| RestoreError::Write { path: data.into(), source })?;
    Ok(kept.then_some(aside))
}
