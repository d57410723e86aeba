//! What shows of a device by itself: whether it is there, and whether it is one board alone.

use rusqlite::OptionalExtension;
use shared::ids::{DeviceId, SessionId};

use super::{bump, change::shown, find_in, standing};
use crate::duplicate::{self, Sightings, Verdict};
use crate::store::audit::{self, Entry, Told};
use crate::store::column::{self, parsed, to_json};
use crate::store::listing::Scope;
use crate::store::note::Note;
use crate::store::{Never, Priority, Store, StoreError, Tx};

/// Devices that are taken offline at a time.
const PIECE: usize = 200;

impl Store {
    /// After a start nobody is connected yet.
    pub async fn forget_presence(&self) -> Result<(), StoreError> {
        let forgotten = self.write::<_, Never, _>(|tx| {
            tx.execute("UPDATE devices SET online = 0, session = NULL WHERE online", [])?;
            Ok(())
        });
        Ok(forgotten.await?)
    }

    /// Has those that are said to be online and have no line be offline: the word of a line's end may be lost.
    /// `has_line` is asked again in the transaction, so that whoever comes meanwhile is not said to be gone.
    pub async fn take_offline(
        &self,
        has_line: impl Fn(DeviceId) -> bool + Send + 'static,
    ) -> Result<usize, StoreError> {
        let online = self.read(|conn| {
            let mut statement = conn.prepare_cached("SELECT id FROM devices WHERE online")?;
            let ids = statement.query_map([], |row| parsed(row, "id"))?;
            Ok(ids.collect::<rusqlite::Result<Vec<DeviceId>>>()?)
        });
        let mut gone = online.await?;
        gone.retain(|device| !has_line(*device));
        gone.truncate(PIECE);
        if gone.is_empty() {
            return Ok(0);
        }
        let written = self.write_at::<_, Never, _>(Priority::Bulk, move |tx| {
            let mut offline = 0;
            for device in gone.into_iter().filter(|device| !has_line(*device)) {
                let changed = tx
                    .prepare_cached("UPDATE devices SET online = 0 WHERE id = ?1 AND online")?
                    .execute([device.to_string()])?;
                offline += changed;
                if changed > 0
                    && let Some(standing) = standing(tx, device)?
                {
                    let organization = standing.organization;
                    tx.note(Note::Presence { organization, device, online: false });
                }
            }
            Ok(offline)
        });
        Ok(written.await?)
    }
}

/// Takes note of what a device says of itself; holds its jobs where that shows two boards.
pub(in crate::store) fn see(
    tx: &Tx<'_>,
    id: DeviceId,
    traits: &[(duplicate::Trait, &str)],
) -> rusqlite::Result<()> {
    let found: Option<Sightings> = tx
        .prepare_cached("SELECT sightings FROM devices WHERE id = ?1")?
        .query_row([id.to_string()], |row| column::json(row, "sightings"))
        .optional()?;
    let Some(mut sightings) = found else { return Ok(()) };
    let verdicts: Vec<_> =
        traits.iter().map(|(what, value)| sightings.see(*what, value, tx.now)).collect();
    if verdicts.iter().all(|verdict| *verdict == Verdict::Known) {
        return Ok(());
    }
    tx.prepare_cached("UPDATE devices SET sightings = ?2 WHERE id = ?1")?
        .execute((id.to_string(), to_json(&sightings)?))?;
    for verdict in verdicts {
        if let Verdict::Duplicate(what) = verdict {
            hold(tx, id, what.reason())?;
        }
    }
    Ok(())
}

/// Holds the device's jobs; what was granted goes on.
pub(super) fn hold(tx: &Tx<'_>, id: DeviceId, reason: &str) -> rusqlite::Result<()> {
    let held = tx
        .prepare_cached(
            "UPDATE devices SET duplicate_since = ?2, duplicate_reason = ?3, modified = ?2
             WHERE id = ?1 AND duplicate_since IS NULL",
        )?
        .execute((id.to_string(), tx.now, reason))?;
    if held == 0 {
        return Ok(());
    }
    let entry = Entry {
        detail: Some(format!("duplicate identity: {reason}")),
        ..Entry::system("hold", id)
    };
    let device = find_in(tx, &Scope::Everything, id)?;
    let told = device.map(|device| Told::of(Some(device.organization)).after(shown(&device)));
    audit::record(tx, &entry, told)?;
    bump(tx, id)
}

/// Takes a connection's word for itself; an old session's will says nothing about a newer one.
pub(in crate::store) fn set_presence(
    tx: &Tx<'_>,
    id: DeviceId,
    session: SessionId,
    online: bool,
) -> rusqlite::Result<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE devices SET online = ?3, session = ?2, last_seen = ?4
             WHERE id = ?1 AND (?3 OR session IS ?2)",
        )?
        .execute((id.to_string(), session.to_string(), online, tx.now))?;
    if changed > 0
        && let Some(standing) = standing(tx, id)?
    {
        let organization = standing.organization;
        tx.note(Note::Presence { organization, device: id, online });
    }
    Ok(())
}

/// `last_seen` is late by this at most, in milliseconds. It is in two indexes: written with every
/// milestone, it would double the pages of a commit.
const SEEN_FINE: u64 = 5_000;

/// What was seen before the clock was set back would be later than all that follows.
pub(in crate::store) fn set_seen(tx: &Tx<'_>, id: DeviceId, at: u64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE devices SET last_seen = ?2
         WHERE id = ?1 AND (last_seen IS NULL OR last_seen + ?3 <= ?2 OR last_seen > ?4)",
    )?
    .execute((id.to_string(), at.min(tx.now), SEEN_FINE, tx.now))?;
    Ok(())
}
