//! A server that answers as a test tells it to, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::client::{Client, Http};
use super::trust;
use crate::api::BASE;

pub(super) struct Scripted {
    pub client: Client,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// `answer` gets each path below the API's base, with its query.
    pub(super) async fn new(
        answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = asked.clone();
        let reply = move |uri: Uri| {
            let path = uri.to_string();
            let path = path.trim_start_matches(BASE).trim_start_matches('/');
            log.lock().unwrap().push(path.to_owned());
            let response = answer(path);
            async move { response }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(reply);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let tls = trust::pinned(shared::hex::Hex([0; 32])).unwrap();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let http = Http { hasty: http.clone(), patient: http };
        Self { client: Client::new(http, &url, Some("token".into())), asked }
    }

    /// The paths so far, with their queries.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// With this body.
pub(super) fn good(body: &Value) -> Response {
    body.to_string().into_response()
}

/// The state of a batch as its live events begin with it.
pub(super) fn event(subject: &str, state: &Value) -> Response {
    format!("id: 1\nevent: {subject}\ndata: {state}\n\n").into_response()
}

/// Not now, but in a second.
pub(super) fn throttled() -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "{}").into_response()
}
