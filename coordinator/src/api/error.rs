//! Every error an operator can get, built here and nowhere else.
//!
//! | status | body |
//! |---|---|
//! | 400 | `{"field": ["message"]}` or `{"error": "message"}` |
//! | 401, 403, 404, 405, 413, 415, 429, 500, 503 | `{"detail": "message"}` |
//! | 409, 422, 507 | `{"error": "message"}` |

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{artifacts::ArtifactError, password::PasswordError, store::StoreError};

/// What handlers return.
pub type Answer<T = Response> = Result<T, ApiError>;

/// Messages by the field they are about.
pub type FieldErrors = BTreeMap<String, Vec<String>>;

#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    pub status: StatusCode,
    pub body: Value,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, header: None }
    }

    fn detail(status: StatusCode, message: &str) -> Self {
        Self::new(status, json!({ "detail": message }))
    }

    fn with(self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    /// 400: `field` is at fault.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(FieldErrors::from([(field.to_owned(), vec![message.into()])]))
    }

    /// 400: several fields are.
    pub fn fields(errors: FieldErrors) -> Self {
        Self::new(StatusCode::BAD_REQUEST, json!(errors))
    }

    /// 400: the request as a whole is at fault.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, json!({ "error": message.into() }))
    }

    pub fn unauthenticated() -> Self {
        Self::detail(StatusCode::UNAUTHORIZED, "Authentication credentials were not provided.")
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 401: malformed, unknown, expired or revoked; which of them is nobody's business.
    pub fn invalid_token() -> Self {
        Self::detail(StatusCode::UNAUTHORIZED, "Invalid token.").with(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer error=\"invalid_token\""),
        )
    }

    /// 403: visible, but not this user's to change.
    pub fn forbidden() -> Self {
        Self::forbidden_because("You do not have permission to perform this action.")
    }

    pub fn forbidden_because(message: &str) -> Self {
        Self::detail(StatusCode::FORBIDDEN, message)
    }

    /// 404: there is none, or it is another organization's.
    pub fn not_found() -> Self {
        Self::detail(StatusCode::NOT_FOUND, "Not found.")
    }

    /// Of what a body names: that there is none is its field's mistake, and what else went wrong stays what it is.
    pub fn of_field(self, field: &str, message: impl Into<String>) -> Self {
        match self.status {
            StatusCode::NOT_FOUND => Self::field(field, message),
            _ => self,
        }
    }

    pub fn invalid_page() -> Self {
        Self::detail(StatusCode::NOT_FOUND, "Invalid page.")
    }

    pub fn method_not_allowed(method: &str) -> Self {
        let message = format!("Method \"{method}\" not allowed.");
        Self::detail(StatusCode::METHOD_NOT_ALLOWED, &message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, json!({ "error": message.into() }))
    }

    /// 422: well-formed, and not what was meant by it before.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": message.into() }))
    }

    pub fn too_large(limit: u64) -> Self {
        let message = format!("The request is larger than the limit of {limit} bytes.");
        Self::detail(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }

    /// 413 for a body whose limit is told nowhere else.
    pub fn too_large_body() -> Self {
        Self::detail(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large.")
    }

    pub fn unsupported_media_type(expected: &str) -> Self {
        let message = format!("Unsupported media type: send {expected}.");
        Self::detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message)
    }

    /// 429, to be tried again after `seconds`.
    pub fn throttled(seconds: u64) -> Self {
        let message = format!("Request was throttled. Expected available in {seconds} seconds.");
        Self::throttled_because(&message, seconds)
    }

    pub fn throttled_because(message: &str, seconds: u64) -> Self {
        Self::detail(StatusCode::TOO_MANY_REQUESTS, message).with(header::RETRY_AFTER, seconds)
    }

    /// 507: the disk or the quota is full.
    pub fn no_room(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, json!({ "error": message.into() }))
    }

    /// 503: try again soon.
    pub fn unavailable() -> Self {
        Self::detail(StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable: try again.")
            .with(header::RETRY_AFTER, 2_u64)
    }

    /// 500: the cause is logged, not told.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = error.to_string();
        let mut next = error.source();
        while let Some(error) = next {
            cause.push_str(": ");
            cause.push_str(&error.to_string());
            next = error.source();
        }
        tracing::error!(cause, "a request failed");
        Self::detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error.")
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::unavailable(),
            PasswordError::Hash => Self::internal(&error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::debug!(%reason, "the store refused a request");
                let message = format!("Temporarily unavailable: {reason}. Try again later.");
                Self::detail(StatusCode::SERVICE_UNAVAILABLE, &message)
                    .with(header::RETRY_AFTER, reason.retry_after_s())
            }
            StoreError::NewerSchema { .. } | StoreError::Open(_) | StoreError::Database(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::TooLarge { limit } => Self::too_large(limit),
            ArtifactError::Quota { .. } | ArtifactError::DiskFull { .. } => {
                Self::no_room(format!("There is no room for this file: {error}."))
            }
            ArtifactError::Busy => Self::unavailable(),
            ArtifactError::Io(_) => Self::internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_found_is_a_fields_mistake() {
        let none = ApiError::not_found().of_field("build", "There is none.");
        assert_eq!(none, ApiError::field("build", "There is none."));
        for other in [ApiError::unavailable(), ApiError::forbidden()] {
            assert_eq!(other.clone().of_field("build", "There is none."), other);
        }
    }
}
