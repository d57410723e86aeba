//! The HTTPS server: the operator's and the agents' routes behind TLS.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::StartError;
use super::body;
use super::door::Door;
use super::parts::Parts;
use crate::api::agent::{AgentApi, Nonces};
use crate::api::throttle::Throttle;
use crate::api::{self, Services};
use crate::config::Config;

/// A client has this long for TLS, for the head of a request, and for a small body.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a small body.
const SMALL: usize = 16 * 1024;

/// Bytes of a connection that wait to be read or written.
const HTTP1_BUFFER: usize = 128 * 1024;
/// How often a silent client is asked whether it is still there.
const HTTP2_PING: Duration = Duration::from_secs(60);

/// The running server.
pub(super) struct Web {
    handle: Handle<SocketAddr>,
    task: JoinHandle<()>,
}

impl Web {
    pub(super) fn spawn(
        parts: &Parts,
        config: &Config,
        mqtt_port: u16,
        listener: TcpListener,
    ) -> Result<Self, StartError> {
        let tls = RustlsConfig::from_config(parts.identity.https()?);
        let door = Door::default();
        let acceptor = RustlsAcceptor::new(tls).handshake_timeout(PATIENCE).acceptor(door.clone());
        let routes = routes(parts, config, mqtt_port)?
            .layer(middleware::from_fn_with_state(door, make_room));
        let (address, handle) = (config.https, Handle::new());
        let mut server = axum_server::from_tcp(listener)
            .map_err(|source| StartError::Listen { address, source })?
            .acceptor(acceptor)
            .handle(handle.clone());
        let http = server.http_builder();
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HTTP1_BUFFER);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(64)
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(PATIENCE);
        let task = tokio::spawn(async move {
            if let Err(error) =
                server.serve(routes.into_make_service_with_connect_info::<SocketAddr>()).await
            {
                tracing::error!(%error, "HTTPS");
            }
        });
        Ok(Self { handle, task })
    }

    /// Until it has ended.
    pub(super) async fn ended(&mut self) {
        // A panic in there has been printed.
        let _ = (&mut self.task).await;
    }

    /// Takes no more connections, and gives those that are open `grace` to end.
    pub(super) async fn stop(&mut self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
        if !self.task.is_finished() {
            self.ended().await;
        }
    }

    pub(super) fn abort(&self) {
        self.handle.shutdown();
        self.task.abort();
    }
}

/// While it is crowded an answer is the last one of its connection: when a whole fleet comes back, places
/// that are kept for a next request are what the others wait for.
async fn make_room(State(door): State<Door>, request: Request, next: Next) -> Response {
    let may_close = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if may_close && door.is_crowded() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Takes a small body in before anybody answers. An answer to a body that nobody has read, say a 401,
/// ends an HTTP/2 stream with a reset, and curl then gives up the answer too.
async fn take_small_body(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse().ok()).is_none_or(|length: usize| length > SMALL) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match timeout(PATIENCE, axum::body::to_bytes(body, SMALL)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, body.into())).await,
        Ok(Err(_)) => StatusCode::BAD_REQUEST.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

fn routes(parts: &Parts, config: &Config, mqtt_port: u16) -> Result<Router, StartError> {
    let operators = Services {
        store: parts.store.clone(),
        artifacts: parts.artifacts.clone(),
        tokens: parts.tokens.clone(),
        feed: parts.feed.clone(),
        registry: parts.registry.clone(),
        counters: parts.counters.clone(),
        throttle: Arc::new(Throttle::new(config.requests_a_minute)),
        census: Arc::default(),
        ready: Arc::default(),
        streams: Arc::default(),
        passwords: Arc::default(),
        repeats: Arc::default(),
        logins: Arc::new(Throttle::new(api::user::ATTEMPTS_A_MINUTE)),
        mqtt_tokens: Arc::new(Throttle::daily(api::user::MQTT_TOKENS_A_DAY)),
        mqtt_port,
    };
    let audience = config.audience.clone().unwrap_or_else(|| parts.pin.to_string());
    let agents = AgentApi {
        store: parts.store.clone(),
        artifacts: parts.artifacts.clone(),
        tokens: parts.tokens.clone(),
        admission: parts.admission.clone(),
        signs: parts.signs.clone(),
        nonces: Arc::new(Nonces::new().map_err(|_| StartError::NoRandomness)?),
        audience: audience.into(),
        mqtt_port,
        token_lifetime: config.token_lifetime,
        throttle: Arc::new(Throttle::new(api::agent::REQUESTS_A_MINUTE)),
    };
    let routes = api::router(operators.into()).nest("/api/v1/agent", api::agent::router(agents));
    let routes = routes.layer(middleware::from_fn(take_small_body));
    let routes = routes.layer(middleware::from_fn(body::read_to_its_end));
    Ok(routes.layer(middleware::map_request(body::keep_moving)))
}
