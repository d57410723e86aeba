//! A router with one modem and no agent: what is asked of the modem here, the tests ask themselves.

use agent::modem::{
    Place, Ready, Snapshot, Sought,
    dialect::{VersionCommands, read_versions},
    wait_ready,
};
use lab::{
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    firmware::{Model, Versions, write_firmware},
    modem::{Settings, SimulatedModem, State},
    watch,
};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

pub const IMEI: &str = "351234560000014";
pub const OLD: &str = "45.00.002";
pub const NEW: &str = "45.00.004";
/// For what the agent's own code waits for.
pub const LIMIT: Duration = Duration::from_secs(30);
const SIZE: usize = 1024 * 1024;

/// A router with one modem.
pub struct Router {
    pub directory: TempDir,
    pub modem: SimulatedModem,
}

impl Router {
    pub fn new() -> Router {
        Router::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Router {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(directory.path(), Model::Fn990a28, OLD, IMEI);
        change(&mut settings);
        let modem = SimulatedModem::start(settings).unwrap();
        Router { directory, modem }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn place(&self) -> Place {
        Place::new(&self.path().join("sys"), &self.path().join("dev"))
    }

    pub fn snapshot(&self) -> Snapshot {
        self.place().snapshot()
    }

    pub async fn ready(&self) -> Ready {
        let deadline = tokio::time::Instant::now() + LIMIT;
        wait_ready(&self.place(), Sought::Imei(IMEI), deadline).await.unwrap()
    }

    pub async fn until(&self, what: impl Fn(&State) -> bool) -> State {
        let seen = || Some(self.modem.state().unwrap()).filter(&what);
        let found = watch::found("the modem's state", seen).await;
        found.unwrap_or_else(|error| panic!("{error}: {:?}", self.modem.state()))
    }

    /// The port that a tool is given: diag, or the only one of download mode.
    pub async fn tool_port(&self) -> PathBuf {
        let state = self.until(|state| !state.ttys.is_empty()).await;
        self.path().join("dev").join(&state.ttys[0])
    }

    pub fn firmware(&self, model: Model, package: &str) -> PathBuf {
        let path = self.path().join(format!("{}-{package}.bin", model.name()));
        write_firmware(&path, model, package, SIZE, 7).unwrap();
        path
    }

    pub fn tool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg0("uxfp").args(arguments).stdin(Stdio::null());
        command
    }

    pub async fn flash(&self, file: &Path, more: &[&str]) -> Output {
        self.flash_command(file).await.args(more).output().unwrap()
    }

    pub async fn start_flash(&self, file: &Path, more: &[&str]) -> Running {
        let mut command = self.flash_command(file).await;
        Running(command.args(more).stdout(Stdio::null()).spawn().unwrap())
    }

    pub async fn flash_command(&self, file: &Path) -> Command {
        let port = self.tool_port().await;
        self.tool(&["--file", file.to_str().unwrap(), "--port", port.to_str().unwrap()])
    }

    /// Each in one run, in this order.
    pub fn faults(&self, faults: &[ToolFaultKind]) {
        let faults: Vec<ToolFault> =
            faults.iter().map(|kind| ToolFault { kind: *kind, times: Some(1) }).collect();
        write_tool_faults(self.path(), &faults).unwrap();
    }
}

/// A process that is not left behind.
pub struct Running(pub Child);

impl Running {
    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// SIGTERM is signal 15: bit 14 of the blocked ones.
    pub fn blocks_sigterm(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(blocked.trim(), 16).unwrap() & (1 << 14) != 0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub async fn versions_of(ready: &mut Ready) -> Vec<(String, Vec<String>)> {
    let commands = ["#SWPKGV", "+CGMR", "+GMR"].map(str::to_owned);
    read_versions(&mut ready.port, &VersionCommands::new(&commands, [])).await.unwrap()
}

pub fn expected(package: &str) -> Vec<(String, Vec<String>)> {
    let versions = Versions::of_package(package);
    let modem = vec![versions.modem.clone()];
    vec![
        ("#SWPKGV".into(), versions.lines().map(str::to_owned).to_vec()),
        ("+CGMR".into(), modem.clone()),
        ("+GMR".into(), modem),
    ]
}
