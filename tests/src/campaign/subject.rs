//! One router that things happen to: the lab's, with agent and guardian under the shim, reset to the
//! same beginning before each run.

use super::{
    control::{Control, Rule},
    cut::{self, Flash, Loss},
    shim::Shim,
};
use crate::{
    modem::{self, Request, SimulatedModem},
    random::Random,
    release::FROM,
    router::Router,
    uxfp::events,
};
use agent::files;
use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Agent,
    Guardian,
    Both,
    Tool,
}

/// What sort of router it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kind {
    /// A power cut takes the image: what a recovery needs is fetched again.
    pub volatile: bool,
    /// Both are upgraded in each run.
    pub two_modems: bool,
}

fn quick(dir: &Path, imei: &str, seed: u64) -> modem::Settings {
    let mut settings = modem::Settings::new(dir, crate::firmware::Model::Fn990a28, FROM, imei);
    settings.enumeration = Duration::from_millis(15);
    settings.boot_silence = Duration::from_millis(15);
    settings.seed = seed;
    settings
}

/// A second modem, in a slot of its own.
fn add_spare(router: &Router, seed: u64) -> anyhow::Result<SimulatedModem> {
    // Another than that of every router.
    let imei = crate::router::imei(200);
    let slots = format!(
        "\n[[slot]]\nname = \"main\"\nimei = \"{}\"\n\n[[slot]]\nname = \"spare\"\nimei = \"{imei}\"\n",
        router.imei
    );
    let path = router.dir.join("agent.toml");
    let text = fs::read_to_string(&path)?;
    fs::write(path, text + &slots)?;
    let mut settings = quick(&router.dir, &imei, seed + 1);
    settings.name = "spare".into();
    (settings.bus_id, settings.download_bus_id) = ("2-2".into(), "1-2".into());
    settings.net = "wwan1".into();
    Ok(SimulatedModem::start(settings)?)
}

/// A router between two runs, or in one.
pub struct Subject {
    pub router: Router,
    pub control: Control,
    pub flash: Flash,
    pub device: String,
    /// The modem of the slot "spare", in a router that has two.
    spare: Option<SimulatedModem>,
    /// Runs that it was played in.
    pub turn: usize,
    shim: Shim,
    exe: PathBuf,
    lab: PathBuf,
    agent: Option<Child>,
    random: Random,
}

