//! Milestones and ticks: what devices report, recorded and applied to their operations.

use std::collections::HashMap;

use rusqlite::OptionalExtension;
use shared::ack::{Ack, Verdict};
use shared::event::{Event, EventBody, Outcome, Presence, Tick, VersionLine};
use shared::ids::{DeviceId, ImageId, OperationId, StreamId};
use shared::manifest::Manifest;

use super::column::to_json;
use super::{Never, Priority, Store, StoreError, Tx, device, operation, restored};
use crate::api::throttle::Throttle;
use crate::operation::event::{Refused, apply};
use crate::operation::{Effects, Operation, cancel, tick};

/// A milestone as it came from a device.
#[derive(Debug, Clone)]
pub struct Reported {
    pub device: DeviceId,
    pub operation: OperationId,
    pub stream: StreamId,
    pub seq: u64,
    /// None of this version's, where it was refused already.
    pub event: Result<Event, Refused>,
    /// Its body's JSON, with what this version does not understand; cut where it was refused.
    pub body: String,
}

/// What may be late or lost; only the newest of each kind counts.
#[derive(Debug, Clone)]
pub enum Sign {
    Tick(DeviceId, Tick),
    Presence(DeviceId, Presence),
    /// The device was heard of at this time, in unix milliseconds.
    Seen(DeviceId, u64),
}

/// Milestones kept of an operation: a defect or malice must not fill the disk.
pub const MILESTONES: u32 = 2000;
/// Room beyond that for the ends, which must not be missed.
const ENDS: u32 = 64;

/// Dead letters kept for a device; the oldest go.
const DEAD_LETTERS: u32 = 256;
/// Dead letters of a device that are written down and logged in a minute. Each is work for the writer, which
/// a key that was stolen may not take from everybody else; beyond that they are only refused.
const LETTERS_A_MINUTE: u32 = 60;

/// How many of them each device has had lately.
pub(super) struct Letters(Throttle);

impl Default for Letters {
    fn default() -> Self {
        Self(Throttle::new(LETTERS_A_MINUTE))
    }
}

impl Store {
    /// Records milestones of any devices in one transaction; the acks are in the same order.
    pub async fn record_events(&self, reported: Vec<Reported>) -> Result<Vec<Ack>, StoreError> {
        let letters = self.shared.letters.clone();
        let recorded = self.write::<_, Never, _>(move |tx| {
            let mut recording = Recording { tx, letters: &letters, operations: HashMap::new() };
            let acks = reported.iter().map(|reported| recording.record(reported));
            let acks = acks.collect::<rusqlite::Result<_>>()?;
            recording.save()?;
            Ok(acks)
        });
        Ok(recorded.await?)
    }

    /// Takes signs of life over, after everything that matters more.
    pub async fn record_signs(&self, signs: Vec<Sign>) -> Result<(), StoreError> {
        let recorded = self.write_at::<_, Never, _>(Priority::Low, move |tx| {
            for sign in &signs {
                record_sign(tx, sign)?;
            }
            Ok(())
        });
        Ok(recorded.await?)
    }
}

fn record_sign(tx: &Tx<'_>, sign: &Sign) -> rusqlite::Result<()> {
    match sign {
        Sign::Tick(device, tick) => {
            let found = operation::find(tx, tick.operation)?;
            let Some(mut operation) = found.filter(|found| found.device == *device) else {
                return Ok(());
            };
            let (indexed, ended) =
                (operation::Indexed::of(&operation), operation.status.is_terminal());
            let adopted = !ended && restored::adopt(tx, &mut operation, tick.stream, tick.attempt)?;
            if tick::apply(&mut operation, tick, tx.now) {
                match adopted {
                    true => operation::save(tx, &operation)?,
                    false => operation::save_tick(tx, &indexed, operation)?,
                }
            }
            Ok(())
        }
        Sign::Presence(device, presence) => {
            device::set_presence(tx, *device, presence.session, presence.online)
        }
        Sign::Seen(device, at) => device::set_seen(tx, *device, *at),
    }
}

/// Operations are read once and saved once a transaction, however many milestones are theirs.
struct Recording<'a, 'tx> {
    tx: &'a Tx<'tx>,
    letters: &'a Letters,
    operations: HashMap<OperationId, Option<Loaded>>,
}

struct Loaded {
    operation: Operation,
    milestones: u32,
    changed: bool,
    desired: bool,
    /// An attempt is over, and another one may follow.
    over: bool,
}

