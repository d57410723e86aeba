//! The manifest: what an image is, whom it fits, what must be read back afterwards. The operator
//! signs its exact bytes; they are stored and passed on as they are and never serialized again.
//!
//! Read it only through a verified signature on the router; the coordinator reads it to show it.

use crate::{desired::OptionValue, event::VersionLine, hex::Sha256, limits, strict_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of [`Manifest`].
pub const FORMAT: u8 = 1;

/// Fields a `critical` list may name: those this version understands.
const UNDERSTOOD: &[&str] =
    &["sequence", "not_after", "allow_rollback", "reaches", "from", "models", "tool", "file"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u8,
    /// As `+CGMI` answers, for instance `Telit`.
    pub vendor: String,
    /// As `+CGMM` answers, for instance `FN990A28`.
    pub models: Vec<String>,
    pub category: String,
    /// Counts up per vendor and model; a router refuses a lower one than it has installed.
    pub sequence: u64,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
    /// Leave to install a lower sequence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_rollback: bool,
    /// All of these must be read back, by equality, for a success.
    pub reaches: Vec<VersionLine>,
    /// Sets of versions it may start from, one of which must fit; empty = any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Vec<VersionLine>>,
    pub tool: Tool,
    pub file: File,
    /// Bytes in each block but the last; [`limits::BLOCK`].
    pub block_size: u64,
    /// Digest of each block, in order.
    pub blocks: Vec<Sha256>,
    /// Names of fields that a reader must understand or refuse the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub critical: Vec<String>,
}

/// Which tool writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// The name of a profile on the router.
    pub profile: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, OptionValue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
    pub encoding: Encoding,
    /// What the tool gets, where the file is encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoded: Option<Decoded>,
}

/// The file that an encoded one decodes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoded {
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// The file is what the tool gets.
    Identity,
    /// One frame of zstd (RFC 8878) with a window of at most [`limits::ZSTD_WINDOW`] bytes.
    Zstd,
    #[serde(other)]
    Unknown,
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has {0} bytes, more than {limit}", limit = limits::MANIFEST)]
    TooLarge(usize),
    #[error("the manifest is not valid JSON of its format")]
    Json(#[from] serde_json::Error),
    #[error("manifest format {0} is not known here")]
    Format(u8),
    #[error("the manifest declares {0:?} critical, which is not known here")]
    Critical(String),
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: String },
}

fn field(field: &'static str, problem: impl Into<String>) -> ManifestError {
    ManifestError::Field { field, problem: problem.into() }
}

