//! Passwords: hashed with argon2id, a few at a time.
//!
//! A hash takes 19 MiB and some 50 ms of a core (the parameters of OWASP's sheet, m = 19456, t = 2,
//! p = 1), so that logins queue for two places and no more than [`WAITING`] of them. A user who is
//! not there costs the same as one who is.

use std::sync::OnceLock;

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Hashes at a time.
const AT_WORK: usize = 2;
/// Requests that may wait for a place.
const WAITING: usize = 32;

/// Characters of a password.
pub const SHORTEST: usize = 10;
pub const LONGEST: usize = 128;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("too many logins are being checked")]
    Busy,
    #[error("a password cannot be hashed")]
    Hash,
}

/// The places for hashing.
#[derive(Debug)]
pub struct Passwords {
    queue: Semaphore,
    work: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { queue: Semaphore::new(WAITING + AT_WORK), work: Semaphore::new(AT_WORK) }
    }
}

impl Passwords {
    /// The hash to be stored, as a PHC string.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.at_work(move || make(&password)).await?
    }

    /// Whether this is the password; never for `None`, which takes as long.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        self.at_work(move || {
            let known = hash.is_some();
            let hash = hash.map_or_else(nobodys, Ok)?;
            let parsed = PasswordHash::new(&hash).map_err(|_| PasswordError::Hash)?;
            let right = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
            Ok(right && known)
        })
        .await?
    }

    async fn at_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _waiting = self.queue.try_acquire().map_err(|_| PasswordError::Busy)?;
        let _place = self.work.acquire().await.map_err(|_| PasswordError::Busy)?;
        spawn_blocking(work).await.map_err(|_| PasswordError::Hash)
    }
}

fn make(password: &str) -> Result<String, PasswordError> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|_| PasswordError::Hash)
}

/// What a password is checked against where there is no user.
fn nobodys() -> Result<String, PasswordError> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(hash.clone());
    }
    let made = make("nobody's password")?;
    Ok(HASH.get_or_init(|| made).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_is_right() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse".into()).await.unwrap(), "salted");
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".into(), Some(hash)).await.unwrap());
        let nobody = passwords.verify("nobody's password".into(), None).await.unwrap();
        assert!(!nobody, "who is not there has no password");
    }

    #[tokio::test]
    async fn a_crowd_is_turned_away() {
        let passwords = Passwords { queue: Semaphore::new(1), work: Semaphore::new(0) };
        let waiting = passwords.verify("a".into(), None);
        tokio::pin!(waiting);
        let answer = tokio::time::timeout(std::time::Duration::ZERO, &mut waiting).await;
        assert!(answer.is_err(), "nobody is at work");
        assert_eq!(passwords.verify("b".into(), None).await, Err(PasswordError::Busy));
    }
}
