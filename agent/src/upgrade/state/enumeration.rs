//! All sequences of up to three cuts (power cuts and kills of the agent, before, during and after
//! every effect) × all outcomes of the tool, as a search over every reachable (memory, journal,
//! world). The world keeps what a real one keeps: a power cut erases what is volatile and stops the
//! tool, a killed agent leaves the tool running.

#![allow(clippy::wildcard_enum_match_arm, reason = "the world cares for few of the states")]

use super::{tests::before, tests::record, tests::target, *};
use shared::{
    failure::{Failure, FailureKind},
    grant::{Refusal, RefusalCode},
};
use std::collections::HashSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Modem {
    Old,
    Target,
    Download,
    Absent,
}

/// What a tool run will come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Run_ {
    Works,
    /// Works and exits with an error.
    WorksSilently,
    FailsAtOnce,
    FailsHalfway,
    Refuses,
    Lies,
    Vanishes,
}

const RUNS: [Run_; 7] = [
    Run_::Works,
    Run_::WorksSilently,
    Run_::FailsAtOnce,
    Run_::FailsHalfway,
    Run_::Refuses,
    Run_::Lies,
    Run_::Vanishes,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    modem: Modem,
    /// The staged image, and whether it is what the manifest says.
    staged: Option<bool>,
    durable: bool,
    held: bool,
    running: Option<Run_>,
    /// In volatile memory.
    exit: Option<&'static str>,
    granted: u32,
    cancelled: bool,
    installs: u32,
    cuts: u32,
}

#[derive(Debug, Clone)]
struct Node {
    memory: State,
    journal: State,
    world: World,
}

impl Node {
    /// All that may differ between two nodes; the job and the baseline never do.
    fn key(&self) -> u128 {
        let state = |state: &State| {
            let r = &state.record;
            // Beyond the limit all counts of tries are alike.
            let counts = (state.tries.min(9), r.attempts, r.holding);
            format!("{:?}{counts:?}{}{:?}", state.step, r.before.is_some(), r.last_failure)
        };
        let text = format!("{}{}{:?}", state(&self.memory), state(&self.journal), self.world);
        let digest = shared::hex::sha256(text.as_bytes());
        digest.0[..16].iter().fold(0, |key, byte| key << 8 | u128::from(*byte))
    }
}

impl World {
    fn finish(&mut self, run: Run_) -> ToolEnd {
        self.running = None;
        self.modem = match run {
            Run_::Works | Run_::WorksSilently => Modem::Target,
            Run_::FailsHalfway => Modem::Download,
            Run_::Vanishes => Modem::Absent,
            Run_::FailsAtOnce | Run_::Refuses | Run_::Lies => self.modem,
        };
        let failed = |kind| ToolEnd::Failed { kind, detail: String::new() };
        match run {
            Run_::Works | Run_::Lies => ToolEnd::Success,
            Run_::Refuses => failed(FailureKind::ToolRefused),
            Run_::WorksSilently | Run_::FailsAtOnce | Run_::FailsHalfway => {
                failed(FailureKind::ToolFailed)
            }
            Run_::Vanishes => failed(FailureKind::ToolTimeout),
        }
    }

    /// Power is cut: the tool ends wherever it was.
    fn power_cuts(&self) -> Vec<Self> {
        let mut base = self.clone();
        base.cuts += 1;
        base.exit = None;
        base.held = false;
        if !base.durable {
            base.staged = None;
        }
        if base.running.take().is_none() {
            return vec![base];
        }
        [self.modem, Modem::Download, Modem::Target]
            .map(|modem| Self { modem, ..base.clone() })
            .to_vec()
    }

    fn start_tool(&mut self, recovery: bool) {
        assert_eq!(self.staged, Some(true), "an unverified image reached the tool");
        assert_eq!(self.running, None, "two tools on one modem");
        assert!(self.held, "the tool was started without its holders");
        if !recovery {
            self.installs += 1;
            assert!(self.installs <= self.granted, "a start without a grant");
        }
    }

    fn sighting(&self) -> Sighting {
        assert_eq!(self.running, None, "the modem was probed under a running tool");
        match self.modem {
            Modem::Old => Sighting::Old,
            Modem::Target => Sighting::Target { restart: false },
            Modem::Download => Sighting::DownloadMode,
            Modem::Absent => Sighting::Absent,
        }
    }
}

