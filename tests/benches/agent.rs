//! What the agent costs: framing of AT bytes, the download with its verification against what a
//! shell script would do, memory when nothing is to be done, and the size of its binary.
//!
//! `cargo bench --bench agent [-- [--json] [framing|download|idle]]`

#![allow(clippy::disallowed_methods, reason = "the lab starts what the agent is compared with")]

use agent::{
    modem::at::frame_transcript,
    source::{self, Download, Source},
    staging::Staging,
    verify::{SignaturePolicy, VerifiedImage, VerifiedManifest, read_keyring},
};
use anyhow::{Context, ensure};
use lab::{
    bench::{Budget, Figure, Report, Workplace, fleet, machine, short, small},
    coordinator::{self, Coordinator},
    demo,
    firmware::Model,
    router::{Plan, Router},
    watch,
};
use shared::{hex::Sha256, ids::ImageId};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const IMAGE: usize = 64 << 20;
/// Each way of downloading has so many turns, one after the other; the fastest counts.
const TURNS: usize = 5;
/// How long framing is measured.
const TIME: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let report = Report::from_arguments();
    let work = Workplace::new(Path::new(env!("CARGO_TARGET_TMPDIR")), "agent")?;
    // As the agent itself runs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if report.wants("framing") {
        framing(&report);
    }
    if report.wants("download") || report.wants("idle") {
        let exe = Path::new(env!("CARGO_BIN_EXE_lab"));
        let coordinator = lab::bench::start_coordinator(exe, &work.path().join("coordinator"))?;
        if report.wants("download") {
            runtime.block_on(downloads(&report, &coordinator, work.path()))?;
        }
        if report.wants("idle") {
            match small::build(
                Path::new(env!("CARGO_MANIFEST_DIR")),
                Path::new(env!("CARGO_TARGET_TMPDIR")),
            )? {
                Ok(exe) => runtime.block_on(idle(&report, &coordinator, &exe, work.path()))?,
                Err(why) => report.skip("agent, profile small", &why),
            }
        }
    }
    Ok(())
}

/// A conversation as it is on the wire: echo, answers of some lines, a result, what comes unasked.
fn framing(report: &Report) {
    let once = b"AT#SWPKGV\r\r\n45.00.004\r\nM0R.000004\r\nP0R.000400\r\nA0R.000004\r\n\r\nOK\r\n\
        \r\n+CREG: 1,\"00C3\",\"00A1B2C3\",7\r\n\r\n#QSS: 1\r\n";
    let transcript = once.repeat(8192);
    let size = transcript.len() as f64 / 1e6;
    let rate = |frame: &dyn Fn() -> usize| {
        let (started, mut rounds) = (Instant::now(), 0_u32);
        while started.elapsed() < TIME {
            assert!(std::hint::black_box(frame()) > 0, "nothing was framed");
            rounds += 1;
        }
        f64::from(rounds) * size / started.elapsed().as_secs_f64()
    };
    let lines = rate(&|| {
        let lines = transcript.split(|byte| *byte == b'\n');
        lines
            .map(|line| std::hint::black_box(String::from_utf8_lossy(line).trim().to_owned()).len())
            .sum()
    });
    for read in [64, 4096] {
        let framed = rate(&|| frame_transcript(&transcript, "AT#SWPKGV", read));
        let figure = Figure::new(format!("AT framing, reads of {read} bytes"), framed, "MB/s");
        let ratio = short(framed / lines);
        report.print(&figure.compared_with(format!(
            "{ratio} × splitting the same bytes at LF into trimmed strings, {} MB/s",
            short(lines)
        )));
    }
}

async fn downloads(report: &Report, coordinator: &Coordinator, work: &Path) -> anyhow::Result<()> {
    let firmware = demo::make_firmware(coordinator, work, IMAGE)?;
    let members = fleet::enrol(coordinator, &firmware.image, 1).await?;
    let token = members.into_iter().next().context("no device")?.tokens.api.token;
    let job = Job::fetch(coordinator, &firmware, &token, work).await?;
    let disk = work.join("staging");
    let memory = Workplace::new(Path::new("/dev/shm"), "staging").ok();
    let mut script = Vec::new();
    let mut to_disk = Vec::new();
    let mut to_memory = Vec::new();
    for _ in 0..TURNS {
        match job.by_script(coordinator, &token) {
            Ok(run) => script.push(run),
            Err(why) => {
                report.skip("curl | sha256sum", &format!("{why:#}"));
                break;
            }
        }
        if let Some(memory) = &memory {
            to_memory.push(job.by_agent(memory.path()).await?);
        }
        to_disk.push(job.by_agent(&disk).await?);
    }
    let script = script.iter().copied().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    if let Some(script) = script {
        script.print(report, "curl | sha256sum", None);
    }
    for (name, runs) in [
        ("agent download + verify, staged in memory", to_memory),
        ("agent download + verify, staged on disk with fsync", to_disk),
    ] {
        if let Some(best) = runs.into_iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds)) {
            best.print(report, name, script);
        }
    }
    Ok(())
}

/// What one download took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    seconds: f64,
    cpu: f64,
}

