//! A coordinator's data in one file, taken while it runs, and put back.
//!
//! ```text
//! take:    database ─(SQLite's backup API)─▶ copy ─▶ archive.new ─▶ archive      keys and firmware with it
//! restore: archive ─▶ DIR/restore.new ─ checked, new epoch ─▶ swapped in; what was there ─▶ DIR/replaced-…
//! ```
//! In it: the database as of one moment, the own certificate with its key (routers know its pin), the
//! key that tokens are signed with, and the firmware that the database names. Not in it: settings, a
//! certificate of your own, and the secrets of the first start.

pub mod archive;
mod restore;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use shared::hex::Sha256;
use tempfile::NamedTempFile;

pub use restore::{Missing, RestoreError, Restored, Wishes, restore};

use crate::clock::Clock;
use archive::Writer;

pub(crate) const DATABASE: &str = "coordinator.db";
pub(crate) const KEYS: [&str; 3] = ["tls/certificate.pem", "tls/key.pem", "tokens/es256.pkcs8"];
pub(crate) const ARTIFACTS: &str = "artifacts";

/// Firmware may be deleted between the copy of the database and the look at the file.
const TRIES: u32 = 3;
/// For somebody else's lock on the database.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("no server has run in {0} yet: it has no database")]
    NoDatabase(PathBuf),
    #[error("{0} exists: name another file, or replace it with --replace")]
    Exists(PathBuf),
    #[error("cannot read the database")]
    Database(#[from] rusqlite::Error),
    #[error("the database is locked by somebody else")]
    Locked,
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error("firmware {0} is named by the database and not in the data directory")]
    NoFirmware(Sha256),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// What was backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the database.
    pub database: u64,
    /// Firmware files, and their bytes.
    pub files: usize,
    pub firmware: u64,
}

/// Backs the data directory up into `file`, which appears whole or not at all. The server may run:
/// it is not held up. Blocks.
///
/// # Errors
/// See [`BackupError`]; nothing is left behind then.
pub fn take(
    data: &Path,
    file: &Path,
    firmware: bool,
    replace: bool,
    clock: &Clock,
) -> Result<Taken, BackupError> {
    if file.exists() && !replace {
        return Err(BackupError::Exists(file.into()));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let failed = |source| BackupError::Write { path: file.into(), source };
    // Both are private from the first byte on, and gone with this call if it fails.
    let copy = NamedTempFile::new_in(folder).map_err(failed)?;
    let fresh = NamedTempFile::new_in(folder).map_err(failed)?;
    let files = consistent(data, copy.path(), firmware)?;
    let mut writer = Writer::new(io::BufWriter::new(fresh.as_file()), clock.now() / 1000);
    let mut add = |name: &str, from: &Path| {
        let opened = File::open(from).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, content) =
            opened.map_err(|source| BackupError::Read { path: from.into(), source })?;
        writer.add(name, size, content).map_err(failed)?;
        Ok::<_, BackupError>(size)
    };
    let mut taken =
        Taken { database: add(DATABASE, copy.path())?, files: files.len(), firmware: 0 };
    for name in KEYS.iter().filter(|name| data.join(name).exists()) {
        add(name, &data.join(name))?;
    }
    for name in &files {
        taken.firmware += add(name, &data.join(name))?;
    }
    writer.finish().map_err(failed)?;
    fresh.as_file().sync_all().map_err(failed)?;
    fresh.persist(file).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(taken)
}

/// Copies the database, and answers with the names of the firmware files it speaks of, all there.
fn consistent(data: &Path, copy: &Path, firmware: bool) -> Result<Vec<String>, BackupError> {
    let mut lost = None;
    for _ in 0..TRIES {
        let used = copy_database(data, copy)?;
        if !firmware {
            return Ok(Vec::new());
        }
        lost = used.iter().find(|sha256| !data.join(name_of(**sha256)).is_file()).copied();
        if lost.is_none() {
            return Ok(used.into_iter().map(name_of).collect());
        }
    }
    lost.map_or(Ok(Vec::new()), |sha256| Err(BackupError::NoFirmware(sha256)))
}

/// Where a firmware file lies in the data directory, and what it is called in an archive.
pub(crate) fn name_of(sha256: Sha256) -> String {
    let name = sha256.to_string();
    format!("{ARTIFACTS}/{}/{name}", &name[..2])
}

/// A checked copy in one file, as of one moment; the firmware that it names.
fn copy_database(data: &Path, copy: &Path) -> Result<Vec<Sha256>, BackupError> {
    let path = data.join(DATABASE);
    if !path.is_file() {
        return Err(BackupError::NoDatabase(data.into()));
    }
    // Writing is for the index of the write-ahead log, where no server has made one.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(path, flags)?;
    from.busy_timeout(PATIENCE)?;
    let mut to = Connection::open(copy)?;
    // All at once is one reader's snapshot; in steps it would begin anew with every commit.
    match Backup::new(&from, &mut to)?.step(-1)? {
        StepResult::Done => {}
        _ => return Err(BackupError::Locked),
    }
    // The copy came with the log's mode, and is to be one file.
    to.pragma_update(None, "journal_mode", "delete")?;
    check(&to)?.map_or(Ok(()), |damage| Err(BackupError::Damaged(damage)))?;
    let used = used_files(&to)?;
    to.close().map_err(|(_, error)| error)?;
    Ok(used)
}

/// What is wrong with a database, if anything is.
fn check(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Ok(Some(found));
    }
    let mut broken = conn.prepare("PRAGMA foreign_key_check")?;
    let table = broken.query_map([], |row| row.get::<_, String>(0))?.next().transpose()?;
    Ok(table.map(|table| format!("{table} refers to what is not there")))
}

fn used_files(conn: &Connection) -> rusqlite::Result<Vec<Sha256>> {
    let mut statement = conn.prepare("SELECT DISTINCT sha256 FROM images ORDER BY sha256")?;
    let used = statement.query_map([], |row| crate::store::column::parsed(row, "sha256"))?;
    used.collect()
}

/// The directory's entries are durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// As `create_dir_all`, for the owner alone.
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests;
