//! Secrets that people and devices carry: random, shown once, kept as digests.

use ring::rand::{SecureRandom, SystemRandom};
use shared::hex::Hex;

/// What a token of a user's begins with.
pub const API: &str = "mu-api";
/// What a token that devices enrol with begins with.
pub const ENROLMENT: &str = "mu-enrol";

/// The machine has no randomness to give.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the machine has no randomness")]
pub struct NoRandomness;

/// 256 bits; the prefix tells people, and scanners for leaked secrets, what it is.
///
/// # Errors
/// [`NoRandomness`].
pub fn make(prefix: &str) -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(format!("{prefix}-{}", Hex(bytes)))
}
