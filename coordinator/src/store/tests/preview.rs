//! Dry runs beside everything else.

use std::time::Duration;

use shared::ids::CategoryId;
use tokio::time::timeout;

use super::*;
use crate::batch::verdict::Allowance;
use crate::store::batch::{Ask, Selection};

#[tokio::test]
async fn one_dry_run_at_a_time_has_a_reader() {
    let f = Fixture::new().await;
    let image = f.store.image(f.image("v2").await).await.unwrap().unwrap();
    let organization = f.store.organizations().await.unwrap().remove(0).id;
    let ask = Ask {
        organization,
        build: image.build,
        category: CategoryId(Uuid::from_u128(1)),
        selection: Selection::default(),
        allowance: Allowance::default(),
    };
    f.store.preview(ask.clone()).await.unwrap();
    let other = f.store.shared.looks.turns.clone().acquire_owned().await.unwrap();
    let waiting = timeout(Duration::from_millis(200), f.store.preview(ask.clone()));
    assert!(waiting.await.is_err(), "two at once");
    drop(other);
    f.store.preview(ask).await.unwrap();
}