/// Everything that may come of an action: the world and the outcome, or only the world if the
/// action is cut short in it.
fn perform(action: Action, world: &World, state: &State) -> (Vec<(World, Outcome)>, Vec<World>) {
    let again = || Outcome::Again { reason: String::new() };
    let same = |outcome| (vec![(world.clone(), outcome)], vec![]);
    let with = |change: &dyn Fn(&mut World), outcome| {
        let mut after = world.clone();
        change(&mut after);
        (vec![(after.clone(), outcome)], vec![after])
    };
    // Probing and what follows needs the ports: a fresh process takes hold again.
    let mut world = world.clone();
    let needs_holders = matches!(
        action,
        Action::Probe | Action::Restart | Action::Restore | Action::Confirm | Action::Recover
    );
    if needs_holders && state.record.holding {
        world.held = true;
    }
    let world = &world;
    match action {
        Action::Inspect => match world.modem {
            Modem::Old => same(Outcome::Inspected(Box::new(target()))),
            Modem::Target => same(Outcome::AlreadyInstalled(Box::new(target()))),
            Modem::Download | Modem::Absent => {
                panic!("inspecting a modem left in {:?}", world.modem)
            }
        },
        Action::CheckGates(_) => same(Outcome::GatesOpen),
        Action::Download => with(&|w| w.staged = Some(true), Outcome::Downloaded),
        Action::Verify => {
            let rotten = World { staged: Some(false), ..world.clone() };
            match world.staged {
                Some(true) => {
                    (vec![(world.clone(), Outcome::Verified), (rotten, Outcome::Verified)], vec![])
                }
                Some(false) | None => same(Outcome::ImageLost),
            }
        }
        Action::Baseline => same(Outcome::Baselined(Box::new(before()))),
        Action::RequestGrant { attempt } => grant(world, attempt),
        Action::Prepare => with(&|w| w.held = true, Outcome::Prepared),
        Action::Install | Action::Recover => {
            let recovery = action == Action::Recover;
            if recovery && world.modem != Modem::Download {
                return same(Outcome::Probed(world.sighting()));
            }
            if world.staged != Some(true) {
                let kind = FailureKind::ChecksumMismatch;
                return same(Outcome::NotStarted(Failure::untouched(state.phase(), kind, "")));
            }
            install(world, recovery)
        }
        Action::Attach => match world.running {
            Some(run) => {
                let mut after = world.clone();
                let end = after.finish(run);
                (vec![(after, Outcome::ToolEnded(end))], vec![])
            }
            None => same(Outcome::ToolEnded(ToolEnd::Lost)),
        },
        Action::Probe => same(Outcome::Probed(world.sighting())),
        Action::Restart => same(Outcome::Restarted),
        Action::Restore => same(Outcome::Restored),
        Action::Confirm => {
            assert_eq!(world.modem, Modem::Target);
            let vanished = Outcome::Vanished { reason: String::new() };
            let same = |outcome| (world.clone(), outcome);
            (vec![same(Outcome::Confirmed), same(again()), same(vanished)], vec![])
        }
        Action::Release => with(&|w| w.held = false, Outcome::Released),
        Action::Pause { .. } => same(Outcome::Paused),
        Action::AwaitRelease => same(Outcome::OperatorReleased),
    }
}

/// The coordinator: idempotent for an attempt, refuses when cancelled; the answer may be lost.
fn grant(world: &World, attempt: u32) -> (Vec<(World, Outcome)>, Vec<World>) {
    let refused = |code| {
        let refusal = Refusal { code, detail: String::new(), retry_after_s: None };
        (vec![(world.clone(), Outcome::Refused(refusal))], vec![])
    };
    if world.cancelled {
        return refused(RefusalCode::Cancelled);
    }
    if attempt > 3 {
        return refused(RefusalCode::Attempts);
    }
    assert!(attempt <= world.granted + 1, "an attempt was skipped");
    let mut after = world.clone();
    after.granted = after.granted.max(attempt);
    let lost = Outcome::Again { reason: "no answer".into() };
    (vec![(after.clone(), Outcome::Granted), (after.clone(), lost)], vec![after])
}

fn install(world: &World, recovery: bool) -> (Vec<(World, Outcome)>, Vec<World>) {
    let mut started = world.clone();
    started.start_tool(recovery);
    let mut ended = Vec::new();
    let mut cut = Vec::new();
    for run in RUNS {
        if recovery && matches!(run, Run_::Vanishes) {
            continue;
        }
        let running = World { running: Some(run), ..started.clone() };
        let mut after = running.clone();
        let end = after.finish(run);
        ended.push((after, Outcome::ToolEnded(end)));
        cut.push(running);
    }
    (ended, cut)
}

