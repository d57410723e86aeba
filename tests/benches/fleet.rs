//! A fleet of ten thousand and its batches: the real coordinator on one core, the fleet on the other, over
//! TLS on loopback, the database on the file system of the build.
//!
//! `cargo bench --bench fleet [-- [--json] [PART...]]`, `FLEET=1000` for another size. The parts follow each
//! other on the same fleet; one that is not asked for still happens where a later one needs it.

use anyhow::{Context, ensure};
use lab::{
    bench::{
        self, Budget, Figure, Report, Workplace, http,
        live::{Watch, percentile},
        machine, short,
    },
    coordinator::{self, Api, Coordinator},
    demo,
    fleet::{Firmware, Fleet, device::Device, insist},
};
use reqwest::Method;
use rustls::ClientConfig;
use serde_json::{Value, json};
use shared::{event::EventBody, stages::Phase};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

const DEVICES: u32 = 10_000;
/// Devices that report at the same time.
const REPORTERS: usize = 512;
const USERS: usize = 64;
const TIME: Duration = Duration::from_secs(5);
/// From the storm to the look at the memory.
const CALM: Duration = Duration::from_secs(60);
/// Between two looks of a device that was woken for nothing.
const LOOK: Duration = Duration::from_secs(5);
/// Ticks a second, all devices together: what there should be, and what is sent.
const TICKS: f64 = 20_000.0;
const PACE: f64 = 25_000.0;

fn main() -> anyhow::Result<()> {
    let report = Report::from_arguments();
    let work = Workplace::new(Path::new(env!("CARGO_TARGET_TMPDIR")), "fleet")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let devices = std::env::var("FLEET").map_or(Ok(DEVICES), |text| text.parse())?;
    runtime.block_on(run(&report, work.path(), devices))
}

async fn run(report: &Report, work: &Path, count: u32) -> anyhow::Result<()> {
    let exe = Path::new(env!("CARGO_BIN_EXE_lab"));
    let coordinator = bench::start_coordinator(exe, &work.join("coordinator"))?;
    demo::make_firmware(&coordinator, work, 1 << 20)?;
    let mut bench = Bench::enrol(report, coordinator, count).await?;
    bench.storm().await?;
    bench.dry_run().await?;
    let batch = bench.begin("batch").await?;
    bench.lists(&batch).await?;
    bench.cancel(&batch).await?;
    if ["grants", "ticks", "milestones", "ends"].iter().any(|part| report.wants(part)) {
        let batch = bench.begin("").await?;
        bench.grants().await?;
        bench.ticks().await?;
        bench.milestones(work).await?;
        bench.ends(&batch).await?;
    }
    Ok(())
}

struct Bench<'a> {
    report: &'a Report,
    coordinator: Coordinator,
    api: Api,
    tls: Arc<ClientConfig>,
    firmware: Firmware,
    fleet: Fleet,
    count: f64,
    /// Of the coordinator before anybody was connected, KiB.
    idle: f64,
}

/// What the coordinator took of its core since.
struct Span {
    pid: u32,
    cpu: f64,
    started: Instant,
}

impl Span {
    fn begin(coordinator: &Coordinator) -> anyhow::Result<Self> {
        let pid = coordinator.pid();
        Ok(Self { pid, cpu: machine::cpu_seconds(pid)?, started: Instant::now() })
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// For people: CPU seconds and memory.
    fn cost(&self) -> anyhow::Result<String> {
        let cpu = machine::cpu_seconds(self.pid)? - self.cpu;
        let resident = machine::memory(self.pid)?.resident / 1024.0;
        Ok(format!("CPU {} s, RSS {} MiB", short(cpu), short(resident)))
    }
}

/// The same of the predecessor, measured with 1,000 devices on two cores, and how many times as good.
fn predecessor(said: &str, ratio: f64) -> String {
    format!("predecessor {said}: {} ×", short(ratio))
}

impl<'a> Bench<'a> {
    async fn enrol(
        report: &'a Report,
        mut coordinator: Coordinator,
        count: u32,
    ) -> anyhow::Result<Self> {
        let firmware = Firmware::uploaded(&coordinator).await?;
        let span = Span::begin(&coordinator)?;
        let fleet = Fleet::enrol(&coordinator, &firmware, count).await?;
        let rate = f64::from(count) / span.seconds();
        let name = format!("devices enrolled, with token and inventory, {count}");
        let cost = span.cost()?;
        let compared = format!("{cost}; {}", predecessor("34/s", rate / 34.0));
        report.print(&Figure::new(name, rate, "1/s").compared_with(compared));
        // A fresh process, as after a reboot of the server: all devices come back at once.
        bench::restart(&mut coordinator)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let idle = machine::memory(coordinator.pid())?.resident;
        let (api, tls) = (coordinator.api()?, coordinator::tls(&coordinator.bootstrap.pin)?);
        let tls = Arc::new(tls.config());
        let count = f64::from(count);
        Ok(Self { report, coordinator, api, tls, firmware, fleet, count, idle })
    }

