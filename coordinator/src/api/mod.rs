//! The HTTP API, all of its routes in one table: the operator's below [`BASE`], the agents' below
//! `/api/v1/agent` ([`agent`]), and those of whoever watches the coordinator.
//!
//! A handler extracts, authorises, asks the store and answers. A foreign organization's things are
//! not found; the rules of what may change live in the store's verbs and `operation`.

pub mod account;
pub mod agent;
pub mod audit;
pub mod auth;
pub mod batch;
pub mod body;
pub mod build;
pub mod category;
pub mod device;
pub mod document;
pub mod enrolment_token;
pub mod error;
pub mod firmware;
pub mod group;
pub mod health;
pub mod image;
mod manifest;
pub mod member;
pub mod metrics;
pub mod operation;
pub mod organization;
pub mod page;
pub mod path;
pub mod repeat;
pub mod stream;
pub mod throttle;
pub mod time;
pub mod token;
pub mod upgrade;
mod upload;
pub mod user;

use std::ops::Deref;
use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, http::Method, middleware};
use utoipa::openapi::OpenApi;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::{
    artifacts::Artifacts,
    feed::Feed,
    lines::{reason::Counters, registry::Registry},
    password::Passwords,
    store::Store,
    tokens::Tokens,
};

pub use auth::Operator;
use error::ApiError;
use group::{groups, locations};
use throttle::Throttle;

/// Where the operator's API begins.
pub const BASE: &str = "/api/v1/modem-upgrader";

/// Requests a minute that a user may make.
pub const REQUESTS_A_MINUTE: u32 = 1000;

/// What handlers work with. Cloned with every request, several times.
#[derive(Clone)]
pub struct App(Arc<Services>);

impl Deref for App {
    type Target = Services;
    fn deref(&self) -> &Services {
        &self.0
    }
}

impl From<Services> for App {
    fn from(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

/// See [`App`].
pub struct Services {
    pub store: Store,
    pub artifacts: Artifacts,
    pub tokens: Arc<Tokens>,
    pub feed: Arc<Feed>,
    pub registry: Arc<Registry>,
    pub counters: Arc<Counters>,
    pub throttle: Arc<Throttle>,
    pub census: Arc<metrics::LastCensus>,
    pub ready: Arc<health::LastCheck>,
    pub streams: Arc<stream::Streams>,
    pub repeats: Arc<repeat::Running>,
    pub passwords: Arc<Passwords>,
    /// Passwords that are tried.
    pub logins: Arc<Throttle>,
    /// Tokens for MQTT that each user makes.
    pub mqtt_tokens: Arc<Throttle>,
    /// Where dashboards find the lines.
    pub mqtt_port: u16,
}

/// Every route.
pub fn router(app: App) -> Router {
    let (routes, document) = documented(app.artifacts.limits().file);
    routes
        // From the inside out: what runs once runs to its end, though its client goes away.
        .layer(middleware::from_fn_with_state(app.clone(), repeat::once))
        .layer(middleware::from_fn(audit::finish))
        .merge(document::router(&document))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|method: Method| async move {
            ApiError::method_not_allowed(method.as_str())
        })
        .layer(middleware::from_fn(document::guard))
        .with_state(app)
}

/// The API's description, as it is served.
pub fn openapi() -> OpenApi {
    documented(0).1
}

/// The routes and what they say of themselves.
fn documented(largest_file: u64) -> (Router<App>, OpenApi) {
    let (routes, document) = OpenApiRouter::new()
        .nest(BASE, operators(largest_file))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .split_for_parts();
    (routes, document::complete(document))
}

fn operators(largest_file: u64) -> OpenApiRouter<App> {
    let largest = usize::try_from(largest_file.saturating_add(upload::OVERHEAD));
    let uploads = DefaultBodyLimit::max(largest.unwrap_or(usize::MAX));
    let manifests = DefaultBodyLimit::max(1 << 20);
    OpenApiRouter::new()
        .routes(routes!(category::list, category::create))
        .routes(routes!(category::detail, category::replace, category::change, category::delete))
        .routes(routes!(build::list, build::create))
        .routes(routes!(build::detail, build::replace, build::change, build::delete))
        .routes(routes!(image::list, image::create).layer(uploads))
        .routes(routes!(image::detail, image::delete))
        .routes(routes!(image::download_in))
        .routes(routes!(image::download))
        .routes(routes!(image::manifest, image::complete).layer(manifests))
        .routes(routes!(image::signature))
        .routes(routes!(device::list))
        .routes(routes!(device::detail, device::change))
        .routes(routes!(device::accept))
        .routes(routes!(device::refuse))
        .routes(routes!(device::release))
        .routes(routes!(device::revoke))
        .routes(routes!(firmware::detail, firmware::put, firmware::patch, firmware::delete))
        .routes(routes!(operation::list_of_device))
        .routes(routes!(firmware::list, firmware::create))
        .routes(routes!(operation::list))
        .routes(routes!(operation::detail, operation::report))
        .routes(routes!(operation::log))
        .routes(routes!(operation::cancel))
        .routes(routes!(operation::write_off))
        .routes(routes!(stream::of_operation))
        .routes(routes!(stream::of_organization))
        .routes(routes!(upgrade::preview, upgrade::start))
        .routes(routes!(batch::list, upgrade::create))
        .routes(routes!(batch::detail))
        .routes(routes!(batch::left_out))
        .routes(routes!(batch::pause))
        .routes(routes!(batch::resume))
        .routes(routes!(batch::cancel))
        .routes(routes!(upgrade::retry))
        .routes(routes!(stream::of_batch))
        .routes(routes!(groups::list, groups::create))
        .routes(routes!(groups::detail, groups::replace, groups::change, groups::delete))
        .routes(routes!(locations::list, locations::create))
        .routes(routes!(
            locations::detail,
            locations::replace,
            locations::change,
            locations::delete
        ))
        .routes(routes!(user::login).layer(DefaultBodyLimit::max(body::SMALL)))
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
