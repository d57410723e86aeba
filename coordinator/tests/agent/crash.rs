//! A coordinator killed with SIGKILL, as a process of its own, and started again on the same data.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::api::event;
use crate::manifest::versions;
use crate::peer::{Device, Operator};
use shared::ack::{Acks, Verdict};
use shared::desired::Desired;
use shared::event::{Event, EventBody, Events, Outcome};
use shared::grant::StartRequest;
use shared::ids::StreamId;
use uuid::Uuid;

struct Process {
    child: Child,
    https: SocketAddr,
    /// What it printed before it was ready.
    printed: Vec<String>,
}

impl Process {
    fn start(data: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_modem-upgrader"))
            .args(["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--reserve", "0"])
            .arg("--data")
            .arg(data)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let https = ([0, 0, 0, 0], 0).into();
        let mut process = Self { child, https, printed: Vec::new() };
        let output = process.child.stdout.take().unwrap();
        for line in BufReader::new(output).lines() {
            let line = line.unwrap();
            if let Some(ready) = line.strip_prefix("ready https=") {
                process.https = ready.split(' ').next().unwrap().parse().unwrap();
                return process;
            }
            process.printed.push(line);
        }
        panic!("it ended before it was ready: {:?}", process.printed);
    }

    fn value(&self, key: &str) -> String {
        let line = self.printed.iter().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key} was not printed")).trim().to_owned()
    }
}

impl Drop for Process {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts one milestone; None if the coordinator went away instead of answering.
async fn tell(device: &Device, event: Event) -> Option<Verdict> {
    let body = Events::new(vec![event]);
    let sent = device.request(reqwest::Method::POST, "events").json(&body).send().await.ok()?;
    let acks: Acks = sent.json().await.ok()?;
    acks.acks.into_iter().map(|ack| ack.verdict).next()
}

/// What a watcher who comes back after the restart is told first.
async fn first_live_events(operator: &Operator) -> String {
    let request = operator.request(reqwest::Method::GET, "events/").header("Last-Event-ID", "1");
    let mut response = request.send().await.unwrap();
    let mut text = String::new();
    // The first says that what the id was of is gone.
    while text.matches("\n\n").count() < 2 {
        text.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
    }
    text
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_the_operation_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    let client = crate::peer::client(dir.path());
    let (token, enrolment) = (first.value("api_token:"), first.value("enrolment_token:"));
    let operator = Operator { client: client.clone(), address: first.https, token };
    let (device, id) = Device::ready(&client, first.https, 1, &enrolment).await;
    let image = operator.upload().await;
    let operation = operator.upgrade(id, &image).await;
    let grant = StartRequest {
        attempt: 1,
        stream: StreamId(Uuid::from_u128(1)),
        dark_expected_s: 60,
        dark_longest_s: 600,
        returned: 0,
    };
    let begin = format!("operations/{operation}/start");
    assert!(device.post(&begin, &grant).await.status().is_success());

    // Milestones one after the other: the kill lands among those that follow the first twenty.
    let (enough, told) = std::sync::mpsc::channel();
    let killed = tokio::task::spawn_blocking(move || {
        told.recv().unwrap();
        drop(first);
    });
    let mut acknowledged = 0;
    while let Some(verdict) =
        tell(&device, event(operation, acknowledged + 1, 1, EventBody::Granted)).await
    {
        assert_eq!(verdict, Verdict::Accepted);
        acknowledged += 1;
        if acknowledged == 20 {
            enough.send(()).unwrap();
        }
    }
    killed.await.unwrap();

    let second = Process::start(dir.path());
    assert!(second.printed.is_empty(), "secrets are printed once");
    let operator = Operator { address: second.https, ..operator };
    let api = device.api.clone();
    let mut device = Device::new(&client, second.https, 1);
    device.api = api;
    assert_eq!(operator.operation(operation).await["status"], "in-progress");
    let live = first_live_events(&operator).await;
    assert!(live.starts_with("event: gap\n") && live.contains(&operation.to_string()), "{live}");
    let desired: Desired = device.get("desired").await.json().await.unwrap();
    assert_eq!(desired.jobs[0].operation, operation, "its token is still good, its job is there");
    for seq in 1..=acknowledged {
        let again = tell(&device, event(operation, seq, 1, EventBody::Granted)).await;
        assert_eq!(again, Some(Verdict::Duplicate), "milestone {seq} of {acknowledged} was lost");
    }
    let repeated = device.post(&begin, &grant).await;
    assert!(repeated.status().is_success(), "the grant still stands and counts once");
    let outcome = Outcome::Succeeded { versions: versions(), not_compared: None, remark: None };
    let last = event(operation, acknowledged + 2, 1, EventBody::Finished { outcome });
    assert_eq!(tell(&device, last).await, Some(Verdict::Accepted));
    assert_eq!(operator.operation(operation).await["status"], "success");
}
