//! Dry runs beside everything else.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::IntoResponse;
use futures_util::FutureExt;
use shared::desired::REQUIRED;
use shared::hex::Hex;
use shared::ids::{CategoryId, UserId};
use shared::inventory::{Inventory, Modem, Staging};
use tokio::time::timeout;

use super::*;
use crate::api::error::ApiError;
use crate::batch::LeftOut;
use crate::batch::verdict::{Allowance, Reason};
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
    f.store.look(ask.clone(), Looker::DryRun(ONE)).await.unwrap();
    let running = f.store.shared.looks.turn(Looker::DryRun(ONE)).await.unwrap();
    let waits = |looker| {
        let looking = f.store.look(ask.clone(), looker);
        async { timeout(Duration::from_millis(200), looking).await.is_err() }
    };
    assert!(waits(Looker::DryRun(OTHER)).await, "two at once");
    for user in [ONE, OTHER] {
        f.store.look(ask.clone(), Looker::Start(user)).await.unwrap();
    }
    let starting = f.store.shared.looks.turn(Looker::Start(ONE)).await.unwrap();
    assert!(waits(Looker::Start(OTHER)).await, "two starts at once");
    drop((running, starting));
    f.store.look(ask, Looker::DryRun(OTHER)).await.unwrap();
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
    let refused = f.store.look(ask.clone(), Looker::DryRun(ONE)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(Unavailable::Looking)), "{refused}");
    let answer = ApiError::from(refused).into_response();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &HeaderValue::from_static("2"))
    );
    drop(other);
    f.store.look(ask, Looker::DryRun(ONE)).await.unwrap();
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
    let rows = Rows { offset: 0, limit: 10 };
    let (_, verdicts) = f.store.preview(ask, ONE, rows).await.unwrap();
    let told: Vec<_> = verdicts.iter().map(|verdict| verdict.device).collect();
    assert!(told.len() == 2 && told.contains(&one) && told.contains(&other), "{told:?}");
}

fn inventory(slots: &[&str]) -> Inventory {
    let modem = |slot: &&str| Modem {
        slot: slot.parse().unwrap(),
        manufacturer: "Telit".into(),
        model: "FN990A28".into(),
        imei: (*slot).into(),
        versions: vec![],
        usb: None,
        sole_uplink: false,
        network: None,
        unreadable: None,
    };
    let staging =
        Staging { path: "/overlay".into(), free_bytes: u64::MAX, durable: true, problem: None };
    Inventory {
        v: 1,
        agent_version: "0.1.0".into(),
        capabilities: REQUIRED.iter().map(|&name| name.to_owned()).collect(),
        board: "b".into(),
        hostname: "r".into(),
        boot_id: String::new(),
        require_signature: true,
        keys: vec![Hex([7u8; 8]).to_string()],
        profiles: vec!["telit-uxfp".into()],
        staging: vec![staging],
        modems: slots.iter().map(modem).collect(),
    }
}

/// Seven routers: two with two modems, one with none, the others with one.
async fn routers(f: &Fixture) -> Vec<DeviceId> {
    let mut devices = Vec::new();
    for (key, slots) in (1..).zip([
        &["main"][..],
        &["main", "second"],
        &[],
        &["main", "second"],
        &["main"],
        &["main"],
        &["main"],
    ]) {
        let device = f.device(key).await;
        f.store.set_inventory(device, inventory(slots)).await.unwrap();
        devices.push(device);
    }
    devices
}

