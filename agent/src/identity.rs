//! The device's identity: an Ed25519 key made at first run on the router, never in an image.
//!
//! `<state>/identity/device.json` (0600) holds the key as PKCS#8 together with the board it was
//! made on. Flash contents get cloned; so a key whose board differs from this one is set aside as
//! `former.json` and a new key is made, which the coordinator then sees as another device. The
//! parts of the board are kept one by one and not as one hash: a MAC that cannot be read in one
//! boot is no other board, a different MAC is. Another name alone is a renamed board, whose new name
//! is kept.

mod board;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use shared::hex::Hex;
use shared::identity::{Claims, Enrol, Nonce, TokenRequest, enrol_message, token_message};

pub use board::Board;

use crate::files;

const MAX_FILE_BYTES: usize = 16 * 1024;

/// The key, and what it proves.
#[derive(Debug)]
pub struct Identity {
    key: Ed25519KeyPair,
    origin: Origin,
}

/// How the key came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Kept,
    /// None was there.
    Made,
    /// The one that was there belongs to another board.
    MadeForThisBoard,
    /// The one that was there is unreadable.
    MadeAfterCorruption,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path} cannot be read or written")]
    Storage { path: PathBuf, source: std::io::Error },
    #[error("no key could be made")]
    NoKey,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    version: Version,
    pkcs8: String,
    board: Board,
}

#[derive(Serialize, Deserialize)]
enum Version {
    #[serde(rename = "1")]
    V1,
}

impl Identity {
    /// The identity of this board, made if there is none.
    ///
    /// # Errors
    /// The disk refuses: an identity that would be another one after the next start is none.
    pub fn open(state_dir: &Path, board: &Board) -> Result<Self, IdentityError> {
        let directory = state_dir.join("identity");
        let path = directory.join("device.json");
        let storage = |source| IdentityError::Storage { path: path.clone(), source };
        let bytes = match files::read_limited(&path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                files::durable_dir(&directory).map_err(storage)?;
                return make(&path, board, Origin::Made);
            }
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Vec::new(),
            Err(error) => return Err(storage(error)),
        };
        let (aside, origin) = match parse(&bytes) {
            Some((key, bound)) if bound.may_be(board) => {
                // Whoever made it may have died before it was durable.
                if let Err(error) = files::durable_dir(&directory) {
                    log::warn!("{}: {error}", directory.display());
                }
                note_name(&path, &bytes, board);
                return Ok(Self { key, origin: Origin::Kept });
            }
            Some(_) => ("former.json", Origin::MadeForThisBoard),
            None => ("corrupt.json", Origin::MadeAfterCorruption),
        };
        log::warn!("{}: set aside as {aside}, a new key is made", path.display());
        std::fs::rename(&path, directory.join(aside)).map_err(storage)?;
        make(&path, board, origin)
    }

    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    #[must_use]
    pub fn public_key(&self) -> Hex<32> {
        let mut key = [0; 32];
        // An Ed25519 public key is 32 bytes; a zip cannot panic.
        key.iter_mut().zip(self.key.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        Hex(key)
    }

    /// The proof for `POST token`.
    #[must_use]
    pub fn token_request(&self, nonce: &Nonce) -> TokenRequest {
        let public_key = self.public_key();
        let message = token_message(&nonce.audience, &nonce.nonce, &public_key);
        TokenRequest { nonce: nonce.nonce, public_key, signature: self.sign(&message) }
    }

    /// The proof for `POST enrol`, with the operator's enrolment token.
    ///
    /// # Errors
    /// The claims cannot be written as JSON.
    pub fn enrol(
        &self,
        nonce: &Nonce,
        token: &str,
        claims: &Claims,
    ) -> Result<Enrol, serde_json::Error> {
        let public_key = self.public_key();
        let claims = serde_json::to_string(claims)?;
        let message = enrol_message(&nonce.audience, &nonce.nonce, &public_key, token, &claims);
        Ok(Enrol {
            nonce: nonce.nonce,
            public_key,
            token: token.to_owned(),
            claims,
            signature: self.sign(&message),
        })
    }

    fn sign(&self, message: &[u8]) -> Hex<64> {
        let mut signature = [0; 64];
        let made = self.key.sign(message);
        signature.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from);
        Hex(signature)
    }
}

fn parse(bytes: &[u8]) -> Option<(Ed25519KeyPair, Board)> {
    let OnDisk { pkcs8, board, .. } = serde_json::from_slice(bytes).ok()?;
    let key = Ed25519KeyPair::from_pkcs8(&STANDARD.decode(pkcs8).ok()?).ok()?;
    Some((key, board))
}

/// So that the name still tells the board where nothing else of it can be read.
fn note_name(path: &Path, bytes: &[u8], board: &Board) {
    let Ok(on_disk) = serde_json::from_slice::<OnDisk>(bytes) else { return };
    if board.name.is_none() || on_disk.board.name.is_none() || on_disk.board.name == board.name {
        return;
    }
    let renamed = Board { name: board.name.clone(), ..on_disk.board };
    let written = serde_json::to_vec_pretty(&OnDisk { board: renamed, ..on_disk })
        .map_err(std::io::Error::other)
        .and_then(|text| files::write_atomic(path, &text));
    match written {
        Ok(()) => log::info!("the board has another name now"),
        Err(error) => log::warn!("{}: {error}", path.display()),
    }
}

fn make(path: &Path, board: &Board, origin: Origin) -> Result<Identity, IdentityError> {
    let pkcs8 =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::NoKey)?;
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| IdentityError::NoKey)?;
    let (version, encoded) = (Version::V1, STANDARD.encode(pkcs8.as_ref()));
    let on_disk = OnDisk { version, pkcs8: encoded, board: board.clone() };
    let text = serde_json::to_vec_pretty(&on_disk).map_err(|_| IdentityError::NoKey)?;
    crate::failpoint::at!("identity.make");
    files::write_atomic(path, &text)
        .map_err(|source| IdentityError::Storage { path: path.to_owned(), source })?;
    crate::failpoint::at!("identity.made");
    Ok(Identity { key, origin })
}

#[cfg(test)]
mod tests;
