//! What a device signs to enrol and to get a token. Domain-separated and over the server's nonce,
//! so that no proof can be replayed or used for the other purpose.
//!
//! A message is the domain's name, then every field with its length before it (u32, big endian):
//! no two different sets of fields give the same bytes.

use crate::{
    hex::{Hex, sha256},
    names::wire_names,
};
use serde::{Deserialize, Serialize};

const ENROL: &[u8] = b"mu-enrol-v1";
const TOKEN: &[u8] = b"mu-token-v1";

/// `POST nonce` answers this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce {
    pub nonce: Hex<32>,
    /// Seconds.
    pub expires_in: u64,
    /// Names the coordinator; part of what is signed.
    pub audience: String,
    /// The coordinator's clock, unix milliseconds.
    pub time: u64,
}

/// `POST enrol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    pub nonce: Hex<32>,
    pub public_key: Hex<32>,
    /// The enrolment token as the operator gave it.
    pub token: String,
    /// [`Claims`] as JSON text; these exact bytes are signed.
    pub claims: String,
    pub signature: Hex<64>,
}

/// What a device says of itself at enrolment; hints, never proofs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub board: String,
    #[serde(default)]
    pub mac: Option<String>,
    #[serde(default)]
    pub serial: Option<String>,
    #[serde(default)]
    pub openwisp_uuid: Option<String>,
    #[serde(default)]
    pub agent_version: String,
}

/// The answer to `POST enrol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    pub device: crate::ids::DeviceId,
    pub organization: crate::ids::OrganizationSlug,
    pub state: DeviceState,
}

wire_names! {
    /// Whether a device is let in.
    DeviceState {
        Accepted = "accepted",
        /// Waits for an operator.
        Pending = "pending",
        Revoked = "revoked",
    }
}

/// `POST token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    pub nonce: Hex<32>,
    pub public_key: Hex<32>,
    pub signature: Hex<64>,
}

/// The answer to `POST token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub device: crate::ids::DeviceId,
    pub organization: crate::ids::OrganizationSlug,
    pub api: Token,
    pub mqtt: Token,
    /// Where the listener for devices is, on the coordinator's host.
    pub mqtt_port: u16,
    /// The coordinator's clock, unix milliseconds.
    pub time: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub token: String,
    /// Seconds.
    pub expires_in: u64,
}

/// An error of the agent's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For machines, for instance `expired`, `revoked`, `unknown`, `pending`.
    pub code: String,
    /// For people.
    pub detail: String,
}

fn message(domain: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = domain.to_vec();
    for field in fields {
        // Every field is bounded by a request's size, far below 4 GiB.
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

/// What is signed to enrol: `"mu-enrol-v1" ‖ audience ‖ nonce ‖ pubkey ‖ H(token) ‖ H(claims)`.
#[must_use]
pub fn enrol_message(
    audience: &str,
    nonce: &Hex<32>,
    public_key: &Hex<32>,
    token: &str,
    claims: &str,
) -> Vec<u8> {
    let (token, claims) = (sha256(token.as_bytes()), sha256(claims.as_bytes()));
    message(ENROL, &[audience.as_bytes(), &nonce.0, &public_key.0, &token.0, &claims.0])
}

/// What is signed to get a token: `"mu-token-v1" ‖ audience ‖ nonce ‖ pubkey`.
#[must_use]
pub fn token_message(audience: &str, nonce: &Hex<32>, public_key: &Hex<32>) -> Vec<u8> {
    message(TOKEN, &[audience.as_bytes(), &nonce.0, &public_key.0])
}

/// Whether `signature` is `public_key`'s over `message`.
#[must_use]
pub fn verify(public_key: &Hex<32>, message: &[u8], signature: &Hex<64>) -> bool {
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public_key.0)
        .verify(message, &signature.0)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_flow_into_each_other() {
        let (nonce, key) = (Hex([1; 32]), Hex([2; 32]));
        let a = enrol_message("ab", &nonce, &key, "t", "{}");
        assert_ne!(a, enrol_message("a", &nonce, &key, "t", "{}"));
        assert_ne!(a, enrol_message("ab", &nonce, &key, "t", "{} "));
        assert_ne!(token_message("x", &nonce, &key), enrol_message("x", &nonce, &key, "", ""));
        assert_eq!(message(b"d", &[b"ab", b""]), b"d\0\0\0\x02ab\0\0\0\0");
    }
}
