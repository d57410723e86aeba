//! How a batch is rolled out. What is not said is the server's default, which is careful.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli::when;

#[derive(Debug, Args)]
#[command(next_help_heading = "How it is rolled out")]
pub struct Strategy {
    /// Modems in the first wave [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    canary: Option<u32>,
    /// Each wave is so many times as large as the one before [default: 2]
    #[arg(long, value_name = "FACTOR")]
    growth: Option<f64>,
    /// Share of a wave that must succeed before the next one opens [default: 100]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    success_percent: Option<u8>,
    /// Successes that a wave must show before the next one opens [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    minimum: Option<u32>,
    /// Wait so long after a wave's last result [default: 10m]
    #[arg(long, value_name = "SPAN", value_parser = when::seconds)]
    soak: Option<u64>,
    /// Modems that may be flashed at a time [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: Option<u32>,
    /// Stop after so many failures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    stop_after: Option<u32>,
    /// Stop when this share of the results are failures [default: 20]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    stop_percent: Option<u8>,
    /// Results before the share counts [default: 5]
    #[arg(long, value_name = "N")]
    stop_minimum: Option<u32>,
    /// What to do then: pause for a person, or cancel what has not begun [default: pause]
    #[arg(long, value_enum)]
    then: Option<Then>,
    /// Not before: 2026-11-23T01:00:00Z, or +2h
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    start_at: Option<String>,
    /// Cancel what has not begun by then [default: 30 days after it begins]
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    expires_at: Option<String>,
    /// A device not heard of for so long does not hold its wave up [default: 1h]
    #[arg(long, value_name = "SPAN", value_parser = when::seconds)]
    offline_after: Option<u64>,
    /// Others take the places of a wave's members that only postpone for so long [default: 25h]
    #[arg(long, value_name = "SPAN", value_parser = when::seconds)]
    patience: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Then {
    Pause,
    Abort,
}

impl Strategy {
    /// The API's object.
    pub fn body(&self) -> Value {
        let gate = object([
            ("success_percent", self.success_percent.map(|percent| json!(percent))),
            ("minimum", self.minimum.map(|minimum| json!(minimum))),
            ("soak_s", self.soak.map(|soak| json!(soak))),
        ]);
        let threshold = object([
            ("count", self.stop_after.map(|count| json!(count))),
            ("percent", self.stop_percent.map(|percent| json!(percent))),
            ("minimum", self.stop_minimum.map(|minimum| json!(minimum))),
            ("then", self.then.map(|then| json!(then.name()))),
        ]);
        let strategy = object([
            ("canary", self.canary.map(|canary| json!(canary))),
            ("growth", self.growth.map(|growth| json!(growth))),
            ("gate", given(gate)),
            ("max_concurrent", self.max_concurrent.map(|most| json!(most))),
            ("failure_threshold", given(threshold)),
            ("start_at", self.start_at.as_ref().map(|at| json!(at))),
            ("expires_at", self.expires_at.as_ref().map(|at| json!(at))),
            ("offline_after_s", self.offline_after.map(|after| json!(after))),
            ("patience_s", self.patience.map(|patience| json!(patience))),
        ]);
        Value::Object(strategy)
    }
}

impl Strategy {
    pub fn is_given(&self) -> bool {
        self.body() != json!({})
    }

    /// Another strategy with what was said in its place.
    pub fn over(&self, mut other: Value) -> Value {
        // A time that is over would be refused; a new batch has its own.
        for time in ["start_at", "expires_at"] {
            if let Some(other) = other.as_object_mut() {
                other.remove(time);
            }
        }
        lay_over(&mut other, self.body());
        other
    }
}

fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                lay_over(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// `canary 1, growth 2, soak 10m, 200 at a time, to pause at 20% failures of 5 results`, of the API's object.
pub fn in_words(strategy: &Value) -> String {
    let threshold = &strategy["failure_threshold"];
    let count = threshold["count"].as_u64().map(|count| format!("{count} failures"));
    let percent = threshold["percent"].as_u64().map(|percent| {
        let results = threshold["minimum"].as_u64().unwrap_or(0);
        format!("{percent}% failures of {results} results")
    });
    let stops: Vec<_> = count.into_iter().chain(percent).collect();
    let then = strategy["failure_threshold"]["then"].as_str().unwrap_or("pause");
    let parts = [
        strategy["canary"].as_u64().map(|canary| format!("canary {canary}")),
        strategy["growth"].as_f64().map(|growth| format!("growth {growth}")),
        strategy["gate"]["soak_s"].as_u64().map(|soak| format!("soak {}", when::span(soak))),
        strategy["max_concurrent"].as_u64().map(|most| format!("{most} at a time")),
        (!stops.is_empty()).then(|| format!("to {then} at {}", stops.join(" or "))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

impl Then {
    fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Abort => "abort",
        }
    }
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect()
}

fn given(object: Map<String, Value>) -> Option<Value> {
    (!object.is_empty()).then_some(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        strategy: Strategy,
    }

    fn body(line: &str) -> Value {
        Line::parse_from(line.split(' ')).strategy.body()
    }

    #[test]
    fn what_was_said_is_laid_over_another_strategy() {
        let other = json!({
            "canary": 3, "growth": 2.0, "gate": {"success_percent": 90, "soak_s": 600},
            "start_at": null, "expires_at": "2020-01-01T00:00:00Z",
        });
        let line = Line::parse_from(["x", "--canary", "1", "--soak", "1h"]).strategy;
        let expected = json!({
            "canary": 1, "growth": 2.0, "gate": {"success_percent": 90, "soak_s": 3600},
        });
        assert_eq!((line.is_given(), line.over(other)), (true, expected));
        assert!(!Line::parse_from(["x"]).strategy.is_given());
    }

    #[test]
    fn it_is_told_in_one_line() {
        let strategy = json!({
            "canary": 2, "growth": 1.5, "gate": {"soak_s": 5400}, "max_concurrent": 200,
            "failure_threshold": {"count": 3, "percent": 20, "minimum": 5, "then": "abort"},
        });
        assert_eq!(
            in_words(&strategy),
            "canary 2, growth 1.5, soak 90m, 200 at a time, to abort at 3 failures or 20% failures of 5 results"
        );
        let plain = json!({"canary": 1, "growth": 2.0, "failure_threshold": {"count": null}});
        assert_eq!(in_words(&plain), "canary 1, growth 2");
    }

    #[test]
    fn only_what_was_said_is_sent() {
        assert_eq!(body("x"), json!({}));
        let expected = json!({
            "canary": 2,
            "gate": { "soak_s": 1800 },
            "failure_threshold": { "count": 3, "then": "abort" },
        });
        assert_eq!(body("x --canary 2 --soak 30m --stop-after 3 --then abort"), expected);
    }
}
