//! `users`, `organizations`, `tokens`, `enrolment-tokens`, `audit`.

use serde_json::json;

use crate::{Server, ends, fed, good};

const PASSWORD: &str = "a right long one";

#[test]
fn users_get_roles_and_lose_them() {
    let server = Server::start();
    good(fed(&mut server.command(&["users", "create", "bob"]), &format!("{PASSWORD}\n")));
    let short = fed(&mut server.command(&["users", "create", "eve"]), "short\n");
    assert!(ends(1, short).contains("password: Ensure this field has at least"));
    server.good(&["organizations", "create", "north"]);
    server.good(&["users", "role", "bob", "north", "viewer"]);
    server.good(&["users", "role", "bob", "north", "operator"]);
    let members = server.json(&["users", "--organization", "north"]);
    assert_eq!((&members[0]["username"], &members[0]["role"]), (&json!("bob"), &json!("operator")));
    assert!(server.good(&["users"]).contains("north=operator"));
    server.good(&["users", "role", "bob", "north", "none"]);
    assert_eq!(server.json(&["users", "--organization", "north"]), json!([]));
    ends(2, server.run(&["users", "role", "bob", "north", "king"]));
    let nowhere = ends(1, server.run(&["users", "role", "bob", "south", "viewer"]));
    assert!(nowhere.contains("modem-upgrader organizations"), "{nowhere}");

    server.good(&["users", "deactivate", "bob"]);
    assert!(server.good(&["users"]).contains("inactive"));
    server.good(&["users", "remove", "bob", "--yes"]);
    assert!(!server.good(&["users"]).contains("bob"));
}

#[test]
fn a_token_for_reading_writes_nothing() {
    let mut server = Server::start();
    let made = server.json(&["tokens", "new", "screen", "--scope", "read", "--days", "7"]);
    let listed = server.good(&["tokens"]);
    assert!(listed.contains("screen") && listed.contains("read"), "{listed}");
    let secret = made["token"].as_str().unwrap().to_owned();
    assert!(!listed.contains(&secret));
    let own = std::mem::replace(&mut server.token, secret);
    server.good(&["devices"]);
    let refused = ends(4, server.run(&["organizations", "create", "south"]));
    assert!(refused.contains("may only read") && refused.contains("tokens new"), "{refused}");
    server.token = own;
    server.good(&["tokens", "revoke", made["id"].as_str().unwrap()]);
    assert!(!server.good(&["tokens"]).contains("screen"));
}

#[test]
fn tokens_go_by_their_names_where_one_alone_has_it() {
    let server = Server::start();
    for name in ["ci", "twin", "twin"] {
        server.good(&["tokens", "new", name]);
    }
    server.good(&["tokens", "revoke", "ci"]);
    let gone = ends(1, server.run(&["tokens", "revoke", "ci"]));
    assert!(gone.contains("an id or a name, as `modem-upgrader tokens` lists them"), "{gone}");
    let two = ends(1, server.run(&["tokens", "revoke", "twin"]));
    assert!(two.contains("2 are called \"twin\": give the id"), "{two}");
    server.good(&["enrolment-tokens", "new", "van 7", "--organization", "default"]);
    server.good(&["enrolment-tokens", "revoke", "van 7"]);
    let gone = ends(1, server.run(&["enrolment-tokens", "revoke", "van 7"]));
    assert!(gone.contains("`modem-upgrader enrolment-tokens` lists them"), "{gone}");
}

#[test]
fn enrolment_tokens_are_made_listed_and_ended() {
    let server = Server::start();
    let new = ["enrolment-tokens", "new", "van", "--organization", "default", "--uses", "1"];
    let made = server.json(&new);
    assert!(made["token"].as_str().unwrap().starts_with("mu-enrol-"));
    assert_eq!((&made["uses_left"], &made["auto_accept"]), (&json!(1), &json!(false)));
    assert!(server.good(&["enrolment-tokens"]).contains("van"));
    server.good(&["enrolment-tokens", "revoke", made["id"].as_str().unwrap()]);
    assert!(!server.good(&["enrolment-tokens"]).contains("van"));
}

#[test]
fn the_audit_log_tells_who_did_what() {
    let server = Server::start();
    server.good(&["organizations", "create", "north"]);
    let entries = server.json(&["audit", "--user", "admin", "--action", "POST"]);
    let entry = &entries.as_array().unwrap()[0];
    assert_eq!(entry["subject"], "/api/v1/modem-upgrader/organization/");
    assert_eq!(entry["peer"], "127.0.0.1");
    let by_path = server.good(&["audit", "--subject", "organization/"]);
    assert!(by_path.contains("user:admin") && by_path.contains("  organization/"), "{by_path}");
    assert_eq!(server.json(&["audit", "--until", "2020-01-01T00:00:00Z"]), json!([]));
    assert_eq!(server.json(&["audit", "--limit", "1"]).as_array().unwrap().len(), 1);
    ends(2, server.run(&["audit", "--since", "yesterday"]));
}

#[test]
fn one_refusal_does_not_stop_the_others_and_says_what_to_do() {
    let server = Server::start();
    let [one, two] =
        ["6d3b4c0a-0f7b-4f0e-9d5a-1c2b3a4d5e6f", "7d3b4c0a-0f7b-4f0e-9d5a-1c2b3a4d5e6f"];
    let refused = ends(1, server.run(&["operations", "cancel", one, two]));
    assert!(refused.contains(one) && refused.contains(two), "{refused}");
    assert!(refused.contains("2 of 2 were not done"), "{refused}");
}
