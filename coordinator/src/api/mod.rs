//! The HTTP API, all of its routes in one table: the operator's below [`BASE`], the agents' below
//! `/api/v1/agent` ([`agent`]), and those of whoever watches the coordinator.
//!
//! A handler extracts, authorises, asks the store and answers. A foreign organization's things are
//! not found; the rules of what may change live in the store's verbs and `operation`.

pub mod account;
pub mod agent;
pub mod audit;
pub mod auth;
pub mod body;
pub mod build;
pub mod category;
pub mod device;
pub mod enrolment_token;
pub mod error;
pub mod firmware;
pub mod health;
pub mod image;
mod manifest;
pub mod member;
pub mod metrics;
pub mod operation;
pub mod organization;
pub mod page;
pub mod path;
pub mod stream;
pub mod throttle;
pub mod time;
pub mod token;
mod upload;
pub mod user;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::Method,
    middleware,
    routing::{get, post},
};

use crate::{
    artifacts::Artifacts,
    feed::Feed,
    lines::{reason::Counters, registry::Registry},
    password::Passwords,
    store::Store,
    tokens::Tokens,
};

use utoipa_axum::{router::OpenApiRouter, routes};

pub use auth::Operator;
use error::ApiError;
use throttle::Throttle;

/// Where the operator's API begins.
pub const BASE: &str = "/api/v1/modem-upgrader";

/// Requests a minute that a user may make.
pub const REQUESTS_A_MINUTE: u32 = 1000;

/// What handlers work with. Clones share it.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub artifacts: Artifacts,
    pub tokens: Arc<Tokens>,
    pub feed: Arc<Feed>,
    pub registry: Arc<Registry>,
    pub counters: Arc<Counters>,
    pub throttle: Arc<Throttle>,
    pub census: Arc<metrics::LastCensus>,
    pub streams: Arc<stream::Streams>,
    pub passwords: Arc<Passwords>,
    /// Passwords that are tried.
    pub logins: Arc<Throttle>,
    /// Where dashboards find the lines.
    pub mqtt_port: u16,
}

/// Every route.
pub fn router(app: App) -> Router {
    let operators = operators(app.artifacts.limits().file);
    let (operators, _) = operators.layer(middleware::from_fn(audit::finish)).split_for_parts();
    Router::new()
        .nest(BASE, operators)
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|method: Method| async move {
            ApiError::method_not_allowed(method.as_str())
        })
        .with_state(app)
}

fn operators(largest_file: u64) -> OpenApiRouter<App> {
    let largest = usize::try_from(largest_file.saturating_add(upload::OVERHEAD));
    let uploads = DefaultBodyLimit::max(largest.unwrap_or(usize::MAX));
    OpenApiRouter::new()
        .route("/category/", get(category::list).post(category::create))
        .route(
            "/category/{id}/",
            get(category::detail)
                .put(category::change)
                .patch(category::change)
                .delete(category::delete),
        )
        .route("/build/", get(build::list).post(build::create))
        .route(
            "/build/{id}/",
            get(build::detail).put(build::change).patch(build::change).delete(build::delete),
        )
        // build/{id}/upgrade/ and batch-upgrade-operation/ come with batches.
        .route("/build/{id}/image/", get(image::list).post(image::create).layer(uploads))
        .route("/build/{id}/image/{image_id}/", get(image::detail).delete(image::delete))
        .route("/build/{id}/image/{image_id}/download/", get(image::download_in))
        .route("/firmware-image/{id}/download/", get(image::download))
        .route(
            "/image/{id}/manifest/",
            get(image::manifest).post(image::complete).layer(DefaultBodyLimit::max(1 << 20)),
        )
        .route("/image/{id}/signature/", get(image::signature))
        .route("/device/", get(device::list))
        .route("/device/{id}/", get(device::detail).patch(device::change))
        .route("/device/{id}/accept/", post(device::accept))
        .route("/device/{id}/refuse/", post(device::refuse))
        .route("/device/{id}/release/", post(device::release))
        .route("/device/{id}/revoke/", post(device::revoke))
        .route(
            "/device/{id}/modem-firmware/",
            get(firmware::detail)
                .put(firmware::put)
                .patch(firmware::patch)
                .delete(firmware::delete),
        )
        .route("/device/{id}/upgrade-operation/", get(operation::list_of_device))
        .route("/device-firmware/", get(firmware::list).post(firmware::create))
        .route("/upgrade-operation/", get(operation::list))
        .route("/upgrade-operation/{id}/", get(operation::detail).patch(operation::report))
        .route("/upgrade-operation/{id}/cancel/", post(operation::cancel))
        .route("/upgrade-operation/{id}/events/", get(stream::of_operation))
        .route("/events/", get(stream::of_organization))
        .routes(routes!(user::login))
        .routes(routes!(user::mqtt_token))
        .routes(routes!(account::list, account::create))
        .routes(routes!(account::me, account::change_me))
        .routes(routes!(account::detail, account::replace, account::change, account::delete))
        .routes(routes!(token::list, token::create))
        .routes(routes!(token::delete))
        .routes(routes!(organization::list, organization::create))
        .routes(routes!(
            organization::detail,
            organization::replace,
            organization::change,
            organization::delete
        ))
        .routes(routes!(member::list, member::create))
        .routes(routes!(member::detail, member::replace, member::change, member::delete))
        .routes(routes!(enrolment_token::list, enrolment_token::create))
        .routes(routes!(enrolment_token::detail, enrolment_token::delete))
        .routes(routes!(audit::list))
        .layer(DefaultBodyLimit::max(body::LIMIT))
}
