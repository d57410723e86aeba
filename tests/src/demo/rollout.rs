//! Two roll-outs over the fleet, by the operator's own commands: a good build in three waves, and a
//! bad one that stops by itself after its canary.

use super::{
    Arguments, Firmware,
    fleet::{self, GROUP, Member},
};
use crate::{
    coordinator::Coordinator,
    faults::ToolFaultKind,
    modem::FlashCondition,
    release::{FROM, Key, Release, Wanted},
};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// What the fleet gets.
const GOOD: &str = "45.00.006";
/// What it must not get.
const BAD: &str = "45.00.008";
/// Bytes; the network is not what batches are about.
const SIZE: usize = 2 << 20;
/// 2, 6 and the rest.
const WAVES: [&str; 6] = ["--canary", "2", "--growth", "3", "--soak", "1s"];

/// Runs both; the routers, and whether all went as it should.
pub async fn run(
    arguments: &Arguments,
    exe: &Path,
    dir: &Path,
    coordinator: &Coordinator,
    firmware: &Firmware,
) -> anyhow::Result<(Vec<Member>, bool)> {
    let count = arguments.fleet;
    println!("two batches over {count} more routers with {FROM}");
    let key = &firmware.key;
    let members = fleet::start(arguments, exe, dir, coordinator, &key.public).await?;

    release(coordinator, dir, key, GOOD, 6)?;
    println!("\n{GOOD}, a good build:");
    let (batch, succeeded) = roll_out(coordinator, GOOD)?;
    let good = judge_good(coordinator, &members, &batch, succeeded);

    release(coordinator, dir, key, BAD, 8)?;
    for member in &members {
        fleet::tool(&member.router, &[ToolFaultKind::Lie])?;
    }
    println!("\n{BAD}, a bad one: the tool says success, and the modem keeps its version:");
    let (batch, succeeded) = roll_out(coordinator, BAD)?;
    print!(
        "\n$ modem-upgrader batch cancel {batch}\n{}",
        coordinator.cli(&["batch", "cancel", &batch])?
    );
    let bad = judge_bad(coordinator, &members, &batch, succeeded);

    println!("\n{}", summary(&members)?);
    let mut all = true;
    for (build, verdict) in [(GOOD, good), (BAD, bad)] {
        if let Err(reason) = verdict {
            println!("^ NOT AS EXPECTED with {build}: {reason:#}");
            all = false;
        }
    }
    Ok((members, all))
}

fn release(
    coordinator: &Coordinator,
    dir: &Path,
    key: &Key,
    package: &str,
    sequence: u64,
) -> anyhow::Result<()> {
    let wanted = Wanted { package: package.into(), size: SIZE, sequence, ..Wanted::default() };
    Release::make(coordinator, dir, key, &wanted)?.upload(coordinator)?;
    Ok(())
}

/// Starts a batch and watches it to where it stops; its id, and whether it succeeded by the exit
/// status.
fn roll_out(coordinator: &Coordinator, version: &str) -> anyhow::Result<(String, bool)> {
    let build = format!("FN990A/{version}");
    let mut create = vec!["batch", "create", "--build", &build, "--group", GROUP, "--all"];
    create.extend(WAVES);
    println!("$ modem-upgrader {}", create.join(" "));
    create.extend(["--yes", "--json"]);
    let made = coordinator.cli(&create)?;
    let made: Value = serde_json::from_str(&made).context(made)?;
    let batch = made["id"].as_str().context("the batch has no id")?.to_owned();
    println!("$ modem-upgrader batch watch {batch}");
    let succeeded = coordinator.show(&["batch", "watch", &batch])?;
    Ok((batch, succeeded))
}

fn judge_good(
    coordinator: &Coordinator,
    members: &[Member],
    batch: &str,
    succeeded: bool,
) -> anyhow::Result<()> {
    ensure!(succeeded, "`batch watch` did not end with success");
    let waves = waves(coordinator, batch)?;
    ensure!(waves.len() == 3 || members.len() < 9, "not three waves: {waves:?}");
    let operations = fleet::operations(coordinator, batch)?;
    ensure!(operations.len() == members.len(), "{} operations", operations.len());
    for (device, operation) in operations {
        ensure!(operation["status"] == "success", "{device}: {operation}");
    }
    each(members, GOOD, 1)
}

fn judge_bad(
    coordinator: &Coordinator,
    members: &[Member],
    batch: &str,
    succeeded: bool,
) -> anyhow::Result<()> {
    ensure!(!succeeded, "`batch watch` ended with success");
    let mut counts = BTreeMap::<String, usize>::new();
    for (_, operation) in fleet::operations(coordinator, batch)? {
        let status = operation["status"].as_str().unwrap_or_default();
        let kind = operation["failure"]["kind"].as_str().unwrap_or_default();
        *counts.entry(format!("{status} {kind}").trim().to_owned()).or_default() += 1;
    }
    let canary = 2.min(members.len());
    let mut expected = BTreeMap::from([("failed version_mismatch".to_owned(), canary)]);
    if members.len() > canary {
        expected.insert("cancelled".to_owned(), members.len() - canary);
    }
    ensure!(counts == expected, "{counts:?}");
    each(members, GOOD, 1)
}

/// Every modem is whole, runs this package and was written to so often.
fn each(members: &[Member], package: &str, begun: u32) -> anyhow::Result<()> {
    for Member { router, .. } in members {
        let flash = router.modem.state()?.flash;
        let runs = &flash.versions.package;
        let whole = flash.condition == FlashCondition::Whole;
        ensure!(whole, "{}'s modem is left {:?}", router.name, flash.condition);
        ensure!(runs == package, "{}'s modem runs {runs}", router.name);
        ensure!(flash.begun == begun, "{}'s modem was flashed {} times", router.name, flash.begun);
    }
    Ok(())
}

fn waves(coordinator: &Coordinator, batch: &str) -> anyhow::Result<Vec<Value>> {
    let shown = coordinator.cli(&["batch", "show", batch, "--json"])?;
    let shown: Value = serde_json::from_str(&shown).context(shown)?;
    Ok(shown["waves"].as_array().cloned().unwrap_or_default())
}

/// `24 modems run 45.00.006, flashed once each`
fn summary(members: &[Member]) -> anyhow::Result<String> {
    let mut found = BTreeMap::<(String, u32), usize>::new();
    for member in members {
        let flash = member.router.modem.state()?.flash;
        *found.entry((flash.versions.package, flash.begun)).or_default() += 1;
    }
    let line = |((package, begun), count): (&(String, u32), &usize)| match begun {
        1 => format!("{count} modems run {package}, flashed once each"),
        begun => format!("{count} modems run {package}, flashed {begun} times each"),
    };
    Ok(found.iter().map(line).collect::<Vec<_>>().join("\n"))
}