impl Recording<'_, '_> {
    fn record(&mut self, reported: &Reported) -> rusqlite::Result<Ack> {
        let Reported { operation, stream, seq, .. } = *reported;
        let tried = match &reported.event {
            Ok(event) => self.try_record(reported, event)?,
            Err(refused) => Err(*refused),
        };
        let verdict = match tried {
            Ok(verdict) => verdict,
            Err(refused) => {
                let has_room = || self.letters.0.take(reported.device.0, self.tx.now).is_ok();
                if refused != Refused::TooMany && has_room() {
                    bury(self.tx, reported, refused)?;
                }
                Verdict::Refused { reason: refused.code().into() }
            }
        };
        Ok(Ack { operation, stream, seq, verdict })
    }

    fn try_record(
        &mut self,
        reported: &Reported,
        event: &Event,
    ) -> rusqlite::Result<Result<Verdict, Refused>> {
        let tx = self.tx;
        let Some(loaded) = self.load(reported.device, event.operation)? else {
            return Ok(Err(Refused::UnknownOperation));
        };
        if is_known(tx, event)? {
            return Ok(Ok(Verdict::Duplicate));
        }
        if loaded.milestones >= most(&event.body) {
            return Ok(Err(Refused::TooMany));
        }
        let reaches = reaches(tx, &loaded.operation, event)?;
        let granted = loaded.operation.is_granted();
        let mut applied = apply(&mut loaded.operation, event, &reaches, tx.now);
        if applied == Err(Refused::NotGranted)
            && restored::adopt(tx, &mut loaded.operation, event.stream, event.attempt)?
        {
            applied = apply(&mut loaded.operation, event, &reaches, tx.now);
        }
        let effects = match applied {
            Ok(effects) => effects,
            Err(refused) => return Ok(Err(refused)),
        };
        loaded.changed = true;
        loaded.milestones += 1;
        loaded.desired |= effects.desired;
        loaded.over |= granted && !loaded.operation.is_granted();
        insert(tx, reported)?;
        prove(tx, &loaded.operation, effects)?;
        Ok(Ok(Verdict::Accepted))
    }

    /// None unless it is the device's own.
    fn load(&mut self, device: DeviceId, id: OperationId) -> rusqlite::Result<Option<&mut Loaded>> {
        let loaded = match self.operations.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let loaded = match operation::find(self.tx, id)? {
                    Some(operation) => {
                        let milestones = count(self.tx, id)?;
                        let (changed, desired, over) = (false, false, false);
                        Some(Loaded { operation, milestones, changed, desired, over })
                    }
                    None => None,
                };
                entry.insert(loaded)
            }
        };
        Ok(loaded.as_mut().filter(|loaded| loaded.operation.device == device))
    }

    fn save(self) -> rusqlite::Result<()> {
        let changed = self.operations.into_values().flatten().filter(|loaded| loaded.changed);
        for mut loaded in changed {
            if loaded.over {
                loaded.desired |= is_left(self.tx, &mut loaded.operation)?;
            }
            operation::save(self.tx, &loaded.operation)?;
            device::set_seen(self.tx, loaded.operation.device, self.tx.now)?;
            if loaded.desired {
                device::bump(self.tx, loaded.operation.device)?;
            }
        }
        Ok(())
    }
}

/// While it was being flashed, the operation of a device that gets no jobs any more had to be left alone. It
/// is not now: one of a batch ends. Answers whether the device's jobs are not what they were.
fn is_left(tx: &Tx<'_>, op: &mut Operation) -> rusqlite::Result<bool> {
    let standing = device::standing(tx, op.device)?;
    if standing.is_some_and(|standing| standing.accepted && !standing.deactivated) {
        return Ok(false);
    }
    if op.batch.is_some() {
        // Refused only where it has ended by itself.
        let _ = cancel::skip(op, "the device gets no jobs any more", tx.now);
    }
    Ok(true)
}

fn most(body: &EventBody) -> u32 {
    if matches!(body, EventBody::Finished { .. }) { MILESTONES + ENDS } else { MILESTONES }
}

fn count(tx: &Tx<'_>, id: OperationId) -> rusqlite::Result<u32> {
    tx.prepare_cached("SELECT count(*) FROM milestones WHERE operation = ?1")?
        .query_row([id.to_string()], |row| row.get(0))
}

