//! `devices`: who comes in, who is shut out, and where they belong.

use serde_json::json;
use shared::identity::Enrolled;

use crate::batch::inventory;
use crate::peer::{Device, client};
use crate::{Server, bad, ends};

impl Server {
    /// A router of this name enrols; its id.
    pub fn enrol(&self, name: &str, seed: u8, token: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let address = self.url.strip_prefix("https://").unwrap().parse().unwrap();
            let device = Device::new(&client(&self.data()), address, seed);
            let claims = json!({ "hostname": name, "board": "lab,router" }).to_string();
            let enrolled: Enrolled = device.enrol(token, &claims).await.json().await.unwrap();
            enrolled.device.to_string()
        })
    }
}

#[test]
fn a_device_waits_is_let_in_and_shut_out() {
    let server = Server::start();
    let new = ["enrolment-tokens", "new", "van", "--organization", "default"];
    let waits = server.json(&new)["token"].as_str().unwrap().to_owned();
    let first = server.enrol("router-1", 1, &waits);
    let second = server.enrol("router-2", 2, &waits);
    let third = server.enrol("router-3", 3, &server.enrolment);

    let pending = server.good(&["devices", "--state", "pending"]);
    assert!(pending.contains("router-1") && !pending.contains("router-3"), "{pending}");
    let said = server.good(&["devices", "accept", "router-1"]);
    assert!(said.contains(&first) && said.contains("accepted"), "{said}");
    assert_eq!(server.json(&["devices", "refuse", &second])["state"], "revoked");
    server.good(&["devices", "revoke", "--yes", "router-3"]);
    let shown = server.json(&["devices", "show", &third]);
    assert_eq!((&shown["state"], &shown["name"]), (&json!("revoked"), &json!("router-3")));
    assert!(server.good(&["devices", "show", "router-1"]).contains("lab,router"));

    server.good(&["devices", "deactivate", "router-1"]);
    assert!(server.good(&["devices", "list"]).contains("deactivated"));
    server.good(&["devices", "activate", "router-1"]);
    let unknown = bad(server.run(&["devices", "show", "router-9"]));
    assert!(unknown.contains("`modem-upgrader devices` lists them"), "{unknown}");
    ends(2, server.run(&["devices", "accept"]));
}

#[test]
fn tags_that_several_people_give_at_once_are_all_there() {
    let server = Server::start();
    server.enrol("router-1", 1, &server.enrolment);
    let tags = ["a", "b", "c", "d"];
    let processes = tags.map(|tag| {
        let mut command = server.command(&["devices", "tag", "--add", tag, "router-1"]);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    });
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(server.json(&["devices", "show", "router-1"])["tags"], json!(tags));
    let told = bad(server.run(&["devices", "tag", "--add", "e,f", "router-1"]));
    assert!(told.contains("--add: \"e,f\" has a comma") && !told.contains("list"), "{told}");
}

#[test]
fn a_name_that_several_have_names_none() {
    let server = Server::start();
    let first = server.enrol("twin", 1, &server.enrolment);
    let second = server.enrol("twin", 2, &server.enrolment);
    let refused = bad(server.run(&["devices", "deactivate", "twin"]));
    assert!(refused.contains(&first) && refused.contains(&second), "{refused}");
    assert_eq!(server.json(&["devices", "--name", "twin"]).as_array().unwrap().len(), 2);
}

impl Server {
    /// A router enrols, and tells of itself once from each of these boots.
    fn boots(&self, number: u8, boots: &[&str]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let address = self.url.strip_prefix("https://").unwrap().parse().unwrap();
            let mut device = Device::new(&client(&self.data()), address, number);
            let name = format!("router-{number}");
            let claims = json!({ "hostname": name, "board": "lab,router" }).to_string();
            assert!(device.enrol(&self.enrolment, &claims).await.status().is_success());
            let tokens: serde_json::Value = device.token().await.json().await.unwrap();
            device.api = tokens["api"]["token"].as_str().unwrap().to_owned();
            for boot in boots {
                let mut told = inventory(&name, number, "FN990A28", "00");
                told["boot_id"] = json!(boot);
                let put = device.request(reqwest::Method::PUT, "inventory").json(&told);
                assert_eq!(put.send().await.unwrap().status(), 204);
            }
        });
    }
}

#[test]
fn two_boards_with_one_identity_are_released_by_a_person() {
    let server = Server::start();
    server.boots(1, &["one", "two", "one", "two", "one"]);
    assert!(server.good(&["devices"]).contains("duplicate"));
    let shown = server.good(&["devices", "show", "router-1"]);
    assert!(shown.contains("two boots take turns"), "{shown}");
    assert_eq!(server.json(&["devices", "--duplicate"]).as_array().unwrap().len(), 1);
    server.good(&["devices", "release", "router-1"]);
    assert_eq!(server.json(&["devices", "--duplicate"]), json!([]));
}
