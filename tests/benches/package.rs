//! What the agent costs a router: sizes of what is installed, memory and writes to flash through one
//! whole upgrade, the time to its first connection, and CPU for the image, emulated, for each kind of router.
//!
//! `cargo bench --bench package [-- [--json] [sizes|life|cpu]]`

#![allow(clippy::disallowed_methods, reason = "the lab starts what the agent is compared with")]

use anyhow::{Context, ensure};
use lab::{
    bench::{
        Budget, Figure, Report, Workplace,
        dist::{TARGETS, Target},
        life::{self, Place, Seen},
        machine::{self, Memory},
        short, small,
        suite::{Relay, Suite},
    },
    coordinator::Coordinator,
    demo::{self, Firmware},
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    router::Router,
    watch,
};
use shared::stages::Phase;
use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const IMAGE: usize = 32 << 20;
const GIB: f64 = (1_u64 << 30) as f64;
/// After its connection stands, until an agent counts as idle; and how long it is then watched.
const SETTLE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);
/// Starts of an agent that is enrolled already; the median counts.
const STARTS: usize = 5;
/// So that flashing takes some seconds.
const PACE: ToolFault =
    ToolFault { kind: ToolFaultKind::Slow { bytes_per_second: 8 << 20 }, times: None };
/// Of a package: 10^6 bytes.
const PACKAGE_MB: f64 = 1.4;
const RSS_MIB: f64 = 6.0;
const BLOCKS_MIB: f64 = 2.0;

/// Where everything lies.
struct Lab {
    coordinator: Coordinator,
    firmware: Firmware,
    exe: PathBuf,
    memory: Workplace,
    flash: Workplace,
}

fn main() -> anyhow::Result<()> {
    let report = Report::from_arguments();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dist = manifest.parent().context("no workspace")?.join("dist");
    if report.wants("sizes") {
        sizes(&report, &dist);
    }
    if !report.wants("life") && !report.wants("cpu") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lab = Lab::open(Path::new(env!("CARGO_BIN_EXE_lab")), temporary)?;
    if report.wants("life") {
        let built = match small::linked_statically(&dist) {
            Some(agent) => Ok((agent, "a static musl binary as a router's")),
            None => small::build(manifest, temporary)?.map(|agent| (agent, "linked dynamically")),
        };
        match built {
            Ok((agent, linked)) => {
                eprintln!("# a router's life: {linked}");
                runtime.block_on(whole_life(&report, &lab, &agent))?;
            }
            Err(why) => report.skip("an agent's life, profile small", &why),
        }
    }
    if report.wants("cpu") {
        let target = temporary.parent().context("no target directory")?;
        runtime.block_on(all_cpu(&report, &lab, &dist, target))?;
    }
    Ok(())
}

impl Lab {
    fn open(exe: &Path, temporary: &Path) -> anyhow::Result<Self> {
        let flash = Workplace::new(temporary, "package")?;
        let memory = Workplace::new(Path::new("/dev/shm"), "package")?;
        let coordinator = lab::bench::start_coordinator(exe, &flash.path().join("coordinator"))?;
        let firmware = demo::make_firmware(&coordinator, flash.path(), IMAGE)?;
        Ok(Self { coordinator, firmware, exe: exe.to_owned(), memory, flash })
    }

    async fn router(&self, number: u8, https: u16) -> anyhow::Result<Router> {
        let place = Place {
            exe: &self.exe,
            number,
            key: &self.firmware.key.public,
            https,
            memory: self.memory.path(),
            flash: self.flash.path(),
        };
        life::build(&self.coordinator, place).await
    }
}

fn sizes(report: &Report, dist: &Path) {
    for target in TARGETS {
        let name = format!("agent binary, static, stripped, {}", target.name);
        let Some(binary) = target.binary(dist) else {
            report.skip(&name, "dist/ has none: openwrt-package/build.sh makes it");
            continue;
        };
        let size = std::fs::metadata(binary).map_or(0, |metadata| metadata.len());
        let figure = Figure::new(name, size as f64 / 1e6, "MB");
        report.print(
            &figure.budget(Budget::AtMost(target.budget)).compared_with(format!("{size} bytes")),
        );
        for (extension, format) in [(".ipk", "opkg"), (".apk", "apk")] {
            let name = format!("package for {format}, {}", target.name);
            // Those of one target differ in the architecture's name alone.
            let packages = target.packages(dist, extension);
            let Some((path, size)) = packages.iter().max_by_key(|(_, size)| *size) else {
                report.skip(&name, "dist/ has none; .apk needs apk-tools 3 where it is built");
                continue;
            };
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let figure = Figure::new(name, *size as f64 / 1e6, "MB");
            let figure = figure.budget(Budget::AtMost(PACKAGE_MB));
            report.print(&figure.compared_with(format!("{size} bytes, {file}")));
        }
    }
}