    fn print(&self, part: &str, figure: &Figure) {
        if !part.is_empty() && self.report.wants(part) {
            self.report.print(figure);
        }
    }

    async fn storm(&mut self) -> anyhow::Result<()> {
        let span = Span::begin(&self.coordinator)?;
        let storm = self.fleet.storm(1).await;
        let cost = span.cost()?;
        let last = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
        let name = format!("storm of {}: all lines up again", short(self.count));
        let refused = format!("{} attempts refused or cut; {cost}", storm.refused);
        let figure = Figure::new(name, last(&storm.connected), "s").compared_with(refused);
        self.print("storm", &figure);
        let rate = self.count / last(&storm.asked);
        let name = "storm: devices with line and desired fetched";
        let half = format!("half of them after {} s", short(percentile(storm.asked.clone(), 0.5)));
        self.print("storm", &Figure::new(name, rate, "1/s").compared_with(half));
        if !self.report.wants("storm") {
            return Ok(());
        }
        tokio::time::sleep(CALM).await;
        let resident = machine::memory(self.coordinator.pid())?.resident;
        let each = (resident - self.idle) * 1.024 / self.count;
        let figure =
            Figure::new("RSS per connected device", each, "kB").budget(Budget::AtMost(40.0));
        let all = format!(
            "{} MiB in all, {} before, {} s after the storm; predecessor 752 MiB idle",
            short(resident / 1024.0),
            short(self.idle / 1024.0),
            CALM.as_secs()
        );
        self.report.print(&figure.compared_with(all));
        Ok(())
    }

    async fn dry_run(&self) -> anyhow::Result<()> {
        let span = Span::begin(&self.coordinator)?;
        let path = format!("build/{}/upgrade/?upgrade_all=true&page_size=10", self.firmware.build);
        let answer = self.api.get(&path).await?;
        let seconds = span.seconds();
        ensure!(answer["count"].as_f64() == Some(self.count), "not all: {}", answer["count"]);
        let ratio = 0.63 * self.count / 1000.0 / seconds;
        let compared = format!("{}; {}", span.cost()?, predecessor("0.63 s per 1,000", ratio));
        let name = format!("dry run of {}", short(self.count));
        self.print("dry-run", &Figure::new(name, seconds, "s").compared_with(compared));
        Ok(())
    }

    /// A batch of everybody in one wave, up to the last device that has fetched its job.
    async fn begin(&mut self, part: &str) -> anyhow::Result<String> {
        let body = json!({
            "upgrade_all": true,
            "strategy": { "canary": u32::MAX, "gate": { "soak_s": 0 } },
        });
        let path = format!("build/{}/upgrade/", self.firmware.build);
        let api = self.api.clone();
        let span = Span::begin(&self.coordinator)?;
        let posted = async {
            let answer = api.send(Method::POST, &path, &body).await?;
            anyhow::Ok((span.seconds(), span.cost()?, answer))
        };
        let fetched = self.fleet.each(async |device: &mut Device| {
            device.wake().await?;
            let (woken, mut cut) = (span.seconds(), 0);
            loop {
                let (fetched, failures) = insist(device, Device::fetch).await?;
                cut += failures;
                if fetched {
                    return anyhow::Ok((woken, span.seconds(), cut));
                }
                // That wake was about something else. The next one may have come already.
                let _ = tokio::time::timeout(LOOK, device.wake()).await;
            }
        });
        let (posted, fetched) = tokio::try_join!(posted, fetched)?;
        let (seconds, cost, answer) = posted;
        let batch = answer["batch"].as_str().context("no batch")?.to_owned();
        let all = short(self.count);
        // The first wave opens after the answer; of its wakes only the arrival is seen from here.
        let name = format!("batch of {all}: POST to operations committed");
        let rate = self.count / seconds;
        let compared =
            format!("{} operations/s; {cost}; {}", short(rate), predecessor("30/s", rate / 30.0));
        let figure = Figure::new(name, seconds, "s").budget(Budget::AtMost(2.0));
        self.print(part, &figure.compared_with(compared));
        let first = fetched.iter().map(|(woken, ..)| *woken).fold(f64::MAX, f64::min);
        let cut: u32 = fetched.iter().map(|(.., cut)| cut).sum();
        let (last_wake, last) = fetched
            .iter()
            .fold((0.0_f64, 0.0_f64), |most, one| (most.0.max(one.0), most.1.max(one.1)));
        let waits = fetched.iter().map(|(woken, fetched, _)| fetched - woken).collect();
        let name = format!("batch of {all}: POST to the first wave's first wake");
        let compared = format!("its last wake {} s (they go out at 500/s)", short(last_wake));
        self.print(part, &Figure::new(name, first, "s").compared_with(compared));
        let name = format!("batch of {all}: first wake to last desired fetched");
        let compared = format!(
            "from a wake to its desired p99 {} s; {cut} connections cut; {}",
            short(percentile(waits, 0.99)),
            span.cost()?
        );
        self.print(part, &Figure::new(name, last - first, "s").compared_with(compared));
        Ok(batch)
    }

