//! What the coordinator sustains and what it takes: the real process on one core, the load on the
//! other, over TLS on loopback, its database on the file system of the build.
//!
//! `cargo bench --bench coordinator [-- [--json] [memory|images|requests|ticks|milestones]]`

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use lab::{
    bench::{
        Budget, Figure, Report, Workplace, fleet, http,
        images::{self, Fetched, Nginx, Source},
        line::Line,
        live::{Watch, percentile},
        machine::{self, syncs_a_second},
    },
    coordinator::{self, Coordinator},
    demo,
};
use rustls::ClientConfig;
use shared::{
    ack::Verdict,
    event::{Event, EventBody, Events, Tick, VERSION},
    ids::Slot,
    stages::Phase,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

const DEVICES: usize = 1000;
/// Connections that report milestones, each one message at a time, as an agent does.
const REPORTERS: usize = 512;
const USERS: usize = 64;
/// Devices that download at the same time, and bytes of what they do.
const CLIENTS: usize = 100;
const IMAGE: usize = 64 << 20;
/// How often each server is measured; the fastest counts.
const TURNS: usize = 3;
/// How long a rate is measured.
const TIME: Duration = Duration::from_secs(5);
/// From the last connection to the look at the memory.
const CALM: Duration = Duration::from_secs(60);
/// Ticks a second and device: the coordinator takes 50.
const FASTEST: u32 = 45;
/// A little more than what there should be.
const PACED: u32 = 22;

fn main() -> anyhow::Result<()> {
    let report = Report::from_arguments();
    let work = Workplace::new(Path::new(env!("CARGO_TARGET_TMPDIR")), "coordinator")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&report, work.path()))
}

async fn run(report: &Report, work: &Path) -> anyhow::Result<()> {
    let exe = Path::new(env!("CARGO_BIN_EXE_lab"));
    let mut coordinator = lab::bench::start_coordinator(exe, &work.join("coordinator"))?;
    if report.wants("memory") {
        tokio::time::sleep(Duration::from_secs(5)).await;
        idle(report, &coordinator)?;
    }
    let size = if report.wants("images") { IMAGE } else { 1 << 20 };
    let firmware = demo::make_firmware(&coordinator, work, size)?;
    let members = fleet::enrol(&coordinator, &firmware.image, DEVICES).await?;
    // A fresh process, as after a reboot of the server: all devices come back at once.
    lab::bench::restart(&mut coordinator)?;
    if report.wants("images") {
        downloads(report, &coordinator, &firmware.image, &members, work).await?;
    }
    let mut bench = Bench::connect(report, coordinator, members).await?;
    bench.prime().await?;
    if report.wants("requests") {
        bench.requests().await?;
    }
    if report.wants("ticks") {
        bench.ticks(FASTEST).await?;
        bench.ticks(PACED).await?;
    }
    // Last: their operations' logs grow far beyond those of real ones.
    if report.wants("milestones") {
        bench.milestones(1, work).await?;
        bench.milestones(16, work).await?;
    }
    Ok(())
}

fn idle(report: &Report, coordinator: &Coordinator) -> anyhow::Result<()> {
    let memory = machine::memory(coordinator.pid())?;
    let parts = format!("{} of it anonymous", lab::bench::short(memory.anonymous / 1024.0));
    let idle = Figure::new("coordinator RSS, idle", memory.resident / 1024.0, "MiB");
    report.print(&idle.budget(Budget::AtMost(40.0)).compared_with(parts));
    Ok(())
}

/// Coordinator and nginx take turns on the same core.
async fn downloads(
    report: &Report,
    coordinator: &Coordinator,
    image: &str,
    members: &[fleet::Member],
    work: &Path,
) -> anyhow::Result<()> {
    let tls = Arc::new(coordinator::tls(&coordinator.bootstrap.pin)?.config());
    let folder = work.join("nginx");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("image"), vec![0x5a; IMAGE])?;
    let tokens = members.iter().take(CLIENTS).map(|member| member.tokens.api.token.as_str());
    let (tokens, size) = (tokens.collect::<Vec<_>>(), IMAGE as u64);
    let path = format!("/api/v1/agent/images/{image}/file");
    let own = Source { address: coordinator.https, path, tokens, size };
    let nginx = Nginx::start(coordinator, &folder).await?;
    let other = nginx.as_ref().map(|nginx| {
        let source = Source { address: nginx.address, path: "/image".into(), ..own.clone() };
        (nginx.pid(), source)
    });
    let before = machine::memory(coordinator.pid())?.resident / 1024.0;
    let (mut fastest, mut compared) = ((0.0, 0.0), (0.0, 0.0));
    let mut most = before;
    for _ in 0..TURNS {
        fastest = faster(fastest, turn(coordinator.pid(), &own, &tls).await?);
        most = most.max(machine::memory(coordinator.pid())?.resident / 1024.0);
        if let Some((pid, source)) = &other {
            compared = faster(compared, turn(*pid, source, &tls).await?);
        }
    }
    let name = format!("image downloads, TLS, {CLIENTS} clients, blocks of 1 MiB");
    let figure = |(rate, cpu): (f64, f64), name: &str| {
        let cost = format!("{} CPU s/GB", lab::bench::short(cpu));
        report.print(&Figure::new(name, rate / 1e6, "MB/s").compared_with(cost));
    };
    figure(fastest, &name);
    if other.is_some() {
        figure(compared, "... by nginx, the same key and core");
        let share = Figure::new("... against nginx", fastest.0 / compared.0, "×");
        report.print(&share.budget(Budget::AtLeast(0.8)));
    } else {
        report.skip("... against nginx", "it is not installed");
    }
    let grown = format!("{} MiB before", lab::bench::short(before));
    let memory = Figure::new("coordinator RSS, most while they download", most, "MiB");
    report.print(&memory.compared_with(grown));
    Ok(())
}

