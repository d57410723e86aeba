//! The image of a job: its file by ranges, its manifest's exact bytes, and the signature over them.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};

use super::AgentApi;
use super::auth::Caller;
use super::error::Error;
use crate::store::desired::JobImage;

/// What the file is called in an answer that only agents read.
const NAME: &str = "firmware";

pub(super) async fn file(
    State(api): State<AgentApi>,
    caller: Caller,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let image = find(&api, &caller, &id).await?;
    let stored = api.artifacts.stored(image.sha256).await?;
    Ok(stored.ok_or_else(Error::not_found)?.respond(&method, &headers, NAME))
}

pub(super) async fn manifest(
    State(api): State<AgentApi>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let image = find(&api, &caller, &id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], image.manifest).into_response())
}

pub(super) async fn signature(
    State(api): State<AgentApi>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let image = find(&api, &caller, &id).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], image.signature).into_response())
}

/// Only images of the device's own jobs exist for it.
async fn find(api: &AgentApi, caller: &Caller, id: &str) -> Result<JobImage, Error> {
    let id = id.parse().map_err(|_| Error::not_found())?;
    api.store.job_image(caller.0, id).await?.ok_or_else(Error::not_found)
}
