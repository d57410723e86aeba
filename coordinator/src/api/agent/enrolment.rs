//! `nonce`, `enrol` and `token`: how a key becomes a device, and gets access. Everything is proved
//! by signatures over a nonce of ours, see [`shared::identity`].

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use shared::hex::{Hex, sha256};
use shared::identity::{
    Claims, DeviceState, Enrol, Enrolled, Nonce, Token, TokenRequest, Tokens, enrol_message,
    token_message, verify,
};
use shared::limits;

use super::AgentApi;
use super::error::Error;
use super::nonce::{BadNonce, LIFETIME_S};
use crate::api::user::Peer;
use crate::store::Rejection;
use crate::store::device::Device;
use crate::store::enrolment::{EnrolRefusal, Enrolment};
use crate::tokens::{Audience, Bearer, Kind};

/// Claims in JSON text may double in size.
const ENROL: usize = 2 * limits::CLAIMS + 2048;
const TOKEN: usize = 2048;

type Body = Result<Bytes, BytesRejection>;

pub(super) async fn nonce(State(api): State<AgentApi>) -> Result<Json<Nonce>, Error> {
    let time = api.store.clock().now();
    let nonce = api.nonces.issue(time).map_err(|error| Error::internal(&error))?;
    let audience = api.audience.to_string();
    Ok(Json(Nonce { nonce, expires_in: LIFETIME_S, audience, time }))
}

pub(super) async fn enrol(
    State(api): State<AgentApi>,
    Peer(peer): Peer,
    body: Body,
) -> Result<(StatusCode, Json<Enrolled>), Error> {
    let request: Enrol = read(body, ENROL)?;
    if request.claims.len() > limits::CLAIMS {
        return Err(Error::malformed("the claims are too large"));
    }
    let message = enrol_message(
        &api.audience,
        &request.nonce,
        &request.public_key,
        &request.token,
        &request.claims,
    );
    prove(&request.public_key, &message, &request.signature)?;
    let claims: Claims = serde_json::from_str(&request.claims)
        .map_err(|error| Error::malformed(format!("claims: {error}")))?;
    let token = sha256(request.token.as_bytes());
    if !api.store.has_enrolment_token(token).await? {
        return Err(refused(Rejection::Refused(EnrolRefusal::UnknownToken)));
    }
    use_up(&api, &request.nonce)?;
    let enrolment = Enrolment { public_key: request.public_key, token, claims, peer };
    let (enrolled, new) = api.store.enrol(enrolment).await.map_err(refused)?;
    tracing::info!(device = %enrolled.device, state = ?enrolled.state, new, "enrolled");
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(enrolled)))
}

pub(super) async fn token(State(api): State<AgentApi>, body: Body) -> Result<Json<Tokens>, Error> {
    let request: TokenRequest = read(body, TOKEN)?;
    let message = token_message(&api.audience, &request.nonce, &request.public_key);
    prove(&request.public_key, &message, &request.signature)?;
    let unknown = || Error::unauthorized("unknown", "no device has this key");
    let device = api.store.device_by_key(request.public_key).await?.ok_or_else(unknown)?;
    use_up(&api, &request.nonce)?;
    match device.state {
        DeviceState::Accepted => {}
        DeviceState::Pending => return Err(Error::pending()),
        DeviceState::Revoked | DeviceState::Unknown => {
            return Err(Error::unauthorized("revoked", "the device was revoked"));
        }
    }
    Ok(Json(Tokens {
        api: issue(&api, &device, Audience::Api)?,
        mqtt: issue(&api, &device, Audience::Mqtt)?,
        device: device.id,
        organization: device.organization_slug,
        mqtt_port: api.mqtt_port,
        time: api.store.clock().now(),
    }))
}

fn issue(api: &AgentApi, device: &Device, audience: Audience) -> Result<Token, Error> {
    let bearer = Bearer {
        subject: device.id.0,
        organization: device.organization_slug.clone(),
        kind: Kind::Device,
        epoch: device.epoch,
    };
    let token = api
        .tokens
        .issue(audience, &bearer, api.token_lifetime)
        .map_err(|error| Error::internal(&error))?;
    Ok(Token { token, expires_in: api.token_lifetime.as_secs() })
}

/// The owner of `key` signed `message`.
fn prove(key: &Hex<32>, message: &[u8], signature: &Hex<64>) -> Result<(), Error> {
    if verify(key, message, signature) {
        return Ok(());
    }
    Err(Error::unauthorized("malformed", "the signature does not verify"))
}

/// Last of all: only a proof that holds, of a key or token that is known, may use its nonce up.
/// Used nonces are remembered, and strangers sign as many as they like.
fn use_up(api: &AgentApi, nonce: &Hex<32>) -> Result<(), Error> {
    api.nonces.take(nonce, api.store.clock().now()).map_err(|bad| {
        let detail = bad.to_string();
        match bad {
            BadNonce::Foreign => Error::unauthorized("unknown", detail),
            BadNonce::Expired | BadNonce::Used => Error::unauthorized("expired", detail),
            BadNonce::Full => Error::too_many(detail),
        }
    })
}

fn refused(rejection: Rejection<EnrolRefusal>) -> Error {
    match rejection {
        Rejection::Store(error) => error.into(),
        Rejection::Refused(refusal) => {
            let detail = refusal.to_string();
            match refusal {
                EnrolRefusal::UnknownToken => Error::unauthorized("unknown", detail),
                EnrolRefusal::ExpiredToken | EnrolRefusal::UsedUpToken => {
                    Error::unauthorized("expired", detail)
                }
                EnrolRefusal::Revoked => Error::unauthorized("revoked", detail),
                EnrolRefusal::TooManyReplacements => Error::too_many(detail),
            }
        }
    }
}

/// The body as JSON, within its limit.
pub(super) fn read<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Error> {
    let body = body?;
    if body.len() > limit {
        return Err(crate::ingest::Malformed::TooLarge { found: body.len(), limit }.into());
    }
    serde_json::from_slice(&body).map_err(|error| Error::malformed(error.to_string()))
}
