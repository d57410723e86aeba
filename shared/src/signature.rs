//! Ed25519 keys and signatures in the form of OpenBSD's signify and OpenWrt's usign: two lines, an
//! untrusted comment and base64. Source: signify(1) and its `signify.c`.
//!
//! | file | bytes behind the base64 |
//! |---|---|
//! | public key | `Ed`, key number 8, key 32 |
//! | signature | `Ed`, key number 8, signature 64 |
//! | secret key | `Ed`, `BK`, rounds u32 (0 = no passphrase), salt 16, SHA-512 checksum 8, key number 8, key 64 |

use crate::{hex::Hex, limits};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    digest::{SHA512, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

const COMMENT: &str = "untrusted comment: ";
const ALGORITHM: &[u8] = b"Ed";
const KDF: &[u8] = b"BK";

/// Names a key pair: public key, secret key and signature of a pair carry the same.
pub type KeyNumber = Hex<8>;

/// Why a file is no key or signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("larger than {} bytes", limits::SIGNATURE)]
    TooLarge,
    #[error("the first line must start with {COMMENT:?}")]
    Comment,
    #[error("the second line is not base64 of the right length")]
    Base64,
    #[error("not Ed25519 in signify form")]
    Algorithm,
    #[error("the secret key has a passphrase; make one without (signify -G -n)")]
    Passphrase,
    #[error("the secret key's checksum is wrong")]
    Checksum,
}

/// Splits a file into comment and exactly `N` bytes.
fn decode<const N: usize>(text: &str) -> Result<(&str, [u8; N]), FormError> {
    if text.len() > limits::SIGNATURE {
        return Err(FormError::TooLarge);
    }
    let mut lines = text.lines();
    let comment = lines.next().and_then(|l| l.strip_prefix(COMMENT)).ok_or(FormError::Comment)?;
    let line = lines.next().ok_or(FormError::Base64)?;
    if lines.any(|l| !l.trim().is_empty()) {
        return Err(FormError::Base64);
    }
    let bytes = STANDARD.decode(line.trim_end()).map_err(|_| FormError::Base64)?;
    let bytes: [u8; N] = bytes.try_into().map_err(|_| FormError::Base64)?;
    if bytes.starts_with(ALGORITHM) { Ok((comment, bytes)) } else { Err(FormError::Algorithm) }
}

fn encode(comment: &str, bytes: &[u8]) -> String {
    let comment: String = comment.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("{COMMENT}{comment}\n{}\n", STANDARD.encode(bytes))
}

/// Copies `N` bytes at `from`, which the caller's fixed layout guarantees to be there.
fn part<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[from..from + N]);
    out
}

/// The first eight bytes of the SHA-512 of a secret key.
fn checksum(key: &[u8]) -> [u8; 8] {
    part(digest(&SHA512, key).as_ref(), 0)
}

/// A key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub number: KeyNumber,
    key: [u8; 32],
}

impl PublicKey {
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let (_, bytes) = decode::<42>(text)?;
        Ok(Self { number: Hex(part(&bytes, 2)), key: part(&bytes, 10) })
    }

    #[must_use]
    pub fn to_text(&self, comment: &str) -> String {
        encode(comment, &[ALGORITHM, &self.number.0, &self.key].concat())
    }
}

/// A signature, with the number of the key that is said to have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub number: KeyNumber,
    signature: [u8; 64],
}

impl Signature {
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let (_, bytes) = decode::<74>(text)?;
        Ok(Self { number: Hex(part(&bytes, 2)), signature: part(&bytes, 10) })
    }

    #[must_use]
    pub fn to_text(&self, comment: &str) -> String {
        encode(comment, &[ALGORITHM, &self.number.0, &self.signature].concat())
    }

    /// Whether `key` made this signature over `message`.
    #[must_use]
    pub fn is_by(&self, key: &PublicKey, message: &[u8]) -> bool {
        self.number == key.number
            && UnparsedPublicKey::new(&ED25519, key.key).verify(message, &self.signature).is_ok()
    }
}

/// The operator's offline key. Its bytes are never printed.
pub struct SecretKey {
    number: KeyNumber,
    seed: [u8; 32],
    public: [u8; 32],
    pair: Ed25519KeyPair,
}

