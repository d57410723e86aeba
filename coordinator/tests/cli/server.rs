//! What every command says when it cannot, and the tokens that the server's owner makes.

use std::process::Command;

use crate::{BIN, Server, ends};

#[test]
fn errors_say_what_to_do_next_and_have_a_status_each() {
    let mut server = Server::start();
    let pin = std::mem::replace(&mut server.pin, "00".repeat(32));
    assert!(ends(3, server.run(&["devices"])).contains("check --pin"));
    server.pin = pin;
    let token = std::mem::replace(&mut server.token, "wrong".into());
    assert!(ends(4, server.run(&["devices"])).contains("MODEM_UPGRADER_TOKEN"));
    server.token = token;
    server.good(&["devices"]);
    server.url = server.url.replace("https", "http");
    assert!(ends(1, server.run(&["devices"])).contains("TLS only"));
    server.url = "https://127.0.0.1:1".into();
    assert!(ends(3, server.run(&["devices"])).contains("check --url"));
    ends(2, server.run(&["devices", "--nonsense"]));
    ends(2, server.run(&["devices", "tag", "router-1"]));
}

#[test]
fn completions_know_every_command() {
    let server = Server::start();
    for shell in ["bash", "zsh", "fish"] {
        let script = server.good(&["completions", shell]);
        for word in ["enrolment-tokens", "preview", "from-version"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    ends(2, server.run(&["completions", "tcsh"]));
}

#[test]
fn tokens_are_made_and_withdrawn_while_the_server_runs() {
    let server = Server::start();
    let data = server.data();
    let token = |arguments: &[&str]| {
        let mut command = Command::new(BIN);
        let output = command.arg("token").args(arguments).arg("--data").arg(&data).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let made = token(&["new", "--name", "second", "--days", "1"]);
    let of =
        |key: &str| made.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    let (id, secret) = (of("id:"), of("api_token:"));
    let devices = || {
        let mut command = Command::new(BIN);
        command.arg("devices").env("MODEM_UPGRADER_URL", &server.url);
        command.env("MODEM_UPGRADER_TOKEN", &secret).env("MODEM_UPGRADER_PIN", &server.pin);
        command.output().unwrap().status.success()
    };
    assert!(devices());
    let listed = token(&["list"]);
    assert!(listed.contains(&id) && listed.contains("second"), "{listed}");
    assert!(!listed.contains(&secret), "{listed}");
    token(&["revoke", &id]);
    assert!(!devices(), "revoked while the server runs");
    assert!(!token(&["list"]).contains(&id));
    let enrolment = token(&["new", "--enrolment", "default"]);
    assert!(enrolment.contains("enrolment_token: mu-enrol-"), "{enrolment}");
    let narrow = ["new", "--enrolment", "default", "--name", "van", "--uses", "3", "--pending"];
    assert!(token(&narrow).contains("enrolment_token: mu-enrol-"));
    let all = server.json(&["enrolment-tokens"]);
    let van = all.as_array().unwrap().iter().find(|one| one["name"] == "van").unwrap();
    assert_eq!((&van["uses_left"], &van["auto_accept"]), (&3.into(), &false.into()), "{van}");
}
