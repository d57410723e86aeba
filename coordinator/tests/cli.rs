//! The command line against a real server: over TLS, with a pin, as an operator types it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test plays the world around the coordinator, and helpers of tests are tests too"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const BIN: &str = env!("CARGO_BIN_EXE_modem-upgrader");

struct Server {
    process: Child,
    url: String,
    token: String,
    pin: String,
}

impl Server {
    /// Starts `serve` and reads what it prints at its first start.
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(BIN)
            .args(["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--reserve", "0"])
            .arg("--data")
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (mut token, mut pin) = (String::new(), String::new());
        let ready = loop {
            let line = lines.next().expect("the server gets ready");
            match line.split_once(": ") {
                Some(("api_token", value)) => token = value.to_owned(),
                Some(("pin", value)) => pin = value.to_owned(),
                _ if line.starts_with("ready ") => break line,
                _ => {}
            }
        };
        let address = ready.split(' ').find_map(|word| word.strip_prefix("https=")).unwrap();
        Self { url: format!("https://{address}"), process, token, pin }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(BIN)
            .args(arguments)
            .env("MODEM_UPGRADER_URL", &self.url)
            .env("MODEM_UPGRADER_TOKEN", &self.token)
            .env("MODEM_UPGRADER_PIN", &self.pin)
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&good(self.run(arguments))).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn good(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn bad(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn offline(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(BIN).args(arguments).current_dir(folder).output().unwrap()
}

/// A key pair `release.*`, and `fw.bin` signed by it.
fn signed(folder: &Path) {
    good(offline(folder, &["firmware", "keygen", "release"]));
    std::fs::write(folder.join("fw.bin"), vec![7; (1 << 20) + 5]).unwrap();
    good(offline(folder, &SIGN));
}

const SIGN: [&str; 18] = [
    "firmware",
    "sign",
    "--key",
    "release.sec",
    "--vendor",
    "Telit",
    "--model",
    "FN990A28",
    "--category",
    "FN990A",
    "--sequence",
    "7",
    "--reaches",
    "#SWPKGV:1=45.00.012",
    "--tool",
    "telit-uxfp",
    "--file",
    "fw.bin",
];

const VERIFY: [&str; 10] = [
    "firmware",
    "verify",
    "--key",
    "release.pub",
    "--manifest",
    "fw.bin.manifest.json",
    "--signature",
    "fw.bin.manifest.json.sig",
    "--file",
    "fw.bin",
];

#[test]
fn keys_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    good(offline(folder.path(), &["firmware", "keygen", "release"]));
    let secret = folder.path().join("release.sec");
    assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&secret).unwrap();
    let refused = bad(offline(folder.path(), &["firmware", "keygen", "release"]));
    assert!(refused.contains("never overwritten"), "{refused}");
    std::fs::remove_file(folder.path().join("release.pub")).unwrap();
    bad(offline(folder.path(), &["firmware", "keygen", "release"]));
    assert_eq!(std::fs::read(&secret).unwrap(), before);
}

#[test]
fn what_was_signed_verifies_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    signed(folder);
    assert!(good(offline(folder, &VERIFY)).contains("AT#SWPKGV line 1: 45.00.012"));

    std::fs::write(folder.join("fw.bin"), vec![8; (1 << 20) + 5]).unwrap();
    assert!(bad(offline(folder, &VERIFY)).contains("block 0"));
    std::fs::write(folder.join("fw.bin"), vec![7; 9]).unwrap();
    assert!(bad(offline(folder, &VERIFY)).contains("9 bytes"));

    let manifest = folder.join("fw.bin.manifest.json");
    let changed = std::fs::read_to_string(&manifest).unwrap().replace("FN990A28", "FN990A40");
    std::fs::write(&manifest, changed).unwrap();
    assert!(bad(offline(folder, &VERIFY)).contains("does not fit"));

    good(offline(folder, &["firmware", "keygen", "other"]));
    let mut other = VERIFY;
    other[3] = "other.pub";
    assert!(bad(offline(folder, &other)).contains("which no --key is"));
}

#[test]
fn compressed_firmware_is_signed_with_what_it_decodes_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    signed(folder);
    let mut arguments = SIGN.to_vec();
    arguments.push("--compress");
    assert!(good(offline(folder, &arguments)).contains("bytes of 1048581"));
    let mut verify = VERIFY;
    verify[5] = "fw.bin.zst.manifest.json";
    verify[7] = "fw.bin.zst.manifest.json.sig";
    verify[9] = "fw.bin.zst";
    good(offline(folder, &verify));
    let manifest = std::fs::read(folder.join("fw.bin.zst.manifest.json")).unwrap();
    let manifest = shared::manifest::Manifest::parse(&manifest).unwrap();
    assert_eq!((manifest.tool_file().name, manifest.tool_file().size), ("fw.bin", (1 << 20) + 5));
    assert!(manifest.file.size < 10_000);
}

