//! For whoever watches the coordinator: is it alive, can it work?

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;

use super::App;

/// Anybody may ask, and the answer takes a write to the disk.
const FRESH: Duration = Duration::from_secs(1);

/// What was in the way when somebody asked last.
#[derive(Debug, Default)]
pub struct LastCheck(Mutex<Option<(Instant, Option<String>)>>);

impl LastCheck {
    /// At most 1 s old; those who ask meanwhile wait for it.
    async fn problem(&self, app: &App) -> Option<String> {
        let mut last = self.0.lock().await;
        if let Some((_, problem)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return problem.clone();
        }
        let problem = problem(app).await;
        *last = Some((Instant::now(), problem.clone()));
        problem
    }
}

async fn problem(app: &App) -> Option<String> {
    if let Err(error) = app.store.check().await {
        return Some(error.to_string());
    }
    let trouble = app.store.trouble().map(|reason| reason.to_string());
    trouble.or_else(|| app.artifacts.check_room().err().map(|error| error.to_string()))
}

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
    match app.ready.problem(&app).await {
        None => "ready\n".into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}