fn faster(one: (f64, f64), other: (f64, f64)) -> (f64, f64) {
    if one.0 > other.0 { one } else { other }
}

/// Bytes a second, and CPU seconds of the server for 10^9 of them.
async fn turn(
    pid: u32,
    source: &Source<'_>,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<(f64, f64)> {
    let cpu = machine::cpu_seconds(pid)?;
    let Fetched { bytes, seconds } = images::fetch(source, tls, TIME).await?;
    let cpu = machine::cpu_seconds(pid)? - cpu;
    Ok((bytes / seconds, cpu / bytes * 1e9))
}

/// The coordinator with every device connected.
struct Bench<'a> {
    report: &'a Report,
    coordinator: Coordinator,
    tls: Arc<ClientConfig>,
    devices: Vec<(fleet::Member, Line)>,
}

impl<'a> Bench<'a> {
    async fn connect(
        report: &'a Report,
        coordinator: Coordinator,
        members: Vec<fleet::Member>,
    ) -> anyhow::Result<Self> {
        let tls = Arc::new(coordinator::tls(&coordinator.bootstrap.pin)?.config());
        let measured = report.wants("memory");
        if measured {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let before = machine::memory(coordinator.pid())?;
        let started = Instant::now();
        let mut devices = Vec::new();
        for chunk in members.chunks(64) {
            let lines = chunk.iter().map(|member| Line::open(coordinator.mqtt, &tls, member));
            devices.extend(chunk.iter().cloned().zip(try_join_all(lines).await?));
        }
        if measured {
            let rate = DEVICES as f64 / started.elapsed().as_secs_f64();
            report.print(&Figure::new("devices connecting over MQTT/TLS", rate, "1/s"));
            tokio::time::sleep(CALM).await;
            let after = machine::memory(coordinator.pid())?;
            let each = (after.resident - before.resident) * 1.024 / DEVICES as f64;
            let name = format!("coordinator RSS per device, {DEVICES} connected over MQTT/TLS");
            let all = lab::bench::short(after.resident / 1024.0);
            let figure = Figure::new(name, each, "kB").budget(Budget::AtMost(40.0));
            report.print(&figure.compared_with(format!(
                "{all} MiB in all, {} s after the last came",
                CALM.as_secs()
            )));
        }
        Ok(Self { report, coordinator, tls, devices })
    }

    /// Gives every operation as long a log as a real one has.
    async fn prime(&mut self) -> anyhow::Result<()> {
        for chunk in self.devices.chunks_mut(64) {
            let reports = chunk.iter_mut().map(|(member, line)| report_once(member, line, 12));
            try_join_all(reports).await?;
        }
        Ok(())
    }

    /// Each of the first devices reports `together` milestones a message and waits for their acks.
    async fn milestones(&mut self, together: u64, work: &Path) -> anyhow::Result<()> {
        let syncs = syncs_a_second(work)?;
        let cpu = machine::cpu_seconds(self.coordinator.pid())?;
        let started = Instant::now();
        let reporters = self.devices.iter_mut().take(REPORTERS);
        let reporting = reporters.map(|(member, line)| async move {
            let mut waits = Vec::new();
            while started.elapsed() < TIME {
                let sent = Instant::now();
                report_once(member, line, together).await?;
                waits.push(sent.elapsed().as_secs_f64());
            }
            anyhow::Ok(waits)
        });
        let waits = try_join_all(reporting).await?.concat();
        let seconds = started.elapsed().as_secs_f64();
        let cpu = machine::cpu_seconds(self.coordinator.pid())? - cpu;
        let count = waits.len() as f64 * together as f64;
        let name = format!("milestones committed, MQTT/TLS, {together} a message");
        let p99 = percentile(waits, 0.99) * 1000.0;
        let figure = Figure::new(&name, count / seconds, "1/s").budget(Budget::AtLeast(5000.0));
        self.report.print(&figure.compared_with(format!(
            "one 4 KiB write and fdatasync here: {}/s",
            lab::bench::short(syncs)
        )));
        let waited = format!("{name}: p99 to ack, {REPORTERS} devices");
        self.report.print(&Figure::new(waited, p99, "ms"));
        self.cpu(&name, cpu, count);
        Ok(())
    }

    /// Every device sends `rate` ticks a second; someone watches the live events meanwhile.
    async fn ticks(&mut self, rate: u32) -> anyhow::Result<()> {
        let epoch = Instant::now();
        let watch = Watch::start(&self.coordinator, epoch).await?;
        let cpu = machine::cpu_seconds(self.coordinator.pid())?;
        let started = Instant::now();
        let pause = Duration::from_secs(1) / rate;
        let sending = self.devices.iter_mut().enumerate().map(|(index, (member, line))| {
            // Not all in the same moment.
            let first = started + pause.mul_f64(index as f64 / DEVICES as f64);
            async move {
                let (mut due, mut count) = (first, 0_u32);
                while started.elapsed() < TIME {
                    tokio::time::sleep_until(due.into()).await;
                    line.tick(&tick(member, epoch)).await?;
                    // What was missed is not made up for: a burst would be taken for a flood.
                    due = (due + pause).max(Instant::now());
                    count += 1;
                }
                line.settle().await?;
                anyhow::Ok(count)
            }
        });
        let count: u32 = try_join_all(sending).await?.iter().sum();
        let count = f64::from(count);
        let seconds = started.elapsed().as_secs_f64();
        let cpu = machine::cpu_seconds(self.coordinator.pid())? - cpu;
        let waits = watch.end();
        let paced = lab::bench::short(f64::from(rate) * DEVICES as f64);
        let name = format!("ticks ingested, MQTT/TLS, paced at {paced}/s");
        let ingested = Figure::new(&name, count / seconds, "1/s");
        self.report.print(&ingested.budget(Budget::AtLeast(20_000.0)));
        let seen = format!("{} states seen", lab::bench::short(waits.len() as f64));
        if waits.is_empty() {
            self.report.skip(&format!("{name}: p99 to live event"), "no event came");
        } else {
            let p99 = percentile(waits, 0.99);
            let figure = Figure::new(format!("{name}: p99 to live event"), p99, "s");
            self.report.print(&figure.budget(Budget::AtMost(1.0)).compared_with(seen));
        }
        self.cpu(&name, cpu, count);
        Ok(())
    }

    async fn requests(&self) -> anyhow::Result<()> {
        let operation = self.devices.first().context("no device")?.0.operation;
        let base = "/api/v1/modem-upgrader/upgrade-operation/";
        let list = format!("operation list, 10 of {DEVICES}");
        for (name, path) in [
            (list, format!("{base}?page_size=10")),
            ("operation detail".into(), format!("{base}{operation}/")),
        ] {
            let name = format!("{name}, keep-alive, {USERS} connections");
            let cpu = machine::cpu_seconds(self.coordinator.pid())?;
            let token = &self.coordinator.bootstrap.api_token;
            let address = self.coordinator.https;
            let answered = http::ask_for(address, &self.tls, &path, token, USERS, TIME).await?;
            let cpu = machine::cpu_seconds(self.coordinator.pid())? - cpu;
            let rate = answered.requests / answered.seconds;
            let figure = Figure::new(&name, rate, "1/s").budget(Budget::AtLeast(5000.0));
            self.report.print(&figure.compared_with(format!("{} bytes each", answered.size)));
            self.cpu(&name, cpu, answered.requests);
        }
        Ok(())
    }

    fn cpu(&self, name: &str, seconds: f64, count: f64) {
        let each = seconds * 1e6 / count;
        self.report.print(&Figure::new(format!("{name}: CPU of coordinator"), each, "µs each"));
    }
}

async fn report_once(
    member: &mut fleet::Member,
    line: &mut Line,
    together: u64,
) -> anyhow::Result<()> {
    let events = (1..=together).map(|k| event(member, member.seq + k)).collect();
    member.seq += together;
    let acks = line.report(&Events::new(events)).await?.acks;
    let accepted = acks.iter().filter(|ack| ack.verdict == Verdict::Accepted).count();
    ensure!(accepted as u64 == together, "not all accepted: {acks:?}");
    Ok(())
}

fn event(member: &fleet::Member, seq: u64) -> Event {
    let phase = if seq == 1 { Phase::Inspecting } else { Phase::Downloading };
    Event {
        operation: member.operation,
        slot: Slot::default(),
        stream: member.stream,
        seq,
        attempt: 0,
        at: None,
        body: EventBody::Entered { phase },
    }
}

/// Says when it was sent, in nanoseconds since `epoch`.
fn tick(member: &mut fleet::Member, epoch: Instant) -> Tick {
    member.n += 1;
    Tick {
        v: VERSION,
        operation: member.operation,
        slot: Slot::default(),
        stream: member.stream,
        attempt: 0,
        n: member.n,
        phase: Phase::Downloading,
        percent: 5,
        stalled: false,
        detail: Some(epoch.elapsed().as_nanos().to_string()),
        fetched: Some(member.n << 20),
    }
}
