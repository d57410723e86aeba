//! A disk that is really full: a file system of a few MiB that somebody else fills up.

use crate::disk::{Disk, Reporter, ready};
use lab::{coordinator::Coordinator, watch::poll};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_costs_no_ack_and_passes() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("full-disk");
    let work = dir.join("work");
    // What an earlier run has left.
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).unwrap();
    let Some(disk) = Disk::small(dir.join("disk"), "24m") else { return };
    let exe = Path::new(env!("CARGO_BIN_EXE_lab"));
    let none = [("MODEM_UPGRADER_RESERVE", "0")];
    let mut coordinator = Coordinator::start_with(exe, &disk.0.join("data"), &none).unwrap();
    let reporter = Reporter::enrol(&coordinator, &work).await;
    let mut acknowledged = 20;
    assert_eq!(reporter.report(1, acknowledged).await.status(), 200);
    assert_eq!(ready(&coordinator, &reporter.client).await.0, 200);

    disk.fill();
    // The log's file may have room inside.
    let refused = loop {
        let answer = reporter.report(acknowledged + 1, 20).await;
        if answer.status() != 200 {
            break answer;
        }
        acknowledged += 20;
        disk.fill();
    };
    assert_eq!(refused.status(), 503);
    let pause = refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap();
    assert!((30..=60).contains(&pause), "{pause}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["detail"], "the disk is full", "{body}");

    // What was found a moment ago is told again.
    poll("what is wrong", Duration::from_millis(100), async || {
        let (status, said) = ready(&coordinator, &reporter.client).await;
        (status == 503 && said.contains("disk is full")).then_some(())
    })
    .await
    .unwrap();
    let api = coordinator.api().unwrap();
    let mut names = 0..1000;
    let (status, body) = loop {
        // What was moved out of the log leaves room for a little.
        disk.fill();
        let new = json!({"name": format!("{:050}", names.next().unwrap())});
        let post = api.call(reqwest::Method::POST, "category/", Some(&new));
        let (status, body) = post.await.unwrap();
        if status != 201 {
            break (status, body);
        }
    };
    let said = body["detail"].as_str().unwrap_or_default();
    assert!(status == 503 && said.contains("the disk is full"), "{status} {body}");
    let path = format!("upgrade-operation/{}/", reporter.member.operation);
    assert_eq!(api.get(&path).await.unwrap()["status"], "in-progress", "what is there is shown");

    fs::remove_file(disk.filler()).unwrap();
    let next = acknowledged + 1;
    poll("room is back", Duration::from_millis(100), async || {
        (reporter.report(next, 20).await.status() == 200).then_some(())
    })
    .await
    .unwrap();
    poll("ready again", Duration::from_millis(100), async || {
        (ready(&coordinator, &reporter.client).await.0 == 200).then_some(())
    })
    .await
    .unwrap();
    acknowledged += 20;
    assert!(reporter.again(acknowledged).await.iter().all(|answer| answer == "duplicate"));

    coordinator.restart().unwrap();
    let after = reporter.again(acknowledged).await;
    assert!(after.iter().all(|answer| answer == "duplicate"), "an ack was lost: {after:?}");
    assert_eq!(after.len() as u64, acknowledged);
    let log = fs::read_to_string(disk.0.join("data/coordinator.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
