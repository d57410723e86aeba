//! All sequences of up to three cuts (power cuts and kills of the agent, before, during and after
//! every effect) × all outcomes of the tool, as a search over every reachable (memory, journal,
//! world). The world keeps what a real one keeps: a power cut erases what is volatile and stops the
//! tool, a killed agent leaves the tool running.

#![allow(clippy::wildcard_enum_match_arm, reason = "the world cares for few of the states")]

mod world;

use super::{tests::record, *};
use std::collections::HashSet;
use world::{Modem, World, grant, perform};

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
            let tries = (state.tries.min(9), r.vanished, r.strangers);
            let counts = (tries, r.attempts, r.holding, r.post_flash_due);
            let before = r.before.as_ref().map(|before| before.by_modem);
            // So are those of grants handed back.
            let returned = r.returned.min(1);
            let ends = (&r.tool_end, state.lost);
            format!("{:?}{counts:?}{before:?}{:?}{returned}{ends:?}", state.step, r.last_failure)
        };
        let text = format!("{}{}{:?}", state(&self.memory), state(&self.journal), self.world);
        let digest = shared::hex::sha256(text.as_bytes());
        digest.0[..16].iter().fold(0, |key, byte| key << 8 | u128::from(*byte))
    }
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
    if node.memory.is_cancellable() && !node.world.open {
        // The operator may cancel where the coordinator lets it: no grant is out.
        let world = World { cancelled: true, ..node.world.clone() };
        outcomes.push((world, Outcome::Cancelled));
    }
    if node.memory.step == Step::Committing && !node.world.open {
        let world = World { cancelled: true, ..node.world.clone() };
        outcomes.extend(grant(&world, node.memory.next_attempt()).0);
    }
    for (world, outcome) in outcomes {
        // After the effect, before the save.
        cut_in(&world, &node.journal, &mut next);
        let memory = node.memory.clone().apply(outcome, &policy);
        let world = World { open: world.open && !closes(&memory), ..world };
        // After the report, before the save.
        cut_in(&world, &node.journal, &mut next);
        let journal = if memory.differs_after_restart(&node.journal) {
            memory.clone()
        } else {
            node.journal.clone()
        };
        next.push(Node { memory, journal, world });
    }
    if !node.world.sole && !node.world.durable && before_holding(&node.memory) {
        let world = World { sole: true, ..node.world.clone() };
        next.push(Node { world, ..node.clone() });
    }
    next
}

/// Where another uplink may fail and be missed in time: from the last gates until interfaces go down.
fn before_holding(state: &State) -> bool {
    matches!(
        state.step,
        Step::Waiting { .. } | Step::Baselining | Step::Committing | Step::Preparing
    )
}

/// Whether the report of this state ends a grant at the coordinator.
fn closes(state: &State) -> bool {
    matches!(
        &state.step,
        Step::Releasing { next: Next::Backoff { .. } } | Step::Postponed { .. } | Step::Finished(_)
    )
}

fn check(node: &Node) {
    let (state, world) = (&node.memory, &node.world);
    assert!(
        !world.hooked || node.journal.record.post_flash_due,
        "a tool was started whose end no hook would hear of: {node:?}"
    );
    let known = |state: &State| state.record.before.as_ref().is_some_and(|b| b.by_modem);
    assert!(
        world.running.is_none() || known(&node.journal),
        "a tool runs and the journal does not know how its modem was: {node:?}"
    );
    assert!(world.granted <= 3 && world.installs <= 3, "too many attempts: {node:?}");
    if matches!(state.step, Step::Postponed { .. }) {
        assert!(!world.held && !world.hooked, "postponed and still holding: {node:?}");
        assert!(state.is_cancellable() && !state.has_touched(), "{node:?}");
        assert_eq!(world.modem, Modem::Old, "{node:?}");
    }
    match state.ending() {
        Some(ending) => {
            assert!(!world.held, "finished and still holding: {node:?}");
            assert!(!world.hooked, "finished without the post-flash hooks: {node:?}");
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
        sole: false,
        held: false,
        hooked: false,
        running: None,
        exit: None,
        granted: 0,
        open: false,
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
