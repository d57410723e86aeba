//! The audit log of operators.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, header};
use coordinator::api::BASE;
use serde_json::json;
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

#[tokio::test]
async fn a_change_and_its_entry_are_one_and_what_is_refused_leaves_none() {
    let world = World::new().await;
    let before = world.app.store.audit(10).await.unwrap();
    let made = world.post(ADMIN, "category/", json!({ "name": "FN990A" })).await;
    assert_eq!(made.status, 201);
    let log = world.app.store.audit(10).await.unwrap();
    assert_eq!(log.len(), before.len() + 1, "{log:?}");
    let entry = &log[0].entry;
    assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("user:admin", "POST"));
    assert_eq!(entry.subject, format!("{BASE}/category/"));

    let again = world.post(ADMIN, "category/", json!({ "name": "FN990A" })).await;
    assert_eq!(again.status, 400);
    assert_eq!(world.app.store.audit(10).await.unwrap(), log, "nothing was changed");
}
