//! Access tokens: short-lived ES256 JWTs for devices (`api` and `mqtt`) and for users' dashboards
//! (`mqtt`). Owns the signing key, the claims and the order in which a token is refused.
//!
//! A token proves who somebody was when it was issued. Whether they still are is the caller's
//! question: it compares [`Claims::epoch`] with the store's or with
//! [`Admission`](crate::lines::acl::Admission); a revocation bumps the epoch.
//!
//! Times in claims are unix seconds. No leeway: both ends of `exp` are this coordinator's clock.

use std::io;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use shared::ids::OrganizationSlug;
use uuid::Uuid;

use crate::clock::Clock;
use crate::secret_file;

/// A token longer than this was not issued here; it is refused unread.
pub const LONGEST: usize = 512;

/// Counts a subject's revocations; a token of an older epoch is revoked.
pub type Epoch = u32;

/// What a token opens. A token for one is refused by the other ◆.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// The agent's HTTPS API.
    Api,
    /// The lines to devices and dashboards.
    Mqtt,
}

impl Audience {
    fn name(self) -> &'static str {
        match self {
            Audience::Api => "api",
            Audience::Mqtt => "mqtt",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Device,
    User,
}

/// Whom a token is issued to: what [`Tokens::issue`] is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The device's or user's id.
    pub subject: Uuid,
    pub organization: OrganizationSlug,
    pub kind: Kind,
    pub epoch: Epoch,
}

/// What a genuine token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: Uuid,
    pub org: OrganizationSlug,
    pub kind: Kind,
    pub epoch: Epoch,
    aud: Audience,
    pub iat: u64,
    pub exp: u64,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the token is not one of ours: malformed")]
    Malformed,
    #[error("the token's signature does not verify")]
    Signature,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
}

impl Refusal {
    /// The `code` of the agent's API; a bad signature shows nothing more than `malformed`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Malformed | Refusal::Signature => "malformed",
            Refusal::Audience => "audience",
            Refusal::Expired => "expired",
        }
    }
}

/// Why there is no signing key, or no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the token key cannot be read or written")]
    File(#[source] io::Error),
    #[error("the token key is not a P-256 key in PKCS#8")]
    Key,
    #[error("a token cannot be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
    #[error("a token would be over {LONGEST} bytes")]
    TooLong,
}

/// Signs and checks. Share it behind an `Arc`; it holds no state but the key.
pub struct Tokens {
    clock: Clock,
    signing: EncodingKey,
    checking: DecodingKey,
}

impl Tokens {
    /// Reads `tokens/es256.pkcs8` under `folder`, made there (0600) at the first start.
    ///
    /// # Errors
    /// The file system, or a file that holds no P-256 key.
    pub fn load(folder: &Path, clock: Clock) -> Result<Self, Error> {
        let path = folder.join("tokens/es256.pkcs8");
        let random = SystemRandom::new();
        let key = secret_file::read_or_make(&path, Error::File, || {
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                .map(|document| document.as_ref().to_vec())
                .map_err(|_| Error::Key)
        })?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random)
            .map_err(|_| Error::Key)?;
        Ok(Tokens {
            clock,
            signing: EncodingKey::from_ec_der(&key),
            checking: DecodingKey::from_ec_der(pair.public_key().as_ref()),
        })
    }

    /// A token for `bearer`, good from now for `lifetime` (whole seconds).
    ///
    /// # Errors
    /// The signature fails, or the token would be over [`LONGEST`] bytes.
    pub fn issue(
        &self,
        audience: Audience,
        bearer: &Bearer,
        lifetime: Duration,
    ) -> Result<String, Error> {
        let now = self.now();
        let claims = Claims {
            sub: bearer.subject,
            org: bearer.organization.clone(),
            kind: bearer.kind,
            epoch: bearer.epoch,
            aud: audience,
            iat: now,
            exp: now.saturating_add(lifetime.as_secs()),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)?;
        if token.len() > LONGEST { Err(Error::TooLong) } else { Ok(token) }
    }

    /// The claims of a genuine token for `audience` that has not expired.
    ///
    /// # Errors
    /// The first that applies of malformed, signature, audience, expired.
    pub fn verify(&self, audience: Audience, token: &str) -> Result<Claims, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::Malformed);
        }
        let mut rules = Validation::new(Algorithm::ES256);
        // Below, by our own clock.
        rules.validate_exp = false;
        rules.set_audience(&[audience.name()]);
        rules.set_required_spec_claims(&["exp", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &rules)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        if claims.exp <= self.now() { Err(Refusal::Expired) } else { Ok(claims) }
    }

    /// Seconds until `claims` expire; 0 where they have.
    #[must_use]
    pub fn left(&self, claims: &Claims) -> Duration {
        Duration::from_secs(claims.exp.saturating_sub(self.now()))
    }

    fn now(&self) -> u64 {
        self.clock.now() / 1000
    }
}

