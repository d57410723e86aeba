//! The errors that agents get: a code for machines, a text for people.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::rand::{SecureRandom, SystemRandom};
use shared::identity::ApiError;

use crate::artifacts::ArtifactError;
use crate::ingest::Malformed;
use crate::store::StoreError;

/// An error answer.
#[derive(Debug)]
pub(super) struct Error {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Seconds.
    retry_after: u64,
}

impl Error {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: CALM_DOWN }
    }

    /// 401: `missing`, `malformed`, `expired`, `revoked`, `unknown`, `pending` or `audience`.
    pub(super) fn unauthorized(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// 403: an operator has to let the device in first.
    pub(super) fn pending() -> Self {
        Self::new(StatusCode::FORBIDDEN, "pending", "the device waits for an operator")
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such thing for this device")
    }

    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", detail)
    }

    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "an agent's request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "see the coordinator's log")
    }
}

/// Seconds after which a device that asks too much may ask again.
const CALM_DOWN: u64 = 30;

/// The same where the store is out of order, at least.
const LEAST: u64 = 5;

/// From so many seconds up to twice as many, at random: a fleet that was sent away must not come back
/// as one.
fn spread(seconds: u64) -> u64 {
    let mut chance = [0; 1];
    // Without randomness there is no spread, which is all it is for.
    let _ = SystemRandom::new().fill(&mut chance);
    seconds + seconds * u64::from(chance[0]) / 255
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = ApiError { code: self.code.into(), detail: self.detail };
        let mut response = (self.status, Json(body)).into_response();
        let extra = match self.status {
            StatusCode::UNAUTHORIZED => {
                (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                (header::RETRY_AFTER, spread(self.retry_after).into())
            }
            _ => return response,
        };
        response.headers_mut().insert(extra.0, extra.1);
        response
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => Self {
                retry_after: reason.retry_after_s().max(LEAST),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason.to_string())
            },
            other => Self::internal(&other),
        }
    }
}

impl From<ArtifactError> for Error {
    fn from(error: ArtifactError) -> Self {
        Self::internal(&error)
    }
}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        match error {
            Malformed::TooLarge { .. } | Malformed::TooMany { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string())
            }
            Malformed::Json(_) | Malformed::Version(_) | Malformed::Number => {
                Self::malformed(error.to_string())
            }
        }
    }
}

impl From<BytesRejection> for Error {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", rejection.body_text())
            }
            _ => Self::malformed(rejection.body_text()),
        }
    }
}
