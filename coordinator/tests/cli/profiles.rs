//! `login`, `logout`, `profiles`: what is remembered, and who wins over it.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::{Server, bad, ends, fed, good};

const PASSWORD: &str = "a right long one";

impl Server {
    /// A user who may log in.
    fn add_user(&self, name: &str) {
        let mut create = self.command(&["users", "create", name]);
        good(fed(&mut create, &format!("{PASSWORD}\n")));
    }

    fn log_in(&self, more: &[&str], input: &str) -> std::process::Output {
        let login = ["login", "--url", &self.url, "--pin", &self.pin];
        fed(&mut self.bare(&[&login, more].concat()), input)
    }

    fn bare_json(&self, arguments: &[&str]) -> Value {
        let output = self.bare(&[arguments, &["--json"]].concat()).output().unwrap();
        serde_json::from_str(&good(output)).unwrap()
    }
}

#[test]
fn a_login_is_remembered_until_the_logout() {
    let server = Server::start();
    server.add_user("alice");
    let nobody = server.bare(&["users", "me"]).output().unwrap();
    assert!(ends(4, nobody).contains("modem-upgrader login"));

    let wrong = server.log_in(&["--user", "alice"], "wrong\n");
    assert!(ends(4, wrong).contains("name or password is wrong"));
    let said = good(server.log_in(&[], &format!("alice\n{PASSWORD}\n")));
    assert!(said.contains("as alice until 20"), "{said}");
    assert_eq!(server.bare_json(&["users", "me"])["username"], "alice");
    let file = server.folder.path().join("config/modem-upgrader/config.toml");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(PASSWORD), "{text}");

    let token = text.lines().find_map(|line| line.strip_prefix("token = ")).unwrap().to_owned();
    good(server.bare(&["logout"]).output().unwrap());
    assert!(!std::fs::read_to_string(&file).unwrap().contains(&token));
    ends(4, server.bare(&["users", "me"]).output().unwrap());
    let mut again = server.bare(&["users", "me"]);
    again.env("MODEM_UPGRADER_TOKEN", token.trim_matches('"'));
    assert!(ends(4, again.output().unwrap()).contains("does not take"), "ended at the server");

    // Who it was and where are still known.
    let back = fed(&mut server.bare(&["login"]), &format!("{PASSWORD}\n"));
    assert!(good(back).contains("as alice"));
}

#[test]
fn a_login_ends_the_one_that_it_replaces_and_a_removal_its_own() {
    let mut server = Server::start();
    server.add_user("alice");
    let input = format!("{PASSWORD}\n");
    let alice = ["--user", "alice"];
    let logins = |server: &Server| {
        let tokens = server.bare_json(&["tokens"]);
        tokens.as_array().unwrap().iter().filter(|token| token["login"] == true).count()
    };
    for _ in 0..3 {
        let login = server.log_in(&alice, &input);
        assert_eq!(String::from_utf8_lossy(&login.stderr), "");
        good(login);
        assert_eq!(logins(&server), 1);
    }
    // The same server by another name.
    server.url = server.url.replace("127.0.0.1", "localhost");
    good(server.log_in(&alice, &input));
    assert_eq!(logins(&server), 1);
    good(server.log_in(&["--profile", "two", "--user", "alice"], &input));
    assert_eq!(logins(&server), 2, "the other profile's is its own");
    let said = good(server.bare(&["profiles", "remove", "default"]).output().unwrap());
    assert!(said.ends_with("Its login has ended.\n"), "{said}");
    assert_eq!(logins(&server), 1);

    // What was given is not ours to end.
    let given = server.token.clone();
    good(server.log_in(&["--profile", "admin", "--token", &given], ""));
    let removed = server.bare(&["profiles", "remove", "admin"]).output().unwrap();
    let noted = String::from_utf8_lossy(&removed.stderr).into_owned();
    assert!(noted.contains("still good there until it expires"), "{noted}");
    good(removed);
    server.good(&["users", "me"]);

    good(server.bare(&["profiles", "use", "two"]).output().unwrap());
    server.kill();
    let removed = server.bare(&["profiles", "remove", "two"]).output().unwrap();
    let noted = String::from_utf8_lossy(&removed.stderr).into_owned();
    assert!(noted.contains("The token for") && noted.contains("good there until 20"), "{noted}");
    assert!(good(removed).contains("is removed."));
}

#[test]
fn profiles_are_chosen_and_the_environment_wins() {
    let server = Server::start();
    let other = Server::start();
    good(server.log_in(&["--profile", "one", "--token", &server.token], ""));
    let two = ["--profile", "two", "--token", "-"];
    let mut two =
        server.bare(&[&["login", "--url", &other.url, "--pin", &other.pin], &two[..]].concat());
    good(fed(&mut two, &format!("{}\n", other.token)));

    let names = |json: Value| {
        let profiles = json.as_array().unwrap().clone();
        let shown = profiles.iter().map(|one| json!([one["name"], one["in_use"], one["url"]]));
        shown.collect::<Vec<_>>()
    };
    let expected = vec![json!(["one", false, server.url]), json!(["two", true, other.url])];
    assert_eq!(names(server.bare_json(&["profiles"])), expected);
    good(server.bare(&["organizations", "create", "of-two"]).output().unwrap());
    let organizations = |arguments: &[&str]| {
        let json = server.bare_json(&[&["organizations"], arguments].concat());
        json.as_array().unwrap().len()
    };
    assert_eq!((organizations(&[]), organizations(&["--profile", "one"])), (2, 1));
    let mut named = server.bare(&["organizations"]);
    named.env("MODEM_UPGRADER_PROFILE", "one");
    assert!(!good(named.output().unwrap()).contains("of-two"));

    good(server.bare(&["profiles", "use", "one"]).output().unwrap());
    assert_eq!(organizations(&[]), 1);
    // Another address gets nothing of the profile's: neither its pin nor its token.
    let mut elsewhere = server.bare(&["organizations"]);
    elsewhere.env("MODEM_UPGRADER_URL", &other.url);
    ends(4, elsewhere.output().unwrap());
    let mut by_environment = other.command(&["organizations"]);
    by_environment.env("XDG_CONFIG_HOME", server.folder.path().join("config"));
    assert!(good(by_environment.output().unwrap()).contains("of-two"));

    good(server.bare(&["profiles", "remove", "one"]).output().unwrap());
    assert!(
        bad(server.bare(&["organizations", "--profile", "one"]).output().unwrap())
            .contains("no profile")
    );
    bad(server.bare(&["profiles", "use", "one"]).output().unwrap());
    let none = ends(4, server.bare(&["devices"]).output().unwrap());
    assert!(none.contains("no profile is in use: choose one of two"), "{none}");
}
