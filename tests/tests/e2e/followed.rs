//! docs/operations.md followed: every command of the page, as it is written there, in the order in which
//! somebody who practises with it would give them.

use crate::terminal;
use lab::{
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    release::TO,
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const PAGE: &str = include_str!("../../../docs/operations.md");
/// What somebody has who runs this.
const GIVEN: [&str; 4] = [
    // The practice server stands for it.
    "modem-upgrader serve --data /srv/modem-upgrader",
    "cargo build --bins",
    "export PATH=",
    "mkdir -p practice",
];
const PASSWORD: &str = "correct horse battery";

/// The page's commands that were not given yet.
struct Page(Vec<String>);

impl Page {
    fn read() -> Self {
        let mut commands: Vec<String> = Vec::new();
        let mut open = false;
        for line in PAGE.lines() {
            let Some(line) = line.strip_prefix("    ") else { continue };
            match commands.last_mut().filter(|_| open) {
                Some(command) => *command += &format!("\n{line}"),
                None => commands.push(line.to_owned()),
            }
            let command = commands.last().map_or("", String::as_str);
            open =
                line.ends_with('\\') || (command.starts_with("for ") && !line.starts_with("done"));
        }
        Self(commands)
    }

    #[track_caller]
    fn take(&mut self, beginning: &str) -> String {
        let place = self.0.iter().position(|command| command.starts_with(beginning));
        let place = place.unwrap_or_else(|| panic!("not on the page: {beginning}\n{:#?}", self.0));
        self.0.remove(place)
    }
}

/// A command of a table.
#[track_caller]
fn of_table(command: &str) -> String {
    assert!(PAGE.contains(&format!("`{command}`")), "not on the page: {command}");
    format!("modem-upgrader {command}")
}

/// Ended with this value, with all that it started.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// Somebody at a shell, who puts what they were told in the place of the page's names.
struct Operator {
    page: Page,
    dir: PathBuf,
    home: PathBuf,
    path: String,
    names: Vec<(String, String)>,
}

impl Operator {
    fn new(dir: &Path) -> Self {
        let _ = fs::remove_dir_all(dir);
        let (bin, home, practice) = (dir.join("bin"), dir.join("home"), dir.join("practice"));
        for dir in [&bin, &home, &practice] {
            fs::create_dir_all(dir).unwrap();
        }
        for name in ["lab", "modem-upgrader"] {
            symlink(env!("CARGO_BIN_EXE_lab"), bin.join(name)).unwrap();
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self { page: Page::read(), dir: practice, home, path, names: Vec::new() }
    }

    fn knows(&mut self, name: &str, value: &str) {
        self.names.retain(|(known, _)| known != name);
        self.names.push((name.to_owned(), value.to_owned()));
    }

    fn shell(&self, command: &str) -> Command {
        let mut command = self.names.iter().fold(command.to_owned(), |command, (name, value)| {
            command.replace(name.as_str(), value)
        });
        if let Some(foreground) = command.strip_suffix('&') {
            let foreground = foreground.trim_end();
            command = format!("exec {foreground}");
        }
        let mut shell = Command::new("bash");
        shell.args(["-ec", &command]).current_dir(&self.dir);
        shell.env("HOME", &self.home).env("PATH", &self.path).env("NO_COLOR", "1");
        for (name, _) in std::env::vars() {
            if name.starts_with("MODEM_UPGRADER_") || name == "XDG_CONFIG_HOME" {
                shell.env_remove(name);
            }
        }
        shell
    }

    /// Its status and all that it said, with these lines typed.
    fn give(&self, command: &str, typed: &str) -> (Option<i32>, String) {
        let mut shell = self.shell(command);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // Who wants to hear nothing has closed it.
        let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    /// The next command of the page that begins so, which has to go well.
    #[track_caller]
    fn follow_with(&mut self, beginning: &str, typed: &str) -> String {
        let command = self.page.take(beginning);
        let (status, said) = self.give(&command, typed);
        assert_eq!(status, Some(0), "{command}: {said}");
        said
    }

    #[track_caller]
    fn follow(&mut self, beginning: &str) -> String {
        self.follow_with(beginning, "")
    }

    /// The server of the page's practice, with what it prints.
    fn serve(&mut self) -> (Started, Vec<(String, String)>) {
        let command = self.page.take("modem-upgrader serve --data server");
        let mut shell = self.shell(&command);
        let log = fs::File::create(self.dir.join("server.log")).unwrap();
        shell.stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut child = shell.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let (server, mut told) = (Started(child), Vec::new());
        loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the server does not start");
            if let Some((name, value)) = line.trim().split_once(": ") {
                told.push((name.to_owned(), value.to_owned()));
            }
            if let Some(ready) = line.trim().strip_prefix("ready ") {
                let addresses = ready.split(' ').filter_map(|field| field.split_once('='));
                told.extend(addresses.map(|(name, value)| (name.to_owned(), value.to_owned())));
                std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                return (server, told);
            }
        }
    }
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap()
}

/// The first UUID of what a command said.
#[track_caller]
fn id(said: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && word.chars().filter(|c| *c == '-').count() == 4;
    let mut words = said.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    words.find(is_id).unwrap_or_else(|| panic!("no id: {said}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_operators_page_does_what_the_page_says() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("operations-page");
    let mut op = Operator::new(&dir);
    for given in GIVEN {
        op.page.take(given);
    }

    // Practise it: the server. Ports are those that are free.
    op.knows("127.0.0.1:8443", "127.0.0.1:0");
    op.knows("127.0.0.1:8883", "127.0.0.1:0");
    let (_server, told) = op.serve();
    let told = |name: &str| told.iter().find(|(told, _)| told == name).unwrap().1.clone();
    let https = told("https");
    op.knows("coordinator.example:8443", &https);
    op.knows("--https 8443", &format!("--https {}", port(&https)));
    op.knows("--mqtt 8883", &format!("--mqtt {}", port(&told("mqtt"))));
    op.knows("sha256//...", &told("pin"));
    op.knows("/srv/modem-upgrader", "server");
    op.follow("lab sim-firmware");

    // Once.
    op.follow_with("modem-upgrader login --url", &told("api_token"));
    assert!(op.follow("modem-upgrader users me").contains("admin"));
    op.follow_with("modem-upgrader users password", PASSWORD);
    let (status, said) = op.give("modem-upgrader users me", "");
    assert_eq!(status, Some(4), "the printed token has ended: {said}");
    op.follow_with("modem-upgrader login --user admin", PASSWORD);
    op.follow_with("modem-upgrader users create alice", PASSWORD);
    op.follow("modem-upgrader users role alice default operator");
    op.follow("modem-upgrader tokens new dashboard");
    op.follow("modem-upgrader firmware keygen operator");
    // The practice's key is the same one.
    op.page.take("modem-upgrader firmware keygen operator");
    let alice = "modem-upgrader login --url https://coordinator.example:8443 --pin sha256//... --user alice";
    assert!(PAGE.contains(&format!("`{alice}`")));
    let (status, said) = op.give(&format!("HOME=$PWD/alice {alice}"), PASSWORD);
    assert_eq!(status, Some(0), "{said}");

    // Devices, with the practice's routers.
    let said = op.follow("modem-upgrader enrolment-tokens new");
    let token = said.split_whitespace().find(|word| word.starts_with("mu-enrol-")).unwrap();
    op.knows("mu-enrol-...", token);
    let routers = op.page.take("for n in 1 2 3 4 5 6");
    let mut shell = op.shell(&format!("{routers}\nwait"));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let _routers = Started(shell.spawn().unwrap());
    let pending = op.page.take("modem-upgrader devices --state pending");
    lab::watch::until("six who wait", || {
        let (_, said) = op.give(&pending, "");
        (1..=6).all(|n| said.contains(&format!("router-{n}")))
    })
    .await
    .unwrap();
    op.follow("modem-upgrader devices accept router-1 router-2");
    let others = "modem-upgrader devices accept router-3 router-4 router-5 router-6";
    assert_eq!(op.give(others, "").0, Some(0));
    op.follow("modem-upgrader groups create north");
    op.follow("modem-upgrader devices group north router-1");
    op.follow("modem-upgrader devices tag --add spare-at-hand router-1");

    // Firmware.
    op.follow("modem-upgrader firmware sign");
    op.follow("modem-upgrader firmware verify");
    let image = id(&op.follow("modem-upgrader upload"));
    op.knows("IMAGE", &image);
    assert!(op.follow("modem-upgrader images").contains(&image));

    // One device first: as soon as all have said what they have.
    let preview = op.page.take("modem-upgrader batch preview");
    lab::watch::until("six that can be upgraded", || {
        op.give(&preview, "").1.starts_with("6 will be upgraded, 0 left out.")
    })
    .await
    .unwrap();
    assert!(op.follow("modem-upgrader upgrade --device router-1").contains("success"));

    // Preview, start, watch. Nobody waits for half an hour here.
    let (status, said) = op.give(&preview, "");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.starts_with("5 will be upgraded, 1 left out."), "{said}");
    op.knows("--soak 30m", "--soak 2s");
    let create = op.page.take("modem-upgrader batch create");
    let (status, said) = terminal::run(op.shell(&create), "n\n");
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("[y/N]"), "{said}");
    let (status, said) = terminal::run(op.shell(&create), "y\n");
    assert_eq!(status, Some(0), "{said}");
    op.knows("BATCH", &id(&said));
    let watch = op.page.take("modem-upgrader batch watch BATCH");
    let (status, said) = terminal::run(op.shell(&watch), "");
    assert_eq!(status, Some(0), "{said}");
    check_bars(&said);
    let shown = op.follow("modem-upgrader batch show BATCH");
    assert!(shown.contains("5 success of 5"), "{shown}");

    // When it does not go well: the next build's tool lies on every router.
    let again = "45.00.005";
    for n in 1..=6 {
        let lie = ToolFault { kind: ToolFaultKind::Lie, times: Some(1) };
        write_tool_faults(&op.dir.join("routers").join(format!("router-{n}")), &[lie]).unwrap();
    }
    op.knows(TO, again);
    op.knows("--sequence 4", "--sequence 5");
    for beginning in ["lab sim-firmware", "modem-upgrader firmware sign", "modem-upgrader upload"] {
        let command = Page::read().take(beginning);
        let (status, said) = op.give(&command, "");
        assert_eq!(status, Some(0), "{command}: {said}");
    }
    let (status, said) = terminal::run(op.shell(&create), "y\n");
    assert_eq!(status, Some(0), "{said}");
    op.knows("BATCH", &id(&said));
    let (status, said) = terminal::run(op.shell(&watch), "");
    assert_eq!(status, Some(1), "only a person can go on: {said}");
    assert!(said.contains("failed: version_mismatch, modem old_version"), "{said}");
    let failed = op.follow("modem-upgrader operations --batch BATCH --status failed");
    op.knows("OPERATION", &id(&failed));
    let shown = op.follow("modem-upgrader operations show OPERATION");
    assert!(shown.contains("version_mismatch"), "{shown}");
    for (command, is_paused) in [("resume", false), ("pause", true)] {
        let (status, said) = op.give(&of_table(&format!("batch {command} BATCH")), "");
        assert_eq!(status, Some(0), "{command}: {said}");
        let (_, shown) = op.give("modem-upgrader batch show BATCH", "");
        assert_eq!(shown.contains("(paused"), is_paused, "{shown}");
    }
    let (status, said) = op.give(&of_table("batch cancel BATCH"), "");
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = terminal::run(op.shell(&watch), "");
    assert_eq!(status, Some(1), "not all have succeeded: {said}");
    for n in 1..=6 {
        write_tool_faults(&op.dir.join("routers").join(format!("router-{n}")), &[]).unwrap();
    }
    let retried = op.follow("modem-upgrader batch retry BATCH");
    op.knows("NEW", &id(&retried));
    let said = op.follow("modem-upgrader batch watch NEW");
    assert!(said.contains("success of"), "{said}");

    // Every day, and for scripts.
    op.knows("/backup/modem-upgrader", "backup");
    op.follow("modem-upgrader backup");
    assert!(op.follow("modem-upgrader audit").contains("admin"));
    op.follow("modem-upgrader devices --state pending");
    assert!(op.follow("modem-upgrader tokens").contains("dashboard"));
    op.follow("mkdir -p ~/.local/share/bash-completion");
    op.follow("modem-upgrader completions bash");
    assert!(op.page.0.is_empty(), "nobody has given them: {:#?}", op.page.0);
}

/// Bars that moved where they stood, of waves and of modems, and what stays of them.
#[track_caller]
fn check_bars(said: &str) {
    let seen = terminal::Seen::of(said);
    for wave in ["canary           [##############################]     1/1", "wave 1"] {
        assert!(seen.lines().any(|line| line.starts_with(wave)), "no {wave}: {seen:#?}");
    }
    let is_modem = |line: &&str| line.starts_with("  router-") && line.contains("/100");
    assert!(terminal::lines(said).any(|line| is_modem(&line)), "no modem was shown");
    assert!(!seen.lines().any(|line| is_modem(&line)), "a modem's bar stays: {seen:#?}");
    // Where they moved, they stood in the same place: of each there is one in the end.
    let is_canary = |line: &&str| line.starts_with("canary           [");
    assert!(terminal::lines(said).filter(is_canary).count() > 1, "nothing moved");
    assert_eq!(seen.lines().filter(is_canary).count(), 1, "{seen:#?}");
}
