//! Lowercase hexadecimal, the form of every binary value in our JSON, and the digest that most of them
//! are.

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// `N` bytes that read and print as `2 N` lowercase hex digits.
///
/// ```
/// use shared::hex::Hex;
/// let h: Hex<2> = "0aff".parse().unwrap();
/// assert_eq!(h.0, [0x0a, 0xff]);
/// assert_eq!(h.to_string(), "0aff");
/// assert!("0AFF".parse::<Hex<2>>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// A SHA-256 digest.
pub type Sha256 = Hex<32>;

/// Why a text is not `N` bytes in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    #[error("expected {expected} lowercase hex digits, found {found}")]
    Length { expected: usize, found: usize },
    #[error("not a lowercase hex digit")]
    Digit,
}

fn digit(byte: u8) -> Result<u8, HexError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(HexError::Digit),
    }
}

impl<const N: usize> std::str::FromStr for Hex<N> {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        if text.len() != 2 * N {
            return Err(HexError::Length { expected: 2 * N, found: text.len() });
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// SHA-256 of what comes in pieces, by ring, which knows the instructions of every router's CPU.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    #[must_use]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    #[must_use]
    pub fn finish(self) -> Sha256 {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Hex(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// SHA-256 of `bytes`.
///
/// ```
/// // FIPS 180-2, appendix B.1.
/// assert_eq!(shared::hex::sha256(b"abc").to_string(),
///            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}
