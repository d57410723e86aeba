//! `batch`, and the groups, locations and tags that it chooses by.

use serde_json::{Value, json};
use shared::desired::REQUIRED;

use crate::firmware::signed;
use crate::peer::{Device, client};
use crate::{Server, bad, ends};

pub const BUILD: [&str; 2] = ["--build", "FN990A/45.00.012"];

/// A server with a build, two routers that it fits and one that it does not.
pub struct Fleet {
    pub server: Server,
    pub devices: Vec<String>,
    pub image: String,
}

impl Fleet {
    pub fn new() -> Self {
        let server = Server::start();
        signed(server.folder.path());
        let file = server.folder.path().join("fw.bin");
        let upload = ["upload", "--category", "FN990A", "--version", "45.00.012"];
        let image = server.json(&[&upload[..], &[file.to_str().unwrap()]].concat());
        let key = image["signed_by"].as_str().unwrap();
        let models = ["FN990A28", "FN990A28", "FN990A40"];
        let devices = models
            .into_iter()
            .enumerate()
            .map(|(place, model)| server.router(u8::try_from(place + 1).unwrap(), model, key));
        let devices = devices.collect();
        let image = image["id"].as_str().unwrap().to_owned();
        Self { server, devices, image }
    }

    fn batch(&self, verb: &str, more: &[&str]) -> std::process::Output {
        self.server.run(&[&["batch", verb], more].concat())
    }

    pub fn create(&self, more: &[&str]) -> String {
        let create = [&["batch", "create", "--yes"], &BUILD[..], &["--all"], more].concat();
        self.server.json(&create)["id"].as_str().unwrap().to_owned()
    }
}

impl Server {
    /// A router enrols and says what it is; its id.
    fn router(&self, number: u8, model: &str, key: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let address = self.url.strip_prefix("https://").unwrap().parse().unwrap();
            let mut device = Device::new(&client(&self.data()), address, number);
            let name = format!("router-{number}");
            let claims = json!({ "hostname": name, "board": "lab,router" }).to_string();
            assert!(device.enrol(&self.enrolment, &claims).await.status().is_success());
            let tokens: Value = device.token().await.json().await.unwrap();
            device.api = tokens["api"]["token"].as_str().unwrap().to_owned();
            let inventory = inventory(&name, number, model, key);
            let put = device.request(reqwest::Method::PUT, "inventory").json(&inventory);
            assert_eq!(put.send().await.unwrap().status(), 204);
            tokens["device"].as_str().unwrap().to_owned()
        })
    }
}

/// What its owner does by hand.
fn stop_checking(server: &Server, number: u8, model: &str, key: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = server.url.strip_prefix("https://").unwrap().parse().unwrap();
        let mut device = Device::new(&client(&server.data()), address, number);
        let tokens: Value = device.token().await.json().await.unwrap();
        device.api = tokens["api"]["token"].as_str().unwrap().to_owned();
        let mut inventory = inventory(&format!("router-{number}"), number, model, key);
        inventory["require_signature"] = json!(false);
        let put = device.request(reqwest::Method::PUT, "inventory").json(&inventory);
        assert_eq!(put.send().await.unwrap().status(), 204);
    });
}

/// A script on its router says that it failed.
fn fail(server: &Server, operation: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("{}/api/v1/modem-upgrader/upgrade-operation/{operation}/", server.url);
        let report = client(&server.data()).patch(url).bearer_auth(&server.token);
        let answer = report.json(&json!({"status": "failed"})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    });
}

pub fn inventory(name: &str, number: u8, model: &str, key: &str) -> Value {
    let version = json!({ "command": "#SWPKGV", "line": 1, "value": "45.00.002" });
    json!({
        "v": 1,
        "agent_version": "0.1.0",
        "capabilities": REQUIRED,
        "board": "lab,router",
        "hostname": name,
        "boot_id": "b",
        "require_signature": true,
        "keys": [key],
        "profiles": ["telit-uxfp"],
        "staging": [{ "path": "/srv", "free_bytes": 1_u64 << 30, "durable": true }],
        "modems": [{
            "slot": "main",
            "manufacturer": "Telit",
            "model": model,
            "imei": format!("35678901234{number:04}"),
            "versions": [version],
            "usb": null,
            "sole_uplink": false,
            "unreadable": null,
        }],
    })
}