#[test]
fn what_routers_would_refuse_is_not_signed() {
    let folder = tempfile::tempdir().unwrap();
    signed(folder.path());
    for (place, value, word) in [
        (13, "#REBOOT;+CFUN=0", "read command"),
        (13, "#SWPKGV", "COMMAND"),
        (17, "absent.bin", "absent.bin"),
        (3, "release.pub", "secret key"),
    ] {
        let mut arguments = SIGN;
        arguments[place] = value;
        let output = offline(folder.path(), &arguments);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(word), "{value}: {error}");
    }
    let mut option = SIGN.to_vec();
    option.extend(["--option", "speed=--help"]);
    assert!(bad(offline(folder.path(), &option)).contains("speed"));
}

#[test]
fn firmware_is_uploaded_and_lists_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    signed(folder.path());
    let server = Server::start(folder.path());
    let file = folder.path().join("fw.bin");
    let file = file.to_str().unwrap();
    let upload = [
        "upload",
        "--category",
        "FN990A",
        "--version",
        "45.00.012",
        "--model",
        "FN990A",
        file,
        "--json",
    ];
    let image = server.json(&upload);
    assert_eq!(
        (&image["type"], &image["boards"]),
        (&"telit-uxfp".into(), &serde_json::json!(["FN990A28"]))
    );
    assert_eq!(image["size"], (1 << 20) + 5);
    assert!(image["signed_by"].is_string());
    let again = bad(server.run(&upload));
    assert!(again.contains("type: The build has an image of this type."), "{again}");
    let id = image["id"].as_str().unwrap();

    assert_eq!(server.json(&["devices", "--json"]), serde_json::json!([]));
    assert!(good(server.run(&["devices"])).starts_with("DEVICE"));
    assert!(good(server.run(&["operations"])).starts_with("OPERATION"));
    let nobody = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
    let unknown = bad(server.run(&["upgrade", "--device", nobody, "--image", id]));
    assert!(unknown.contains("not found"), "{unknown}");
    let odd = bad(server.run(&["operations", "--status", "odd"]));
    assert!(odd.contains("status: Select a valid choice"), "{odd}");
}

#[test]
fn errors_say_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let pin = std::mem::replace(&mut server.pin, "00".repeat(32));
    assert!(bad(server.run(&["devices"])).contains("check --pin"));
    server.pin = pin;
    let token = std::mem::replace(&mut server.token, "wrong".into());
    assert!(bad(server.run(&["devices"])).contains("MODEM_UPGRADER_TOKEN"));
    server.token = token;
    good(server.run(&["devices"]));
    server.url = server.url.replace("https", "http");
    assert!(bad(server.run(&["devices"])).contains("TLS only"));
    server.url = "https://127.0.0.1:1".into();
    assert!(bad(server.run(&["devices"])).contains("check --url"));
}

/// Needs signify-openbsd; run by .ci/run with `-- --ignored`.
#[test]
#[ignore = "needs signify-openbsd"]
fn signify_and_we_take_each_others_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    signed(folder);
    let signify = |arguments: &[&str]| {
        Command::new("signify-openbsd").args(arguments).current_dir(folder).output().unwrap()
    };
    let manifest = "fw.bin.manifest.json";
    good(signify(&["-V", "-p", "release.pub", "-m", manifest, "-x", "fw.bin.manifest.json.sig"]));

    good(signify(&["-G", "-n", "-p", "other.pub", "-s", "other.sec"]));
    let mut sign = SIGN;
    sign[3] = "other.sec";
    good(offline(folder, &sign));
    let mut verify = VERIFY;
    verify[3] = "other.pub";
    good(offline(folder, &verify));

    good(signify(&["-S", "-s", "other.sec", "-m", manifest, "-x", "by-signify.sig"]));
    verify[7] = "by-signify.sig";
    good(offline(folder, &verify));
    std::fs::write(folder.join(manifest), "{}").unwrap();
    assert!(
        !signify(&["-V", "-p", "other.pub", "-m", manifest, "-x", "by-signify.sig"])
            .status
            .success()
    );
    bad(offline(folder, &verify));
}

#[test]
fn tokens_are_made_and_withdrawn_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let data = folder.path().join("data");
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
}