fn refusal(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::InvalidAudience => Refusal::Audience,
        // The enum of the library is open; whatever else it finds is a token we did not make.
        _ => Refusal::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::Ordering;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: u64 = 1_800_000_000;

    fn bearer() -> Bearer {
        Bearer {
            subject: Uuid::from_u128(7),
            organization: "a-very-long-organization-slug-32".parse().unwrap(),
            kind: Kind::Device,
            epoch: Epoch::MAX,
        }
    }

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::load(folder.path(), Clock::manual(NOW * 1000).0).unwrap();
        (folder, tokens)
    }

    #[test]
    fn a_token_tells_what_it_was_told_and_is_small() {
        let (_folder, tokens) = tokens();
        let token = tokens.issue(Audience::Mqtt, &bearer(), HOUR).unwrap();
        assert!(token.len() <= LONGEST, "{} bytes", token.len());
        let claims = tokens.verify(Audience::Mqtt, &token).unwrap();
        assert_eq!(
            (claims.sub, claims.org, claims.kind, claims.epoch, claims.iat, claims.exp),
            (Uuid::from_u128(7), bearer().organization, Kind::Device, Epoch::MAX, NOW, NOW + 3600)
        );
    }

    #[test]
    fn the_other_audience_refuses_it() {
        let (_folder, tokens) = tokens();
        let api = tokens.issue(Audience::Api, &bearer(), HOUR).unwrap();
        let mqtt = tokens.issue(Audience::Mqtt, &bearer(), HOUR).unwrap();
        assert_eq!(tokens.verify(Audience::Mqtt, &api), Err(Refusal::Audience));
        assert_eq!(tokens.verify(Audience::Api, &mqtt), Err(Refusal::Audience));
    }

    #[test]
    fn it_expires_to_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(NOW * 1000);
        let tokens = Tokens::load(folder.path(), clock).unwrap();
        let token = tokens.issue(Audience::Api, &bearer(), HOUR).unwrap();
        hand.store((NOW + 3600) * 1000 - 1, Ordering::Relaxed);
        let claims = tokens.verify(Audience::Api, &token).unwrap();
        assert_eq!(tokens.left(&claims), Duration::from_secs(1));
        hand.store((NOW + 3600) * 1000, Ordering::Relaxed);
        assert_eq!(tokens.verify(Audience::Api, &token), Err(Refusal::Expired));
    }

    #[test]
    fn another_key_a_changed_claim_and_no_signature_are_refused() {
        let (_folder, ours) = tokens();
        let (_elsewhere, theirs) = tokens();
        let token = theirs.issue(Audience::Api, &bearer(), HOUR).unwrap();
        assert_eq!(ours.verify(Audience::Api, &token), Err(Refusal::Signature));

        let own = ours.issue(Audience::Api, &bearer(), HOUR).unwrap();
        let other = ours.issue(Audience::Api, &Bearer { epoch: 1, ..bearer() }, HOUR).unwrap();
        let (own, other): (Vec<_>, Vec<_>) = (own.split('.').collect(), other.split('.').collect());
        let mixed = format!("{}.{}.{}", own[0], other[1], own[2]);
        assert_eq!(ours.verify(Audience::Api, &mixed), Err(Refusal::Signature));

        use base64::Engine as _;
        let none = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let unsigned = format!("{none}.{}.", own[1]);
        assert_eq!(ours.verify(Audience::Api, &unsigned), Err(Refusal::Malformed));
    }

    #[test]
    fn garbage_is_malformed() {
        let (_folder, tokens) = tokens();
        for garbage in ["", ".", "a.b.c", "ey.ey.ey", &"x".repeat(LONGEST + 1)] {
            assert_eq!(tokens.verify(Audience::Api, garbage), Err(Refusal::Malformed));
        }
    }

    #[test]
    fn the_key_stays_and_is_private() {
        let (folder, first) = tokens();
        let token = first.issue(Audience::Api, &bearer(), HOUR).unwrap();
        let again = Tokens::load(folder.path(), Clock::manual(NOW * 1000).0).unwrap();
        assert!(again.verify(Audience::Api, &token).is_ok());
        let key = folder.path().join("tokens/es256.pkcs8");
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
