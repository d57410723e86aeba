//! What must be found after a restart, by what the code under test has said so far.

use agent::upgrade::{journal::Reading, results::Results, state::State};
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
    /// The last state that was saved, the one before it, and those whose saving was begun since.
    pub saved: Option<State>,
    pub earlier: Option<State>,
    pub begun: Vec<State>,
    /// Events said to be on disk, not acknowledged yet.
    pub durable: Vec<Event>,
    /// What may have been sent, under its number.
    pub given: BTreeMap<Number, Event>,
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
    pub fn loaded(&mut self, found: Option<&State>, reading: Reading) {
        let found = found.map(plain);
        let begun = self.begun.iter().any(|s| Some(s) == found.as_ref());
        // The disk has refused the other half to the end.
        let half = reading == Reading::Half && found.is_some() && found == self.earlier;
        let fits = found == self.saved || begun || half;
        if half && found != self.saved {
            // The next save may destroy what was refused, or it is read again.
            self.begun.extend(std::mem::replace(&mut self.saved, found.clone()));
        }
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
        self.earlier = self.saved.replace(plain(state));
        self.begun.clear();
    }

    /// What the outbox is going to send after a restart.
    pub fn sent(&mut self, events: &[Event]) {
        for event in events {
            let earlier = self.given.insert(number(event), event.clone());
            if earlier.is_some_and(|earlier| earlier != *event) {
                self.wrong(format!("the outbox has number {} for another event", event.seq));
            }
        }
    }

    /// What the outbox holds durably after a restart, under whatever numbers. `forgive`: it has said that
    /// it lost some.
    pub fn pending(&mut self, events: &[Event], forgive: bool) {
        let mut found: Vec<_> = events.iter().map(unnumbered).collect();
        let mut take = |event: &Event| {
            let event = unnumbered(event);
            let place = found.iter().position(|found| *found == event);
            place.map(|place| found.swap_remove(place)).is_some()
        };
        let lost = self.durable.iter().filter(|event| !take(event)).count();
        if lost > 0 && !forgive {
            self.wrong(format!("the outbox lost {lost} events that were on disk"));
        }
        if self.cut || forgive {
            self.durable = events.to_vec();
        }
    }

    /// The coordinator has said that it has these.
    pub fn acknowledged(&mut self, events: &[Event]) {
        for event in events {
            let event = unnumbered(event);
            let place = self.durable.iter().position(|durable| unnumbered(durable) == event);
            if let Some(place) = place {
                self.durable.swap_remove(place);
            }
        }
    }

    /// An event that may be sent now.
    pub fn appended(&mut self, event: &Event) {
        if self.given.insert(number(event), event.clone()).is_some() {
            self.wrong(format!("the outbox gave number {} twice", event.seq));
        }
    }

    pub fn results(&mut self, results: &Results) {
        let lost = self.ended.iter().filter(|ended| results.of(**ended).is_none()).count();
        if lost > 0 {
            self.wrong(format!("{lost} results were lost"));
        }
        let counted = results.flashes_since(&shared::ids::Slot::default(), None, 0);
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

fn number(event: &Event) -> Number {
    (event.operation, event.stream, event.seq)
}

/// Events read back from a disk that refused to make them durable get new numbers.
fn unnumbered(event: &Event) -> Event {
    Event { seq: 0, ..event.clone() }
}

/// As it is journaled.
fn plain(state: &State) -> State {
    State { tries: 0, refusals: 0, lost: 0, ..state.clone() }
}
