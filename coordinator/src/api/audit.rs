//! Every change that an operator makes, in the audit log: who, what, where, when.
//!
//! The entry commits with its change: handlers change things through [`Operator::store`], which
//! knows both.
//!
//! [`Operator::store`]: super::Operator::store

use axum::extract::{OriginalUri, Request};
use axum::http::{Method, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::store::audit::Entry;

/// Whether a request of this method changes nothing.
pub fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What the log says of a request by the user called `name`.
pub fn entry(parts: &Parts, name: &str) -> Entry {
    let path = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    Entry {
        actor: format!("user:{name}"),
        organization: None,
        action: parts.method.to_string(),
        subject: path.path().to_owned(),
        detail: None,
    }
}

/// Finishes what was begun: a client that goes before the answer does not leave a change half made,
/// its files still there.
pub async fn finish(request: Request, next: Next) -> Response {
    if reads(request.method()) {
        return next.run(request).await;
    }
    let done = tokio::spawn(next.run(request));
    done.await.unwrap_or_else(|error| ApiError::internal(&error).into_response())
}
