//! Payloads as they come, into types: limits first, then JSON.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::event::{self, Event, Presence, Tick};
use shared::ids::{DeviceId, OperationId, StreamId};
use shared::inventory::{self, Inventory};
use shared::limits;

use crate::operation::event::Refused;
use crate::store::event::Reported;

/// Why a payload is dropped.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("{found} bytes, more than {limit}")]
    TooLarge { found: usize, limit: usize },
    #[error("not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("version {0} is not known here")]
    Version(u8),
    #[error("{found} events, more than {limit}")]
    TooMany { found: usize, limit: usize },
    #[error("a number larger than any count of ours")]
    Number,
}

/// No counter gets there; SQLite's integers end here.
const LARGEST: u64 = i64::MAX.unsigned_abs();

/// [`shared::event::Events`], with each body kept as it came.
#[derive(Deserialize)]
struct Posted {
    v: u8,
    events: Vec<Value>,
}

/// What every version of a milestone has: enough to acknowledge it.
#[derive(Deserialize)]
struct Key {
    operation: OperationId,
    stream: StreamId,
    seq: u64,
}

/// Reads a batch of milestones. One that has a key and is otherwise none of this version's is a
/// refused one: the device gets an answer to it and is not held up by it for ever.
///
/// # Errors
/// The whole batch, if one of them has no key: nothing could be answered to it.
pub fn read_events(device: DeviceId, payload: &[u8]) -> Result<Vec<Reported>, Malformed> {
    let posted: Posted = read(payload, limits::EVENTS)?;
    check_version(posted.v, event::VERSION)?;
    if posted.events.len() > limits::EVENTS_COUNT {
        let found = posted.events.len();
        return Err(Malformed::TooMany { found, limit: limits::EVENTS_COUNT });
    }
    posted.events.into_iter().map(|event| read_event(device, event)).collect()
}

fn read_event(device: DeviceId, value: Value) -> Result<Reported, Malformed> {
    let Key { operation, stream, seq } = Key::deserialize(&value)?;
    let body = value.get("body").map(Value::to_string).unwrap_or_default();
    let event = if body.len() > limits::EVENT {
        Err(Refused::TooLarge)
    } else if seq > LARGEST {
        Err(Refused::BadNumber)
    } else {
        serde_json::from_value::<Event>(value).map_err(|_| Refused::Malformed)
    };
    let body = if event.is_ok() { body } else { limits::cut(body) };
    Ok(Reported { device, operation, stream, seq, event, body })
}

pub fn read_tick(payload: &[u8]) -> Result<Tick, Malformed> {
    let tick: Tick = read(payload, limits::TICK)?;
    check_version(tick.v, event::VERSION)?;
    if tick.n > LARGEST || tick.fetched.is_some_and(|fetched| fetched > LARGEST) {
        return Err(Malformed::Number);
    }
    Ok(tick)
}

pub(super) fn read_presence(payload: &[u8]) -> Result<Presence, Malformed> {
    let presence: Presence = read(payload, limits::PRESENCE)?;
    check_version(presence.v, event::VERSION)?;
    Ok(presence)
}

pub fn read_inventory(payload: &[u8]) -> Result<Inventory, Malformed> {
    let mut inventory: Inventory = read(payload, limits::INVENTORY)?;
    check_version(inventory.v, inventory::VERSION)?;
    // A slot has one modem: told twice, it would be two members of a batch.
    let mut slots = HashSet::new();
    inventory.modems.retain(|modem| slots.insert(modem.slot.clone()));
    Ok(inventory)
}

fn read<T: DeserializeOwned>(payload: &[u8], limit: usize) -> Result<T, Malformed> {
    check_size(payload.len(), limit)?;
    Ok(serde_json::from_slice(payload)?)
}

fn check_size(found: usize, limit: usize) -> Result<(), Malformed> {
    if found > limit { Err(Malformed::TooLarge { found, limit }) } else { Ok(()) }
}

