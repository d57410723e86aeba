//! The fleet simulator at a small size: what it says is what the coordinator takes for a fleet's.

use lab::{
    coordinator::Coordinator,
    demo,
    fleet::{Firmware, Fleet, device::Device},
    watch::poll,
};
use reqwest::Method;
use serde_json::{Value, json};
use shared::{event::EventBody, stages::Phase};
use std::{fs, path::Path, time::Duration};

const DEVICES: u32 = 12;

async fn fleet(name: &str) -> (Coordinator, Firmware, Fleet) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let exe = Path::new(env!("CARGO_BIN_EXE_lab"));
    let coordinator = Coordinator::start(exe, &dir.join("coordinator")).unwrap();
    demo::make_firmware(&coordinator, &dir, 1 << 20).unwrap();
    let firmware = Firmware::uploaded(&coordinator).await.unwrap();
    let fleet = Fleet::enrol(&coordinator, &firmware, DEVICES).await.unwrap();
    (coordinator, firmware, fleet)
}

/// How many operations have this status.
async fn operations(coordinator: &Coordinator, status: &str) -> u64 {
    let path = format!("upgrade-operation/?status={status}");
    coordinator.api().unwrap().get(&path).await.unwrap()["count"].as_u64().unwrap()
}

async fn online(coordinator: &Coordinator) -> usize {
    let devices = coordinator.api().unwrap().get("device/?page_size=100").await.unwrap();
    let devices = devices["results"].as_array().unwrap().iter();
    devices.filter(|device| device["online"] == true).count()
}

#[tokio::test]
async fn a_fleet_is_woken_granted_and_done() {
    let (coordinator, firmware, mut fleet) = fleet("fleet-batch").await;
    fleet.each(async |device: &mut Device| device.connect().await).await.unwrap();
    assert_eq!(online(&coordinator).await, DEVICES as usize);
    let body = json!({
        "upgrade_all": true,
        "strategy": { "canary": DEVICES, "gate": { "soak_s": 0 } },
    });
    let api = coordinator.api().unwrap();
    let path = format!("build/{}/upgrade/", firmware.build);
    let posted = api.send(Method::POST, &path, &body);
    let fetched = fleet.each(async |device: &mut Device| {
        device.wake().await?;
        device.fetch().await
    });
    let (posted, fetched) = tokio::try_join!(posted, fetched).unwrap();
    let batch = posted["batch"].as_str().unwrap().to_owned();
    assert!(fetched.into_iter().all(|has_job| has_job));
    let granted = fleet.each(async |device: &mut Device| device.start().await).await.unwrap();
    assert!(granted.iter().all(Result::is_ok), "{granted:?}");
    let begun = || vec![EventBody::Granted, EventBody::Entered { phase: Phase::Installing }];
    let ticked = fleet.each(async |device: &mut Device| {
        device.report(begun()).await?;
        device.tick("a line of the tool".into()).await?;
        device.settle().await
    });
    ticked.await.unwrap();
    assert_eq!(operations(&coordinator, "in-progress").await, u64::from(DEVICES));
    let id = fleet.devices[0].operation().unwrap();
    let told = async || {
        let shown = api.get(&format!("upgrade-operation/{id}/")).await.ok()?;
        (shown["detail"] == "a line of the tool").then_some(())
    };
    poll("the tick is shown", Duration::from_millis(50), told).await.unwrap();
    let done = async |device: &mut Device| device.finish(Firmware::reaches()).await;
    fleet.each(done).await.unwrap();
    assert_eq!(operations(&coordinator, "success").await, u64::from(DEVICES));
    let batch = api.get(&format!("batch-upgrade-operation/{batch}/")).await.unwrap();
    assert_eq!(batch["tally"]["success"], Value::from(DEVICES), "{batch:#}");
}

#[tokio::test]
async fn a_fleet_comes_back_after_its_coordinator_did() {
    let (mut coordinator, _, mut fleet) = fleet("fleet-storm").await;
    fleet.each(async |device: &mut Device| device.connect().await).await.unwrap();
    coordinator.restart().unwrap();
    assert_eq!(online(&coordinator).await, 0);
    let storm = fleet.storm(7).await;
    assert_eq!((storm.connected.len(), storm.asked.len()), (DEVICES as usize, DEVICES as usize));
    assert!(storm.connected.iter().zip(&storm.asked).all(|(line, asked)| line < asked));
    assert_eq!(online(&coordinator).await, DEVICES as usize);
}
