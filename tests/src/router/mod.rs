//! A router of the lab: the real agent as a process of its own, a simulated modem behind real
//! ptys, its own address, its own link to the coordinator; and a power cut that takes all of it.

pub mod process;

mod files;
mod manager;
mod pcie;

use files::HOLDERS;

use crate::{
    firmware::Model,
    link::Link,
    modem::{self, SimulatedModem},
    random::Random,
};
use agent::status::Status;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use shared::stages::Phase;
use std::{
    ffi::OsString,
    fs, io,
    net::IpAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// What a router is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Gives it address, IMEI and name; from 1.
    pub number: u8,
    pub model: Model,
    /// The package that runs at first.
    pub package: String,
    /// A public key file's text that the router trusts.
    pub key: String,
    /// Whether the modem is the only way to the coordinator.
    pub sole_uplink: bool,
    pub seed: u64,
    pub uplink: Uplink,
}

/// The coordinator that a router is for, on this machine.
#[derive(Debug, Clone)]
pub struct Uplink {
    pub https: u16,
    pub mqtt: u16,
    /// `sha256//…`
    pub pin: String,
    pub enrolment_token: String,
}

/// A router under way. Everything of it ends with this value, its directory stays.
pub struct Router {
    pub dir: PathBuf,
    pub name: String,
    pub imei: String,
    pub modem: SimulatedModem,
    pub link: Link,
    exe: PathBuf,
    /// The agent's program and what comes before its own arguments.
    program: Vec<OsString>,
    agent: Option<Child>,
    failpoints: Option<String>,
    random: Random,
}

impl Router {
    /// Builds the router below `parent` and switches it on, without the agent.
    ///
    /// # Errors
    /// Files or addresses cannot be had.
    pub async fn build(exe: &Path, parent: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let name = format!("router-{}", plan.number);
        let dir = parent.join(&name);
        for sub in [
            "proc/net",
            "proc/sys/kernel/random",
            "keys",
            "profiles",
            "init.d",
            "rc.d",
            "config",
            "bin",
            "dev",
        ] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let dir = dir.canonicalize()?;
        let address = IpAddr::from([127, 0, 1, plan.number]);
        let uplink = &plan.uplink;
        let link = Link::open(address, &[uplink.https, uplink.mqtt]).await?;
        let imei = imei(plan.number);
        let mut settings = modem::Settings::new(&dir, plan.model, &plan.package, &imei);
        settings.seed = plan.seed;
        let modem = SimulatedModem::start(settings)?;
        let mut router = Self {
            random: Random::new(plan.seed ^ 0x5eed),
            exe: exe.to_owned(),
            // A cross-built agent, for instance, which the kernel starts through an emulator.
            program: vec![std::env::var_os("LAB_AGENT").unwrap_or_else(|| exe.into())],
            agent: None,
            failpoints: None,
            dir,
            name,
            imei,
            modem,
            link,
        };
        files::write(&router, plan, &format!("https://{address}:{}/", uplink.https))?;
        router.new_boot()?;
        Ok(router)
    }

    /// Another agent than the lab's own from its next start on: its program, and what comes before
    /// its arguments where that is an emulator.
    pub fn use_agent(&mut self, program: &[&Path]) {
        self.program = program.iter().map(|word| word.as_os_str().to_owned()).collect();
    }

    /// Has the failpoints of `rules` strike in the agent from its next start on.
    pub fn strike(&mut self, rules: &str) {
        self.failpoints = Some(format!("{};{rules}", self.dir.display()));
    }

    /// Whether one has struck.
    #[must_use]
    pub fn was_struck(&self) -> bool {
        self.dir.join("struck").exists()
    }

    /// Starts the agent, if it does not run.
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn start_agent(&mut self) -> io::Result<()> {
        if self.agent.is_some() {
            return Ok(());
        }
        self.agent = Some(self.command(&["run"])?.stdout(Stdio::null()).spawn()?);
        Ok(())
    }

    /// What the agent's program answers to `arguments`, as the package's scripts ask it: exit status and
    /// standard output.
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn ask(&self, arguments: &[&str]) -> io::Result<(Option<i32>, String)> {
        let done = self.command(arguments)?.stdout(Stdio::piped()).output()?;
        Ok((done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned()))
    }