#[test]
fn a_preview_says_who_is_left_out_and_why() {
    let fleet = Fleet::new();
    let all = [&BUILD[..], &["--all"]].concat();
    let said = fleet.server.good(&[&["batch", "preview"], &all[..]].concat());
    assert!(said.starts_with("2 will be upgraded, 1 left out."), "{said}");
    assert!(said.contains("wrong_model") && said.contains("router-3"), "{said}");
    let json = fleet.server.json(&[&["batch", "preview"], &all[..]].concat());
    assert_eq!((&json["count"], &json["excluded"]), (&json!(2), &json!(1)));
    assert_eq!(json["verdicts"].as_array().unwrap().len(), 3);

    // Nothing to do is no success, and a batch of nobody is refused with the reason.
    let nobody = [&all[..], &["--device", "router-3"]].concat();
    ends(1, fleet.batch("preview", &nobody));
    assert!(bad(fleet.batch("create", &nobody)).contains("`batch preview` says why"));
    let nobody = [&nobody[..], &["--yes"]].concat();
    assert!(bad(fleet.batch("create", &nobody)).contains("for this model"));
    let unknown = bad(fleet.batch("preview", &["--build", "FN990A/1"]));
    assert!(unknown.contains("`modem-upgrader builds` lists them"), "{unknown}");
    ends(2, fleet.batch("create", &[]));
    ends(2, fleet.batch("create", &[&all[..], &["--soak", "long"]].concat()));
}

#[test]
fn devices_are_chosen_by_their_places() {
    let fleet = Fleet::new();
    let server = &fleet.server;
    let chosen = |by: &[&str]| {
        let preview = [&["batch", "preview"], &BUILD[..], &["--all", "--summary"], by].concat();
        String::from_utf8(server.run(&preview).stdout).unwrap().lines().next().unwrap().to_owned()
    };
    server.good(&["groups", "create", "north", "--organization", "default"]);
    server.good(&["locations", "create", "depot", "--organization", "default"]);
    server.good(&["devices", "group", "north", "router-1", "router-3"]);
    server.good(&["devices", "location", "depot", "router-2"]);
    server.good(&["devices", "tag", "--add", "van", "--add", "old", "router-1", "router-2"]);
    server.good(&["devices", "tag", "--remove", "old", "router-2"]);
    assert_eq!(chosen(&["--group", "north"]), "1 will be upgraded, 1 left out.");
    assert_eq!(chosen(&["--location", "depot"]), "1 will be upgraded, 0 left out.");
    assert_eq!(chosen(&["--tag", "van"]), "2 will be upgraded, 0 left out.");
    assert_eq!(chosen(&["--tag", "old"]), "1 will be upgraded, 0 left out.");
    assert_eq!(chosen(&["--tag", "van", "--tag", "old"]), "2 will be upgraded, 0 left out.");

    let names = |filter: [&str; 2]| {
        let devices = server.json(&["devices", filter[0], filter[1]]);
        devices.as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(["--group", "north"]), ["router-1", "router-3"]);
    assert_eq!(names(["--tag", "old"]), ["router-1"]);
    assert!(server.good(&["devices", "show", "router-1"]).contains("north"));
    server.good(&["devices", "group", "-", "router-1"]);
    assert_eq!(names(["--group", "north"]), ["router-3"]);
    server.good(&["groups", "rename", "north", "south"]);
    assert!(server.good(&["groups"]).contains("south"));
    server.good(&["groups", "remove", "--yes", "south"]);
    assert_eq!(server.json(&["groups"]), json!([]));
}

#[test]
fn a_batch_is_held_and_taken_back() {
    let fleet = Fleet::new();
    let server = &fleet.server;
    let batch = fleet.create(&["--canary", "1", "--soak", "0s"]);
    let shown = server.json(&["batch", "show", &batch]);
    assert_eq!((&shown["tally"]["total"], &shown["strategy"]["canary"]), (&json!(2), &json!(1)));
    assert_eq!(shown["upgradeoperations"].as_array().unwrap().len(), 2);
    let listed = server.good(&["batch", "list", "--build", "FN990A/45.00.012"]);
    assert!(listed.contains(&batch), "{listed}");
    assert!(server.good(&["operations", "--batch", &batch]).contains("router-1"));

    server.good(&["batch", "pause", &batch]);
    bad(fleet.batch("pause", &[&batch]));
    let paused = fleet.batch("watch", &[&batch]);
    assert_eq!(paused.status.code(), Some(1), "only a person can go on");
    let said = String::from_utf8(paused.stdout).unwrap();
    assert!(said.contains("paused") && said.contains(&format!("batch resume {batch}")), "{said}");
    server.good(&["batch", "resume", &batch]);

    let said = server.good(&["batch", "cancel", &batch]);
    assert!(said.contains("2 cancelled.") && !said.contains("finish"), "{said}");
    let ended = fleet.batch("watch", &[&batch, "--json"]);
    assert_eq!(ended.status.code(), Some(1), "cancelled is no success");
    let text = String::from_utf8(ended.stdout).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["phase"], &last["status"]), (&json!("finished"), &json!("cancelled")));
    assert!(!bad(fleet.batch("resume", &[&batch])).is_empty());
    ends(1, fleet.batch("show", &["6f9619ff-8b86-4011-b42d-00c04fc964ff"]));
}

