//! `Idempotency-Key` on requests that start something: the same key and request again get the first
//! answer again, and nothing is started twice.
//!
//! | with the same key | answer |
//! |---|---|
//! | the same request, answered | the first answer |
//! | the same request, still running | 409, Retry-After |
//! | the same request, carried out, its answer too long to keep | 409 |
//! | another request | 422 |

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, OriginalUri, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shared::hex::sha256;
use shared::ids::UserId;

use super::auth::{self, Operator};
use super::error::ApiError;
use super::{App, audit, body};
use crate::store::Rejection;
use crate::store::repeat::{Answered, Known, Repeat, RepeatRefused};

/// Below [`BASE`](super::BASE): what starts something.
pub const STARTS: [&str; 5] = [
    "/build/{id}/upgrade/",
    "/batch-upgrade-operation/",
    "/batch-upgrade-operation/{id}/retry/",
    "/device/{id}/modem-firmware/",
    "/device-firmware/",
];

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of a key.
const LONGEST: usize = 128;

/// Requests with a key that run just now.
#[derive(Debug, Default)]
pub struct Running(Mutex<HashSet<(UserId, String)>>);

struct Turn {
    running: Arc<Running>,
    key: (UserId, String),
}

impl Running {
    fn enter(self: &Arc<Self>, repeat: &Repeat) -> Option<Turn> {
        let key = (repeat.user, repeat.key.clone());
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = running.insert(key.clone());
        fresh.then(|| Turn { running: self.clone(), key })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Carries a request with a key out once.
pub async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(KEY) || audit::reads(request.method()) || !starts(&request) {
        return next.run(request).await;
    }
    match with_key(app, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

fn starts(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.and_then(|path| path.as_str().strip_prefix(super::BASE));
    request.method() != Method::DELETE && path.is_some_and(|path| STARTS.contains(&path))
}

async fn with_key(app: App, request: Request, next: Next) -> Result<Response, ApiError> {
    let key = key(request.headers())?;
    let (mut parts, body) = request.into_parts();
    let operator = Operator::from_request_parts(&mut parts, &app).await?;
    let user = operator.user.user;
    parts.extensions.insert(auth::Known(operator));
    let body = to_bytes(body, body::LIMIT).await;
    let body = body.map_err(|_| ApiError::too_large(body::LIMIT as u64))?;
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let path = uri.path_and_query().map_or_else(|| uri.path(), |path| path.as_str());
    let route = Repeat::route(parts.method.as_str(), path);
    let repeat = Repeat { user, key, route, digest: sha256(&body) };
    let Some(turn) = app.repeats.enter(&repeat) else {
        let running = ApiError::conflict("A request with this key is running: ask again.");
        return Ok(([(header::RETRY_AFTER, "1")], running).into_response());
    };
    match app.store.begin_repeat(repeat.clone()).await.map_err(refused)? {
        Known::New => {}
        Known::Answered(answered) => return Ok(replay(answered)),
        Known::Done => {
            let long = "The request was carried out before, and its answer was too long to keep: look \
                        at what there is, and use another key for another one.";
            return Err(ApiError::conflict(long));
        }
    }
    parts.extensions.insert(repeat.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    // A good answer was kept with the change; whatever else it is, the request may be tried again.
    if !response.status().is_success() {
        app.store.forget_repeat(repeat).await?;
    }
    drop(turn);
    Ok(response)
}

fn replay(answered: Answered) -> Response {
    let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::OK);
    let json = HeaderValue::from_static("application/json");
    let headers = [(header::CONTENT_TYPE, json), (REPLAYED, HeaderValue::from_static("true"))];
    (status, headers, Bytes::from(answered.body)).into_response()
}

fn key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut given = headers.get_all(KEY).iter();
    let key = given.next().and_then(|value| value.to_str().ok()).map(str::trim);
    match key {
        Some(key) if (1..=LONGEST).contains(&key.len()) && given.next().is_none() => {
            Ok(key.to_owned())
        }
        _ => {
            let message = format!("Send one key of 1 to {LONGEST} plain characters.");
            Err(ApiError::field("Idempotency-Key", message))
        }
    }
}

fn refused(rejection: Rejection<RepeatRefused>) -> ApiError {
    match rejection {
        Rejection::Store(error) => error.into(),
        Rejection::Refused(refused @ RepeatRefused::Another) => {
            ApiError::unprocessable(format!("Use another key: {refused}."))
        }
        Rejection::Refused(RepeatRefused::TooMany) => ApiError::throttled(3600),
    }
}
