//! What goes on until it is over, or somebody has enough: also over a restart of the server.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::batch::Fleet;
use crate::{Server, bad, ends};

/// A command that goes on.
struct Live {
    process: Child,
    output: Receiver<String>,
    errors: Receiver<String>,
}

impl Live {
    fn start(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = lines(process.stdout.take().unwrap());
        let errors = lines(process.stderr.take().unwrap());
        Self { process, output, errors }
    }

    /// The next line that it prints.
    fn line(&self) -> String {
        self.output.recv_timeout(PATIENCE).expect("another line")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// The next line that is no part of what was asked for.
    fn notice(&self) -> String {
        self.errors.recv_timeout(PATIENCE).expect("a word about the server")
    }

    /// What else it prints, and its exit status.
    fn end(&mut self) -> (Vec<String>, Option<i32>) {
        let mut rest = Vec::new();
        while let Ok(line) = self.output.recv_timeout(PATIENCE) {
            rest.push(line);
        }
        (rest, self.process.wait().unwrap().code())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        lines.for_each(|line| drop(sender.send(line)));
    });
    receiver
}

impl Server {
    fn live(&self, arguments: &[&str]) -> Live {
        Live::start(self.command(arguments))
    }

    fn upgrade(&self, device: &str, image: &str) -> String {
        let asked = self.json(&["upgrade", "--device", device, "--image", image]);
        asked["upgrade_operation"]["id"].as_str().unwrap().to_owned()
    }
}

/// The server goes and comes back, and everybody who watches says so.
fn restart(server: &mut Server, watching: &[&Live]) {
    server.kill();
    for live in watching {
        let notice = live.notice();
        assert!(notice.contains("the server is lost, trying again"), "{notice}");
    }
    server.start_again();
    for live in watching {
        assert_eq!(live.notice(), "the server is back");
    }
}

#[test]
fn a_batch_is_watched_over_a_restart_of_the_server() {
    let mut fleet = Fleet::new();
    let batch = fleet.create(&["--canary", "1", "--soak", "0s"]);
    let mut people = fleet.server.live(&["batch", "watch", &batch]);
    let mut program = fleet.server.live(&["batch", "watch", &batch, "--json"]);
    let first = people.line();
    assert!(first.contains("of 2"), "{first}");
    assert_eq!(program.json()["id"], json!(batch));
    restart(&mut fleet.server, &[&people, &program]);
    fleet.server.good(&["batch", "cancel", &batch]);
    let (said, status) = people.end();
    assert_eq!(status, Some(1), "cancelled is no success: {said:?}");
    assert!(said.iter().any(|line| line.contains("2 cancelled of 2")), "{said:?}");
    let (said, status) = program.end();
    let last: Value = serde_json::from_str(said.last().unwrap()).unwrap();
    assert_eq!((status, &last["phase"]), (Some(1), &json!("finished")));
}

#[test]
fn operations_are_watched_by_filters_and_each_change_is_printed_once() {
    let mut fleet = Fleet::new();
    let first = fleet.server.upgrade("router-1", &fleet.image);
    let second = fleet.server.upgrade("router-2", &fleet.image);
    // Ids may be pasted in capitals.
    let image = fleet.image.to_uppercase();
    let of_first = ["operations", "--watch", "--json", "--device", "router-1", "--image", &image];
    let of_first = fleet.server.live(&of_first);
    let cancelled = fleet.server.live(&["operations", "--watch", "--status", "cancelled"]);
    assert_eq!(of_first.json()["id"], json!(first));
    assert!(cancelled.line().starts_with("OPERATION"), "the heading");
    fleet.server.good(&["operations", "cancel", &second]);
    let line = cancelled.line();
    assert!(line.starts_with(&second) && line.contains("cancelled"), "{line}");
    restart(&mut fleet.server, &[&of_first, &cancelled]);
    fleet.server.good(&["operations", "cancel", &first]);
    let now = of_first.json();
    assert_eq!((&now["id"], &now["status"]), (&json!(first), &json!("cancelled")), "no old state");
    let line = cancelled.line();
    assert!(line.starts_with(&first), "and not the second once more: {line}");

    assert!(bad(fleet.server.run(&["operations", "--status", "over"])).contains("choice"));
    ends(2, fleet.server.run(&["operations", "--batch", "router-1"]));
}

#[test]
fn one_operation_is_followed_to_its_end() {
    let mut fleet = Fleet::new();
    let operation = fleet.server.upgrade("router-1", &fleet.image);
    let mut program = fleet.server.live(&["operations", "watch", &operation, "--json"]);
    assert_eq!(program.json()["status"], "idle");
    restart(&mut fleet.server, &[&program]);
    let mut people = fleet.server.live(&["operations", "watch", &operation]);
    fleet.server.good(&["operations", "cancel", &operation]);
    let (said, status) = people.end();
    assert_eq!((said, status), (vec![format!("{operation}: cancelled")], Some(1)));
    let (said, status) = program.end();
    let last: Value = serde_json::from_str(said.last().unwrap()).unwrap();
    assert_eq!((status, &last["status"]), (Some(1), &json!("cancelled")));
    let unknown = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
    assert!(bad(fleet.server.run(&["operations", "watch", unknown])).contains("not found"));
}

#[test]
fn who_may_not_listen_any_more_is_told_at_once() {
    let mut fleet = Fleet::new();
    let operation = fleet.server.upgrade("router-1", &fleet.image);
    let token = fleet.server.json(&["tokens", "new", "for a while"]);
    let mut command = fleet.server.command(&["operations", "--watch", "--json"]);
    command.env("MODEM_UPGRADER_TOKEN", token["token"].as_str().unwrap());
    let mut live = Live::start(command);
    assert_eq!(live.json()["id"], json!(operation));
    fleet.server.good(&["tokens", "revoke", token["id"].as_str().unwrap()]);
    fleet.server.start_again();
    let (said, status) = live.end();
    assert_eq!((said.len(), status), (0, Some(4)));
    let told = std::iter::from_fn(|| live.errors.recv_timeout(PATIENCE).ok());
    assert!(told.last().unwrap().contains("does not take the API token"));
}