    async fn lists(&self, batch: &str) -> anyhow::Result<()> {
        let operation = self.fleet.devices.first().and_then(Device::operation).context("no job")?;
        let all = short(self.count);
        let base = "/api/v1/modem-upgrader";
        for (name, path, before) in [
            (
                format!("operation list, 10 of {all}"),
                format!("{base}/upgrade-operation/?page_size=10"),
                Some(176.0),
            ),
            (
                format!("operation list, 10 of a batch of {all}"),
                format!("{base}/upgrade-operation/?page_size=10&batch={batch}"),
                Some(176.0),
            ),
            (
                "operation detail".to_owned(),
                format!("{base}/upgrade-operation/{operation}/"),
                Some(264.0),
            ),
        ] {
            let span = Span::begin(&self.coordinator)?;
            let token = &self.coordinator.bootstrap.api_token;
            let (https, tls) = (self.coordinator.https, &self.tls);
            let answered = http::ask_for(https, tls, &path, token, USERS, TIME).await?;
            let rate = answered.requests / answered.seconds;
            let figure = Figure::new(format!("{name}, {USERS} connections"), rate, "1/s");
            let mut compared = format!("{} bytes each; {}", answered.size, span.cost()?);
            if let Some(before) = before {
                let said = format!("{}/s", short(before));
                compared += &format!("; {}", predecessor(&said, rate / before));
            }
            let figure = figure.budget(Budget::AtLeast(5000.0)).compared_with(compared);
            self.print("lists", &figure);
        }
        let span = Span::begin(&self.coordinator)?;
        let detail = self.api.get(&format!("batch-upgrade-operation/{batch}/")).await?;
        let name = format!("batch detail, {all} operations");
        let shown = detail["upgradeoperations"].as_array().map_or(0, Vec::len);
        let compared = format!("{shown} operations in it; {}", span.cost()?);
        self.print("lists", &Figure::new(name, span.seconds(), "s").compared_with(compared));
        Ok(())
    }

    async fn cancel(&self, batch: &str) -> anyhow::Result<()> {
        let span = Span::begin(&self.coordinator)?;
        let path = format!("batch-upgrade-operation/{batch}/");
        let answer = self.api.send(Method::POST, &format!("{path}cancel/"), &json!({})).await?;
        let answered = span.seconds();
        let cancelled = self.until(&path, |tally| tally["cancelled"].as_f64()).await?;
        ensure!(cancelled, "not all were cancelled: {answer}");
        let seconds = span.seconds();
        let name = format!("cancel of {}: POST to all cancelled", short(self.count));
        let ratio = 24.0 * self.count / 1000.0 / seconds;
        let said = predecessor("24 s per 1,000", ratio);
        let compared = format!("answered after {} s; {}; {said}", short(answered), span.cost()?);
        self.print("cancel", &Figure::new(name, seconds, "s").compared_with(compared));
        Ok(())
    }

    /// Until a count of the batch's tally is everybody; false if it does not get there.
    async fn until(
        &self,
        path: &str,
        count: impl Fn(&Value) -> Option<f64>,
    ) -> anyhow::Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            let listed = self.api.get("batch-upgrade-operation/?page_size=100").await?;
            let mut batches = listed["results"].as_array().into_iter().flatten();
            let id = path.trim_end_matches('/').rsplit('/').next();
            let batch = batches.find(|batch| batch["id"].as_str() == id).context("no batch")?;
            if count(&batch["tally"]) == Some(self.count) {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }

