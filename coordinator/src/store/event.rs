//! Milestones and ticks: what devices report, recorded and applied to their operations.

use std::collections::HashMap;

use rusqlite::OptionalExtension;
use shared::ack::{Ack, Verdict};
use shared::event::{Event, EventBody, Outcome, Presence, Tick, VersionLine};
use shared::ids::{DeviceId, OperationId};
use shared::manifest::Manifest;

use super::column::to_json;
use super::{Never, Priority, Store, StoreError, Tx, device, operation};
use crate::operation::event::{Refused, apply};
use crate::operation::{Effects, Operation, tick};

/// A milestone as it came from a device.
#[derive(Debug, Clone)]
pub struct Reported {
    pub device: DeviceId,
    pub event: Event,
    /// Its body's JSON, with what this version does not understand.
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

/// Dead letters kept for a device; the oldest go.
const DEAD_LETTERS: u32 = 256;

impl Store {
    /// Records milestones of any devices in one transaction; the acks are in the same order.
    pub async fn record_events(&self, reported: Vec<Reported>) -> Result<Vec<Ack>, StoreError> {
        let recorded = self.write::<_, Never, _>(move |tx| {
            let mut recording = Recording { tx, operations: HashMap::new() };
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
            if let Some(mut operation) = found.filter(|operation| operation.device == *device)
                && tick::apply(&mut operation, tick, tx.now)
            {
                operation::save(tx, &operation)?;
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
    operations: HashMap<OperationId, Option<Loaded>>,
}

struct Loaded {
    operation: Operation,
    changed: bool,
    desired: bool,
}

impl Recording<'_, '_> {
    fn record(&mut self, reported: &Reported) -> rusqlite::Result<Ack> {
        let event = &reported.event;
        let verdict = match self.try_record(reported)? {
            Ok(verdict) => verdict,
            Err(refused) => {
                bury(self.tx, reported, refused)?;
                Verdict::Refused { reason: refused.code().into() }
            }
        };
        Ok(Ack { operation: event.operation, stream: event.stream, seq: event.seq, verdict })
    }

    fn try_record(&mut self, reported: &Reported) -> rusqlite::Result<Result<Verdict, Refused>> {
        let (tx, event) = (self.tx, &reported.event);
        let Some(loaded) = self.load(reported.device, event.operation)? else {
            return Ok(Err(Refused::UnknownOperation));
        };
        if is_known(tx, event)? {
            return Ok(Ok(Verdict::Duplicate));
        }
        let reaches = reaches(tx, &loaded.operation, event)?;
        let effects = match apply(&mut loaded.operation, event, &reaches, tx.now) {
            Ok(effects) => effects,
            Err(refused) => return Ok(Err(refused)),
        };
        loaded.changed = true;
        loaded.desired |= effects.desired;
        insert(tx, reported)?;
        prove(tx, &loaded.operation, effects)?;
        Ok(Ok(Verdict::Accepted))
    }

    /// None unless it is the device's own.
    fn load(&mut self, device: DeviceId, id: OperationId) -> rusqlite::Result<Option<&mut Loaded>> {
        let loaded = match self.operations.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let found = operation::find(self.tx, id)?;
                let loaded =
                    found.map(|operation| Loaded { operation, changed: false, desired: false });
                entry.insert(loaded)
            }
        };
        Ok(loaded.as_mut().filter(|loaded| loaded.operation.device == device))
    }

    fn save(self) -> rusqlite::Result<()> {
        for loaded in self.operations.into_values().flatten().filter(|loaded| loaded.changed) {
            operation::save(self.tx, &loaded.operation)?;
            device::set_seen(self.tx, loaded.operation.device, self.tx.now)?;
            if loaded.desired {
                device::bump(self.tx, loaded.operation.device)?;
            }
        }
        Ok(())
    }
}

fn is_known(tx: &Tx<'_>, event: &Event) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM milestones WHERE operation = ?1 AND stream = ?2 AND seq = ?3")?
        .exists((event.operation.to_string(), event.stream.to_string(), event.seq))
}

fn insert(tx: &Tx<'_>, reported: &Reported) -> rusqlite::Result<()> {
    let event = &reported.event;
    tx.prepare_cached(
        "INSERT INTO milestones (operation, stream, seq, received, body)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((
        event.operation.to_string(),
        event.stream.to_string(),
        event.seq,
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
    let manifest: Option<Vec<u8>> = tx
        .prepare_cached("SELECT manifest FROM images WHERE id = ?1 AND manifest IS NOT NULL")?
        .query_row([image.to_string()], |row| row.get(0))
        .optional()?;
    let manifest = manifest.and_then(|bytes| Manifest::parse(&bytes).ok());
    Ok(manifest.map_or_else(Vec::new, |manifest| manifest.reaches))
}

/// `installed` follows the versions that were read back, also when they come late; it is about the
/// image that is wanted now.
fn prove(tx: &Tx<'_>, op: &Operation, effects: Effects) -> rusqlite::Result<()> {
    let Some(versions) = effects.installed else { return Ok(()) };
    let device = op.device.to_string();
    tx.prepare_cached(
        "INSERT INTO device_firmware (id, device, slot, image, installed, evidence, created, modified)
         VALUES (?1, ?2, ?3, ?4, 1, 'versions', ?5, ?5)
         ON CONFLICT (device, slot) DO UPDATE SET image = excluded.image, installed = 1,
             evidence = 'versions', modified = excluded.modified
         WHERE image IS NULL OR image IS excluded.image",
    )?
    .execute((
        uuid::Uuid::new_v4().to_string(),
        &device,
        op.slot.as_str(),
        op.image.map(|id| id.to_string()),
        tx.now,
    ))?;
    tx.prepare_cached(
        "INSERT INTO modems (device, slot, versions, modified) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (device, slot) DO UPDATE SET versions = excluded.versions,
             condition = NULL, modified = excluded.modified",
    )?
    .execute((&device, op.slot.as_str(), to_json(&versions)?, tx.now))?;
    Ok(())
}

fn bury(tx: &Tx<'_>, reported: &Reported, refused: Refused) -> rusqlite::Result<()> {
    let (device, event) = (reported.device.to_string(), &reported.event);
    tracing::warn!(%device, operation = %event.operation, seq = event.seq, %refused, "dead letter");
    tx.prepare_cached(
        "INSERT INTO dead_letters (device, operation, stream, seq, reason, received, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        &device,
        event.operation.to_string(),
        event.stream.to_string(),
        event.seq,
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