#[test]
fn a_batch_for_later_says_when_and_how_it_begins() {
    let fleet = Fleet::new();
    let server = &fleet.server;
    let later = ["--start-at", "2096-11-23T01:00:00Z", "--expires-at", "2096-12-23T01:00:00Z"];
    let batch = fleet.create(&[&later[..], &["--soak", "90m", "--max-concurrent", "7"]].concat());
    let shown = server.good(&["batch", "show", &batch]);
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("starts:").ends_with("2096-11-23T01:00:00Z"), "{shown}");
    assert!(line("expires:").ends_with("2096-12-23T01:00:00Z"), "{shown}");
    let strategy =
        "canary 1, growth 2, soak 90m, 7 at a time, to pause at 20% failures of 5 results";
    assert!(line("strategy:").ends_with(strategy), "{shown}");

    let listed = server.good(&["operations"]);
    assert!(listed.contains("router-1") && !listed.contains(&fleet.devices[0]), "{listed}");
    let operation = server.json(&["operations", "--device", "router-2"])[0]["id"].clone();
    let shown = server.good(&["operations", "show", operation.as_str().unwrap()]);
    assert!(shown.contains(&format!("router-2 ({})", fleet.devices[1])), "{shown}");
    server.good(&["groups", "create", "north", "--organization", "default"]);
    assert!(server.good(&["groups"]).contains("  default  "), "by its slug");
}

#[test]
fn what_failed_is_tried_again_as_the_flags_say() {
    let fleet = Fleet::new();
    let server = &fleet.server;
    let batch = fleet.create(&["--canary", "2", "--growth", "3", "--soak", "1h"]);
    assert!(bad(fleet.batch("retry", &[&batch])).contains("has not finished"));
    until_open(server, &batch);
    let show = |id: &str| server.json(&["batch", "show", id]);
    for operation in show(&batch)["upgradeoperations"].as_array().unwrap() {
        fail(server, operation["id"].as_str().unwrap());
    }
    assert_eq!(show(&batch)["status"], "failed");
    let key = server.json(&["images", "--build", "FN990A/45.00.012"])[0]["signed_by"].clone();
    stop_checking(server, 2, "FN990A28", key.as_str().unwrap());
    let retry = |flags: &[&str]| {
        let answer = server.json(&[&["batch", "retry", &batch], flags].concat());
        let id = answer["batch"].as_str().unwrap().to_owned();
        let shown = show(&id);
        assert_eq!(shown["retry_of"], json!(batch));
        server.good(&["batch", "cancel", &id]);
        shown
    };

    let same = retry(&[]);
    assert_eq!(same["tally"]["total"], 1, "the other one checks no signatures any more");
    assert_eq!(same["upgradeoperations"][0]["device"], json!(fleet.devices[0]));
    let strategy = &same["strategy"];
    assert_eq!((&strategy["canary"], &strategy["growth"]), (&json!(2), &json!(3.0)), "as before");
    assert_eq!(strategy["gate"]["soak_s"], 3600);

    let flags = ["--include-unsigned", "--canary", "1", "--soak", "5s", "--max-concurrent", "1"];
    let stop = ["--stop-after", "3", "--then", "abort", "--expires-at", "+2h"];
    let other = retry(&[&flags[..], &stop[..]].concat());
    assert_eq!(other["tally"]["total"], 2);
    let strategy = &other["strategy"];
    assert_eq!((&strategy["canary"], &strategy["growth"]), (&json!(1), &json!(3.0)));
    assert_eq!((&strategy["gate"]["soak_s"], &strategy["max_concurrent"]), (&json!(5), &json!(1)));
    let threshold = &strategy["failure_threshold"];
    assert_eq!((&threshold["count"], &threshold["then"]), (&json!(3), &json!("abort")));
    assert_eq!(threshold["percent"], 20, "as before");
    assert_ne!(strategy["expires_at"], same["strategy"]["expires_at"]);
    assert!(
        bad(fleet.batch("retry", &[&batch, "--canary", "1", "--minimum", "2"])).contains("minimum")
    );
    ends(2, fleet.batch("retry", &[&batch, "--canary", "0"]));
    ends(2, fleet.batch("retry", &[&batch, "--all"]));
}

/// Its canary has begun.
fn until_open(server: &Server, batch: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while server.json(&["batch", "show", batch])["wave"].is_null() {
        assert!(std::time::Instant::now() < deadline, "no wave opens");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
