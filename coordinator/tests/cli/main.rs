//! The command line against a real server: over TLS, with a pin, as an operator types it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test plays the world around the coordinator, and helpers of tests are tests too"
)]

mod accounts;
mod batch;
mod confirm;
mod devices;
mod firmware;
#[path = "../fixture/manifest.rs"]
mod manifest;
mod output;
#[path = "../agent/peer.rs"]
#[allow(dead_code, reason = "the agent's tests use all of it")]
mod peer;
mod profiles;
mod server;
mod terminal;
mod watch;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const BIN: &str = env!("CARGO_BIN_EXE_modem-upgrader");

/// A server at its first start, and an operator with the superuser's token.
struct Server {
    process: Child,
    folder: TempDir,
    url: String,
    token: String,
    enrolment: String,
    pin: String,
}

impl Server {
    /// Starts `serve` and reads what it prints at its first start.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (process, said) = serve(folder.path(), "127.0.0.1:0");
        let value = |name: &str| {
            let line = said.iter().find_map(|line| line.split_once(": ").filter(|of| of.0 == name));
            line.unwrap_or_else(|| panic!("{name} was not printed: {said:?}")).1.to_owned()
        };
        let (token, enrolment, pin) = (value("api_token"), value("enrolment_token"), value("pin"));
        let ready = said.last().unwrap();
        let address = ready.split(' ').find_map(|word| word.strip_prefix("https=")).unwrap();
        Self { url: format!("https://{address}"), process, folder, token, enrolment, pin }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// On the same data and port.
    fn start_again(&mut self) {
        self.kill();
        let address = self.url.strip_prefix("https://").unwrap();
        self.process = serve(self.folder.path(), address).0;
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// With the environment that README names.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command
            .env("MODEM_UPGRADER_URL", &self.url)
            .env("MODEM_UPGRADER_TOKEN", &self.token)
            .env("MODEM_UPGRADER_PIN", &self.pin);
        command
    }

    /// With profiles of its own, and nothing else.
    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command.args(arguments).stdin(Stdio::null());
        for name in ["URL", "TOKEN", "PIN", "CA", "PROFILE"] {
            command.env_remove(format!("MODEM_UPGRADER_{name}"));
        }
        command.env("XDG_CONFIG_HOME", self.folder.path().join("config"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        good(self.run(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.good(&[arguments, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts `serve`; what it printed until it was ready.
fn serve(folder: &Path, https: &str) -> (Child, Vec<String>) {
    let mut process = Command::new(BIN)
        .args(["serve", "--https", https, "--mqtt", "127.0.0.1:0", "--reserve", "0", "--data"])
        .arg(folder.join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        said.push(line.unwrap());
        if said.last().unwrap().starts_with("ready ") {
            return (process, said);
        }
    }
    let status = process.wait();
    panic!("the server does not get ready: {status:?} {said:?}");
}

/// Runs it with these lines at its standard input.
fn fed(command: &mut Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = piped.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    process.wait_with_output().unwrap()
}

#[track_caller]
fn good(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// It ends with this status; what it said about that.
#[track_caller]
fn ends(status: i32, output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{error}");
    error
}

#[track_caller]
fn bad(output: Output) -> String {
    ends(1, output)
}

fn offline(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(BIN).args(arguments).current_dir(folder).output().unwrap()
}
