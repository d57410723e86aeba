//! What must be found after a restart, by what the code under test has said so far.

use agent::upgrade::{results::Results, state::State};
use shared::{
    event::Event,
    hex::Hex,
    ids::{OperationId, StreamId},
};
use std::collections::{BTreeMap, BTreeSet};

type Number = (OperationId, StreamId, u64);

/// The promises made.
#[derive(Debug, Default)]
pub struct Model {
    pub key: Option<Hex<32>>,
    /// The last state that was saved, and those whose saving was begun since.
    pub saved: Option<State>,
    pub begun: Vec<State>,
    /// Events said to be on disk, not acknowledged yet.
    pub durable: BTreeSet<Number>,
    /// Every number that may have been sent.
    pub given: BTreeSet<Number>,
    pub ended: Vec<OperationId>,
    pub flashes: u32,
    /// The grants: which journal asked for each attempt.
    pub granted: BTreeMap<(OperationId, u32), StreamId>,
    /// Starts of the tool.
    pub started: BTreeSet<(OperationId, u32)>,
    /// Of the image under way, the blocks said to be on disk.
    pub blocks: BTreeSet<usize>,
    /// The last life ended in a power cut: what is there now, stays.
    pub cut: bool,
    pub violations: Vec<String>,
}

impl Model {
    pub fn wrong(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// What the journal gave.
    pub fn loaded(&mut self, found: Option<&State>) {
        let found = found.map(plain);
        let fits = found == self.saved || self.begun.iter().any(|s| Some(s) == found.as_ref());
        if !fits {
            let what = |state: &Option<State>| match state {
                Some(s) => format!("{:?} of attempt {}", s.step, s.record.attempts),
                None => "nothing".to_owned(),
            };
            let text =
                format!("the journal: {} was saved, {} found", what(&self.saved), what(&found));
            self.wrong(text);
        }
        // After a mere crash it may still be in memory only.
        if self.cut {
            self.saved = found;
            self.begun.clear();
        }
    }

    pub fn saving(&mut self, state: &State) {
        self.begun.push(plain(state));
    }

    pub fn saved(&mut self, state: &State) {
        self.saved = Some(plain(state));
        self.begun.clear();
    }

    /// What the outbox holds after a restart. `forgive`: it has said that it lost some.
    pub fn pending(&mut self, events: &[Event], forgive: bool) {
        let found: BTreeSet<Number> = events.iter().map(number).collect();
        let lost: Vec<_> = self.durable.difference(&found).collect();
        if !lost.is_empty() && !forgive {
            let text = format!("the outbox lost {} events that were on disk", lost.len());
            self.wrong(text);
        }
        if self.cut || forgive {
            self.durable = found;
        }
    }

    /// An event that may be sent now.
    pub fn appended(&mut self, event: &Event) {
        if !self.given.insert(number(event)) {
            self.wrong(format!("the outbox gave number {} twice", event.seq));
        }
    }

    pub fn results(&mut self, results: &Results) {
        let lost = self.ended.iter().filter(|ended| results.of(**ended).is_none()).count();
        if lost > 0 {
            self.wrong(format!("{lost} results were lost"));
        }
        let counted = results.flashes_since(&shared::ids::Slot::default(), 0);
        if counted < self.flashes {
            self.wrong(format!("{counted} flashes are counted, {} were", self.flashes));
        }
    }

    /// The coordinator's rule: an attempt belongs to the journal that asked for it first.
    pub fn grant(&mut self, operation: OperationId, attempt: u32, stream: StreamId) -> bool {
        *self.granted.entry((operation, attempt)).or_insert(stream) == stream
    }

    pub fn start(&mut self, operation: OperationId, attempt: u32) {
        if !self.granted.contains_key(&(operation, attempt)) {
            self.wrong(format!("the tool was started without a grant for attempt {attempt}"));
        }
        if !self.started.insert((operation, attempt)) {
            self.wrong(format!("the tool was started twice in attempt {attempt}"));
        }
    }
}

pub fn number(event: &Event) -> Number {
    (event.operation, event.stream, event.seq)
}

/// As it is journaled.
fn plain(state: &State) -> State {
    State { tries: 0, refusals: 0, ..state.clone() }
}
