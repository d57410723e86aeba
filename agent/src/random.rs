//! Randomness, from the kernel through ring.

use ring::rand::{SecureRandom, SystemRandom};

/// The kernel gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel gave no random bytes")]
pub struct NoRandomness;

/// Random bytes for ids and keys.
///
/// # Errors
/// The kernel gave none; no id may be made then.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A share from 0 up to 1, for jitter; 0.5 if the kernel gave nothing.
#[must_use]
pub fn share() -> f64 {
    bytes().map_or(0.5, |bytes| f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0))
}