/// Every successor of a node, cuts included.
fn successors(node: &Node, max_cuts: u32) -> Vec<Node> {
    let Some(action) = node.memory.action() else { return vec![] };
    let policy = Policy::default();
    let mut next = Vec::new();
    let cut_in = |world: &World, journal: &State, next: &mut Vec<Node>| {
        if world.cuts >= max_cuts {
            return;
        }
        let fresh = || journal.clone().resume();
        for world in world.power_cuts() {
            next.push(Node { memory: fresh(), journal: journal.clone(), world });
        }
        let killed = World { cuts: world.cuts + 1, ..world.clone() };
        next.push(Node { memory: fresh(), journal: journal.clone(), world: killed });
    };
    cut_in(&node.world, &node.journal, &mut next);
    let (ended, cut) = perform(action, &node.world, &node.memory);
    for world in &cut {
        cut_in(world, &node.journal, &mut next);
    }
    let mut outcomes = ended;
    if node.memory.is_cancellable() {
        // The operator may cancel where the coordinator lets it: no grant is out.
        let world = World { cancelled: true, ..node.world.clone() };
        outcomes.push((world, Outcome::Cancelled));
    }
    if node.memory.step == Step::Committing && node.world.granted == 0 {
        let world = World { cancelled: true, ..node.world.clone() };
        outcomes.extend(grant(&world, node.memory.next_attempt()).0);
    }
    for (world, outcome) in outcomes {
        // After the effect, before the save.
        cut_in(&world, &node.journal, &mut next);
        let memory = node.memory.clone().apply(outcome, &policy);
        let journal = if memory.differs_after_restart(&node.journal) {
            memory.clone()
        } else {
            node.journal.clone()
        };
        next.push(Node { memory, journal, world });
    }
    next
}

fn check(node: &Node) {
    let (state, world) = (&node.memory, &node.world);
    assert!(world.granted <= 3 && world.installs <= 3, "too many attempts: {node:?}");
    match state.ending() {
        Some(ending) => {
            assert!(!world.held, "finished and still holding: {node:?}");
            assert_eq!(world.running, None, "finished under a running tool: {node:?}");
            assert!(
                !matches!(world.modem, Modem::Download),
                "finished with the modem in download mode: {node:?}"
            );
            match ending {
                Ending::Succeeded { .. } | Ending::AlreadyInstalled { .. } => {
                    assert_eq!(world.modem, Modem::Target, "a success that is none: {node:?}");
                }
                Ending::Cancelled => assert_eq!(world.modem, Modem::Old, "{node:?}"),
                Ending::Failed { .. } | Ending::Unknown => {}
            }
        }
        None => assert!(
            world.held || world.running.is_none(),
            "a tool runs and nothing is held: {node:?}"
        ),
    }
    if matches!(node.world.modem, Modem::Download) && world.running.is_none() {
        assert!(!state.is_cancellable(), "download mode and cancellable: {node:?}");
    }
}

/// With no more cuts and a tool that works, every node ends, or recovers for ever for want of an
/// image or a modem.
fn ends(node: &Node) -> bool {
    let mut node = node.clone();
    for _ in 0..100 {
        match &node.memory.step {
            Step::Finished(_) => return true,
            Step::RecoveryPause { tries, .. } if *tries > 9 => {
                return node.world.staged != Some(true) || node.world.modem == Modem::Absent;
            }
            _ => {}
        }
        let Some(next) = successors(&node, 0).into_iter().next() else { return true };
        node = next;
    }
    false
}

fn start(durable: bool) -> Node {
    let memory = State::new(record());
    let world = World {
        modem: Modem::Old,
        staged: None,
        durable,
        held: false,
        running: None,
        exit: None,
        granted: 0,
        cancelled: false,
        installs: 0,
        cuts: 0,
    };
    Node { journal: memory.clone(), memory, world }
}

fn explore(durable: bool, max_cuts: u32) -> usize {
    let mut open = vec![start(durable)];
    let mut seen = HashSet::new();
    while let Some(node) = open.pop() {
        // Recovery goes on for ever; five rounds of it are all rounds.
        if matches!(node.memory.step, Step::RecoveryPause { tries, .. } if tries > 5) {
            continue;
        }
        if !seen.insert(node.key()) {
            continue;
        }
        check(&node);
        assert!(ends(&node), "does not end: {node:?}");
        open.extend(successors(&node, max_cuts));
    }
    seen.len()
}

#[test]
fn all_sequences_of_three_cuts_with_durable_staging() {
    let states = explore(true, 3);
    assert!(states > 5_000, "only {states} states: the search does not reach what it should");
}

#[test]
fn all_sequences_of_three_cuts_with_volatile_staging() {
    let states = explore(false, 3);
    assert!(states > 5_000, "only {states} states: the search does not reach what it should");
}

/// Longer sequences than the search reaches: up to twenty cuts, drawn at random.
mod random {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_sequence_of_twenty_cuts(
            durable: bool,
            choices in proptest::collection::vec(any::<u16>(), 400),
        ) {
            let mut node = start(durable);
            for choice in choices {
                check(&node);
                let next = successors(&node, 20);
                if next.is_empty() {
                    break;
                }
                node = next[usize::from(choice) % next.len()].clone();
            }
            prop_assert!(ends(&node), "does not end: {node:?}");
        }
    }
}
