//! The job out: what is desired of the device, and the leave to start it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::grant::{Grant, StartRequest};
use shared::ids::OperationId;

use super::AgentApi;
use super::auth::Caller;
use super::enrolment::read;
use super::error::Error;
use crate::store::Rejection;
use crate::store::operation::StartRefused;

const START: usize = 1024;

pub(super) async fn desired(
    State(api): State<AgentApi>,
    Caller(device): Caller,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let generation = known.map(|tag| tag.trim().trim_matches('"').to_owned());
    match api.store.desired(device, generation).await? {
        Some(desired) => {
            let tag = format!("\"{}\"", desired.generation);
            let tag = HeaderValue::try_from(tag).map_err(|error| Error::internal(&error))?;
            Ok(([(header::ETAG, tag)], Json(desired)).into_response())
        }
        None => {
            let tag = headers.get(header::IF_NONE_MATCH).cloned();
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            tag.map(|tag| response.headers_mut().insert(header::ETAG, tag));
            Ok(response)
        }
    }
}

pub(super) async fn start(
    State(api): State<AgentApi>,
    Caller(device): Caller,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let id: OperationId = id.parse().map_err(|_| Error::not_found())?;
    let request: StartRequest = read(body, START)?;
    if request.attempt == 0 {
        return Err(Error::malformed("attempts count from 1"));
    }
    match api.store.start(device, id, request).await {
        Ok(leave) => {
            tracing::info!(%device, operation = %id, attempt = request.attempt, ?leave, "granted");
            let StartRequest { attempt, stream, .. } = request;
            Ok(Json(Grant { attempt, stream }).into_response())
        }
        Err(Rejection::Refused(StartRefused::Refused(refusal))) => {
            tracing::info!(%device, operation = %id, code = ?refusal.code, "not granted");
            Ok((StatusCode::CONFLICT, Json(refusal)).into_response())
        }
        Err(Rejection::Refused(StartRefused::Unknown)) => Err(Error::not_found()),
        Err(Rejection::Store(error)) => Err(error.into()),
    }
}
