//! What the benchmarks share: figures and how they are printed, the machine, a light fleet.
//!
//! A figure is a value with its budget and what it was compared with in the same run. Nothing here
//! asserts: a figure that misses its budget is printed as missing it.

pub mod dist;
pub mod fleet;
pub mod http;
pub mod images;
pub mod life;
pub mod line;
pub mod live;
pub mod machine;
pub mod small;
pub mod suite;

use crate::coordinator::Coordinator;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What a value should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    AtLeast(f64),
    AtMost(f64),
}

impl Budget {
    #[must_use]
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// One line of a benchmark.
#[derive(Debug, Clone)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    budget: Option<Budget>,
    compared_with: Option<String>,
}

impl Figure {
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, budget: None, compared_with: None }
    }

    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    #[must_use]
    pub fn compared_with(self, other: impl Into<String>) -> Self {
        Self { compared_with: Some(other.into()), ..self }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "budget": self.budget,
            "met": self.budget.map(|budget| budget.is_met_by(self.value)),
            "compared_with": self.compared_with,
        })
    }

    fn line(&self) -> String {
        let mut line = format!("{:<72} {:>9} {:<8}", self.name, short(self.value), self.unit);
        if let Some(budget) = self.budget {
            let (sign, limit) = match budget {
                Budget::AtLeast(limit) => ("≥", limit),
                Budget::AtMost(limit) => ("≤", limit),
            };
            let met = if budget.is_met_by(self.value) { "met" } else { "NOT MET" };
            line += &format!(" {sign} {:<8} {met:<8}", short(limit));
        }
        if let Some(other) = &self.compared_with {
            line += &format!(" ({other})");
        }
        line.trim_end().to_owned()
    }
}

/// Three or more significant digits, thousands apart.
#[must_use]
pub fn short(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", &*digits), |digits| ("-", digits));
    let mut text = String::from(sign);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Where figures go, as the command line asks for it.
#[derive(Debug, Clone)]
pub struct Report {
    json: bool,
    only: Vec<String>,
}

impl Report {
    /// `[--json] [PART...]`: only the parts with one of these names. Cargo adds `--bench`.
    #[must_use]
    pub fn from_arguments() -> Self {
        let mut report = Self { json: false, only: Vec::new() };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--json" => report.json = true,
                "--bench" => {}
                part => report.only.push(part.to_owned()),
            }
        }
        eprintln!("# {}", machine::describe());
        report
    }

    /// Whether this part of the benchmark is asked for.
    #[must_use]
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| part.starts_with(only))
    }

    pub fn print(&self, figure: &Figure) {
        if self.json {
            println!("{}", figure.json());
        } else {
            println!("{}", figure.line());
        }
    }

    /// Says loudly that a figure is missing, and why.
    pub fn skip(&self, name: &str, why: &str) {
        if self.json {
            println!("{}", json!({ "name": name, "skipped": why }));
        } else {
            println!("{name}: SKIPPED, {why}");
        }
    }
}

/// A new directory below `parent`; it goes with this value.
#[derive(Debug)]
pub struct Workplace(PathBuf);

impl Workplace {
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path, name: &str) -> anyhow::Result<Self> {
        let path = parent.join(format!("bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path.canonicalize()?))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The coordinator on the server's core, with no limit to what one operator may ask; the caller
/// stays on the load generator's.
///
/// # Errors
/// It does not start.
pub fn start_coordinator(exe: &Path, data: &Path) -> anyhow::Result<Coordinator> {
    let unlimited = ("MODEM_UPGRADER_REQUESTS", "4000000000");
    let cores = machine::Cores::of_this_machine()?;
    // A process inherits the core of whoever starts it.
    machine::pin(cores.server)?;
    let started = Coordinator::start_with(exe, data, &[unlimited]);
    machine::pin(cores.load)?;
    started
}

/// The same coordinator as a fresh process on the same data.
///
/// # Errors
/// It does not start again.
pub fn restart(coordinator: &mut Coordinator) -> anyhow::Result<()> {
    let cores = machine::Cores::of_this_machine()?;
    machine::pin(cores.server)?;
    let started = coordinator.restart();
    machine::pin(cores.load)?;
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_the_budget_is_met() {
        let figure = Figure::new("x", 12_345.6, "1/s").budget(Budget::AtLeast(20_000.0));
        assert!(figure.line().ends_with("12,346 1/s      ≥ 20,000   NOT MET"));
        assert_eq!(figure.json()["met"], false);
        assert_eq!(figure.json()["budget"], json!({ "at_least": 20_000.0 }));
        let figure = Figure::new("x", 3.0, "MB").budget(Budget::AtMost(3.0)).compared_with("y");
        assert!(figure.line().ends_with("met      (y)"));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.5, 99.994, 100.0, 1234.5, 1_234_567.0, -1000.0].map(short);
        assert_eq!(shown, ["0.50", "99.99", "100", "1,234", "1,234,567", "-1,000"]);
    }
}
