//! Which device asks: by its access token, never by anything else in a request.

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use shared::ids::DeviceId;

use super::AgentApi;
use super::error::Error;
use crate::lines::reason::Reason;
use crate::tokens::{Audience, Kind};

/// The device behind a request; asking is a sign of life.
pub(super) struct Caller(pub DeviceId);

impl FromRequestParts<AgentApi> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &AgentApi) -> Result<Self, Error> {
        let claims = api
            .tokens
            .verify(Audience::Api, bearer(parts)?)
            .map_err(|refusal| Error::unauthorized(refusal.code(), refusal.to_string()))?;
        if claims.kind != Kind::Device {
            return Err(Error::unauthorized("audience", "the token is not a device's"));
        }
        api.admission.check(claims.sub, claims.epoch).map_err(not_admitted)?;
        api.throttle.take(claims.sub, api.store.clock().now()).map_err(|seconds| {
            Error::too_many(format!("too many requests; ask again in {seconds} s"))
        })?;
        let device = DeviceId(claims.sub);
        api.signs.seen(device);
        Ok(Self(device))
    }
}

fn not_admitted(reason: Reason) -> Error {
    let code = if reason == Reason::Revoked { "revoked" } else { "unknown" };
    Error::unauthorized(code, reason.to_string())
}

fn bearer(parts: &Parts) -> Result<&str, Error> {
    let missing = || Error::unauthorized("missing", "no Authorization: Bearer <token>");
    let value = parts.headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let value =
        value.to_str().map_err(|_| Error::unauthorized("malformed", "the token is no text"))?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}
