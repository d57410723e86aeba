//! Identifiers: UUIDs in a type each, and the validated names that may stand in a topic.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID in lowercase with hyphens")]
pub struct BadId;

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A version 4 UUID from sixteen random bytes of the caller's source.
            #[must_use]
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }
        }
        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self { Self(id) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl FromStr for $name {
            type Err = BadId;
            /// Takes only the canonical hyphenated form, so that one id has one spelling.
            fn from_str(text: &str) -> Result<Self, BadId> {
                let id = Uuid::try_parse(text).ok().filter(|id| id.to_string() == text);
                id.map(Self).ok_or(BadId)
            }
        }
    )+};
}

uuid_id! {
    /// One upgrade of one modem.
    OperationId,
    /// A router.
    DeviceId,
    /// A firmware image of a build.
    ImageId,
    /// A version of a category's firmware.
    BuildId,
    /// A group of firmware by vendor or model family.
    CategoryId,
    /// A batch of operations.
    BatchId,
    /// A tenant.
    OrganizationId,
    /// An operator.
    UserId,
    /// One journal's life: a reinstalled agent starts another stream, so that its events cannot be
    /// taken for those of its past.
    StreamId,
    /// One connection's life, see [`crate::event::Presence`].
    SessionId,
}

/// Why a name may not stand in a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 1 to 32 characters of a-z, 0-9 and '-', starting with a letter or digit")]
pub struct BadName(pub String);

fn check_name(text: &str) -> Result<(), BadName> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (1..=32).contains(&text.len())
        && text.starts_with(plain)
        && text.chars().all(|c| plain(c) || c == '-');
    if fits { Ok(()) } else { Err(BadName(text.chars().take(40).collect())) }
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> { text.parse() }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String { name.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )+};
}

name! {
    /// An organization's immutable short name, a level of every topic.
    OrganizationSlug,
    /// Where a modem sits in a device; `main` in a router with one modem.
    Slot,
}

impl Default for Slot {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

/// `vendor:product` of a USB device, as `lsusb` prints it.
///
/// ```
/// let id: shared::ids::UsbId = "1bc7:1070".parse().unwrap();
/// assert_eq!((id.vendor, id.product), (0x1bc7, 0x1070));
/// assert_eq!(id.to_string(), "1bc7:1070");
/// assert!("1bc7".parse::<shared::ids::UsbId>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UsbId {
    pub vendor: u16,
    pub product: u16,
}

/// Why a text is not a USB id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a USB id like \"1bc7:1070\"")]
pub struct BadUsbId(pub String);

impl FromStr for UsbId {
    type Err = BadUsbId;
    fn from_str(text: &str) -> Result<Self, BadUsbId> {
        let number = |part: &str| {
            let hex = part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| u16::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once(':')
            .and_then(|(v, p)| Some(Self { vendor: number(v)?, product: number(p)? }))
            .ok_or_else(|| BadUsbId(text.chars().take(40).collect()))
    }
}
impl TryFrom<String> for UsbId {
    type Error = BadUsbId;
    fn try_from(text: String) -> Result<Self, BadUsbId> {
        text.parse()
    }
}
impl From<UsbId> for String {
    fn from(id: UsbId) -> String {
        id.to_string()
    }
}
impl fmt::Display for UsbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
        assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), text);
        for other in
            [text.to_uppercase(), text.replace('-', ""), format!("{{{text}}}"), "a/b".into()]
        {
            assert!(other.parse::<DeviceId>().is_err(), "{other}");
        }
    }

    #[test]
    fn names_cannot_leave_their_topic_level() {
        for good in ["main", "a", "org-1", "0"] {
            assert!(good.parse::<Slot>().is_ok(), "{good}");
        }
        let long = "x".repeat(33);
        for bad in ["", "-a", "A", "a/b", "a.b", "a b", "+", "#", "$share", "ä", long.as_str()] {
            assert!(bad.parse::<OrganizationSlug>().is_err(), "{bad}");
        }
    }
}