impl Taken {
    fn print(self, report: &Report, name: &str, script: Option<Taken>) {
        let rate = IMAGE as f64 / 1e6 / self.seconds;
        report.print(&Figure::new(name, rate, "MB/s"));
        let cpu = self.cpu / (IMAGE as f64 / 1e9);
        report.print(&Figure::new(format!("{name}: its CPU"), cpu, "s/GB"));
        if let Some(script) = script {
            let ratio = script.seconds / self.seconds;
            let figure = Figure::new(format!("{name}: speed"), ratio, "×");
            let figure = figure.budget(Budget::AtLeast(0.9));
            report.print(&figure.compared_with("curl | sha256sum on the same core and server"));
        }
    }
}

/// The image that a device may fetch.
struct Job {
    source: Source,
    image: ImageId,
    manifest: VerifiedManifest,
}

impl Job {
    async fn fetch(
        coordinator: &Coordinator,
        firmware: &demo::Firmware,
        token: &str,
        work: &Path,
    ) -> anyhow::Result<Self> {
        let tls = coordinator::tls(&coordinator.bootstrap.pin)?;
        let token = token.to_owned();
        let give = Box::new(move || -> futures_util::future::BoxFuture<'static, _> {
            Box::pin(std::future::ready(Some(token.clone())))
        });
        let client = source::client(tls.config())?;
        let source = Source::new(client, coordinator.url().parse()?, give);
        let image: ImageId = firmware.image.parse()?;
        let bytes = source.manifest(&image).await?;
        let signature = source.signature(&image).await?;
        let keys = work.join("keys");
        std::fs::create_dir_all(&keys)?;
        std::fs::write(keys.join("operator.pub"), &firmware.key.public)?;
        let manifest = VerifiedManifest::verify(
            &bytes,
            signature.as_deref(),
            &shared::hex::sha256(&bytes),
            &read_keyring(&keys)?,
            SignaturePolicy::Required,
        )?;
        Ok(Self { source, image, manifest })
    }

    /// As the agent does it: every block verified and made durable, then the whole once more.
    async fn by_agent(&self, staging: &Path) -> anyhow::Result<Taken> {
        let staging = Staging::new(vec![staging.to_owned()], 0, vec![]);
        let size = self.manifest.manifest().file.size;
        let own = std::process::id();
        let (cpu, started) = (machine::cpu_seconds(own)?, Instant::now());
        let staged = staging.stage(self.manifest.sha256(), size, 0, false)?;
        let mut download = Download::open(&staged, &self.manifest).await?;
        self.source.fetch(&self.image, &mut download, |_| {}).await?;
        ensure!(download.is_complete(), "not all of it came");
        let path = staged.image_path(&self.manifest.manifest().file.name);
        VerifiedImage::open(&path, &self.manifest, |_| {}).await?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu = machine::cpu_seconds(own)? - cpu;
        staging.clean(&[]);
        Ok(Taken { seconds, cpu })
    }

    /// As a script does it. Starts on the core that this thread is kept on.
    fn by_script(&self, coordinator: &Coordinator, token: &str) -> anyhow::Result<Taken> {
        let own = std::process::id();
        let (cpu, started) = (machine::cpu_seconds_of_children(own)?, Instant::now());
        let url = format!("{}/api/v1/agent/images/{}/file", coordinator.url(), self.image);
        let mut curl = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--insecure"])
            .args(["--pinnedpubkey", &coordinator.bootstrap.pin])
            .args(["--header", &format!("Authorization: Bearer {token}"), &url])
            .stdout(Stdio::piped())
            .spawn()
            .context("curl does not start")?;
        let bytes = curl.stdout.take().context("no pipe")?;
        let sum = Command::new("sha256sum")
            .stdin(bytes)
            .stderr(Stdio::inherit())
            .output()
            .context("sha256sum does not start")?;
        ensure!(curl.wait()?.success(), "curl failed");
        let seconds = started.elapsed().as_secs_f64();
        let text = String::from_utf8(sum.stdout)?;
        let found: Sha256 = text.split(' ').next().unwrap_or_default().parse()?;
        ensure!(found == self.manifest.manifest().file.sha256, "curl fetched something else");
        Ok(Taken { seconds, cpu: machine::cpu_seconds_of_children(own)? - cpu })
    }
}

/// The small agent on a simulated router, once it is connected and has nothing to do.
async fn idle(
    report: &Report,
    coordinator: &Coordinator,
    exe: &Path,
    work: &Path,
) -> anyhow::Result<()> {
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let size = std::fs::metadata(exe)?.len() as f64 / 1e6;
    let name = format!("agent binary, profile small, stripped, {target}");
    let note = "linked dynamically; the budgets are for the static binaries of routers";
    report.print(&Figure::new(name, size, "MB").compared_with(note));
    let plan = Plan {
        number: 1,
        model: Model::Fn990a28,
        package: "45.00.002".into(),
        key: String::new(),
        sole_uplink: false,
        seed: 1,
        uplink: coordinator.uplink(),
    };
    let mut router = Router::build(exe, work, &plan).await?;
    router.start_agent()?;
    let api = coordinator.api()?;
    let device = watch::enrolled(&api, &router).await?;
    watch::online(&api, &device).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pid = router.agent_pid().context("the agent is gone")?;
    let memory = machine::memory(pid)?;
    let mib = |kib: f64| short(kib / 1024.0);
    let (anonymous, file) = (mib(memory.anonymous), mib(memory.file));
    let shared = mib(memory.shared);
    let figure = Figure::new("agent RSS, idle and connected", memory.resident / 1024.0, "MiB");
    report.print(&figure.budget(Budget::AtMost(6.0)).compared_with(format!(
        "anonymous {anonymous}, of files {file}, the C library among them, shared memory {shared}"
    )));
    Ok(())
}
