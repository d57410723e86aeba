//! `campaign`: the real agent, its guardian and the stand-in tool under crashes, power cuts and
//! faults of disk and port, many at a time, until something is found that must not be.
//!
//! | layer | what runs | what strikes |
//! |---|---|---|
//! | processes | agent, guardian, tool, coordinator, each a real process | named failpoints, the n-th file or serial operation, a share of the firmware |
//! | storage | journal, outbox, results, staging and identity in one process, under the machine's own transitions | the n-th file operation |
//!
//! Every run is decided by its seed, which is printed with whatever it violated.

mod control;
mod cut;
mod failpoints;
mod judge;
mod plan;
mod run;
mod shim;
pub mod store;
mod subject;
mod tally;
mod twist;

use crate::{
    coordinator::Api,
    firmware::{Model, hex},
    release::{TO, Wanted},
    scene::Scene,
};
use anyhow::Context;
use clap::Parser;
use failpoints::Pass;
use plan::Plan;
use run::Target;
use sha2::{Digest, Sha256};
use shim::Shim;
use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use subject::{Kind, Subject};
use tally::Tally;

/// Bytes of the firmware: two blocks.
const FIRMWARE: usize = (1 << 20) + (96 << 10);
/// The other image, so that each run has one that is not installed.
const OTHER: &str = "45.00.006";

/// Seconds of the short form's runs with real processes.
const SHORT: u64 = 75;

/// Crashes, power cuts and faults, with real processes.
#[derive(Debug, Clone, Parser)]
#[command(name = "campaign")]
struct Arguments {
    /// Every failpoint three times, 50,000 runs with faults of the disk
    #[arg(long)]
    long: bool,
    /// Decides every run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Random runs with real processes [default: 24, long: 1500]
    #[arg(long)]
    runs: Option<u64>,
    /// Runs of the storage layer [default: 200, long: 50000]
    #[arg(long)]
    store_runs: Option<u64>,
    /// Routers at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    jobs: u8,
    /// One kind of run: calm, crashes, faults, store, failpoints, or NAME@PASS/WHAT
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// How often faster the agent's time runs
    #[arg(long, default_value_t = 10)]
    speed: u64,
    /// Begins no further run with real processes after so many seconds [default: 75, long: never]
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
    /// Where everything lies [default: a directory beside the binary]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The applet.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("campaign: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(campaign(&arguments)) {
        Ok(tally) if tally.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn campaign(arguments: &Arguments) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let exe = std::env::current_exe()?;
    let dir = arguments.dir.clone().unwrap_or_else(|| {
        // Beside the build: the temporary directory may be in memory, which no journal may be.
        exe.with_file_name(format!("campaign-{}", std::process::id()))
    });
    let mut tally = Tally::default();
    let only = arguments.only.as_deref();
    if only != Some("store") {
        processes(arguments, &exe, &dir.join("processes"), &mut tally).await?;
    }
    if only.is_none_or(|only| only == "store") {
        let runs = arguments.store_runs.unwrap_or(if arguments.long { 50_000 } else { 200 });
        std::fs::create_dir_all(dir.join("store"))?;
        let shim = Shim::build(&dir.join("store"), 1)?;
        check_itself(&exe, &dir.join("store"), &shim, &mut tally)?;
        store::run(&exe, &dir.join("store"), &shim, arguments.seed, runs, &mut tally)?;
    }
    tally.print(began.elapsed());
    if tally.is_clean() && arguments.dir.is_none() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(tally)
}

/// A disk that forgets what was synced must be noticed, or nothing would be.
fn check_itself(exe: &Path, dir: &Path, shim: &Shim, tally: &mut Tally) -> anyhow::Result<()> {
    for what in ["names", "bytes"] {
        let mut noticed = Tally::quiet();
        store::run(exe, dir, &shim.deaf_to(what), 1, 30, &mut noticed)?;
        if noticed.is_clean() {
            let error = anyhow::anyhow!("forgotten fsyncs were not noticed in 30 runs");
            tally.broken(&format!("a disk that forgets {what}"), &error);
        }
    }
    Ok(())
}

/// What all runs share.
#[derive(Clone)]
struct World {
    api: Api,
    targets: [Target; 2],
    queue: Arc<Mutex<VecDeque<Plan>>>,
    tally: Arc<Mutex<Tally>>,
    /// No run begins after this.
    last: Option<Instant>,
    /// Where the violations' logs go.
    kept: PathBuf,
}

async fn processes(
    arguments: &Arguments,
    exe: &Path,
    dir: &Path,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let scene = Scene::start(exe, dir)?;
    let shim = Shim::build(&scene.dir, arguments.speed)?;
    let targets = [target(&scene, TO)?, target(&scene, OTHER)?];
    let mut subjects = Vec::new();
    for number in 1..=arguments.jobs {
        let router = scene.router(number, number % 2 == 1).await?;
        let seed = arguments.seed.wrapping_mul(1000) + u64::from(number);
        let kind = Kind { volatile: number % 2 == 0, two_modems: number % 3 == 0 };
        let mut subject = Subject::new(router, &shim, exe, kind, seed)?;
        enrol(&mut subject, &scene.api).await?;
        subjects.push(subject);
    }
    let world = World {
        api: scene.api.clone(),
        targets,
        queue: Arc::default(),
        tally: Arc::new(Mutex::new(std::mem::take(tally))),
        last: arguments
            .within
            .or((!arguments.long).then_some(SHORT))
            .map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        // The scene takes its own directory with it.
        kept: dir.with_file_name("violations"),
    };
    let passes = match subjects.first_mut() {
        Some(first) => {
            world.leading_runs(first, arguments.seed, &failpoints::in_the_source()?).await
        }
        None => Vec::new(),
    };
    lock(&world.queue).extend(plans(arguments, &passes)?);
    println!("{} runs with real processes, {} at a time", lock(&world.queue).len(), arguments.jobs);
    let mut workers = tokio::task::JoinSet::new();
    for subject in subjects {
        workers.spawn(work(world.clone(), subject));
    }
    while let Some(worked) = workers.join_next().await {
        worked?;
    }
    *tally = std::mem::take(&mut *lock(&world.tally));
    tally.left_over(lock(&world.queue).len());
    Ok(())
}

