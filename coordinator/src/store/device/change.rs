//! What operators decide of a device: whether it is let in, and where it belongs.

use serde_json::{Value, json};
use shared::identity::DeviceState;
use shared::ids::DeviceId;
use uuid::Uuid;

use super::{Device, RIVALS, bump, find_in, sightings::hold};
use crate::store::audit::{Entry, Told, record};
use crate::store::column::parsed;
use crate::store::listing::Scope;
use crate::store::note::Note;
use crate::store::{Rejection, Store, Tx, batch, place};

/// What to set; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceChange {
    pub deactivated: Option<bool>,
    pub group: Option<Option<Uuid>>,
    pub location: Option<Option<Uuid>>,
    pub tags: Option<Vec<String>>,
    /// Beside those that it has then.
    pub add_tags: Vec<String>,
    /// Before others are added.
    pub remove_tags: Vec<String>,
}

/// Tags that a device may have.
pub const TAGS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRefusal {
    #[error("there is no such device")]
    Unknown,
    #[error("there is no such group in the device's organization")]
    UnknownGroup,
    #[error("there is no such location in the device's organization")]
    UnknownLocation,
    #[error("a device has {TAGS} tags at most")]
    TooManyTags,
    #[error("a revoked device cannot be accepted again: it needs a new key")]
    Revoked,
    #[error("it does not wait for an answer")]
    NotPending,
    #[error(
        "its MAC and serial number are those of more than one accepted device: revoke what it replaces, \
         then accept it"
    )]
    SeveralRivals,
}

impl Store {
    /// Lets a pending device in; whatever else came with its hardware is revoked, so that a router
    /// has one key. It takes the place that its predecessor had.
    pub async fn accept_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        let by = self.entry.as_ref().map(|entry| entry.actor.clone());
        self.change_device(scope, id, move |tx, device| {
            match device.state {
                DeviceState::Revoked => return Err(Rejection::Refused(DeviceRefusal::Revoked)),
                DeviceState::Accepted => return Ok(()),
                DeviceState::Pending | DeviceState::Unknown => {}
            }
            let rivals = rivals(tx, device)?;
            let mut accepted = rivals.iter().filter(|(_, state)| state == "accepted");
            let replaced = accepted.next().map(|(rival, _)| *rival);
            if accepted.next().is_some() {
                return Err(Rejection::Refused(DeviceRefusal::SeveralRivals));
            }
            for (rival, state) in rivals {
                revoke(tx, rival)?;
                let told = Told::of(Some(device.organization)).before(json!({ "state": state }));
                let after = json!({ "state": "revoked", "for": device.id, "by": by });
                record(tx, &Entry::system("revoke", rival), Some(told.after(after)))?;
            }
            if let Some(replaced) = replaced {
                inherit(tx, device, replaced)?;
            }
            if takeovers(tx, device)? >= TAKEOVERS {
                hold(tx, device.id, "its hardware was taken over by new keys again and again")?;
            }
            tx.prepare_cached(
                "UPDATE devices SET state = 'accepted', modified = ?2 WHERE id = ?1",
            )?
            .execute((device.id.to_string(), tx.now))?;
            tx.note(Note::Admitted { subject: device.id.0, epoch: device.epoch });
            Ok(())
        })
        .await
    }

    /// Shuts a device out: its tokens end, and its key is worth nothing any more.
    pub async fn revoke_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, |tx, device| Ok(revoke(tx, device.id)?)).await
    }

    /// Turns a waiting device away: its key is worth nothing.
    pub async fn refuse_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, |tx, device| match device.state {
            DeviceState::Pending => Ok(revoke(tx, device.id)?),
            DeviceState::Accepted | DeviceState::Revoked | DeviceState::Unknown => {
                Err(Rejection::Refused(DeviceRefusal::NotPending))
            }
        })
        .await
    }

    /// Somebody has seen to it that the identity is one board's: its jobs go on.
    pub async fn release_device(
        &self,
        scope: Scope,
        id: DeviceId,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, |tx, device| {
            tx.prepare_cached(
                "UPDATE devices SET duplicate_since = NULL, duplicate_reason = NULL,
                     sightings = '{}', modified = ?2 WHERE id = ?1",
            )?
            .execute((device.id.to_string(), tx.now))?;
            Ok(bump(tx, device.id)?)
        })
        .await
    }

    /// A deactivated device keeps its line and gets no jobs.
    pub async fn deactivate_device(
        &self,
        scope: Scope,
        id: DeviceId,
        deactivated: bool,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        let change = DeviceChange { deactivated: Some(deactivated), ..DeviceChange::default() };
        self.alter_device(scope, id, change).await
    }

    /// Sets what operators say of a device.
    pub async fn alter_device(
        &self,
        scope: Scope,
        id: DeviceId,
        change: DeviceChange,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.change_device(scope, id, move |tx, device| change.apply(tx, device)).await
    }

    async fn change_device(
        &self,
        scope: Scope,
        id: DeviceId,
        change: impl FnOnce(&Tx<'_>, &Device) -> Result<(), Rejection<DeviceRefusal>> + Send + 'static,
    ) -> Result<Device, Rejection<DeviceRefusal>> {
        self.write(move |tx| {
            let unknown = Rejection::Refused(DeviceRefusal::Unknown);
            let Some(device) = find_in(tx, &scope, id)? else { return Err(unknown) };
            change(tx, &device)?;
            let changed = find_in(tx, &scope, id)?.ok_or(unknown)?;
            let told = Told::of(Some(device.organization));
            tx.tell(told.before(shown(&device)).after(shown(&changed)));
            Ok(changed)
        })
        .await
    }
}