impl Manifest {
    /// Reads the exact bytes, which the caller has verified.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > limits::MANIFEST {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let manifest: Self = strict_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether the values make sense together.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format != FORMAT {
            return Err(ManifestError::Format(self.format));
        }
        if let Some(name) = self.critical.iter().find(|c| !UNDERSTOOD.contains(&c.as_str())) {
            return Err(ManifestError::Critical(limits::cut(name.clone())));
        }
        self.check_file()?;
        if i64::try_from(self.sequence).is_err() {
            return Err(field("sequence", "at most 2^63 - 1"));
        }
        check_texts("vendor", [&self.vendor])?;
        check_texts("category", [&self.category])?;
        check_texts("tool.profile", [&self.tool.profile])?;
        check_texts("models", &self.models)?;
        if self.models.is_empty() {
            return Err(field("models", "names no model"));
        }
        if self.reaches.is_empty() {
            return Err(field("reaches", "names no version to read back"));
        }
        check_versions("reaches", &self.reaches)?;
        self.from.iter().try_for_each(|set| check_versions("from", set))
    }

    fn check_file(&self) -> Result<(), ManifestError> {
        if self.block_size != limits::BLOCK {
            return Err(field("block_size", format!("must be {}", limits::BLOCK)));
        }
        if self.blocks.len() > limits::MANIFEST_BLOCKS {
            return Err(field("blocks", format!("more than {}", limits::MANIFEST_BLOCKS)));
        }
        let expected = self.file.size.div_ceil(self.block_size);
        if self.file.size == 0 || usize::try_from(expected) != Ok(self.blocks.len()) {
            let size = self.file.size;
            return Err(field("blocks", format!("{} do not make {size} bytes", self.blocks.len())));
        }
        if !is_plain_name(&self.file.name) {
            return Err(field("file.name", "not a plain file name"));
        }
        match (self.file.encoding, &self.file.decoded) {
            (Encoding::Identity, None) => Ok(()),
            (Encoding::Identity, Some(_)) => Err(field("file.decoded", "the file is not encoded")),
            (Encoding::Zstd, None) => Err(field("file.decoded", "missing")),
            (Encoding::Zstd, Some(decoded)) => self.check_decoded(decoded),
            (Encoding::Unknown, _) => Err(field("file.encoding", "not known here")),
        }
    }

    fn check_decoded(&self, decoded: &Decoded) -> Result<(), ManifestError> {
        let name = &decoded.name;
        if !is_plain_name(name) || *name == self.file.name || name.ends_with(".part") {
            return Err(field("file.decoded.name", "not a plain file name of its own"));
        }
        let most = limits::MANIFEST_BLOCKS as u64 * limits::BLOCK;
        if decoded.size == 0 || decoded.size > most {
            return Err(field("file.decoded.size", format!("must be 1 to {most}")));
        }
        Ok(())
    }

    /// The file that the tool gets.
    #[must_use]
    pub fn tool_file(&self) -> ToolFile<'_> {
        match &self.file.decoded {
            Some(Decoded { name, size, sha256 }) => ToolFile { name, size: *size, sha256 },
            None => {
                let File { name, size, sha256, .. } = &self.file;
                ToolFile { name, size: *size, sha256 }
            }
        }
    }

    /// Length of block `index` in bytes; 0 past the end.
    #[must_use]
    pub fn block_len(&self, index: u64) -> u64 {
        self.file.size.saturating_sub(index.saturating_mul(self.block_size)).min(self.block_size)
    }

    /// Whether the image is for a modem that calls itself so. `Telit Cinterion` is `Telit` under
    /// its later name.
    #[must_use]
    pub fn fits(&self, manufacturer: &str, model: &str) -> bool {
        is_same_vendor(&self.vendor, manufacturer) && self.models.iter().any(|m| m == model)
    }
}

/// Whether both are names of one maker, as modems of different firmware answer.
#[must_use]
pub fn is_same_vendor(one: &str, other: &str) -> bool {
    let telit = |name: &str| matches!(name, "Telit" | "Telit Cinterion");
    one == other || (telit(one) && telit(other))
}

/// Name, length in bytes and digest of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolFile<'a> {
    pub name: &'a str,
    pub size: u64,
    pub sha256: &'a Sha256,
}

fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with(['.', '-'])
        && name.chars().all(plain)
}

fn check_texts<'a>(
    name: &'static str,
    texts: impl IntoIterator<Item = &'a String>,
) -> Result<(), ManifestError> {
    let fits = |t: &String| (1..=64).contains(&t.len()) && !t.chars().any(char::is_control);
    let mut texts = texts.into_iter();
    if texts.all(fits) { Ok(()) } else { Err(field(name, "not 1 to 64 printable characters")) }
}

/// Commands go to the modem: only plain identification commands, which change nothing, may stand
/// in a manifest.
fn check_versions(name: &'static str, lines: &[VersionLine]) -> Result<(), ManifestError> {
    let readable = |command: &str| {
        command.len() <= 16
            && command.starts_with(['#', '+', '!', '^', '$'])
            && command.len() > 1
            && command[1..].bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    for line in lines {
        if !readable(&line.command) {
            let command = limits::cut(line.command.clone());
            return Err(field(name, format!("{command:?} is not a read command")));
        }
        if line.line == 0 {
            return Err(field(name, "lines count from 1"));
        }
        check_texts(name, [&line.value])?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "manifest/tests.rs"]
mod tests;
