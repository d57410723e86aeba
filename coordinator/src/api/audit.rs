//! Every change that an operator makes, in the audit log: who, what, where, when.

use std::sync::{Arc, OnceLock};

use axum::extract::{OriginalUri, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::ApiError;
use crate::store::audit::Entry;

/// Where authentication leaves the name of who asks.
#[derive(Debug, Clone, Default)]
pub struct Actor(Arc<OnceLock<String>>);

impl Actor {
    pub fn is(&self, name: &str) {
        // A request is authenticated once.
        let _ = self.0.set(name.to_owned());
    }
}

/// Records what changed something; reading and what was refused leave no entry.
pub async fn record(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    if matches!(method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let actor = Actor::default();
    let path = request
        .extensions()
        .get::<OriginalUri>()
        .map_or_else(|| request.uri().path().to_owned(), |original| original.path().to_owned());
    request.extensions_mut().insert(actor.clone());
    // In a task of its own: a client that goes before the answer takes neither the change nor its
    // entry with it.
    let done = tokio::spawn(async move {
        let response = next.run(request).await;
        if let Some(name) = actor.0.get().filter(|_| response.status().is_success()) {
            let entry = Entry {
                actor: format!("user:{name}"),
                organization: None,
                action: method.to_string(),
                subject: path,
                detail: Some(response.status().as_u16().to_string()),
            };
            // The change is made; that its entry is missing must not look as if it were not.
            if let Err(error) = app.store.record_audit(entry).await {
                tracing::error!(%error, "a change is missing in the audit log");
            }
        }
        response
    });
    done.await.unwrap_or_else(|error| ApiError::internal(&error).into_response())
}
