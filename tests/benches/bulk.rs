//! Bulk work on batches beside small writes: how long does anybody wait for the database's one writer?
//!
//! `cargo bench --bench bulk [-- [--json] [PART...]]`, `BULK=100000` for another number of operations. The
//! store alone, in this process, on the file system of the build; a probe writes a row every few
//! milliseconds, each with its own COMMIT, while a batch of all is made, opened, paused, resumed and taken
//! back, and while its build is deleted. What the probe waits for beside the bulk work (the disk's sync, the
//! machine's other work) is measured first, with nothing else to write.

use anyhow::{Context, anyhow};
use coordinator::{
    batch::{Reason, Strategy},
    clock::Clock,
    feed::Feed,
    pilot::{Marked, Pilot},
    store::{
        Store,
        batch::{Member, NewBatch, PIECE},
        bootstrap::FirstStart,
        build::BuildChange,
        category::CategoryChange,
        enrolment::Enrolment,
        event::Sign,
        image::{NewImage, SignedManifest},
        listing::Scope,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use lab::bench::{Budget, Figure, Report, Workplace, live::percentile, short};
use shared::{
    hex::{Hex, sha256},
    identity::Claims,
    ids::{BatchId, BuildId, DeviceId, ImageId, OrganizationId, Slot},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

#[path = "../../coordinator/tests/fixture/manifest.rs"]
mod manifest;

const OPERATIONS: u32 = 10_000;
const EVERY: Duration = Duration::from_millis(3);
const CALM: Duration = Duration::from_secs(3);
/// DESIGN: the writer is never blocked for longer by bulk work.
const LONGEST_MS: f64 = 50.0;
const TOKEN: &[u8] = b"enrolment";

fn main() -> anyhow::Result<()> {
    let report = Report::from_arguments();
    let work = Workplace::new(Path::new(env!("CARGO_TARGET_TMPDIR")), "bulk")?;
    let operations = std::env::var("BULK").map_or(Ok(OPERATIONS), |text| text.parse())?;
    // As the coordinator has it: requests on several threads, the writer on one of its own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(report, work.path(), operations))
}

async fn run(report: Report, work: &Path, operations: u32) -> anyhow::Result<()> {
    let bench = Bench::new(report, work, operations).await?;
    let calm = async {
        tokio::time::sleep(CALM).await;
        Ok(())
    };
    bench.measure("calm", calm).await?;
    let batch = bench.measure("post", bench.post()).await?;
    bench.measure("open", bench.fly(batch)).await?;
    bench.store.pause_batch(Scope::Everything, batch, by()).await?;
    bench.measure("resume", bench.resume(batch)).await?;
    bench.measure("cancel", bench.cancel(batch)).await?;
    bench.measure("delete", bench.delete()).await?;
    bench.store.stop();
    Ok(())
}

fn by() -> Reason {
    Reason::Operator { by: "bench".into() }
}

struct Bench {
    report: Report,
    store: Store,
    organization: OrganizationId,
    build: BuildId,
    image: ImageId,
    devices: Vec<DeviceId>,
}

impl Bench {
    async fn new(report: Report, work: &Path, count: u32) -> anyhow::Result<Self> {
        let store = Store::open(&work.join("db"), Clock::System)?;
        let first = FirstStart {
            superuser: "admin".into(),
            organization: "default".parse()?,
            api_token: sha256(b"api"),
            enrolment_token: sha256(TOKEN),
        };
        store.bootstrap(first).await?;
        let organization = store.organizations().await?.first().context("no organization")?.id;
        let (build, image) = firmware(&store).await?;
        let devices = stream::iter(0..count).map(|n| enrol(&store, n)).buffered(256);
        let devices: Vec<_> = devices.try_collect().await?;
        let now = store.clock().now();
        for piece in devices.chunks(PIECE) {
            let seen = piece.iter().map(|device| Sign::Seen(*device, now)).collect();
            store.record_signs(seen).await?;
        }
        Ok(Self { report, store, organization, build, image, devices })
    }

    /// Does it beside the probe, and prints how long the probe waited.
    async fn measure<T>(
        &self,
        part: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let done = Arc::new(AtomicBool::new(false));
        let probe = tokio::spawn(probe(self.store.clone(), done.clone()));
        let began = Instant::now();
        let answer = work.await;
        let seconds = began.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        let waited = probe.await??;
        if self.report.wants(part) {
            let all = short(f64::from(u32::try_from(self.devices.len())?));
            let longest = waited.iter().copied().fold(0.0, f64::max);
            let (writes, p99) = (waited.len(), short(percentile(waited, 0.99)));
            let told = format!("{writes} writes, p99 {p99} ms; the work took {} s", short(seconds));
            let name = match part {
                "calm" => "longest wait for a small write, nothing else to write".to_owned(),
                part => format!("... while a batch of {all}: {part}"),
            };
            let figure = Figure::new(name, longest, "ms").compared_with(told);
            self.report.print(&figure.budget(Budget::AtMost(LONGEST_MS)));
        }
        answer
    }

    /// As the API does.
    async fn post(&self) -> anyhow::Result<BatchId> {
        let strategy = Strategy { canary: u32::MAX, ..Strategy::default() };
        let new = NewBatch {
            organization: self.organization,
            build: self.build,
            group: None,
            location: None,
            upgrade_options: serde_json::Map::new(),
            strategy,
            retry_of: None,
            start_at: None,
            expires_at: self.store.clock().now() + 3_600_000,
        };
        let batch = self.store.create_batch(new).await?;
        for piece in self.devices.chunks(PIECE) {
            let member = |device: &DeviceId| Member {
                device: *device,
                slot: Slot::default(),
                image: self.image,
                retry_of: None,
            };
            let members = piece.iter().map(member).collect();
            self.store.add_members(batch, members, "bench".into()).await?;
        }
        self.store.launch_batch(batch).await?;
        Ok(batch)
    }

    async fn fly(&self, batch: BatchId) -> anyhow::Result<()> {
        let feed = Feed::new(self.store.clock());
        Pilot::new(self.store.clone(), feed, Arc::<Marked>::default()).fly(batch).await?;
        Ok(())
    }

    async fn resume(&self, batch: BatchId) -> anyhow::Result<()> {
        self.store.resume_batch(Scope::Everything, batch).await?;
        Ok(())
    }

    async fn delete(&self) -> anyhow::Result<()> {
        self.store.delete_build(self.build).await?;
        Ok(())
    }

    /// With the pilot at the same, as it would be.
    async fn cancel(&self, batch: BatchId) -> anyhow::Result<()> {
        self.store.cancel_batch(Scope::Everything, batch, by()).await?;
        let withdrawn = async {
            while self.store.withdraw(batch).await? > 0 {}
            anyhow::Ok(())
        };
        tokio::try_join!(withdrawn, self.fly(batch))?;
        let left = self.store.batch(Scope::Everything, batch).await?.context("no batch")?;
        match left.counts.undecided() {
            0 => Ok(()),
            some => Err(anyhow!("{some} are left")),
        }
    }
}

/// Milliseconds that each small write took, its COMMIT among them.
async fn probe(store: Store, done: Arc<AtomicBool>) -> anyhow::Result<Vec<f64>> {
    let mut waited = Vec::new();
    while !done.load(Ordering::Relaxed) || waited.is_empty() {
        let began = Instant::now();
        store.check().await?;
        waited.push(began.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(EVERY).await;
    }
    Ok(waited)
}

async fn firmware(store: &Store) -> anyhow::Result<(BuildId, ImageId)> {
    let category = CategoryChange { name: Some("FN990A".into()), ..CategoryChange::default() };
    let category = store.create_category(category).await?.id;
    let build = BuildChange { version: Some("v2".into()), ..BuildChange::default() };
    let build = store.create_build(category, build).await?.id;
    let content = b"firmware";
    let signed = SignedManifest {
        manifest: serde_json::to_vec(&manifest::manifest(content))?,
        signature: "untrusted comment: bench\n".into(),
        signed_by: Hex([7; 8]),
        sequence: 1,
    };
    let new = NewImage {
        build,
        tool: "telit-uxfp".into(),
        boards: vec![],
        file_name: "fn990.bin".into(),
        size: 8,
        sha256: sha256(content),
        signed: Some(signed),
    };
    Ok((build, store.create_image(new).await?.id))
}

async fn enrol(store: &Store, n: u32) -> anyhow::Result<DeviceId> {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    let enrolment = Enrolment {
        public_key: Hex(key),
        token: sha256(TOKEN),
        claims: Claims::default(),
        peer: None,
    };
    let (enrolled, _) = store.enrol(enrolment).await.map_err(|refused| anyhow!("{refused:?}"))?;
    Ok(enrolled.device)
}