impl SecretKey {
    /// A key from 32 random bytes and a random number, both of the caller's source.
    pub fn from_random(seed: [u8; 32], number: [u8; 8]) -> Result<Self, FormError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| FormError::Algorithm)?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { number: Hex(number), seed, public, pair })
    }

    pub fn parse(text: &str) -> Result<Self, FormError> {
        let (_, bytes) = decode::<104>(text)?;
        if &bytes[2..4] != KDF {
            return Err(FormError::Algorithm);
        }
        if part::<4>(&bytes, 4) != [0; 4] {
            return Err(FormError::Passphrase);
        }
        let key: [u8; 64] = part(&bytes, 40);
        if checksum(&key) != bytes[24..32] {
            return Err(FormError::Checksum);
        }
        let secret = Self::from_random(part(&key, 0), part(&bytes, 32))?;
        if secret.public == key[32..] { Ok(secret) } else { Err(FormError::Checksum) }
    }

    /// The file's text, without a passphrase: the file's mode must guard it.
    #[must_use]
    pub fn to_text(&self, comment: &str) -> String {
        let key = [self.seed, self.public].concat();
        let fields = [ALGORITHM, KDF, &[0; 20], &checksum(&key), &self.number.0, &key];
        encode(comment, &fields.concat())
    }

    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey { number: self.number, key: self.public }
    }

    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        Signature { number: self.number, signature }
    }
}

/// The keys a router trusts, and those it has revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    pub trusted: Vec<PublicKey>,
    pub revoked: Vec<PublicKey>,
}

/// Why a signature is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("the signature is malformed")]
    Form(#[from] FormError),
    #[error("signed by key {0}, which this router does not know")]
    UnknownKey(KeyNumber),
    #[error("signed by key {0}, which is revoked")]
    Revoked(KeyNumber),
    #[error("the signature by key {0} does not fit the bytes")]
    Wrong(KeyNumber),
}

impl Keyring {
    /// The number of the trusted key that signed `message`.
    ///
    /// A revoked key counts as revoked also under another number: its 32 bytes are compared as well.
    pub fn verify(&self, message: &[u8], signature: &str) -> Result<KeyNumber, Distrust> {
        let signature = Signature::parse(signature)?;
        let number = signature.number;
        if self.revoked.iter().any(|key| key.number == number) {
            return Err(Distrust::Revoked(number));
        }
        let mut known = self.trusted.iter().filter(|key| key.number == number).peekable();
        if known.peek().is_none() {
            return Err(Distrust::UnknownKey(number));
        }
        let signer =
            known.find(|key| signature.is_by(key, message)).ok_or(Distrust::Wrong(number))?;
        if self.revoked.iter().any(|key| key.key == signer.key) {
            return Err(Distrust::Revoked(number));
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_random([byte; 32], [byte; 8]).unwrap()
    }

    #[test]
    fn files_survive_a_round_trip() {
        let secret = key(1);
        let again = SecretKey::parse(&secret.to_text("lab secret key")).unwrap();
        assert_eq!(again.public(), secret.public());
        let public = PublicKey::parse(&secret.public().to_text("lab public key")).unwrap();
        let signature = Signature::parse(&again.sign(b"m").to_text("verify with lab.pub")).unwrap();
        assert!(signature.is_by(&public, b"m"));
        assert!(!signature.is_by(&public, b"n"));
    }

    #[test]
    fn each_distrust_has_its_name() {
        let (good, other, gone) = (key(1), key(2), key(3));
        let ring =
            Keyring { trusted: vec![good.public(), gone.public()], revoked: vec![gone.public()] };
        let text = |key: &SecretKey| key.sign(b"m").to_text("x");
        assert_eq!(ring.verify(b"m", &text(&good)), Ok(Hex([1; 8])));
        assert_eq!(ring.verify(b"n", &text(&good)), Err(Distrust::Wrong(Hex([1; 8]))));
        assert_eq!(ring.verify(b"m", &text(&other)), Err(Distrust::UnknownKey(Hex([2; 8]))));
        assert_eq!(ring.verify(b"m", &text(&gone)), Err(Distrust::Revoked(Hex([3; 8]))));
        assert_eq!(ring.verify(b"m", ""), Err(Distrust::Form(FormError::Comment)));
    }

    #[test]
    fn a_revoked_key_does_not_come_back_under_another_number() {
        let revoked = key(1);
        let renumbered = SecretKey::from_random([1; 32], [9; 8]).unwrap();
        let ring = Keyring { trusted: vec![renumbered.public()], revoked: vec![revoked.public()] };
        let signature = renumbered.sign(b"m").to_text("x");
        assert_eq!(ring.verify(b"m", &signature), Err(Distrust::Revoked(Hex([9; 8]))));
    }

    #[test]
    fn a_passphrase_and_a_broken_checksum_are_told_apart() {
        let text = key(1).to_text("x");
        let line = text.lines().nth(1).unwrap();
        let mut bytes = STANDARD.decode(line).unwrap();
        bytes[7] = 42;
        assert_eq!(SecretKey::parse(&encode("x", &bytes)).err(), Some(FormError::Passphrase));
        bytes[7] = 0;
        bytes[60] ^= 1;
        assert_eq!(SecretKey::parse(&encode("x", &bytes)).err(), Some(FormError::Checksum));
    }
}
