//! The keys this router trusts and those it has revoked, from its own files alone.

use crate::files;
use shared::limits;
use shared::signature::{FormError, Keyring, PublicKey};
use std::io;
use std::path::{Path, PathBuf};

/// Keys read from one directory; a router trusts a handful.
const KEYS: usize = 64;

/// Why the router's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{path}: cannot be read")]
    Read { path: PathBuf, source: io::Error },
    /// A revocation that cannot be read must not be taken for none.
    #[error("{path}: not a public key")]
    Revocation { path: PathBuf, source: FormError },
    #[error("{0}: more than {KEYS} keys")]
    TooMany(PathBuf),
}

/// Reads the trusted keys `<keys_dir>/*.pub` and the revoked ones in `revoked/*.pub`, beside the
/// directory or inside it. A directory that is not there has no keys.
///
/// # Errors
/// A file cannot be read, or a revoked key cannot be understood. A trusted one that cannot be
/// understood is left out and logged.
pub fn read_keyring(keys_dir: &Path) -> Result<Keyring, KeysError> {
    let mut keyring = Keyring::default();
    for (path, text) in public_keys(keys_dir)? {
        match PublicKey::parse(&text) {
            Ok(key) => keyring.trusted.push(key),
            Err(error) => log::warn!("{}: not a public key: {error}", path.display()),
        }
    }
    for revoked in [keys_dir.with_file_name("revoked"), keys_dir.join("revoked")] {
        for (path, text) in public_keys(&revoked)? {
            let key =
                PublicKey::parse(&text).map_err(|source| KeysError::Revocation { path, source })?;
            keyring.revoked.push(key);
        }
    }
    Ok(keyring)
}

fn public_keys(directory: &Path) -> Result<Vec<(PathBuf, String)>, KeysError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KeysError::Read { path, source }
    };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(failed(directory))?,
    };
    let mut keys = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "pub") {
            continue;
        }
        if keys.len() == KEYS {
            return Err(KeysError::TooMany(directory.to_owned()));
        }
        let bytes = files::read_limited(&path, limits::SIGNATURE).map_err(failed(&path))?;
        keys.push((path, String::from_utf8_lossy(&bytes).into_owned()));
    }
    keys.sort();
    Ok(keys)
}
