//! `demo`: the main job, for real, on one machine. A coordinator with its broker and database,
//! routers with simulated modems, one signed firmware, one upgrade a device, and what may go wrong
//! on the way; then two batches over a fleet. The exit status says whether everything ended as it
//! should.

mod fleet;
mod rollout;
mod scenario;
mod show;
mod stay;

use crate::{
    coordinator::{Api, Coordinator},
    firmware::Model,
    release::{FROM, Key, Release, TO, Wanted},
    router::{Plan, Router},
    watch,
};
use anyhow::Context;
use clap::Parser;
use scenario::Scenario;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

/// Bytes of the firmware.
const FIRMWARE: usize = 32 << 20;

/// Runs the main job in the lab and says whether it went as it should.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Routers; the first eight meet a fault each, more go smoothly
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=100))]
    devices: u8,
    /// Routers of the batches; 0 for no batches
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u8).range(0..=100))]
    fleet: u8,
    /// Decides fragments, pauses and unsolicited codes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep serving afterwards, and say how to talk to it
    #[arg(long)]
    stay: bool,
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
            eprintln!("demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The image as the coordinator has it.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// The image's id.
    pub image: String,
    /// What it is signed with.
    pub key: Key,
}

/// A router with its upgrade.
pub struct Run {
    pub router: Router,
    pub scenario: Scenario,
    pub device: String,
    pub operation: String,
}

async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let started = Instant::now();
    let exe = std::env::current_exe()?;
    let dir = directory(&exe, arguments.dir.as_deref())?;
    println!("a coordinator and {} routers in {}", arguments.devices, dir.display());
    let coordinator = Coordinator::start(&exe, &dir.join("coordinator"))?;
    let api = coordinator.api()?;
    let firmware = make_firmware(&coordinator, &dir, FIRMWARE)?;
    let routers = start_routers(arguments, &exe, &dir, &coordinator, &firmware.key.public).await?;
    let mut runs = assign(&api, routers, &firmware).await?;
    let show = show::Show::start(&api, &runs);
    let verdicts = scenario::play(&api, &mut runs).await;
    show.end().await;
    let mut as_expected = show::table(&api, &runs, &verdicts).await?;
    say(as_expected, &format!("all {} ended as they should", runs.len()), started, &dir);
    if !arguments.stay {
        // Their share of the processor is the fleet's.
        runs.clear();
    }
    let mut members = Vec::new();
    if arguments.fleet > 0 {
        let rolled = rollout::run(arguments, &exe, &dir, &coordinator, &firmware).await?;
        members = rolled.0;
        as_expected &= rolled.1;
        say(rolled.1, "both batches ended as they should", started, &dir);
    }
    if arguments.stay {
        stay::serve(&coordinator, &runs, &exe, &dir).await?;
    }
    drop((runs, members));
    if as_expected && arguments.dir.is_none() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(as_expected)
}

fn say(as_expected: bool, well: &str, started: Instant, dir: &Path) {
    if as_expected {
        println!("{well}, in {} s", started.elapsed().as_secs());
    } else {
        println!("NOT as it should be; logs are in {}", dir.display());
    }
}

fn directory(exe: &Path, wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match wanted {
        Some(dir) => dir.to_owned(),
        // Beside the build: the temporary directory may be in memory, which no journal may be.
        None => exe.with_file_name(format!("demo-{}", std::process::id())),
    };
    if dir.exists() {
        std::fs::remove_dir_all(&dir)
            .with_context(|| format!("{} is in the way", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

/// Makes a key and a firmware of `size` bytes in `dir`, signs, and uploads: with the operator's own
/// commands.
///
/// # Errors
/// A command fails.
pub fn make_firmware(
    coordinator: &Coordinator,
    dir: &Path,
    size: usize,
) -> anyhow::Result<Firmware> {
    let key = Key::make(coordinator, &dir.join("operator"))?;
    let wanted = Wanted { size, ..Wanted::default() };
    let image = Release::make(coordinator, dir, &key, &wanted)?.upload(coordinator)?;
    Ok(Firmware { image, key })
}

async fn start_routers(
    arguments: &Arguments,
    exe: &Path,
    dir: &Path,
    coordinator: &Coordinator,
    key: &str,
) -> anyhow::Result<Vec<(Router, Scenario)>> {
    let mut routers = Vec::new();
    for number in 1..=arguments.devices {
        let scenario = Scenario::of(number);
        let model = scenario.model();
        let plan = Plan {
            number,
            model,
            package: if model == Model::Fn990a28 { FROM.into() } else { model.package(2) },
            key: key.to_owned(),
            sole_uplink: scenario.is_sole_uplink(),
            seed: arguments.seed.wrapping_mul(1000) + u64::from(number),
            uplink: coordinator.uplink(),
        };
        let mut router = Router::build(exe, dir, &plan).await?;
        scenario.prepare(&router)?;
        router.start_agent()?;
        routers.push((router, scenario));
    }
    Ok(routers)
}

/// Waits until every router has enrolled and shown its modem, then starts an upgrade for each.
async fn assign(
    api: &Api,
    routers: Vec<(Router, Scenario)>,
    firmware: &Firmware,
) -> anyhow::Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (router, scenario) in routers {
        let device = watch::enrolled(api, &router).await?;
        scenario.before_start(&router);
        let operation = watch::assign(api, &device, &firmware.image).await?;
        runs.push(Run { router, scenario, device, operation });
    }
    Ok(runs)
}
