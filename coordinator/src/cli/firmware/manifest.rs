//! What the arguments of `firmware sign` and a file come to.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use ring::digest::{Context as Hash, SHA256};
use serde_json::Value;
use shared::desired::OptionValue;
use shared::event::VersionLine;
use shared::hex::{Hex, Sha256, sha256};
use shared::limits;

/// A file's size and digests.
#[derive(Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
    /// Of each block of [`limits::BLOCK`] bytes.
    pub blocks: Vec<Sha256>,
}

/// Reads the file once, a block at a time in memory.
pub fn measure(path: &Path) -> anyhow::Result<Measured> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let mut measured = Measured { size: 0, sha256: Hex([0; 32]), blocks: Vec::new() };
    let mut whole = Hash::new(&SHA256);
    loop {
        let block = block(&mut file).with_context(cannot)?;
        if block.is_empty() {
            break;
        }
        whole.update(&block);
        measured.size += block.len() as u64;
        measured.blocks.push(sha256(&block));
        if measured.blocks.len() > limits::MANIFEST_BLOCKS {
            bail!("{} has more than {} MiB", path.display(), limits::MANIFEST_BLOCKS);
        }
    }
    measured.sha256.0.copy_from_slice(whole.finish().as_ref());
    Ok(measured)
}

fn block(file: &mut File) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(1 << 20);
    file.take(limits::BLOCK).read_to_end(&mut block)?;
    Ok(block)
}

/// `#SWPKGV:1=45.00.012`: line 1 of the reply to `AT#SWPKGV`. Without `:LINE` the first line.
pub fn version(text: &str) -> Result<VersionLine, String> {
    let expected =
        || "expected COMMAND[:LINE]=VALUE, for instance '#SWPKGV:1=45.00.012'".to_owned();
    let (place, value) = text.split_once('=').ok_or_else(expected)?;
    let (command, line) = match place.split_once(':') {
        Some((command, line)) => (command, line.parse().map_err(|_| expected())?),
        None => (place, 1),
    };
    if command.is_empty() || value.is_empty() {
        return Err(expected());
    }
    Ok(VersionLine { command: command.to_owned(), line, value: value.to_owned() })
}

/// Several versions that must fit together, separated by commas.
pub fn versions(text: &str) -> Result<Vec<VersionLine>, String> {
    text.split(',').map(version).collect()
}

/// `speed=115200`
pub fn option(text: &str) -> Result<(String, OptionValue), String> {
    let (name, value) = crate::cli::upgrade::option(text)?;
    let value = match value {
        Value::Bool(flag) => OptionValue::Flag(flag),
        Value::Number(number) => OptionValue::Number(number.as_u64().unwrap_or_default()),
        other => OptionValue::Word(other.as_str().unwrap_or_default().to_owned()),
    };
    Ok((name, value))
}

/// A date or time as RFC 3339 writes it, in unix milliseconds.
pub fn time(text: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|error| format!("{error}"))?;
    u64::try_from(time.as_millisecond()).map_err(|_| "before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let line = |command: &str, line, value: &str| VersionLine {
            command: command.into(),
            line,
            value: value.into(),
        };
        assert_eq!(version("#SWPKGV:1=45.00.012"), Ok(line("#SWPKGV", 1, "45.00.012")));
        assert_eq!(version("+CGMR=M0R.010002"), Ok(line("+CGMR", 1, "M0R.010002")));
        for bad in ["", "+CGMR", "=x", "+CGMR=", "+CGMR:x=1", "+CGMR:300=1"] {
            assert!(version(bad).is_err(), "{bad}");
        }
        assert_eq!(versions("+CGMR=a,+GMR=b").unwrap().len(), 2);
    }

    #[test]
    fn a_file_is_measured_in_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let content = vec![7; (1 << 20) + 3];
        std::fs::write(&path, &content).unwrap();
        let measured = measure(&path).unwrap();
        let blocks = vec![sha256(&content[..1 << 20]), sha256(&content[1 << 20..])];
        assert_eq!(measured, Measured { size: (1 << 20) + 3, sha256: sha256(&content), blocks });
    }

    #[test]
    fn times_are_utc_milliseconds() {
        assert_eq!(time("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
        assert!(time("tomorrow").is_err());
    }
}
