//! A coordinator that starts where nothing can be written, and one under which the disk becomes
//! read-only: both say so, and cost nothing.

use crate::disk::{Disk, Reporter, ready};
use lab::{coordinator::Coordinator, watch::poll};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const NO_RESERVE: [(&str, &str); 1] = [("MODEM_UPGRADER_RESERVE", "0")];
const EXE: &str = env!("CARGO_BIN_EXE_lab");

/// A folder of this test's own, without what an earlier run has left.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir).unwrap();
    for left in ["work", "disk.img"] {
        let _ = fs::remove_dir_all(dir.join(left));
        let _ = fs::remove_file(dir.join(left));
    }
    fs::create_dir_all(dir.join("work")).unwrap();
    dir
}

/// What a start there says before it ends, which it does with status 1.
#[track_caller]
fn refused(data: &Path) -> String {
    let mut process = Command::new(EXE)
        .arg0("modem-upgrader")
        .args(["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--reserve", "0"])
        .arg("--data")
        .arg(data)
        .env("RUST_LOG", "off")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while process.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            process.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
    said
}

/// Every file below, with its bytes.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => found.extend(contents(&path)),
            path => found.push((path.clone(), fs::read(path).unwrap())),
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_says_so_and_damages_nothing() {
    let dir = folder("start-on-full-disk");
    let Some(disk) = Disk::small(dir.join("disk"), "24m") else { return };
    let data = disk.0.join("data");
    disk.fill();
    let said = refused(&data);
    assert!(said.contains("No space left") || said.contains("disk is full"), "{said}");

    // What it could not begin is no obstacle once there is room.
    fs::remove_file(disk.filler()).unwrap();
    let exe = Path::new(EXE);
    let mut coordinator = Coordinator::start_with(exe, &data, &NO_RESERVE).unwrap();
    assert!(!coordinator.bootstrap.api_token.is_empty(), "its secrets were not lost");
    let reporter = Reporter::enrol(&coordinator, &dir.join("work")).await;
    assert_eq!(reporter.report(1, 20).await.status(), 200);
    coordinator.kill();

    // Where there is something to show it is shown, and whoever watches sees what is wrong.
    disk.fill();
    coordinator.restart().unwrap();
    let api = coordinator.api().unwrap();
    let path = format!("upgrade-operation/{}/", reporter.member.operation);
    assert_eq!(api.get(&path).await.unwrap()["status"], "in-progress");
    let mut next = 21;
    poll("the disk is told to be full", Duration::from_millis(100), async || {
        disk.fill();
        let answer = reporter.report(next, 20).await;
        next += 20 * u64::from(answer.status() == 200);
        (answer.status() == 503 && ready(&coordinator, &reporter.client).await.0 == 503)
            .then_some(())
    })
    .await
    .unwrap();
    fs::remove_file(disk.filler()).unwrap();
    coordinator.restart().unwrap();
    let answers = reporter.again(next - 1).await;
    assert!(answers.iter().all(|answer| answer == "duplicate"), "an ack was lost: {answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_becomes_read_only_is_told_and_costs_no_ack() {
    let dir = folder("read-only-disk");
    let image = dir.join("disk.img");
    let Some(disk) = Disk::ext4(dir.join("disk"), &image) else { return };
    let data = disk.0.join("data");
    let mut coordinator = Coordinator::start_with(Path::new(EXE), &data, &NO_RESERVE).unwrap();
    let reporter = Reporter::enrol(&coordinator, &dir.join("work")).await;
    assert_eq!(reporter.report(1, 20).await.status(), 200);
    if disk.fail().is_none() {
        return;
    }

    // The first write after it may have found the pages it needs in memory, and is not acknowledged
    // without them on disk all the same.
    let refused_report = reporter.report(21, 20).await;
    assert_eq!(refused_report.status(), 503);
    assert!(refused_report.headers().contains_key("retry-after"));
    let body: Value = refused_report.json().await.unwrap();
    let detail = body["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("read-only") || detail.contains("reported an error"), "{detail}");
    poll("what is wrong", Duration::from_millis(100), async || {
        let (status, said) = ready(&coordinator, &reporter.client).await;
        (status == 503 && said.contains(&detail)).then_some(())
    })
    .await
    .unwrap();
    let api = coordinator.api().unwrap();
    let new = json!({"name": "x"});
    let (status, body) = api.call(reqwest::Method::POST, "category/", Some(&new)).await.unwrap();
    assert_eq!(status, 503, "{body}");
    let path = format!("upgrade-operation/{}/", reporter.member.operation);
    assert_eq!(api.get(&path).await.unwrap()["status"], "in-progress", "what is there is shown");

    coordinator.kill();
    let before = contents(&data);
    let said = refused(&data);
    assert!(said.contains("ead-only"), "{said}");
    assert!(contents(&data) == before, "nothing was touched");

    // As an administrator mends it.
    drop(disk);
    let mended = Command::new("e2fsck").args(["-p", "-f"]).arg(&image).status().unwrap();
    assert!(mended.code().is_some_and(|code| code <= 1), "{mended}");
    let _disk = Disk::of(dir.join("disk"), &image).unwrap();
    coordinator.restart().unwrap();
    let answers = reporter.again(20).await;
    assert!(answers.iter().all(|answer| answer == "duplicate"), "an ack was lost: {answers:?}");
    assert_eq!(reporter.report(21, 20).await.status(), 200);
    coordinator.kill();
}
