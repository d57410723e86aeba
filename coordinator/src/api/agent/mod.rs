//! The agent's API, base `/api/v1/agent`: enrolment, tokens, jobs, the grant, reports and images.
//!
//! | request | answer |
//! |---|---|
//! | `POST /nonce` | 200 [`Nonce`](shared::identity::Nonce) |
//! | `POST /enrol` [`Enrol`](shared::identity::Enrol) | 200 or 201 [`Enrolled`](shared::identity::Enrolled) |
//! | `POST /token` [`TokenRequest`](shared::identity::TokenRequest) | 200 [`Tokens`](shared::identity::Tokens) |
//! | `GET /desired` | 200 [`Desired`](shared::desired::Desired), 304 |
//! | `POST /operations/{id}/start` [`StartRequest`](shared::grant::StartRequest) | 200 [`Grant`](shared::grant::Grant), 409 [`Refusal`](shared::grant::Refusal) |
//! | `POST /events` [`Events`](shared::event::Events) | 200 [`Acks`](shared::ack::Acks) |
//! | `POST /ticks` [`Tick`](shared::event::Tick) | 204 |
//! | `PUT /inventory` [`Inventory`](shared::inventory::Inventory) | 204 |
//! | `GET /images/{id}/{file,manifest,signature}` | 200, 206, 304 |
//!
//! All but the first three take an access token for the audience `api`; whose device it is comes
//! from there and from nowhere else. More than [`REQUESTS_A_MINUTE`] of them are 429. Errors are [`ApiError`](shared::identity::ApiError).

mod auth;
mod enrolment;
mod error;
mod image;
mod job;
mod nonce;
mod report;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use shared::limits;

pub use nonce::Nonces;

use crate::api::throttle::Throttle;
use crate::artifacts::Artifacts;
use crate::ingest::Signs;
use crate::lines::acl::Admission;
use crate::store::Store;
use crate::tokens::Tokens;

/// The largest body of any request here; each handler has its own limit below it.
const BODY: usize = limits::EVENTS + 1024;

/// What the handlers work with.
#[derive(Clone)]
pub struct AgentApi {
    pub store: Store,
    pub artifacts: Artifacts,
    pub tokens: Arc<Tokens>,
    pub admission: Arc<Admission>,
    pub signs: Signs,
    pub nonces: Arc<Nonces>,
    /// Names this coordinator in what devices sign.
    pub audience: Arc<str>,
    /// Where devices find the MQTT listener.
    pub mqtt_port: u16,
    /// How long access tokens are good.
    pub token_lifetime: Duration,
    /// How often one device may ask.
    pub throttle: Arc<Throttle>,
}

/// Requests a minute that one device may make: many times what a healthy one needs.
pub const REQUESTS_A_MINUTE: u32 = 600;

/// The routes, to be nested under `/api/v1/agent`.
pub fn router(api: AgentApi) -> Router {
    Router::new()
        .route("/nonce", post(enrolment::nonce))
        .route("/enrol", post(enrolment::enrol))
        .route("/token", post(enrolment::token))
        .route("/desired", get(job::desired))
        .route("/operations/{id}/start", post(job::start))
        .route("/events", post(report::events))
        .route("/ticks", post(report::tick))
        .route("/inventory", put(report::inventory))
        .route("/images/{id}/file", get(image::file))
        .route("/images/{id}/manifest", get(image::manifest))
        .route("/images/{id}/signature", get(image::signature))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(api)
}

#[cfg(test)]
mod tests;
