//! The agent's failpoints: those that its source names, those that the leading runs pass, and the runs
//! that strike there.

use super::{
    Arguments,
    plan::{self, Plan, What},
    subject::Victim,
};
use anyhow::Context;
use shared::stages::Phase;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Cargo runs a campaign where it was built.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/src");
const NAMED: &str = "failpoint::at!(\"";

/// Where something is written and not yet synced.
const UNSYNCED: [&str; 4] =
    ["files.renamed", "journal.made", "outbox.line.written", "staging.block.written"];

/// A failpoint, and what leads there.
pub struct Pass {
    pub name: String,
    /// How often it was passed on the way.
    pub last: u64,
    pub base: Plan,
}

/// All that the agent's source names.
///
/// # Errors
/// The source is not where this was built.
pub fn in_the_source() -> anyhow::Result<BTreeSet<String>> {
    let mut files = Vec::new();
    sources(Path::new(SOURCE), &mut files).with_context(|| format!("reading {SOURCE}"))?;
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let literals = text.split(NAMED).skip(1).filter_map(|rest| rest.split('"').next());
        names.extend(literals.flat_map(expanded));
    }
    Ok(names)
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// A name with a gap has one for each phase that an upgrade may be in.
fn expanded(literal: &str) -> Vec<String> {
    if !literal.contains("{}") {
        return vec![literal.to_owned()];
    }
    let acts = |phase: &Phase| match phase {
        Phase::Restarting | Phase::Unknown => false,
        // It ends there.
        Phase::Finished => literal.ends_with(".before"),
        _ => true,
    };
    let phases = Phase::ALL.iter().filter(|phase| acts(phase));
    phases.map(|phase| literal.replace("{}", phase.as_str())).collect()
}

/// Every failpoint: in the long form killed alone, with its guardian, and cut, each at the first,
/// second and last pass, and killed with a power cut later; in the short form one of these, another with
/// every seed.
pub fn plans(arguments: &Arguments, passes: &[Pass]) -> Vec<Plan> {
    let whats = [
        What::Kill(Victim::Agent),
        What::Cut { modem_too: true },
        What::Kill(Victim::Both),
        What::Cut { modem_too: false },
    ];
    let mut plans = Vec::new();
    let first = usize::try_from(arguments.seed).unwrap_or(0);
    for (choice, Pass { name, last, base }) in (first..).zip(passes) {
        let mut turns = vec![1, 2, *last];
        turns.retain(|turn| turn <= last);
        turns.dedup();
        for (index, turn) in turns.iter().enumerate() {
            let chosen: Vec<_> = if arguments.long {
                whats.to_vec()
            } else if index == choice % turns.len() {
                vec![whats[choice % whats.len()]]
            } else {
                Vec::new()
            };
            plans.extend(chosen.into_iter().map(|what| base.clone().failpoint(name, *turn, what)));
            if arguments.long || UNSYNCED.contains(&name.as_str()) {
                plans.push(base.clone().failpoint_then_cut(name, *turn));
            }
        }
    }
    plans
}

/// `journal.save.before@2/cut`.
pub fn named(name: &str, seed: u64, passes: &[Pass]) -> anyhow::Result<Plan> {
    let parsed = name.split_once('@').and_then(|(point, rest)| {
        let known = passes.iter().find(|pass| pass.name == point);
        let base = known.map_or_else(|| Plan::calm(seed), |pass| pass.base.clone());
        let (pass, what) = rest.split_once('/')?;
        if what.strip_suffix(plan::THEN_CUT) == Some("kill") {
            return Some(base.failpoint_then_cut(point, pass.parse().ok()?));
        }
        let what = [
            What::Kill(Victim::Agent),
            What::Kill(Victim::Guardian),
            What::Kill(Victim::Both),
            What::Cut { modem_too: true },
            What::Cut { modem_too: false },
        ]
        .into_iter()
        .find(|known| known.name() == what)?;
        Some(base.failpoint(point, pass.parse().ok()?, what))
    });
    parsed.with_context(|| format!("{name}: no such runs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_source_and_gaps_are_filled() {
        let names = in_the_source().unwrap();
        for name in ["journal.save.written", "identity.made", "driver.held.acted"] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
        assert!(names.contains("driver.finished.before"));
        assert!(!names.contains("driver.finished.acted"));
        assert!(names.iter().all(|name| !name.contains(['{', ' '])), "{names:?}");
    }
}