fn check_version(found: u8, known: u8) -> Result<(), Malformed> {
    if found == known { Ok(()) } else { Err(Malformed::Version(found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceId {
        "6f9619ff-8b86-4011-b42d-00c04fc964ff".parse().unwrap()
    }

    fn post(body: &str, count: usize) -> Vec<u8> {
        let event = format!(
            r#"{{"operation":"{id}","slot":"main","stream":"{id}","seq":1,"attempt":0,"body":{body}}}"#,
            id = device()
        );
        format!(r#"{{"v":1,"events":[{}]}}"#, vec![event; count].join(",")).into_bytes()
    }

    #[test]
    fn a_slot_that_is_told_twice_is_there_once() {
        let golden = include_bytes!("../../../shared/tests/golden/inventory.json");
        let mut told: Value = serde_json::from_slice(golden).unwrap();
        let once = read_inventory(told.to_string().as_bytes()).unwrap();
        let modems = told["modems"].as_array_mut().unwrap();
        let mut again = modems[0].clone();
        again["imei"] = "356938035643809".into();
        modems.push(again);
        assert_eq!(read_inventory(told.to_string().as_bytes()).unwrap(), once);
    }

    #[test]
    fn a_newer_agents_words_are_kept_as_they_came() {
        let body = r#"{"level":9,"type":"levitated"}"#;
        let read = read_events(device(), &post(body, 1)).unwrap();
        assert_eq!(read[0].event.as_ref().unwrap().body, event::EventBody::Unknown);
        assert_eq!(read[0].body, body);
    }

    #[test]
    fn limits_come_first() {
        let granted = r#"{"type":"granted"}"#;
        assert!(read_events(device(), &post(granted, limits::EVENTS_COUNT)).is_ok());
        assert!(matches!(
            read_events(device(), &post(granted, limits::EVENTS_COUNT + 1)),
            Err(Malformed::TooMany { .. })
        ));
        let long = format!(r#"{{"type":"held","reason":"{}"}}"#, "x".repeat(limits::EVENT));
        let read = read_events(device(), &post(&long, 2)).unwrap();
        assert_eq!((read.len(), &read[0].event), (2, &Err(Refused::TooLarge)));
        assert!(read[0].body.len() <= limits::DETAIL);
        let huge = vec![b' '; limits::EVENTS + 1];
        assert!(matches!(read_events(device(), &huge), Err(Malformed::TooLarge { .. })));
    }

    #[test]
    fn what_has_a_key_gets_an_answer() {
        let id = device();
        let key = format!(r#""operation":"{id}","stream":"{id}""#);
        for (event, refused) in [
            (format!(r#"{{{key},"seq":7}}"#), Refused::Malformed),
            (format!(r#"{{{key},"seq":7,"slot":"main","attempt":-1}}"#), Refused::Malformed),
            (format!(r#"{{{key},"seq":{}}}"#, u64::MAX), Refused::BadNumber),
        ] {
            let post = format!(r#"{{"v":1,"events":[{event}]}}"#);
            let read = read_events(id, post.as_bytes()).unwrap();
            assert_eq!(read[0].event, Err(refused), "{event}");
        }
    }

    #[test]
    fn a_tick_beyond_every_count_is_refused() {
        let id = device();
        let tick = |n: u64, fetched: u64| {
            format!(
                r#"{{"v":1,"operation":"{id}","slot":"main","stream":"{id}","attempt":0,"n":{n},
                     "phase":"downloading","percent":1,"fetched":{fetched}}}"#
            )
        };
        assert!(read_tick(tick(1, 1).as_bytes()).is_ok());
        for (n, fetched) in [(u64::MAX, 1), (1, u64::MAX)] {
            assert!(matches!(read_tick(tick(n, fetched).as_bytes()), Err(Malformed::Number)));
        }
    }

    #[test]
    fn garbage_and_other_versions_are_refused() {
        for garbage in ["", "{", "[]", "null", r#"{"v":1,"events":[{}]}"#] {
            assert!(matches!(read_events(device(), garbage.as_bytes()), Err(Malformed::Json(_))));
        }
        let newer = r#"{"v":2,"events":[]}"#.as_bytes();
        assert!(matches!(read_events(device(), newer), Err(Malformed::Version(2))));
    }
}