impl DeviceChange {
    fn apply(self, tx: &Tx<'_>, device: &Device) -> Result<(), Rejection<DeviceRefusal>> {
        let id = device.id.to_string();
        if let Some(deactivated) = self.deactivated {
            tx.prepare_cached("UPDATE devices SET deactivated = ?2 WHERE id = ?1")?
                .execute((&id, deactivated))?;
            if deactivated {
                batch::skip_device(tx, device.id, "the device was deactivated")?;
            }
            bump(tx, device.id)?;
        }
        if let Some(group) = self.group {
            let is_own = is_own(tx, place::Kind::Group, group, device)?;
            is_own.then_some(()).ok_or(Rejection::Refused(DeviceRefusal::UnknownGroup))?;
            tx.prepare_cached("UPDATE devices SET device_group = ?2 WHERE id = ?1")?
                .execute((&id, group.map(|group| group.to_string())))?;
        }
        if let Some(location) = self.location {
            let is_own = is_own(tx, place::Kind::Location, location, device)?;
            is_own.then_some(()).ok_or(Rejection::Refused(DeviceRefusal::UnknownLocation))?;
            tx.prepare_cached("UPDATE devices SET location = ?2 WHERE id = ?1")?
                .execute((&id, location.map(|location| location.to_string())))?;
        }
        if let Some(tags) = self.tags {
            tx.prepare_cached("DELETE FROM device_tags WHERE device = ?1")?.execute([&id])?;
            tag(tx, &id, &tags)?;
        }
        for tag in &self.remove_tags {
            tx.prepare_cached("DELETE FROM device_tags WHERE device = ?1 AND tag = ?2")?
                .execute((&id, tag))?;
        }
        if !self.add_tags.is_empty() {
            tag(tx, &id, &self.add_tags)?;
        }
        tx.prepare_cached("UPDATE devices SET modified = ?2 WHERE id = ?1")?
            .execute((&id, tx.now))?;
        Ok(())
    }
}

fn tag(tx: &Tx<'_>, device: &str, tags: &[String]) -> Result<(), Rejection<DeviceRefusal>> {
    let sql = "INSERT OR IGNORE INTO device_tags (device, tag) VALUES (?1, ?2)";
    let mut insert = tx.prepare_cached(sql)?;
    for tag in tags {
        insert.execute((device, tag))?;
    }
    let sql = "SELECT count(*) FROM device_tags WHERE device = ?1";
    let all: usize = tx.prepare_cached(sql)?.query_row([device], |row| row.get(0))?;
    (all <= TAGS).then_some(()).ok_or(Rejection::Refused(DeviceRefusal::TooManyTags))
}

