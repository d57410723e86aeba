//! What is not done without a yes, also where nobody sits at a terminal.

use serde_json::{Value, json};

use crate::batch::{BUILD, Fleet};
use crate::{Server, ends, fed};

impl Server {
    /// Nobody is there to be asked, and what comes in on standard input is no answer: only `--yes` is. The question's
    /// words are in the refusal.
    #[track_caller]
    fn asks(&self, command: &[&str], words: &str, count: impl Fn() -> usize) {
        let before = count();
        for input in ["", "n\n", "y\n"] {
            let told = ends(2, fed(&mut self.command(command), input));
            assert!(told.contains(words) && told.contains("give --yes"), "{told}");
        }
        let json = [command, &["--json"]].concat();
        ends(2, fed(&mut self.command(&json), "y\n"));
        assert_eq!(count(), before, "{command:?}");
        ends(0, fed(&mut self.command(&[command, &["--yes"]].concat()), ""));
        assert_ne!(count(), before, "{command:?}");
    }

    fn count(&self, list: &[&str]) -> usize {
        self.json(list).as_array().map_or(0, Vec::len)
    }
}

#[test]
fn a_batch_and_what_cannot_be_taken_back_want_a_yes() {
    let fleet = Fleet::new();
    let server = &fleet.server;
    let create =
        [&["batch", "create"], &BUILD[..], &["--all", "--start-at", "2096-11-23T01:00:00Z"]];
    let question = "Upgrade 2 modems to FN990A/45.00.012 (1 is left out), canary 1, not before 2096-11-23T01:00:00Z?";
    server.asks(&create.concat(), question, || server.count(&["batch", "list"]));

    let operation = server.json(&["operations"])[0]["id"].as_str().unwrap().to_owned();
    let given_up = ["operations", "write-off", &operation];
    assert!(ends(2, server.run(&given_up)).contains("give --yes"));

    let revoked = || server.count(&["devices", "--state", "revoked"]);
    server.asks(&["devices", "revoke", "router-1", "router-3"], "router-1, router-3?", revoked);
}

#[test]
fn what_is_removed_is_named_with_what_goes_along() {
    let fleet = Fleet::new();
    let server = &fleet.server;
    for (list, question) in
        [("groups", "Remove group north?"), ("locations", "Remove location north?")]
    {
        server.good(&[list, "create", "north", "--organization", "default"]);
        server.asks(&[list, "remove", "north"], question, || server.count(&[list]));
    }
    server.good(&["users", "create", "bob", "--no-password"]);
    server.asks(&["users", "remove", "bob"], "tokens and roles", || server.count(&["users"]));
    let remove = ["builds", "remove", BUILD[1]];
    let told = ends(2, server.run(&remove));
    assert!(told.contains("Remove build FN990A/45.00.012, and its image with it?"), "{told}");
    let image = ["images", "remove", BUILD[0], BUILD[1], &fleet.image];
    server.asks(&image, &fleet.image, || server.count(&["images"]));
    server.asks(&remove, "Remove build FN990A/45.00.012?", || server.count(&["builds"]));
    assert_eq!(server.json(&["images"]), Value::Array(Vec::new()));
    assert_eq!(server.json(&["groups"]), json!([]));
}
