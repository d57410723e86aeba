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
fn what_is_no_id_is_a_wrong_command_line_and_says_where_ids_are() {
    let server = Server::start();
    for command in ["show xx", "watch xx", "pause xx", "resume xx", "cancel xx", "retry xx"] {
        no_id(&server, &format!("batch {command}"), "batch list");
    }
    for command in ["show xx", "watch xx", "cancel xx", "write-off xx --yes"] {
        no_id(&server, &format!("operations {command}"), "operations");
    }
    no_id(&server, "operations --batch xx", "batch list");
    no_id(&server, "operations --image xx", "images");
    no_id(&server, "images manifest xx", "images");
    no_id(&server, "images remove --build a/b xx", "images");
    no_id(&server, "upgrade --device a --image xx", "images");
    no_id(&server, "token revoke xx", "token list");
}

#[track_caller]
fn no_id(server: &Server, command: &str, list: &str) {
    let arguments: Vec<_> = command.split(' ').collect();
    let told = ends(2, server.run(&arguments));
    let advice = format!("this is no id: `modem-upgrader {list}` lists them");
    assert!(told.contains("'xx'") && told.contains(&advice), "{command}: {told}");
}

#[test]
fn refusals_are_whole_sentences_that_hold() {
    let mut server = Server::start();
    let data = server.data();
    let used = ends(1, server.run(&["restore", "--data", data.to_str().unwrap(), "/nowhere"]));
    assert_eq!(used.matches("in use").count(), 1, "{used}");

    let upload = ["upload", "--category", "C", "--version", "1", "/nowhere/fw.bin"];
    let told = ends(1, server.run(&upload));
    assert!(told.starts_with("error: cannot read /nowhere/fw.bin: No such file"), "{told}");

    let last = ends(1, server.run(&["users", "remove", "admin", "--yes"]));
    assert!(last.starts_with("error: refused as things stand: "), "{last}");
    server.good(&["users", "create", "bob", "--no-password"]);
    server.good(&["users", "role", "bob", "default", "viewer"]);
    let mut token = Command::new(BIN);
    token.args(["token", "new", "--user", "bob", "--data"]).arg(&data);
    let made = String::from_utf8(token.output().unwrap().stdout).unwrap();
    server.token = made.split("api_token: ").nth(1).unwrap().trim().to_owned();
    let refused = ends(4, server.run(&["groups", "create", "north"]));
    assert!(refused.contains("this action. An administrator can give you the role"), "{refused}");
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