fn is_own(
    tx: &Tx<'_>,
    kind: place::Kind,
    id: Option<Uuid>,
    device: &Device,
) -> rusqlite::Result<bool> {
    let Some(id) = id else { return Ok(true) };
    let found = place::find(tx, kind, id)?;
    Ok(found.is_some_and(|found| found.organization == device.organization))
}

/// For the log.
pub(in crate::store) fn shown(device: &Device) -> Value {
    json!({
        "id": device.id,
        "name": device.name,
        "board": device.board,
        "mac_address": device.mac,
        "serial": device.serial,
        "public_key": device.public_key,
        "state": device.state,
        "replacement_of": device.replacement_of,
        "deactivated": device.deactivated,
        "duplicate": device.duplicate.as_ref().map(|(_, reason)| reason),
        "group": device.group,
        "location": device.location,
        "tags": device.tags,
    })
}

/// Replacements of the same hardware within [`TAKEOVER_DAYS`] after which a person has to look.
const TAKEOVERS: u32 = 3;
const TAKEOVER_DAYS: u64 = 7;

/// Keys of this device's hardware that gave way to another one lately.
fn takeovers(tx: &Tx<'_>, device: &Device) -> rusqlite::Result<u32> {
    tx.prepare_cached(
        "SELECT count(*) FROM devices
         WHERE organization = ?1 AND id <> ?2 AND state = 'revoked' AND epoch > 1
             AND modified > ?6 AND (mac = ?3 OR serial = ?4 OR id = ?5 OR replacement_of = ?5)
             AND inventory IS NOT NULL",
    )?
    .query_row(
        (
            device.organization.to_string(),
            device.id.to_string(),
            &device.mac,
            &device.serial,
            device.first.map(|id| id.to_string()),
            tx.now.saturating_sub(TAKEOVER_DAYS * 24 * 3600 * 1000),
        ),
        |row| row.get(0),
    )
}

/// The accepted and waiting devices that say to be the same hardware as this one, with their states.
fn rivals(tx: &Tx<'_>, device: &Device) -> rusqlite::Result<Vec<(DeviceId, String)>> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT r.id, r.state FROM devices t JOIN devices r ON {RIVALS}
         WHERE t.id = ?1 AND r.state <> 'revoked'"
    ))?;
    let rivals = statement
        .query_map([device.id.to_string()], |row| Ok((parsed(row, "id")?, row.get("state")?)))?;
    rivals.collect()
}

/// The same router stays where it was, unless somebody has put the new key elsewhere: else it would drop out of what is
/// done to its group.
fn inherit(tx: &Tx<'_>, device: &Device, replaced: DeviceId) -> rusqlite::Result<()> {
    let (id, replaced) = (device.id.to_string(), replaced.to_string());
    tx.prepare_cached(
        "UPDATE devices SET replaced = r.id, device_group = coalesce(devices.device_group, r.device_group),
             location = coalesce(devices.location, r.location),
             deactivated = devices.deactivated OR r.deactivated
         FROM devices r WHERE devices.id = ?1 AND r.id = ?2",
    )?
    .execute((&id, &replaced))?;
    if device.tags.is_empty() {
        let sql = "INSERT INTO device_tags (device, tag) SELECT ?1, tag FROM device_tags WHERE device = ?2";
        tx.prepare_cached(sql)?.execute((&id, &replaced))?;
    }
    Ok(())
}

fn revoke(tx: &Tx<'_>, id: DeviceId) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE devices SET state = 'revoked', epoch = epoch + 1, online = 0, modified = ?2
         WHERE id = ?1 AND state <> 'revoked'",
    )?
    .execute((id.to_string(), tx.now))?;
    batch::skip_device(tx, id, "the device was revoked")?;
    tx.note(Note::DeviceRevoked(id));
    Ok(())
}
