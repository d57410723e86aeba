//! The lab's firmware stream: what `sim-uxfp` flashes and a simulated modem understands.
//!
//! ```text
//! magic (8) ‖ header (JSON, padded with spaces to 1024 bytes in all) ‖ payload (pseudo-random, by a seed)
//! ```

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::random::Random;

const MAGIC: &[u8; 8] = b"LABFW\x00\x01\n";
/// Magic and header, in bytes.
pub const HEADER_SIZE: usize = 1024;

/// The modems of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Model {
    #[serde(rename = "FN990A28")]
    Fn990a28,
    #[serde(rename = "FN990A40")]
    Fn990a40,
}

impl Model {
    /// As `AT+CGMM` says it.
    pub fn name(self) -> &'static str {
        match self {
            Model::Fn990a28 => "FN990A28",
            Model::Fn990a40 => "FN990A40",
        }
    }

    /// The number in uxfp's `Invalid model %d VS %d`.
    pub fn number(self) -> u32 {
        match self {
            Model::Fn990a28 => 28,
            Model::Fn990a40 => 40,
        }
    }

    /// The package version number `n` (0 to 9) of this model: `45.00.00n` or `45.00.01n`.
    pub fn package(self, n: u8) -> String {
        let digit = match self {
            Model::Fn990a28 => 0,
            Model::Fn990a40 => 1,
        };
        format!("45.00.0{digit}{}", n % 10)
    }
}

impl std::str::FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Model, String> {
        [Model::Fn990a28, Model::Fn990a40]
            .into_iter()
            .find(|model| model.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("no such model in the lab: {text}"))
    }
}

/// The four lines of `AT#SWPKGV`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub package: String,
    pub modem: String,
    pub production: String,
    pub application: String,
}

impl Versions {
    /// What belongs to a package `45.00.0mn[-suffix]`: `M0R.0m000n`, as the fielded FN990A have it.
    pub fn of_package(package: &str) -> Versions {
        let (release, suffix) = match package.split_once('-') {
            Some((release, suffix)) => (release, format!("-{suffix}")),
            None => (package, String::new()),
        };
        let mut digits = release.rsplit('.').next().unwrap_or("").chars();
        let mut digit = || digits.next().unwrap_or('0');
        let (first, model, minor) = (digit(), digit(), digit());
        Versions {
            package: package.to_owned(),
            modem: format!("M0R.{first}{model}000{minor}{suffix}"),
            production: format!("P0R.{first}{model}0{minor}00"),
            application: format!("A0R.{first}{model}000{minor}{suffix}"),
        }
    }

    pub fn lines(&self) -> [&str; 4] {
        [&self.package, &self.modem, &self.production, &self.application]
    }
}

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub product: Model,
    pub versions: Versions,
    /// Bytes after the header.
    pub payload_size: u64,
    /// Lowercase hex.
    pub payload_sha256: String,
}

/// A stream of exactly `size` bytes (at least a header), the same for the same arguments.
pub fn make_firmware(model: Model, package: &str, size: usize, seed: u64) -> Vec<u8> {
    let mut stream = vec![b' '; size.max(HEADER_SIZE)];
    let (head, payload) = stream.split_at_mut(HEADER_SIZE);
    Random::new(seed).fill(payload);
    let header = Header {
        product: model,
        versions: Versions::of_package(package),
        payload_size: payload.len() as u64,
        payload_sha256: hex(&Sha256::digest(&*payload)),
    };
    // A header of four short versions is far below 1 KiB.
    let json = serde_json::to_vec(&header).unwrap_or_default();
    head[..MAGIC.len()].copy_from_slice(MAGIC);
    head[MAGIC.len()..MAGIC.len() + json.len()].copy_from_slice(&json);
    stream
}

/// [`make_firmware`] into a file.
pub fn write_firmware(
    path: &Path,
    model: Model,
    package: &str,
    size: usize,
    seed: u64,
) -> io::Result<()> {
    std::fs::write(path, make_firmware(model, package, size, seed))
}

impl Header {
    /// Reads the header and leaves `stream` at the payload.
    pub fn read(stream: &mut impl Read) -> io::Result<Header> {
        let mut head = [0; HEADER_SIZE];
        stream.read_exact(&mut head)?;
        let json = head.strip_prefix(MAGIC).ok_or_else(|| io::Error::other("not a stream file"))?;
        Ok(serde_json::from_slice(json)?)
    }
}

/// Lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes a firmware that the lab's tool and modems take.
#[derive(Debug, Parser)]
#[command(name = "sim-firmware")]
struct Arguments {
    #[arg(long, default_value = "FN990A28")]
    model: Model,
    #[arg(long)]
    package: String,
    /// Bytes.
    #[arg(long)]
    size: usize,
    file: PathBuf,
}

/// `lab sim-firmware`.
pub fn main() -> ExitCode {
    let Arguments { model, package, size, file } = Arguments::parse();
    match write_firmware(&file, model, &package, size, 1) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim-firmware: {}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_tells_what_is_in_it() {
        let stream = make_firmware(Model::Fn990a40, "45.00.012", 5000, 1);
        assert_eq!(stream.len(), 5000);
        let mut rest = stream.as_slice();
        let header = Header::read(&mut rest).unwrap();
        assert_eq!(header.product, Model::Fn990a40);
        assert_eq!(header.versions.modem, "M0R.010002");
        assert_eq!(header.payload_size, rest.len() as u64);
        assert_eq!(header.payload_sha256, hex(&Sha256::digest(rest)));
        assert_eq!(stream, make_firmware(Model::Fn990a40, "45.00.012", 5000, 1));
        assert_ne!(stream, make_firmware(Model::Fn990a40, "45.00.012", 5000, 2));
    }

    #[test]
    fn versions_follow_the_fielded_ones() {
        assert_eq!(Model::Fn990a28.package(2), "45.00.002");
        assert_eq!(Versions::of_package("45.00.002").modem, "M0R.000002");
        assert_eq!(Versions::of_package("45.00.010-B022").modem, "M0R.010000-B022");
    }

    #[test]
    fn anything_else_is_no_stream() {
        assert!(Header::read(&mut [0u8; 2000].as_slice()).is_err());
        assert!(Header::read(&mut [0u8; 20].as_slice()).is_err());
    }
}