/// One router from its first start to a proved upgrade.
async fn whole_life(report: &Report, lab: &Lab, agent: &Path) -> anyhow::Result<()> {
    let api = lab.coordinator.api()?;
    let mut router = lab.router(1, lab.coordinator.https.port()).await?;
    router.use_agent(&[agent]);
    write_tool_faults(&router.dir, &[PACE])?;
    let first = life::start_to_line(&mut router).await?;
    let note = "with the key made and the device enrolled, on loopback";
    let name = "agent start to first MQTT connection, first start";
    report.print(&Figure::new(name, first.as_secs_f64(), "s").compared_with(note));
    let device = watch::enrolled(&api, &router).await?;
    starts(report, &mut router).await?;
    idle(report, &router).await?;

    let operation = watch::assign(&api, &device, &lab.firmware.image).await?;
    let has_ended = Cell::new(false);
    let waiting = async {
        let operation = watch::ended(&api, &operation).await;
        has_ended.set(true);
        operation
    };
    let (operation, seen) = tokio::join!(waiting, Seen::until(&router, || has_ended.get()));
    let (operation, seen) = (operation?, seen?);
    ensure!(operation["status"] == "success", "the upgrade: {operation:#}\n{}", router.agent_log());
    through_an_upgrade(report, &seen);
    Ok(())
}

