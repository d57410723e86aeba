//! The storage layer: journal, outbox, results, staging and identity as the agent has them, in one
//! process under the shim, driven by the upgrade machine's own transitions. The world beyond the disk
//! is chance. No modem, no network, no guardian: those are the other layer's.
//!
//! The runs are shared out to as many processes as there are cores; each prints its findings and
//! figures a line of JSON each.

mod life;
mod model;
mod script;
mod world;

use super::{
    control::Coverage,
    shim::Shim,
    tally::{Store, Tally},
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Instant,
};

/// A worker's line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Violation { seed: u64, what: String },
    Figures { runs: u64, cuts: u64, faults: u64, operations: u64, coverage: Box<Coverage> },
}

/// Runs seeds `seed..seed + runs`.
///
/// # Errors
/// A worker does not start or says something else.
pub fn run(
    exe: &Path,
    dir: &Path,
    shim: &Shim,
    seed: u64,
    runs: u64,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let workers =
        std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(runs.max(1));
    let children: Vec<Child> = (0..workers)
        .map(|number| spawn(exe, dir, shim, number, [seed + number, seed + runs, workers]))
        .collect::<anyhow::Result<_>>()?;
    let mut store = Store::default();
    for mut child in children {
        let stdout = child.stdout.take().context("no standard output")?;
        for line in BufReader::new(stdout).lines() {
            match serde_json::from_str(&line?)? {
                Line::Violation { seed, what } => {
                    tally.violation("the storage layer", &what, "store --store-runs 1", seed);
                }
                Line::Figures { runs, cuts, faults, operations, coverage } => {
                    store.coverage.add(&coverage);
                    store.runs += runs;
                    store.cuts += cuts;
                    store.faults += faults;
                    store.operations += operations;
                }
            }
        }
        anyhow::ensure!(child.wait()?.success(), "a worker of the storage layer failed");
    }
    store.seconds = began.elapsed().as_secs_f64();
    tally.store(store);
    Ok(())
}

fn spawn(
    exe: &Path,
    dir: &Path,
    shim: &Shim,
    number: u64,
    seeds: [u64; 3],
) -> anyhow::Result<Child> {
    let root = dir.join(format!("w{number}"));
    std::fs::create_dir_all(&root)?;
    let root = root.canonicalize()?;
    let lab = root.with_extension("lab");
    std::fs::create_dir_all(&lab)?;
    super::control::Control::make(&lab)?;
    let mut command = Command::new(exe);
    command.arg0("campaign-store").arg(&root).args(seeds.map(|seed| seed.to_string()));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    shim.cover(&mut command, &root, &lab, "campaign-store");
    Ok(command.spawn()?)
}

/// The worker: `campaign-store DIR FIRST END STEP`.
pub fn main() -> ExitCode {
    match work(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("campaign-store: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: Vec<String>) -> anyhow::Result<()> {
    let [root, first, end, step] = arguments.try_into().map_err(|_| anyhow::anyhow!("usage"))?;
    let root = PathBuf::from(root);
    let (first, end, step): (u64, u64, usize) = (first.parse()?, end.parse()?, step.parse()?);
    let mut stage = script::Stage::new(&root)?;
    let mut figures = (0, 0, 0, 0);
    for seed in (first..end).step_by(step) {
        let played = stage.play(seed).with_context(|| format!("seed {seed}"))?;
        figures.0 += 1;
        figures.1 += played.cuts;
        figures.2 += played.faults;
        figures.3 += played.operations;
        for what in played.violations {
            println!("{}", serde_json::to_string(&Line::Violation { seed, what })?);
        }
    }
    let (runs, cuts, faults, operations) = figures;
    let coverage = Box::new(stage.coverage());
    let figures = Line::Figures { runs, cuts, faults, operations, coverage };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
