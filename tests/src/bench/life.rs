//! A router under observation: whose memory it takes, what it writes to its flash, and since when.
//!
//! Everything of it lies in memory except what a real one keeps on its flash (state and staging), so that
//! what its processes write to disks is what a real one would write there.

use super::machine::{self, Memory};
use crate::{
    coordinator::Coordinator,
    firmware::Model,
    release::FROM,
    router::{Plan, Router, Uplink},
};
use anyhow::{Context, ensure};
use shared::stages::Phase;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a router lies, and what it is told.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The lab's binary, whose tools it has.
    pub exe: &'a Path,
    /// Each in a run has its own.
    pub number: u8,
    /// The key that it trusts.
    pub key: &'a str,
    /// The port that it finds the coordinator on.
    pub https: u16,
    /// A directory in memory.
    pub memory: &'a Path,
    /// A directory that survives a power cut.
    pub flash: &'a Path,
}

/// Builds the router.
///
/// # Errors
/// It cannot be built.
pub async fn build(coordinator: &Coordinator, place: Place<'_>) -> anyhow::Result<Router> {
    let uplink = Uplink { https: place.https, ..coordinator.uplink() };
    let plan = Plan {
        number: place.number,
        model: Model::Fn990a28,
        package: FROM.into(),
        key: place.key.to_owned(),
        sole_uplink: false,
        seed: u64::from(place.number),
        uplink,
    };
    let router = Router::build(place.exe, place.memory, &plan).await?;
    for name in ["state", "staging"] {
        let (here, there) = (router.dir.join(name), place.flash.join(&router.name).join(name));
        router.edit("agent.toml", &quoted(&here), &quoted(&there))?;
    }
    Ok(router)
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

/// Starts the agent; how long until its MQTT connection stands.
///
/// # Errors
/// It does not connect.
pub async fn start_to_line(router: &mut Router) -> anyhow::Result<Duration> {
    // What an agent before it said is no word of this one.
    let _ = fs::remove_file(router.dir.join("run/status.json"));
    let started = Instant::now();
    router.start_agent()?;
    let stands = || {
        let line = router.status().and_then(|status| status.uplink).is_some_and(|u| u.line);
        line.then(|| started.elapsed())
    };
    wait("connected", stands).await.with_context(|| router.agent_log())
}

/// What `look` finds, once it does.
///
/// # Errors
/// It finds nothing in time.
pub async fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(started.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}

/// The most that was seen, KiB; and bytes that went to the flash.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub downloading: Memory,
    pub flashing: Memory,
    pub guardian: Memory,
    pub agent_wrote: u64,
    pub guardian_wrote: u64,
}

impl Seen {
    /// Watches the agent and its guardian until `has_ended`.
    ///
    /// # Errors
    /// The agent is gone, or it takes for ever.
    pub async fn until(
        router: &Router,
        mut has_ended: impl FnMut() -> bool,
    ) -> anyhow::Result<Self> {
        let agent = router.agent_pid().context("the agent is gone")?;
        let before = machine::bytes_to_disk(agent)?;
        let mut seen = Self::default();
        wait("the upgrade ends", || {
            seen.look(router, agent);
            has_ended().then_some(())
        })
        .await?;
        seen.agent_wrote = machine::bytes_to_disk(agent)? - before;
        Ok(seen)
    }

    fn look(&mut self, router: &Router, agent: u32) {
        let (Some(phase), Ok(memory)) = (router.phase(), machine::memory(agent)) else { return };
        match phase {
            Phase::Downloading | Phase::Verifying => raise(&mut self.downloading, memory),
            Phase::Installing => {
                raise(&mut self.flashing, memory);
                self.look_at_guardian(router);
            }
            _ => {}
        }
    }

    /// It may be gone at any moment.
    fn look_at_guardian(&mut self, router: &Router) {
        for pid in router.tool_processes() {
            let Ok(pid) = u32::try_from(pid.as_raw()) else { continue };
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !arguments.split(|byte| *byte == 0).any(|word| word == b"guard") {
                continue;
            }
            if let (Ok(memory), Ok(wrote)) = (machine::memory(pid), machine::bytes_to_disk(pid)) {
                raise(&mut self.guardian, memory);
                self.guardian_wrote = self.guardian_wrote.max(wrote);
            }
        }
    }
}

fn raise(most: &mut Memory, memory: Memory) {
    if memory.resident > most.resident {
        *most = memory;
    }
}