    fn command(&self, arguments: &[&str]) -> io::Result<Command> {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("agent.log"))?;
        let (program, before) = self.program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .arg0("modem-upgrader-agent")
            .args(before)
            .args(arguments)
            .args(["--config".as_ref(), self.dir.join("agent.toml").as_os_str()])
            .env("RUST_LOG", "info")
            .env("LAB_ROUTER", &self.dir)
            .stdin(Stdio::null())
            .stderr(log)
            // procd, too, gives each service a process group of its own.
            .process_group(0);
        if let Some(failpoints) = &self.failpoints {
            command.env("MODEM_UPGRADER_FAILPOINTS", failpoints);
        }
        Ok(command)
    }

    #[must_use]
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    /// Whether the agent has ended by itself, if there was one.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        if let Some(agent) = &mut self.agent
            && agent.try_wait()?.is_none()
        {
            return Ok(false);
        }
        self.agent = None;
        Ok(true)
    }

    /// SIGKILL to the agent alone.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Everything stops at once: the modem, the tool, the guardian, the agent; what was in memory
    /// is gone.
    ///
    /// # Errors
    /// The run directory cannot be emptied.
    pub fn power_cut(&mut self) -> io::Result<()> {
        self.modem.power_cut()?;
        self.kill_agent();
        self.kill_all();
        let run = self.dir.join("run");
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        for holder in HOLDERS {
            agent::files::remove_if_present(&self.dir.join(holder.sign))?;
        }
        self.new_boot()
    }

    /// Power is back: the modem boots, procd starts everything.
    ///
    /// # Errors
    /// The agent cannot be started.
    pub fn power_on(&mut self) -> io::Result<()> {
        self.modem.power_on()?;
        self.start_others()?;
        self.start_agent()
    }

    /// Everything starts that the early init script does not keep down: it asks the agent before anybody else
    /// has come.
    ///
    /// # Errors
    /// The agent cannot be asked.
    pub fn start_others(&self) -> io::Result<()> {
        let (_, held) = self.ask(&["hold"])?;
        for holder in HOLDERS {
            let sign = self.dir.join(holder.sign);
            if held.lines().any(|line| line == holder.name) {
                agent::files::remove_if_present(&sign)?;
            } else {
                fs::write(sign, "")?;
            }
        }
        Ok(())
    }

    /// All that uses the modem runs, as at the beginning.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn everything_runs(&self) -> io::Result<()> {
        HOLDERS.iter().try_for_each(|holder| fs::write(self.dir.join(holder.sign), ""))
    }

    /// Kills whatever process of this router is left: guardian and tool. They are known by the
    /// lock they hold.
    fn kill_all(&self) {
        let lock = self.dir.join("run");
        for _ in 0..100 {
            let left = holding(&lock);
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes other than the agent that work on this router's modem.
    #[must_use]
    pub fn tool_processes(&self) -> Vec<Pid> {
        holding(&self.dir.join("run/main/guardian.lock"))
    }

    fn new_boot(&mut self) -> io::Result<()> {
        let id = format!("{:016x}-{:016x}\n", self.random.next_u64(), self.random.next_u64());
        fs::write(self.dir.join("proc/sys/kernel/random/boot_id"), id)
    }

    /// Replaces `from`, which must be there, in one of the router's files.
    ///
    /// # Errors
    /// The file cannot be read or written, or does not say `from`.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(from), "{file} does not say {from:?}:\n{text}");
        Ok(fs::write(path, text.replace(from, to))?)
    }

    /// Another uplink comes or goes: whether the modem is the only way to the coordinator from now on.
    ///
    /// # Errors
    /// The routing table cannot be written.
    pub fn set_sole_uplink(&self, sole: bool) -> io::Result<()> {
        let (new, table) = (self.dir.join("proc/net/new"), self.dir.join("proc/net/route"));
        fs::write(&new, files::route_table(sole))?;
        fs::rename(new, table)
    }

    /// What the agent says to `status`.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let text = fs::read(self.dir.join("run/status.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The phase of the upgrade under way, by the agent's own word.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.status()?.upgrades.first().map(|tick| tick.phase)
    }

    /// Image bytes that came over the network, as the agent counts them.
    #[must_use]
    pub fn fetched(&self) -> Option<u64> {
        self.status()?.upgrades.first()?.fetched
    }

    #[must_use]
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// What was called to hold and give back, a line a call.
    #[must_use]
    pub fn holder_calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.dir.join("holders.log")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Whether all that uses the modem runs, as it did before anything was taken.
    #[must_use]
    pub fn everything_given_back(&self) -> bool {
        HOLDERS.iter().all(|holder| self.dir.join(holder.sign).exists())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.kill_agent();
        self.kill_all();
    }
}

/// Processes with a descriptor on `path` or below it.
fn holding(path: &Path) -> Vec<Pid> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let descriptors = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let holds = descriptors
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| target.starts_with(path));
        if holds
            && pid != own
            && let Ok(pid) = i32::try_from(pid)
        {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

/// Fifteen digits with a right check digit.
#[must_use]
pub fn imei(number: u8) -> String {
    let body = format!("35678901234{number:03}");
    let sum: u32 = body
        .chars()
        .filter_map(|c| c.to_digit(10))
        .enumerate()
        .map(|(i, d)| if i % 2 == 1 { d * 2 / 10 + d * 2 % 10 } else { d })
        .sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}