async fn work(world: World, mut subject: Subject) {
    loop {
        if world.last.is_some_and(|last| Instant::now() > last) {
            return;
        }
        let Some(plan) = lock(&world.queue).pop_front() else { return };
        if !world.play(&mut subject, &plan).await {
            return;
        }
    }
}

impl World {
    /// They tell which of the `named` failpoints are passed where; the first, which meets nothing, that the
    /// lab itself works. Chance may lead past one: all but the first are given another try then.
    async fn leading_runs(
        &self,
        subject: &mut Subject,
        seed: u64,
        named: &BTreeSet<String>,
    ) -> Vec<Pass> {
        let mut passes: Vec<Pass> = Vec::new();
        let bases = Plan::bases(seed);
        let again = bases.iter().skip(1).map(|base| (true, base));
        for (again, base) in bases.iter().map(|base| (false, base)).chain(again) {
            let passed = |name: &String| passes.iter().any(|pass| pass.name == *name);
            if again && named.iter().all(passed) {
                break;
            }
            self.play(subject, base).await;
            for (name, last) in subject.passes() {
                if passes.iter().all(|pass| pass.name != name) {
                    passes.push(Pass { name, last, base: base.clone() });
                }
            }
        }
        let known = passes.iter().map(|pass| (pass.name.clone(), pass.base.is_calm()));
        lock(&self.tally).failpoints_known(known, named);
        passes
    }

    /// Whether the subject can be used again: where the lab has failed, others go on.
    async fn play(&self, subject: &mut Subject, plan: &Plan) -> bool {
        // What the last run installed starts nothing.
        subject.turn += 1;
        let target = &self.targets[subject.turn % 2];
        match run::play(subject, &self.api, plan, target).await {
            Ok(verdict) => {
                if !verdict.violations.is_empty() {
                    self.keep(subject, plan);
                }
                lock(&self.tally).count(plan, &verdict);
                lock(&self.queue).extend(plan.moved(verdict.struck, &subject.passes()));
                true
            }
            Err(error) => {
                lock(&self.tally).broken(plan, &error);
                false
            }
        }
    }

    /// What explains a violation, before the next run overwrites it.
    fn keep(&self, subject: &Subject, plan: &Plan) {
        let name: String =
            plan.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let to = self.kept.join(format!("{name}-{}", plan.seed));
        let _ = std::fs::create_dir_all(&to);
        let dir = &subject.router.dir;
        for from in [
            subject.lab().join("agent.log"),
            subject.lab().join("failpoints/struck"),
            dir.join("holders.log"),
            dir.join("tool-starts.log"),
            dir.join("run/main/guardian.log"),
            dir.join("run/status.json"),
            dir.join("state/main/journal"),
            dir.join("state/outbox/log"),
        ] {
            let _ = std::fs::copy(&from, to.join(from.file_name().unwrap_or_default()));
        }
        println!("  kept in {}", to.display());
    }
}

fn plans(arguments: &Arguments, passes: &[Pass]) -> anyhow::Result<VecDeque<Plan>> {
    let only = arguments.only.as_deref();
    let seeds = arguments.seed..;
    let count = arguments.runs.unwrap_or(if arguments.long { 1500 } else { 24 });
    let count = usize::try_from(count)?;
    let mut plans = VecDeque::new();
    match only {
        Some("calm") => plans.extend(seeds.take(count).map(Plan::calm)),
        Some("crashes") => plans.extend(seeds.take(count).map(Plan::crashes)),
        Some("faults") => plans.extend(seeds.take(count).map(Plan::faults)),
        Some("failpoints") => plans.extend(failpoints::plans(arguments, passes)),
        Some(name) => plans.push_back(failpoints::named(name, arguments.seed, passes)?),
        None => {
            plans.extend(failpoints::plans(arguments, passes));
            for seed in seeds.take(count) {
                plans.push_back(if seed % 2 == 0 {
                    Plan::crashes(seed)
                } else {
                    Plan::faults(seed)
                });
            }
        }
    }
    Ok(plans)
}

fn target(scene: &Scene, package: &str) -> anyhow::Result<Target> {
    let wanted = Wanted {
        model: Model::Fn990a28,
        package: package.into(),
        size: FIRMWARE,
        ..Wanted::default()
    };
    let release = scene.release(&wanted)?;
    let sha256 = hex(&Sha256::digest(std::fs::read(&release.file)?));
    let image = release.upload(&scene.coordinator)?;
    Ok(Target { image, package: package.into(), sha256 })
}

/// Makes the device known, which every run begins with.
async fn enrol(subject: &mut Subject, api: &Api) -> anyhow::Result<()> {
    subject.reset(&[])?;
    subject.start("")?;
    subject.device =
        crate::watch::enrolled(api, &subject.router).await.with_context(|| subject.log())?;
    crate::watch::modems(api, &subject.device, subject.modems().count()).await
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
