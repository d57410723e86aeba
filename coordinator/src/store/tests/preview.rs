//! Dry runs beside everything else.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::IntoResponse;
use futures_util::FutureExt;
use shared::ids::{CategoryId, UserId};
use tokio::time::timeout;

use super::*;
use crate::api::error::ApiError;
use crate::batch::verdict::Allowance;
use crate::store::batch::{Ask, Looker, Selection};
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

const ONE: UserId = UserId(Uuid::from_u128(1));
const OTHER: UserId = UserId(Uuid::from_u128(2));

#[tokio::test]
async fn one_dry_run_at_a_time_has_a_reader_and_starts_have_another() {
    let f = Fixture::new().await;
    let ask = ask(&f).await;
    f.store.preview(ask.clone(), Looker::DryRun(ONE)).await.unwrap();
    let running = f.store.shared.looks.turn(Looker::DryRun(ONE)).await.unwrap();
    let waits = |looker| {
        let looking = f.store.preview(ask.clone(), looker);
        async { timeout(Duration::from_millis(200), looking).await.is_err() }
    };
    assert!(waits(Looker::DryRun(OTHER)).await, "two at once");
    for user in [ONE, OTHER] {
        f.store.preview(ask.clone(), Looker::Start(user)).await.unwrap();
    }
    let starting = f.store.shared.looks.turn(Looker::Start(ONE)).await.unwrap();
    assert!(waits(Looker::Start(OTHER)).await, "two starts at once");
    drop((running, starting));
    f.store.preview(ask, Looker::DryRun(OTHER)).await.unwrap();
}

#[tokio::test]
async fn who_asks_for_many_dry_runs_keeps_nobody_from_theirs() {
    let f = Fixture::new().await;
    let looks = &f.store.shared.looks;
    let running = looks.turn(Looker::DryRun(ONE)).await.unwrap();
    let mut flood: Vec<_> = (0..50).map(|_| Box::pin(looks.turn(Looker::DryRun(ONE)))).collect();
    for waiting in &mut flood {
        assert!(waiting.now_or_never().is_none());
    }
    let mut other = Box::pin(looks.turn(Looker::DryRun(OTHER)));
    assert!((&mut other).now_or_never().is_none());
    drop(running);
    // Whoever of the flood is next, only one of it is in front.
    let _other = other.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_for_long_is_told_when_to_come_again() {
    let f = Fixture::new().await;
    let ask = ask(&f).await;
    let other = f.store.shared.looks.turn(Looker::DryRun(OTHER)).await.unwrap();
    let refused = f.store.preview(ask.clone(), Looker::DryRun(ONE)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(Unavailable::Looking)), "{refused}");
    let answer = ApiError::from(refused).into_response();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &HeaderValue::from_static("2"))
    );
    drop(other);
    f.store.preview(ask, Looker::DryRun(ONE)).await.unwrap();
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
    let preview = f.store.preview(ask, Looker::DryRun(ONE)).await.unwrap();
    let told: Vec<_> = preview.verdicts.iter().map(|verdict| verdict.device).collect();
    assert!(told.len() == 2 && told.contains(&one) && told.contains(&other), "{told:?}");
}
