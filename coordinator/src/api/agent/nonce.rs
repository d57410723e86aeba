//! Nonces for proofs: good once, for a minute, from this process only.
//!
//! A nonce is `expiry ‖ random ‖ HMAC(expiry ‖ random)`, so that handing them out costs no memory,
//! however many a stranger asks for. Only those that came back in a proof that held are remembered,
//! until they expire.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use shared::hex::Hex;

/// Seconds.
pub(super) const LIFETIME_S: u64 = 60;
/// Used nonces remembered at most; then nobody enrols until some expire.
const MOST: usize = 100_000;

/// Makes nonces and knows which were used.
pub struct Nonces {
    key: hmac::Key,
    random: SystemRandom,
    used: Mutex<HashMap<[u8; 32], u64>>,
}

/// Why a nonce is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNonce {
    #[error("the nonce is not one of ours, or of before a restart")]
    Foreign,
    #[error("the nonce has expired")]
    Expired,
    #[error("the nonce was used before")]
    Used,
    #[error("too many nonces were used in the last minute")]
    Full,
}

/// The machine has no randomness to give.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no randomness")]
pub struct NoRandomness;

impl Nonces {
    /// # Errors
    /// No randomness for the key.
    pub fn new() -> Result<Self, NoRandomness> {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| NoRandomness)?;
        Ok(Self { key, random, used: Mutex::default() })
    }

    /// A fresh nonce; `now` in unix milliseconds.
    pub(super) fn issue(&self, now: u64) -> Result<Hex<32>, NoRandomness> {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&(now + LIFETIME_S * 1000).to_be_bytes());
        self.random.fill(&mut nonce[8..16]).map_err(|_| NoRandomness)?;
        let tag = hmac::sign(&self.key, &nonce[..16]);
        nonce[16..].copy_from_slice(&tag.as_ref()[..16]);
        Ok(Hex(nonce))
    }

    /// Uses the nonce up. Ask after the proof over it was verified.
    pub(super) fn take(&self, nonce: &Hex<32>, now: u64) -> Result<(), BadNonce> {
        let expiry = self.check(nonce, now)?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MOST {
            used.retain(|_, expiry| *expiry > now);
        }
        if used.len() >= MOST {
            return Err(BadNonce::Full);
        }
        match used.insert(nonce.0, expiry) {
            Some(_) => Err(BadNonce::Used),
            None => Ok(()),
        }
    }

    fn check(&self, nonce: &Hex<32>, now: u64) -> Result<u64, BadNonce> {
        let tag = hmac::sign(&self.key, &nonce.0[..16]);
        // A comparison that stops early would tell how much of a guessed tag is right.
        let same = tag.as_ref()[..16].iter().zip(&nonce.0[16..]).fold(0, |d, (a, b)| d | (a ^ b));
        if same != 0 {
            return Err(BadNonce::Foreign);
        }
        let mut expiry = [0; 8];
        expiry.copy_from_slice(&nonce.0[..8]);
        let expiry = u64::from_be_bytes(expiry);
        if now >= expiry { Err(BadNonce::Expired) } else { Ok(expiry) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_for_a_minute() {
        let nonces = Nonces::new().unwrap();
        let (one, two) = (nonces.issue(0).unwrap(), nonces.issue(0).unwrap());
        assert_ne!(one, two);
        assert_eq!(nonces.take(&one, 59_999), Ok(()));
        assert_eq!(nonces.take(&one, 59_999), Err(BadNonce::Used));
        assert_eq!(nonces.take(&two, 60_000), Err(BadNonce::Expired));
    }

    #[test]
    fn nobody_else_makes_nonces_or_prolongs_them() {
        let nonces = Nonces::new().unwrap();
        let mut nonce = nonces.issue(0).unwrap();
        assert_eq!(Nonces::new().unwrap().take(&nonce, 0), Err(BadNonce::Foreign));
        nonce.0[6] ^= 1;
        assert_eq!(nonces.take(&nonce, 0), Err(BadNonce::Foreign));
    }
}
