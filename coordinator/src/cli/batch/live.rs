//! What `batch watch` shows: bars that move on a terminal, else a line for each thing that changes.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use anyhow::Context;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::show::{name, phase, tally};
use super::watch::Flight;
use crate::cli::output::{self, Output, cell, note, say};

pub enum View {
    Json,
    Lines { last: Vec<Value> },
    Bars(Box<Bars>),
}

pub struct Bars {
    all: MultiProgress,
    summary: ProgressBar,
    waves: Vec<ProgressBar>,
    flights: BTreeMap<String, ProgressBar>,
    style: ProgressStyle,
}

impl View {
    pub fn new(output: Output) -> anyhow::Result<Self> {
        if output.json {
            return Ok(Self::Json);
        }
        if !io::stdout().is_terminal() {
            return Ok(Self::Lines { last: Vec::new() });
        }
        Ok(Self::Bars(Box::new(Bars::new()?)))
    }

    /// The batch's new state.
    pub fn batch(&mut self, batch: &Value) -> anyhow::Result<()> {
        match self {
            Self::Json => output::json(batch)?,
            Self::Lines { last } => {
                let now = turn(batch);
                if now != *last {
                    say!("{}", summary(batch))?;
                    *last = now;
                }
            }
            Self::Bars(bars) => bars.batch(batch),
        }
        Ok(())
    }

    /// What went wrong since the last time.
    pub fn troubles(&mut self, lines: &[String]) -> anyhow::Result<()> {
        for line in lines {
            match self {
                Self::Json => {}
                Self::Lines { .. } => say!("{line}")?,
                Self::Bars(bars) => {
                    // A terminal that is gone ends the process soon enough.
                    let _ = bars.all.println(line);
                }
            }
        }
        Ok(())
    }

    /// How the way to the server is.
    pub fn notice(&self, text: &str) {
        let text = output::plain(text);
        match self {
            Self::Json | Self::Lines { .. } => note!("{text}"),
            Self::Bars(bars) => {
                let _ = bars.all.println(text);
            }
        }
    }

    /// Whether it has room for them.
    pub fn shows_flights(&self) -> bool {
        matches!(self, Self::Bars(_))
    }

    /// The modems that are under way now.
    pub fn flights(&mut self, flights: &[Flight]) {
        if let Self::Bars(bars) = self {
            bars.flights(flights);
        }
    }

    /// Leaves the lines that stay.
    pub fn end(&mut self) {
        if let Self::Bars(bars) = self {
            bars.flights(&[]);
            bars.waves.iter().chain([&bars.summary]).for_each(ProgressBar::abandon);
        }
    }
}

impl Bars {
    fn new() -> anyhow::Result<Self> {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let style = "{prefix:16} [{bar:30}] {pos:>5}/{len:<5} {wide_msg}";
        let style = ProgressStyle::with_template(style).context("the bars' template")?;
        let style = style.progress_chars("#>-");
        let plain = ProgressStyle::with_template("{wide_msg}").context("the bars' template")?;
        let summary = all.add(ProgressBar::new(1)).with_style(plain);
        Ok(Self { all, summary, waves: Vec::new(), flights: BTreeMap::new(), style })
    }

    fn batch(&mut self, batch: &Value) {
        self.summary.set_message(summary(batch));
        for (place, wave) in batch["waves"].as_array().into_iter().flatten().enumerate() {
            if place == self.waves.len() {
                let after = self.waves.last().unwrap_or(&self.summary);
                let bar = self.all.insert_after(after, ProgressBar::new(1));
                bar.set_style(self.style.clone());
                self.waves.push(bar);
            }
            let Some(bar) = self.waves.get(place) else { continue };
            bar.set_prefix(name(&wave["n"]));
            bar.set_length(wave["size"].as_u64().unwrap_or(0));
            bar.set_position(wave["done"].as_u64().unwrap_or(0));
        }
    }

    fn flights(&mut self, flights: &[Flight]) {
        self.flights.retain(|operation, bar| {
            let stays = flights.iter().any(|flight| flight.operation == *operation);
            if !stays {
                bar.finish_and_clear();
                self.all.remove(bar);
            }
            stays
        });
        for flight in flights {
            let bar = self.flights.entry(flight.operation.clone()).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new(100)).with_style(self.style.clone());
                bar.set_prefix(format!("  {}", flight.device));
                bar
            });
            bar.set_position(flight.percent);
            bar.set_message(flight.doing.clone());
        }
    }
}

/// What makes a new line: another phase, and a modem that has ended or is silent for too long.
fn turn(batch: &Value) -> Vec<Value> {
    let tally = &batch["tally"];
    let counts = ["success", "failed", "aborted", "cancelled", "suspect", "overdue"];
    let counts = counts.map(|field| tally[field].clone());
    [batch["phase"].clone(), batch["wave"].clone()].into_iter().chain(counts).collect()
}

/// `wave 1; 3 success, 5 in progress, 16 idle of 24`
fn summary(batch: &Value) -> String {
    let reason = match &batch["paused_reason"] {
        Value::Null => String::new(),
        reason => format!(" ({})", cell(reason)),
    };
    format!("{}{reason}; {}", phase(batch), tally(&batch["tally"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_where_the_batch_is() {
        let batch = json!({
            "phase": "wave",
            "wave": 1,
            "paused_reason": null,
            "tally": { "total": 24, "success": 3, "in_progress": 5, "idle": 16 },
        });
        assert_eq!(summary(&batch), "wave 1; 3 success, 5 in progress, 16 idle of 24");
    }
}
