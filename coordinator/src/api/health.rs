//! For whoever watches the coordinator: is it alive, can it work?

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::App;

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn alive() -> &'static str {
    "ok\n"
}

/// The database can be written, and there is room for the next upload's first bytes.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = String, content_type = "text/plain"),
    ))]
pub async fn ready(State(app): State<App>) -> Response {
    let problem = match app.store.check().await {
        Err(error) => Some(error.to_string()),
        Ok(()) => {
            let trouble = app.store.trouble().map(|reason| reason.to_string());
            trouble.or_else(|| app.artifacts.check_room().err().map(|error| error.to_string()))
        }
    };
    match problem {
        None => "ready\n".into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}