fn is_known(tx: &Tx<'_>, event: &Event) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM milestones WHERE operation = ?1 AND stream = ?2 AND seq = ?3")?
        .exists((event.operation.to_string(), event.stream.to_string(), event.seq))
}

fn insert(tx: &Tx<'_>, reported: &Reported) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO milestones (operation, stream, seq, received, body)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((
        reported.operation.to_string(),
        reported.stream.to_string(),
        reported.seq,
        tx.now,
        &reported.body,
    ))?;
    Ok(())
}

/// The versions that a success has to show; nobody asks for them otherwise.
fn reaches(tx: &Tx<'_>, op: &Operation, event: &Event) -> rusqlite::Result<Vec<VersionLine>> {
    let success = matches!(
        &event.body,
        EventBody::Finished {
            outcome: Outcome::Succeeded { .. } | Outcome::AlreadyInstalled { .. }
        }
    );
    let Some(image) = op.image.filter(|_| success) else { return Ok(Vec::new()) };
    reached_by(tx, image)
}

/// The versions that the image's manifest names; none where there is no manifest.
pub(super) fn reached_by(tx: &Tx<'_>, image: ImageId) -> rusqlite::Result<Vec<VersionLine>> {
    Ok(manifest_of(tx, image)?.map_or_else(Vec::new, |manifest| manifest.reaches))
}

pub(super) fn manifest_of(tx: &Tx<'_>, image: ImageId) -> rusqlite::Result<Option<Manifest>> {
    let manifest: Option<Vec<u8>> = tx
        .prepare_cached("SELECT manifest FROM images WHERE id = ?1 AND manifest IS NOT NULL")?
        .query_row([image.to_string()], |row| row.get(0))
        .optional()?;
    Ok(manifest.and_then(|bytes| Manifest::parse(&bytes).ok()))
}

/// `installed` follows the versions that were read back, also when they come late; it is about the
/// image that is wanted now.
fn prove(tx: &Tx<'_>, op: &Operation, effects: Effects) -> rusqlite::Result<()> {
    let Some(versions) = effects.installed else { return Ok(()) };
    let device = op.device.to_string();
    tx.prepare_cached(
        "INSERT INTO device_firmware (id, organization, device, slot, image, installed, evidence, created,
             modified)
         SELECT ?1, d.organization, d.id, ?3, ?4, 1, 'versions', ?5, ?5 FROM devices d WHERE d.id = ?2
         ON CONFLICT (device, slot) DO UPDATE SET image = excluded.image, installed = 1,
             evidence = 'versions', modified = excluded.modified
         WHERE device_firmware.image IS NULL OR device_firmware.image IS excluded.image",
    )?
    .execute((
        uuid::Uuid::new_v4().to_string(),
        &device,
        op.slot.as_str(),
        op.image.map(|id| id.to_string()),
        tx.now,
    ))?;
    // A late result says what ran before a newer operation's turn.
    tx.prepare_cached(
        "INSERT INTO modems (device, slot, versions, modified) SELECT ?1, ?2, ?3, ?4
         WHERE NOT EXISTS (SELECT 1 FROM operations n JOIN operations own ON own.id = ?5
             WHERE n.device = ?1 AND n.slot = ?2
                 AND (n.created, n.rowid) > (own.created, own.rowid))
         ON CONFLICT (device, slot) DO UPDATE SET versions = excluded.versions,
             condition = NULL, modified = excluded.modified",
    )?
    .execute((&device, op.slot.as_str(), to_json(&versions)?, tx.now, op.id.to_string()))?;
    Ok(())
}

fn bury(tx: &Tx<'_>, reported: &Reported, refused: Refused) -> rusqlite::Result<()> {
    let Reported { operation, stream, seq, .. } = *reported;
    let device = reported.device.to_string();
    tracing::warn!(%device, %operation, seq, %refused, "dead letter");
    tx.prepare_cached(
        "INSERT INTO dead_letters (device, operation, stream, seq, reason, received, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        &device,
        operation.to_string(),
        stream.to_string(),
        i64::try_from(seq).ok(),
        refused.code(),
        tx.now,
        &reported.body,
    ))?;
    tx.prepare_cached(
        "DELETE FROM dead_letters WHERE device = ?1 AND id <= (
             SELECT id FROM dead_letters WHERE device = ?1
             ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute((&device, DEAD_LETTERS))?;
    Ok(())
}
