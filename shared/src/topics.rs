//! The MQTT topics, built and parsed here and nowhere else.
//!
//! ```
//! use shared::{ids::*, topics::*};
//! let org: OrganizationSlug = "acme".parse().unwrap();
//! let device: DeviceId = "6f9619ff-8b86-4011-b42d-00c04fc964ff".parse().unwrap();
//!
//! let up = Topic::Up(org.clone(), device, Up::Event);
//! assert_eq!(up.to_string(), "mu/acme/6f9619ff-8b86-4011-b42d-00c04fc964ff/up/event");
//! assert_eq!(up.to_string().parse(), Ok(up));
//!
//! let down = Topic::Down(org.clone(), device, Down::Wake);
//! assert_eq!(down.to_string(), "mu/acme/6f9619ff-8b86-4011-b42d-00c04fc964ff/down/wake");
//!
//! // Retained, for dashboards: the operation of a slot, and a batch.
//! let operation = Topic::Operation(org.clone(), device, Slot::default());
//! assert_eq!(operation.to_string(), "mu/acme/6f9619ff-8b86-4011-b42d-00c04fc964ff/main/operation");
//! assert_eq!("mu/acme/batches/6f9619ff-8b86-4011-b42d-00c04fc964ff".parse::<Topic>().unwrap(),
//!            Topic::Batch(org, BatchId(device.0)));
//!
//! // Only exact shapes parse: no wildcard, no other depth, no other spelling of an id.
//! for bad in ["mu/acme/+/up/event", "mu/acme/#", "$share/g/mu/acme/x/up/event", "mu/acme",
//!             "mu/acme/6F9619FF-8B86-4011-B42D-00C04FC964FF/up/event", "mu/acme/x/up/event",
//!             "mu/acme/6f9619ff-8b86-4011-b42d-00c04fc964ff/up/event/", "/mu/acme/up/event"] {
//!     assert!(bad.parse::<Topic>().is_err(), "{bad}");
//! }
//! ```

use crate::ids::{BatchId, DeviceId, OrganizationSlug, Slot};
use std::{fmt, str::FromStr};

/// The first level of every topic of ours.
pub const ROOT: &str = "mu";

/// What a device says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Up {
    /// [`crate::event::Presence`]; also the topic of the will.
    Presence,
    /// [`crate::inventory::Inventory`].
    Inventory,
    /// [`crate::event::Events`].
    Event,
    /// [`crate::event::Tick`].
    Progress,
}

/// What a device hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Down {
    /// "Fetch `desired`"; carries nothing and may be lost.
    Wake,
    /// [`crate::ack::Acks`].
    Ack,
}

impl Up {
    fn as_str(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Inventory => "inventory",
            Self::Event => "event",
            Self::Progress => "progress",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Presence, Self::Inventory, Self::Event, Self::Progress]
            .into_iter()
            .find(|up| up.as_str() == text)
    }
}

impl Down {
    fn as_str(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Ack => "ack",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Wake, Self::Ack].into_iter().find(|down| down.as_str() == text)
    }
}

/// Every topic there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    Up(OrganizationSlug, DeviceId, Up),
    Down(OrganizationSlug, DeviceId, Down),
    /// Retained: the current or last operation of a slot.
    Operation(OrganizationSlug, DeviceId, Slot),
    /// Retained: a batch.
    Batch(OrganizationSlug, BatchId),
}

impl Topic {
    /// The organization whose topic this is.
    #[must_use]
    pub fn organization(&self) -> &OrganizationSlug {
        match self {
            Self::Up(org, ..) | Self::Down(org, ..) => org,
            Self::Operation(org, ..) | Self::Batch(org, _) => org,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(org, device, up) => write!(f, "{ROOT}/{org}/{device}/up/{}", up.as_str()),
            Self::Down(org, device, down) => {
                write!(f, "{ROOT}/{org}/{device}/down/{}", down.as_str())
            }
            Self::Operation(org, device, slot) => {
                write!(f, "{ROOT}/{org}/{device}/{slot}/operation")
            }
            Self::Batch(org, batch) => write!(f, "{ROOT}/{org}/batches/{batch}"),
        }
    }
}

/// A text that is none of our topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a topic of ours")]
pub struct NotATopic;

impl FromStr for Topic {
    type Err = NotATopic;

    fn from_str(text: &str) -> Result<Self, NotATopic> {
        // Five levels of at most 36 characters: anything longer is not worth splitting.
        if text.len() > 160 {
            return Err(NotATopic);
        }
        let levels: Vec<&str> = text.split('/').collect();
        parse(&levels).ok_or(NotATopic)
    }
}

fn parse(levels: &[&str]) -> Option<Topic> {
    match *levels {
        [ROOT, org, "batches", batch] => Some(Topic::Batch(org.parse().ok()?, batch.parse().ok()?)),
        [ROOT, org, device, middle, last] => {
            let (org, device) = (org.parse().ok()?, device.parse().ok()?);
            match (middle, last) {
                ("up", up) => Some(Topic::Up(org, device, Up::parse(up)?)),
                ("down", down) => Some(Topic::Down(org, device, Down::parse(down)?)),
                (slot, "operation") => Some(Topic::Operation(org, device, slot.parse().ok()?)),
                _ => None,
            }
        }
        _ => None,
    }
}
