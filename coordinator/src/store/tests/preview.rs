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

#[tokio::test]
async fn a_damaged_row_is_one_devices_matter() {
    let f = Fixture::new().await;
    let image = f.store.image(f.image("v2").await).await.unwrap().unwrap();
    let (one, other) = (f.device(1).await, f.device(2).await);
    f.ask(other, image.id).await.unwrap();
    let damage = f.store.write::<_, Never, _>(move |tx| {
        tx.execute("UPDATE devices SET inventory = '{' WHERE id = ?1", [one.to_string()])?;
        let versions =
            "INSERT INTO modems (device, slot, versions, modified) VALUES (?1, 'main', '[', 0)
                        ON CONFLICT (device, slot) DO UPDATE SET versions = '['";
        Ok(tx.execute(versions, [other.to_string()])?)
    });
    damage.await.unwrap();
    let ask = Ask {
        organization: f.store.organizations().await.unwrap().remove(0).id,
        build: image.build,
        category: CategoryId(Uuid::from_u128(1)),
        selection: Selection::default(),
        allowance: Allowance::default(),
    };
    let preview = f.store.preview(ask).await.unwrap();
    let told: Vec<_> = preview.verdicts.iter().map(|verdict| verdict.device).collect();
    assert!(told.len() == 2 && told.contains(&one) && told.contains(&other), "{told:?}");
}