async fn starts(report: &Report, router: &mut Router) -> anyhow::Result<()> {
    let mut seconds = Vec::new();
    for _ in 0..STARTS {
        router.kill_agent();
        seconds.push(life::start_to_line(router).await?.as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(STARTS / 2).copied().context("no start")?;
    let figure = Figure::new("agent start to first MQTT connection, enrolled", median, "s");
    report.print(&figure.compared_with(format!("median of {STARTS}, on loopback")));
    Ok(())
}

async fn idle(report: &Report, router: &Router) -> anyhow::Result<()> {
    let pid = router.agent_pid().context("the agent is gone")?;
    tokio::time::sleep(SETTLE).await;
    let (before, cpu) = (machine::bytes_to_disk(pid)?, machine::cpu_seconds(pid)?);
    tokio::time::sleep(IDLE).await;
    let wrote = machine::bytes_to_disk(pid)? - before;
    let cpu = machine::cpu_seconds(pid)? - cpu;
    memory(report, "idle", machine::memory(pid)?, RSS_MIB);
    let days = 86_400.0 / IDLE.as_secs_f64();
    let figure = Figure::new("flash written by an idle agent", wrote as f64 * days, "bytes/day");
    report.print(&figure.budget(Budget::AtMost(0.0)).compared_with(format!(
        "{wrote} bytes in {} s that polled every 5 s, a router does every 300 s",
        IDLE.as_secs()
    )));
    let figure = Figure::new("CPU of an idle agent", cpu / IDLE.as_secs_f64() * 1e3, "ms/s");
    report.print(&figure.compared_with("polling every 5 s as well"));
    Ok(())
}

fn through_an_upgrade(report: &Report, seen: &Seen) {
    memory(report, "downloading and verifying", seen.downloading, RSS_MIB + BLOCKS_MIB);
    memory(report, "while the tool flashes", seen.flashing, RSS_MIB + BLOCKS_MIB);
    memory(report, "of its guardian", seen.guardian, RSS_MIB);
    let image = IMAGE as f64;
    let name = "flash written by one upgrade, agent, beside the image";
    let beside = (seen.agent_wrote as f64 - image) / 1024.0;
    report.print(&Figure::new(name, beside, "KiB").compared_with(format!(
        "{} bytes with an image of {IMAGE}; in pages of 4 KiB, without the file system's own",
        short(seen.agent_wrote as f64)
    )));
    let name = "flash written by one upgrade, guardian";
    let wrote = seen.guardian_wrote as f64;
    report.print(&Figure::new(name, wrote, "bytes").budget(Budget::AtMost(0.0)));
}

fn memory(report: &Report, when: &str, memory: Memory, budget: f64) {
    let mib = |kib: f64| short(kib / 1024.0);
    let (anonymous, file) = (mib(memory.anonymous), mib(memory.file));
    let shared = mib(memory.shared);
    let figure = Figure::new(format!("agent RSS, {when}"), memory.resident / 1024.0, "MiB");
    report.print(&figure.budget(Budget::AtMost(budget)).compared_with(format!(
        "anonymous {anonymous}, of files {file}, the C library among them, shared memory {shared}"
    )));
}

async fn all_cpu(report: &Report, lab: &Lab, dist: &Path, target: &Path) -> anyhow::Result<()> {
    let mut number = 10;
    let native = hashing(lab, Command::new("sha256sum"))?;
    for kind in TARGETS {
        let name = format!("{}, emulated: download + verify", kind.name);
        let (Some(binary), Some(emulator)) = (kind.binary(dist), kind.emulator()) else {
            report.skip(&name, "it needs dist/ (openwrt-package/build.sh) and qemu-user-static");
            continue;
        };
        let reference = reference(report, lab, &kind, &emulator, target)?;
        for suite in Suite::ALL {
            number += 1;
            let seconds = cpu(lab, &[&emulator, &binary], suite, number).await?;
            let per_gib = seconds * GIB / IMAGE as f64;
            let figure = Figure::new(format!("{name}, {}", suite.name()), per_gib, "s/GiB");
            let emulated = reference.map(|reference| {
                format!(
                    "{} × busybox' sha256sum under the same emulator, {} s/GiB; ",
                    short(per_gib / reference),
                    short(reference)
                )
            });
            report.print(&figure.compared_with(format!(
                "{}{} × this machine's own sha256sum, {} s/GiB; hashed twice",
                emulated.unwrap_or_default(),
                short(per_gib / native),
                short(native)
            )));
        }
    }
    Ok(())
}

/// CPU seconds a GiB of a sha256sum for the same processor under the same emulator.
fn reference(
    report: &Report,
    lab: &Lab,
    kind: &Target,
    emulator: &Path,
    target: &Path,
) -> anyhow::Result<Option<f64>> {
    let Some(busybox) = kind.busybox(target) else {
        let name = format!("{}, emulated: busybox' sha256sum", kind.name);
        report.skip(&name, "there is none to compare with: .ci/busybox fetches it");
        return Ok(None);
    };
    let mut emulated = Command::new(emulator);
    emulated.arg(busybox).arg("sha256sum");
    hashing(lab, emulated).map(Some)
}

/// CPU seconds a GiB of a command that reads the file that is its last argument.
fn hashing(lab: &Lab, mut command: Command) -> anyhow::Result<f64> {
    let file = lab.flash.path().join("bytes");
    std::fs::write(&file, vec![0x5a; IMAGE])?;
    let own = std::process::id();
    let before = machine::cpu_seconds_of_children(own)?;
    let status = command.arg(&file).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("{command:?} does not start"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    let seconds = machine::cpu_seconds_of_children(own)? - before;
    Ok(seconds * GIB / IMAGE as f64)
}

/// CPU seconds from the first byte of the image to its last proof.
async fn cpu(lab: &Lab, agent: &[&Path], suite: Suite, number: u8) -> anyhow::Result<f64> {
    let api = lab.coordinator.api()?;
    let relay = Relay::start(&lab.coordinator, suite).await?;
    let mut router = lab.router(number, relay.address.port()).await?;
    router.use_agent(agent);
    life::start_to_line(&mut router).await?;
    let device = watch::enrolled(&api, &router).await?;
    let pid = router.agent_pid().context("the agent is gone")?;
    watch::assign(&api, &device, &lab.firmware.image).await?;
    let mut began = machine::cpu_seconds(pid)?;
    let mut under_way = false;
    let ended = life::wait("downloaded and verified", || {
        let now = machine::cpu_seconds(pid).ok()?;
        match router.phase() {
            Some(Phase::Downloading | Phase::Verifying) => under_way = true,
            _ if under_way => return Some(now),
            _ => began = now,
        }
        None
    });
    let ended = ended.await.with_context(|| router.agent_log())?;
    router.kill_agent();
    Ok(ended - began)
}
