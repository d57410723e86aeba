//! The invariants, held against what is found at the end of a run.

use super::{plan::Plan, run::Target, subject::Subject};
use crate::{
    faults::ToolFaultKind,
    modem::{FlashCondition, State},
    release::FROM,
    uxfp::events::{self, Start},
    watch,
};
use serde_json::Value;

/// Everything that bears witness.
pub struct Found<'a> {
    pub plan: &'a Plan,
    pub target: &'a Target,
    /// Each slot's modem, and the coordinator's last word on its upgrade.
    pub modems: &'a [(State, &'a Value)],
    pub subject: &'a Subject,
}

/// How it ended in a word, and what must not be.
#[must_use]
pub fn judge(found: &Found<'_>) -> (String, Vec<String>) {
    let mut wrong = Vec::new();
    for (modem, operation) in found.modems {
        ending(found, modem, operation, &mut wrong);
    }
    starts(found, &mut wrong);
    storage(found, &mut wrong);
    if !found.subject.is_at_rest() {
        let calls = found.subject.router.holder_calls();
        wrong.push(format!("not everything was given back: {calls:?}"));
    }
    let words: Vec<_> = found.modems.iter().map(|(_, operation)| word(operation)).collect();
    (words.join(" and "), wrong)
}

fn word(operation: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    match operation["status"].as_str() {
        Some("failed" | "aborted") => text(&operation["failure"]["kind"]),
        _ => text(&operation["status"]),
    }
}

/// It ends, and the coordinator's word is the modem's truth.
fn ending(found: &Found<'_>, modem: &State, operation: &Value, wrong: &mut Vec<String>) {
    let Found { target, plan, .. } = found;
    let flash = &modem.flash;
    let runs = |package: &str| {
        flash.condition == FlashCondition::Whole && flash.versions.package == package
    };
    let truth = format!("{:?}, {}, {:?}", modem.mode, flash.versions.package, flash.condition);
    if !watch::has_ended(operation) {
        let phase = &operation["phase"];
        wrong.push(format!("never ended: {phase} in the end; the modem is {truth}"));
        return;
    }
    let failure = &operation["failure"];
    let condition = failure["condition"].as_str().unwrap_or("none");
    let true_word = match (operation["status"].as_str(), condition) {
        (Some("success"), _) => runs(&target.package),
        (Some("failed" | "aborted"), "untouched" | "old_version") => runs(FROM),
        (Some("failed"), "updated") => runs(&target.package),
        _ => false,
    };
    if !true_word {
        wrong.push(format!("said {} ({failure}), and the modem is {truth}", operation["status"]));
    }
    let lie = plan.tool.as_ref().is_some_and(|tool| tool.kind == ToolFaultKind::Lie);
    if !lie && failure["kind"] == "version_mismatch" {
        wrong.push("a mismatch of versions, and no tool lied".to_owned());
    }
}

/// What the tool got, how often, and that it was alone.
fn starts(found: &Found<'_>, wrong: &mut Vec<String>) {
    let starts = match events::starts(&found.subject.router.dir) {
        Ok(starts) => starts,
        Err(error) => return wrong.push(format!("the tool's starts cannot be read: {error}")),
    };
    for start in &starts {
        if start.sha256 != found.target.sha256 {
            wrong.push(format!("the tool got another image: {start:?}"));
        }
        if !start.alone {
            wrong.push(format!("two tools at once: {start:?}"));
        }
    }
    let attempts = found.modems.iter().filter_map(|(_, operation)| operation["attempt"].as_u64());
    let granted: u64 = attempts.sum();
    let installs = starts.iter().filter(|start| !Start::is_recovery(start)).count() as u64;
    if installs > granted {
        wrong.push(format!("{installs} starts of the tool with {granted} grants"));
    }
}

/// Nothing durable was lost or damaged.
fn storage(found: &Found<'_>, wrong: &mut Vec<String>) {
    let state = found.subject.router.dir.join("state");
    let journals = found.subject.modems().map(|(slot, _)| format!("{slot}/journal.corrupt"));
    let identities = ["identity/corrupt.json", "identity/former.json"].map(str::to_owned);
    for damaged in journals.chain(identities) {
        if state.join(&damaged).exists() {
            wrong.push(format!("{damaged} is there"));
        }
    }
}
