//! The audit log of operators.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, header};
use coordinator::api::BASE;
use tower::ServiceExt;

use crate::world::{ADMIN, World};

#[tokio::test]
async fn a_change_is_recorded_though_its_client_went_away() {
    let world = World::new().await;
    let request = Request::post(format!("{BASE}/category/"))
        .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(r#"{"name":"hasty"}"#))
        .unwrap();
    // Polled once, then dropped, as a connection that is reset drops it.
    let answer = tokio::time::timeout(Duration::ZERO, world.router.clone().oneshot(request));
    assert!(answer.await.is_err(), "answered before it could be dropped");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let log = world.app.store.audit(1).await.unwrap();
        if log.iter().any(|recorded| recorded.entry.subject.ends_with("/category/")) {
            break;
        }
        assert!(Instant::now() < deadline, "{log:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