impl Subject {
    /// Takes over a router whose agent does not run, and gives it a quick modem.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn new(
        mut router: Router,
        shim: &Shim,
        exe: &Path,
        kind: Kind,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let lab = router.dir.with_extension("lab");
        fs::create_dir_all(&lab)?;
        router.edit("agent.toml", "backoff_s = 1", "backoff_s = 1\nagain_s = 1\nrecovery_s = 1")?;
        // The tool as well, whose faults nobody promises anything of; at its own pace, which is the modem's.
        let tool = shim.at_speed(1).environment(&router.dir, &lab, "uxfp");
        let tool: Vec<_> = tool.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
        let environment = format!("[tool]\nenvironment = {{ {} }}\n", tool.join(", "));
        router.edit("profiles/telit-uxfp.toml", "[tool]\n", &environment)?;
        // Agents live fast, and modems as fast as this machine lets them.
        let patience = 15 * (shim.speed / 2).max(1);
        router.edit("profiles/telit-uxfp.toml", "boot_s = 15", &format!("boot_s = {patience}"))?;
        for which in ["boot_silence_s", "away_s"] {
            let (from, to) = (format!("{which} = 15"), format!("{which} = {patience}"));
            router.edit("agent.toml", &from, &to)?;
        }
        if kind.volatile {
            router.edit("agent.toml", "/staging\"]", "/run/staging\"]")?;
        }
        router.modem.power_cut()?;
        router.modem = SimulatedModem::start(quick(&router.dir, &router.imei, seed))?;
        let spare = if kind.two_modems { Some(add_spare(&router, seed)?) } else { None };
        Ok(Self {
            spare,
            control: Control::make(&lab)?,
            flash: Flash::new(&router.dir, &lab),
            router,
            device: String::new(),
            turn: 0,
            shim: shim.clone(),
            exe: exe.to_owned(),
            lab,
            agent: None,
            random: Random::new(seed),
        })
    }

    /// Slots and their modems.
    pub fn modems(&self) -> impl Iterator<Item = (&'static str, &SimulatedModem)> {
        [("main", &self.router.modem)].into_iter().chain(self.spare.iter().map(|m| ("spare", m)))
    }

    /// Back to the beginning: the device is known to the coordinator and nothing has happened.
    ///
    /// # Errors
    /// Files cannot be written, or processes do not end.
    pub fn reset(&mut self, rules: &[Rule]) -> anyhow::Result<()> {
        self.kill_all()?;
        let dir = self.router.dir.clone();
        for (_, modem) in self.modems() {
            modem.ask(Request::Factory)?;
        }
        for entry in fs::read_dir(dir.join("state")).into_iter().flatten().flatten() {
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            } else if entry.file_name() != "identity" {
                cut::remove_tree(&entry.path())?;
            }
        }
        for gone in ["run", "staging"] {
            cut::remove_tree(&dir.join(gone))?;
        }
        self.unplug_stranger()?;
        self.router.everything_runs()?;
        fs::write(dir.join(events::LOG), "")?;
        files::remove_if_present(&dir.join("holders.log"))?;
        files::remove_if_present(&dir.join(crate::faults::TOOL_FAULTS_FILE))?;
        self.new_boot()?;
        cut::remove_tree(&self.failpoints())?;
        fs::create_dir_all(self.failpoints())?;
        for log in ["agent.log", "pids"] {
            fs::write(self.lab.join(log), "")?;
        }
        self.flash.settle()?;
        self.control.reset(rules)?;
        for (_, modem) in self.modems() {
            modem.power_on()?;
        }
        Ok(())
    }

    /// Starts the agent with failpoints armed (`name@pass=action;...`).
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn start(&mut self, failpoints: &str) -> anyhow::Result<()> {
        let log = fs::File::options().append(true).create(true).open(self.lab.join("agent.log"))?;
        let mut command = Command::new(&self.exe);
        command
            .arg0("modem-upgrader-agent")
            .args(["run", "--config"])
            .arg(self.router.dir.join("agent.toml"))
            .env("LAB_ROUTER", &self.router.dir)
            .env("MODEM_UPGRADER_LOG", "info")
            .env(
                "MODEM_UPGRADER_FAILPOINTS",
                format!("{};{failpoints}", self.failpoints().display()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        self.shim.cover(&mut command, &self.router.dir, &self.lab, "modem-upgrader-agent");
        self.agent = Some(command.spawn()?);
        Ok(())
    }

    /// Lets those go on that a failpoint has stopped.
    pub fn go_on(&self) {
        for (pid, _) in self.pids() {
            self.signal(pid, Signal::SIGCONT);
        }
    }

    /// How the agent ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.agent.as_mut()?.try_wait().ok()??;
        self.agent = None;
        Some(
            status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}")),
        )
    }

    #[must_use]
    pub fn runs(&self) -> bool {
        self.agent.is_some()
    }

    /// The failpoints that struck, in order.
    #[must_use]
    pub fn struck(&self) -> Vec<String> {
        let text = fs::read_to_string(self.failpoints().join("struck")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The failpoints that were passed, and how often.
    #[must_use]
    pub fn passes(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.failpoints()).into_iter().flatten().flatten();
        let pass = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_suffix(".passes")?.to_owned(), entry.metadata().ok()?.len()))
        };
        let mut passes: Vec<_> = entries.filter_map(pass).collect();
        passes.sort();
        passes
    }

    /// The power fails, and comes back once everything of the router is gone. `modem_too`: the modem
    /// has no other supply.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn power_cut(&mut self, modem_too: bool) -> anyhow::Result<Loss> {
        self.control.freeze(true)?;
        if modem_too {
            for (_, modem) in self.modems() {
                modem.power_cut()?;
            }
        }
        self.kill_all()?;
        let loss = self.flash.cut(&mut self.random)?;
        cut::remove_tree(&self.router.dir.join("run"))?;
        self.new_boot()?;
        self.control.freeze(false)?;
        self.router.start_others()?;
        if modem_too {
            for (_, modem) in self.modems() {
                modem.power_on()?;
            }
        }
        Ok(loss)
    }

    /// SIGKILL.
    pub fn kill(&mut self, victim: Victim) {
        let guardians = || self.pids().into_iter().filter(|(_, role)| role == "guard");
        let pids: Vec<i32> = match victim {
            Victim::Agent => Vec::new(),
            Victim::Guardian | Victim::Both => guardians().map(|(pid, _)| pid).collect(),
            Victim::Tool => self.tools(),
        };
        for pid in pids {
            self.kill_ours(pid);
        }
        if matches!(victim, Victim::Agent | Victim::Both)
            && let Some(mut agent) = self.agent.take()
        {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Ends every process of the router: agent, guardians, tools.
    ///
    /// # Errors
    /// One of them does not end.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        self.kill(Victim::Both);
        for _ in 0..500 {
            let mut left = false;
            let pids = self.pids().into_iter().map(|(pid, _)| pid);
            for pid in pids.chain(self.tools()) {
                left |= self.kill_ours(pid);
            }
            if !left {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        anyhow::bail!("a process of {} does not end", self.router.name)
    }

    fn kill_ours(&self, pid: i32) -> bool {
        self.signal(pid, Signal::SIGKILL)
    }

    /// Whether there was such a process; a number that somebody else has by now is left alone.
    fn signal(&self, pid: i32, signal: Signal) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = String::from_utf8_lossy(&line).contains(&*self.router.dir.to_string_lossy());
        ours && kill(Pid::from_raw(pid), signal).is_ok()
    }

    fn pids(&self) -> Vec<(i32, String)> {
        let text = fs::read_to_string(self.lab.join("pids")).unwrap_or_default();
        let pid = |line: &str| {
            let (pid, role) = line.split_once(' ')?;
            Some((pid.parse().ok()?, role.to_owned()))
        };
        text.lines().filter_map(pid).collect()
    }

    fn tools(&self) -> Vec<i32> {
        let starts = events::starts(&self.router.dir).unwrap_or_default();
        starts.into_iter().filter_map(|start| i32::try_from(start.pid).ok()).collect()
    }

    fn new_boot(&mut self) -> anyhow::Result<()> {
        let id = format!("{:032x}\n", self.random.next_u64());
        fs::write(self.router.dir.join("proc/sys/kernel/random/boot_id"), id).context("boot id")
    }

    fn failpoints(&self) -> PathBuf {
        self.lab.join("failpoints")
    }

    /// Whether the agent has written down how `operation` ended.
    #[must_use]
    pub fn has_result(&self, operation: &str) -> bool {
        self.modems().any(|(slot, _)| {
            let results = self.router.dir.join("state").join(slot).join("results.json");
            fs::read_to_string(results).is_ok_and(|text| text.contains(operation))
        })
    }

    /// Nothing is held and no tool or guardian works.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let rests = |slot| {
            let run = self.router.dir.join("run").join(slot);
            !run.join("holders.json").exists()
                && !files::is_locked(&run.join("guardian.lock")).unwrap_or(true)
        };
        self.router.everything_given_back() && self.modems().all(|(slot, _)| rests(slot))
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.lab.join("agent.log")).unwrap_or_default()
    }

    #[must_use]
    pub fn lab(&self) -> &Path {
        &self.lab
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.control.calm();
        let _ = self.kill_all();
    }
}
