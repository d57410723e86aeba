//! Payloads as they come, into types: limits first, then JSON.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::event::{self, Event, Presence, Tick};
use shared::ids::DeviceId;
use shared::inventory::{self, Inventory};
use shared::limits;

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
}

/// [`shared::event::Events`], with each body kept as it came.
#[derive(Deserialize)]
struct Posted {
    v: u8,
    events: Vec<Value>,
}

/// Reads a batch of milestones.
///
/// # Errors
/// The whole batch, if one of them is not a milestone: no agent of ours sends such a thing.
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
    let body = value.get("body").map(Value::to_string).unwrap_or_default();
    check_size(body.len(), limits::EVENT)?;
    let event: Event = serde_json::from_value(value)?;
    Ok(Reported { device, event, body })
}

pub fn read_tick(payload: &[u8]) -> Result<Tick, Malformed> {
    let tick: Tick = read(payload, limits::TICK)?;
    check_version(tick.v, event::VERSION)?;
    Ok(tick)
}

pub(super) fn read_presence(payload: &[u8]) -> Result<Presence, Malformed> {
    let presence: Presence = read(payload, limits::PRESENCE)?;
    check_version(presence.v, event::VERSION)?;
    Ok(presence)
}

pub fn read_inventory(payload: &[u8]) -> Result<Inventory, Malformed> {
    let inventory: Inventory = read(payload, limits::INVENTORY)?;
    check_version(inventory.v, inventory::VERSION)?;
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
    fn a_newer_agents_words_are_kept_as_they_came() {
        let body = r#"{"level":9,"type":"levitated"}"#;
        let read = read_events(device(), &post(body, 1)).unwrap();
        assert_eq!(read[0].event.body, event::EventBody::Unknown);
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
        assert!(matches!(read_events(device(), &post(&long, 1)), Err(Malformed::TooLarge { .. })));
        let huge = vec![b' '; limits::EVENTS + 1];
        assert!(matches!(read_events(device(), &huge), Err(Malformed::TooLarge { .. })));
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
