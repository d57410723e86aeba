//! What the runs come to, in figures and in lines to repeat.

use super::{control::Coverage, plan::Plan, run::Verdict};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[derive(Debug, Default)]
pub struct Tally {
    runs: u64,
    cuts: u64,
    kills: u64,
    faults: u64,
    fault_runs: u64,
    starts: u64,
    operations: u64,
    coverage: Coverage,
    /// Planned strikes that never found their occasion.
    missed: u64,
    endings: BTreeMap<String, u64>,
    violations: Vec<String>,
    /// The lab's own failures: nothing was proved.
    broken: Vec<String>,
    /// By name, whether a smooth upgrade passes it.
    failpoints: BTreeMap<String, bool>,
    struck: BTreeSet<String>,
    /// Those at which a run was to be struck.
    aimed: BTreeSet<String>,
    left_over: usize,
    store: Store,
    /// Nothing is printed on the way.
    quiet: bool,
}

/// The storage layer's figures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Store {
    pub runs: u64,
    pub cuts: u64,
    pub faults: u64,
    pub operations: u64,
    pub coverage: Coverage,
    pub seconds: f64,
}

impl Tally {
    /// One that is only asked whether it is clean.
    #[must_use]
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    pub fn count(&mut self, plan: &Plan, verdict: &Verdict) {
        self.runs += 1;
        self.cuts += u64::from(verdict.cuts);
        self.kills += u64::from(verdict.kills);
        self.faults += verdict.faults;
        self.fault_runs += u64::from(verdict.faults > 0);
        self.starts += u64::from(verdict.starts);
        self.operations += verdict.operations;
        self.coverage.add(&verdict.coverage);
        self.aimed.extend(plan.failpoints().map(str::to_owned));
        self.struck.extend(verdict.failpoints.iter().cloned());
        self.missed += plan.strikes.len().saturating_sub(verdict.struck) as u64;
        *self.endings.entry(verdict.ending.clone()).or_default() += 1;
        for violation in &verdict.violations {
            self.violation(&plan.to_string(), violation, &plan.name, plan.seed);
        }
        if self.runs.is_multiple_of(100) {
            println!("{} runs, {} violations", self.runs, self.violations.len());
        }
    }

    pub fn violation(&mut self, plan: &str, what: &str, only: &str, seed: u64) {
        let again = format!("cargo campaign -- --only {only} --seed {seed} --runs 1 --jobs 1");
        let line = format!("VIOLATION {what}\n    in: {plan}\n    again: {again}");
        if !self.quiet {
            println!("{line}");
        }
        self.violations.push(line);
    }

    pub fn broken(&mut self, plan: &dyn std::fmt::Display, error: &anyhow::Error) {
        let line = format!("{plan}: {error:#}");
        println!("THE LAB FAILED {line}");
        self.broken.push(line);
    }

    /// `known`: those that the leading runs passed; `named`: all that there are.
    pub fn failpoints_known(
        &mut self,
        known: impl Iterator<Item = (String, bool)>,
        named: &BTreeSet<String>,
    ) {
        self.failpoints = known.collect();
        let passed = |name: &&String| self.failpoints.contains_key(*name);
        let never: Vec<_> = named.iter().filter(|name| !passed(name)).map(String::as_str).collect();
        if !never.is_empty() {
            let error = anyhow::anyhow!("no leading run passes them: {}", never.join(", "));
            self.broken(&"failpoints of the agent's source", &error);
        }
    }

    pub fn left_over(&mut self, count: usize) {
        self.left_over = count;
    }

    pub fn store(&mut self, store: Store) {
        self.store = store;
    }

    /// Nothing was violated, and what was to be proved was.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let whole = self.left_over > 0 || self.never_struck().is_empty();
        whole
            && self.violations.is_empty()
            && self.broken.is_empty()
            && self.runs + self.store.runs > 0
    }

    /// Failpoints at which something was to strike, in vain.
    fn never_struck(&self) -> Vec<&str> {
        self.aimed.difference(&self.struck).map(String::as_str).collect()
    }

    pub fn print(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        println!("\nprocesses: {} runs, {} starts of an agent", self.runs, self.starts);
        let smooth = self.failpoints.values().filter(|smooth| **smooth).count();
        println!(
            "  {} failpoints: {smooth} on a smooth upgrade's way, {} on a recovery's alone; {} were struck",
            self.failpoints.len(),
            self.failpoints.len() - smooth,
            self.struck.len()
        );
        let alone = self.failpoints.iter().filter(|(_, smooth)| !**smooth);
        let alone: Vec<_> = alone.map(|(name, _)| name.as_str()).collect();
        println!("  on a recovery's alone: {}", alone.join(", "));
        let missed = self.never_struck();
        if !missed.is_empty() {
            println!("  aimed at and never struck: {}", missed.join(", "));
        }
        println!(
            "  {} power cuts, {} kills, {} strikes that found no occasion",
            self.cuts, self.kills, self.missed
        );
        println!(
            "  {} operations made to fail, in {} runs, of {}",
            self.faults, self.fault_runs, self.operations
        );
        println!("  made to fail, of all: {}", self.coverage);
        let endings: Vec<_> = self.endings.iter().map(|(word, n)| format!("{word} {n}")).collect();
        println!("  ended: {}", endings.join(", "));
        if self.left_over > 0 {
            println!("  {} runs were not begun: the time was over", self.left_over);
        }
        let Store { runs, cuts, faults, operations, coverage, seconds: store } = self.store;
        println!(
            "storage: {runs} runs in {store:.0} s, {cuts} power cuts, {faults} operations made to fail, of {operations}"
        );
        println!("  made to fail, of all: {coverage}");
        println!(
            "{} violations, {} failures of the lab, {seconds:.0} s",
            self.violations.len(),
            self.broken.len()
        );
        for line in self.violations.iter().chain(&self.broken) {
            println!("{line}");
        }
    }
}