    async fn grants(&mut self) -> anyhow::Result<()> {
        let span = Span::begin(&self.coordinator)?;
        let start = async |device: &mut Device| insist(device, Device::start).await;
        let started = self.fleet.some(REPORTERS, start).await?;
        let refused = started.iter().filter(|(leave, _)| leave.is_err()).count();
        let cut: u32 = started.iter().map(|(_, cut)| cut).sum();
        let rate = self.count / span.seconds();
        let compared =
            format!("{refused} refused, {cut} cut; a TLS connection each; {}", span.cost()?);
        let name = format!("grants, {} devices", short(self.count));
        self.print("grants", &Figure::new(name, rate, "1/s").compared_with(compared));
        let installing =
            || vec![EventBody::Granted, EventBody::Entered { phase: Phase::Installing }];
        self.fleet
            .some(REPORTERS, async |device: &mut Device| device.report(installing()).await)
            .await?;
        Ok(())
    }

    async fn ticks(&mut self) -> anyhow::Result<()> {
        let epoch = Instant::now();
        let watch = Watch::start(&self.coordinator, epoch).await?;
        let span = Span::begin(&self.coordinator)?;
        let pause = Duration::from_secs_f64(self.count / PACE);
        let counted = self.fleet.each(async |device: &mut Device| {
            // By their operations, which are random: not all in the same moment.
            let share = device.operation().map_or(0, |id| id.0.as_u128() % 1000);
            let share = u32::try_from(share).map_or(0.0, f64::from) / 1000.0;
            let (mut due, mut count) = (epoch + pause.mul_f64(share), 0_u32);
            while epoch.elapsed() < TIME {
                tokio::time::sleep_until(due.into()).await;
                device.tick(epoch.elapsed().as_nanos().to_string()).await?;
                due = (due + pause).max(Instant::now());
                count += 1;
            }
            device.settle().await?;
            Ok(count)
        });
        let count = f64::from(counted.await?.iter().sum::<u32>());
        let rate = count / span.seconds();
        let cost = span.cost()?;
        let waits = watch.end();
        let name = format!("ticks of {}, paced at {}/s", short(self.count), short(PACE));
        let figure = Figure::new(&name, rate, "1/s").budget(Budget::AtLeast(TICKS));
        self.print("ticks", &figure.compared_with(cost));
        self.live("ticks", &name, waits);
        Ok(())
    }

    fn live(&self, part: &str, name: &str, waits: Vec<f64>) {
        if !self.report.wants(part) {
            return;
        }
        let name = format!("{name}: p99 to live event");
        if waits.is_empty() {
            return self.report.skip(&name, "no event came");
        }
        let seen = format!("{} states seen", short(waits.len() as f64));
        let figure = Figure::new(name, percentile(waits, 0.99), "s").budget(Budget::AtMost(1.0));
        self.report.print(&figure.compared_with(seen));
    }

    async fn milestones(&mut self, work: &Path) -> anyhow::Result<()> {
        let syncs = machine::syncs_a_second(work)?;
        let epoch = Instant::now();
        let watch = Watch::start(&self.coordinator, epoch).await?;
        let span = Span::begin(&self.coordinator)?;
        let waits = self.fleet.some(REPORTERS, async |device: &mut Device| {
            let sent = epoch.elapsed();
            let reason = sent.as_nanos().to_string();
            device.report(vec![EventBody::Postponed { reason }]).await?;
            Ok((epoch.elapsed() - sent).as_secs_f64())
        });
        let waits = waits.await?;
        let rate = self.count / span.seconds();
        let name =
            format!("milestones of {}, 1 a message, {REPORTERS} at a time", short(self.count));
        let figure = Figure::new(&name, rate, "1/s").budget(Budget::AtLeast(5000.0));
        let compared = format!(
            "p99 to ack {} ms; {}; one write and fdatasync here {}/s",
            short(percentile(waits, 0.99) * 1000.0),
            span.cost()?,
            short(syncs)
        );
        self.print("milestones", &figure.compared_with(compared));
        // What was committed last is on its way.
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.live("milestones", &name, watch.end());
        Ok(())
    }

    async fn ends(&mut self, batch: &str) -> anyhow::Result<()> {
        let span = Span::begin(&self.coordinator)?;
        let done = async |device: &mut Device| device.finish(Firmware::reaches()).await;
        self.fleet.some(REPORTERS, done).await?;
        let ended = self.until(batch, |tally| tally["success"].as_f64()).await?;
        ensure!(ended, "not all succeeded");
        let seconds = span.seconds();
        let name = format!("{} successes, up to the batch's tally", short(self.count));
        let compared = format!("{}; predecessor 943 MiB after a batch", span.cost()?);
        let figure = Figure::new(name, self.count / seconds, "1/s").compared_with(compared);
        self.print("ends", &figure);
        Ok(())
    }
}