#[tokio::test]
async fn pages_of_a_look_are_all_of_it_in_one_order() {
    let f = Fixture::new().await;
    let devices = routers(&f).await;
    let nobody = DeviceId(Uuid::from_u128(9));
    let allowance = Allowance { firmwareless: true, ..Allowance::default() };
    let selection = Selection {
        devices: devices.iter().copied().chain([nobody]).collect(),
        models: vec!["FN990A28".into()],
        ..Selection::default()
    };
    let ask = Ask { allowance, selection, ..ask(&f).await };
    let page =
        async |offset, limit| f.store.preview(ask.clone(), ONE, Rows { offset, limit }).await;
    let (look, whole) = page(0, 100).await.unwrap();
    assert_eq!((look.count, look.modems(), look.unknown.as_slice()), (8, 8, &[nobody][..]));
    assert_eq!((look.without.len(), look.chosen().len()), (8, 6));
    assert!(look.chosen().is_sorted());
    let order: Vec<_> =
        whole.iter().map(|verdict| (verdict.name.clone(), verdict.device)).collect();
    assert!(order.is_sorted(), "{order:?}");
    for limit in 1..=9 {
        let mut pages = Vec::new();
        for offset in (0..9).step_by(limit) {
            pages.extend(page(offset, limit.try_into().unwrap()).await.unwrap().1);
        }
        assert_eq!(pages, whole, "{limit} a page");
    }
    assert!(page(8, 10).await.unwrap().1.is_empty());
}

#[tokio::test]
async fn members_are_as_they_are_when_they_are_added() {
    let f = Fixture::new().await;
    let devices = routers(&f).await;
    let allowance = Allowance { firmwareless: true, ..Allowance::default() };
    let selection = Selection { boards: vec![inventory(&[]).board], ..Selection::default() };
    let ask = Ask { allowance, selection, ..ask(&f).await };
    let look = f.store.look(ask.clone(), Looker::Start(ONE)).await.unwrap();
    assert_eq!((look.count, look.modems()), (8, 9), "{:?}", look.excluded);
    let ask = Arc::new(ask);
    let members = async || f.store.chosen_members(ask.clone(), look.chosen()).await.unwrap();
    let before = members().await;
    assert_eq!((before.members.len(), before.left_out), (8, Vec::new()));
    let gone = devices[1];
    let change = f.store.write::<_, Never, _>(move |tx| {
        Ok(tx.execute("UPDATE devices SET deactivated = 1 WHERE id = ?1", [gone.to_string()])?)
    });
    assert_eq!(change.await.unwrap(), 1);
    let left = members().await;
    assert_eq!(left.members.len(), 6);
    assert!(left.members.iter().all(|member| member.device != gone));
    let deactivated = LeftOut::Unfit(Reason::Deactivated);
    let slots = ["main", "second"].map(|slot| (gone, slot.parse().unwrap(), deactivated));
    assert_eq!(left.left_out, slots.clone());
    f.store
        .write::<_, Never, _>(move |tx| {
            Ok(tx.execute("UPDATE devices SET board = 'other' WHERE id = ?1", [gone.to_string()])?)
        })
        .await
        .unwrap();
    let slots = slots.map(|(device, slot, _)| (device, slot, LeftOut::NotSelected));
    assert_eq!(members().await.left_out, slots);
}

#[tokio::test]
async fn pages_are_of_their_own_users_look_and_who_is_gone_moves_nobody() {
    let f = Fixture::new().await;
    let devices = routers(&f).await;
    let everybody = Ask { allowance: Allowance::default(), ..ask(&f).await };
    let selection = Selection { models: vec!["FN990A28".into()], ..Selection::default() };
    let some = Ask { selection, ..everybody.clone() };
    let page = async |user, ask: &Ask, offset, limit| {
        f.store.preview(ask.clone(), user, Rows { offset, limit }).await.unwrap()
    };
    let (look, whole) = page(ONE, &some, 0, 100).await;
    assert_eq!((look.modems(), whole.len()), (8, 8));
    page(OTHER, &everybody, 0, 100).await;
    // One of two modems of a device becomes another model's.
    let gone = devices[1];
    let mut changed = inventory(&["main", "second"]);
    changed.modems[0].model = "LM960".into();
    f.store.set_inventory(gone, changed).await.unwrap();
    let mut pages = Vec::new();
    for offset in 1..8 {
        let (look, verdicts) = page(ONE, &some, offset, 1).await;
        assert_eq!(look.modems(), 8, "another look");
        pages.push(verdicts);
    }
    for (before, now) in whole[1..].iter().zip(&pages) {
        assert!(
            before.device == gone || now == std::slice::from_ref(before),
            "{before:?}: {now:?}"
        );
    }

    let left = pages.concat().into_iter().filter(|now| now.device == gone);
    assert!(left.count() <= 1, "it has one modem of the selection");
}
