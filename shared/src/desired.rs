//! The job out: what the coordinator wants a device to do. `GET desired`, with the generation as ETag.

use crate::{
    hex::Sha256,
    ids::{ImageId, OperationId, Slot},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};
use std::{collections::BTreeMap, fmt};

/// The version of [`Desired`].
pub const VERSION: u8 = 1;

/// What this version of the agent can do; a job that requires more is refused as too new.
pub const CAPABILITIES: &[&str] = &["manifest-1", "grant-1", "signify-ed25519", "zstd-1"];

/// Told beside [`CAPABILITIES`] by a router whose own settings allow an image that a power cut destroys, should the
/// job allow it too.
pub const VOLATILE_STAGING: &str = "volatile-staging";

/// What every job requires. A manifest whose file is encoded needs more, and an agent that lacks
/// it refuses that manifest.
pub const REQUIRED: &[&str] = &["manifest-1", "grant-1", "signify-ed25519"];

/// Everything that is wanted of a device now. A job that is no longer listed is cancelled, unless
/// it was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub v: u8,
    /// `EPOCH.NUMBER`. Equal means unchanged; another epoch, that the coordinator was restored from a backup and
    /// may have forgotten what it was told.
    pub generation: String,
    /// The coordinator's clock, unix milliseconds.
    pub time: u64,
    pub jobs: Vec<Job>,
}

impl Desired {
    /// The coordinator's memory that this comes from.
    #[must_use]
    pub fn epoch(&self) -> &str {
        self.generation.split('.').next().unwrap_or_default()
    }
}

/// One upgrade of the modem in one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub operation: OperationId,
    pub slot: Slot,
    pub image: ImageRef,
    /// Capabilities the agent must have, see [`CAPABILITIES`].
    #[serde(default)]
    pub requires: Vec<String>,
    /// Bounded numbers and enums for the tool, checked against the router's own profile.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
    /// Unix milliseconds after which it must not be started any more.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// The operator accepts volatile staging on a sole uplink; the router must accept it as well.
    #[serde(default)]
    pub allow_volatile_staging: bool,
}

/// The image of a job. Its place on the server follows from the id: no URL comes from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    pub id: ImageId,
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
    /// Digest of the manifest's exact bytes.
    pub manifest_sha256: Sha256,
}

/// An option's value: no free text ever reaches a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OptionValue {
    Flag(bool),
    Number(u64),
    Word(String),
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(AnyOption)
    }
}

struct AnyOption;

impl Visitor<'_> for AnyOption {
    type Value = OptionValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, a number from 0 or a word")
    }
    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<OptionValue, E> {
        Ok(OptionValue::Flag(flag))
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<OptionValue, E> {
        Ok(OptionValue::Number(number))
    }
    fn visit_str<E: de::Error>(self, word: &str) -> Result<OptionValue, E> {
        Ok(OptionValue::Word(word.to_owned()))
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}
