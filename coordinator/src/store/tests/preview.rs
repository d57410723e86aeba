//! Dry runs beside everything else.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::IntoResponse;
use shared::ids::CategoryId;
use tokio::time::timeout;

use super::*;
use crate::api::error::ApiError;
use crate::batch::verdict::Allowance;
use crate::store::batch::{Ask, Selection};
use crate::store::{StoreError, Unavailable};

async fn ask(f: &Fixture) -> Ask {
    let image = f.store.image(f.image("v2").await).await.unwrap().unwrap();
    let organization = f.store.organizations().await.unwrap().remove(0).id;
    Ask {
        organization,
        build: image.build,
        category: CategoryId(Uuid::from_u128(1)),
        selection: Selection::default(),
        allowance: Allowance::default(),
    }
}

#[tokio::test]
async fn one_dry_run_at_a_time_has_a_reader() {
    let f = Fixture::new().await;
    let ask = ask(&f).await;
    f.store.preview(ask.clone()).await.unwrap();
    let other = f.store.shared.looks.turns.clone().acquire_owned().await.unwrap();
    let waiting = timeout(Duration::from_millis(200), f.store.preview(ask.clone()));
    assert!(waiting.await.is_err(), "two at once");
    drop(other);
    f.store.preview(ask).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_for_long_is_told_when_to_come_again() {
    let f = Fixture::new().await;
    let ask = ask(&f).await;
    let other = f.store.shared.looks.turns.clone().acquire_owned().await.unwrap();
    let refused = f.store.preview(ask.clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(Unavailable::Looking)), "{refused}");
    let answer = ApiError::from(refused).into_response();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &HeaderValue::from_static("2"))
    );
    drop(other);
    f.store.preview(ask).await.unwrap();
}
