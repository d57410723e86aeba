//! One life of an agent as its disk sees it: open everything, go on where the journal stopped, and do
//! what the driver does (save, report, act, apply), with chance for the world.

use super::{model::Model, world::IMAGE};
use crate::{campaign::control::Control, random::Random};
use agent::{
    identity::{Board, Identity},
    outbox::{Draft, Outbox, Trouble},
    staging::Staging,
    upgrade::{
        journal::{Journal, JournalError, Loaded, Reading},
        policy::Policy,
        results::{Ended, Results},
        state::{Outcome, Record, Run, State, Step},
    },
};
use shared::{
    ack::{Ack, Verdict},
    desired::{ImageRef, Job},
    event::{EventBody, Outcome as Ending},
    failure::{Failure, FailureKind},
    hex::Hex,
    ids::{ImageId, OperationId, Slot, StreamId},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Transitions of one life.
const STEPS: u32 = 60;
/// How often a state that cannot be saved is tried again before procd would look.
const PATIENCE: u32 = 6;

/// How a life ended.
#[derive(Debug)]
pub enum End {
    /// The power is gone, or the life was long enough.
    Over,
    /// The agent cannot run, and says why.
    Refused(String),
}

/// An agent's disk in its hands.
pub struct Life<'a> {
    state_dir: PathBuf,
    pub(super) staging: Staging,
    pub(super) control: &'a Control,
    pub(super) model: &'a mut Model,
    pub(super) random: &'a mut Random,
    policy: Policy,
}

pub(super) struct Open {
    outbox: Outbox,
    pub(super) results: Results,
    journal: Journal,
    loaded: Option<State>,
}

impl<'a> Life<'a> {
    pub fn new(
        root: &Path,
        control: &'a Control,
        model: &'a mut Model,
        random: &'a mut Random,
    ) -> Self {
        Self {
            state_dir: root.join("state"),
            staging: Staging::new(vec![root.join("staging")], 0, Vec::new()),
            control,
            model,
            random,
            policy: Policy::default(),
        }
    }

    pub fn live(mut self) -> End {
        match self.open() {
            Ok(open) => {
                self.work(open);
                End::Over
            }
            Err(reason) => End::Refused(reason),
        }
    }

    /// Everything as `run` opens it. The power may go at any instant of it.
    fn open(&mut self) -> Result<Open, String> {
        let board = Board { name: Some("lab".into()), ..Board::default() };
        let identity = Identity::open(&self.state_dir, &board).map_err(|e| e.to_string())?;
        if !self.control.is_dead() {
            let key = identity.public_key();
            if self.model.key.replace(key).is_some_and(|known| known != key) {
                self.model.wrong("the identity is another one");
            }
        }
        let outbox = Outbox::open(&self.state_dir);
        let events: Vec<_> = outbox.pending().cloned().collect();
        // A disk that refuses to read may cost events, said so; a power cut may not.
        let forgive =
            matches!(outbox.trouble(), Some(Trouble::Damaged(_))) && self.control.struck() > 0;
        if !self.control.is_dead() {
            self.model.sent(&events);
            if outbox.is_durable() {
                self.model.pending(&events, forgive);
            }
        }
        let slot_dir = self.state_dir.join("main");
        let (opened, reading) = open_journal(&slot_dir.join("journal"));
        if self.control.is_dead() {
            return Err("the power is gone".into());
        }
        let (journal, loaded) = match opened {
            Ok(opened) => opened,
            Err(error @ JournalError::Io { .. }) => return Err(error.to_string()),
            Err(error) => {
                self.model.wrong(error.to_string());
                return Err(error.to_string());
            }
        };
        let loaded = match loaded {
            Loaded::Empty => None,
            Loaded::State { state, .. } => Some(*state),
        };
        self.model.loaded(loaded.as_ref(), reading);
        let results = Results::open(&slot_dir);
        match results.trouble() {
            None => self.model.results(&results),
            Some(trouble) if self.control.struck() == 0 && !self.control.is_dead() => {
                self.model.wrong(format!("results: {trouble}"));
            }
            Some(_) => {}
        }
        Ok(Open { outbox, results, journal, loaded })
    }

    fn work(&mut self, mut open: Open) {
        let mut state = match open.loaded.take() {
            Some(state) if state.ending().is_none() => state.resume(),
            _ => match self.fresh(&open.results) {
                Some(state) => state,
                None => return,
            },
        };
        let mut saved: Option<State> = None;
        for _ in 0..STEPS {
            let written = self.save(&state, &mut saved, &mut open.journal);
            if self.control.is_dead() {
                return;
            }
            let Some(action) = state.action() else {
                if written {
                    self.staging.clean(&[]);
                    self.model.blocks.clear();
                }
                match self.fresh(&open.results) {
                    Some(fresh) => state = fresh,
                    None => return,
                }
                saved = None;
                continue;
            };
            let outcome = match unwritten(&state).filter(|_| !written) {
                Some(outcome) => Some(outcome),
                None => self.act(action, &state, &mut open),
            };
            if self.control.is_dead() || state.tries > PATIENCE {
                return;
            }
            // A state that waits for a person ends the life.
            let Some(outcome) = outcome else { return };
            let before = state.clone();
            state = state.apply(outcome.clone(), &self.policy);
            self.report(&before, &outcome, &state, &mut open);
            if self.control.is_dead() {
                return;
            }
        }
    }

    /// A new operation, if the results of the last ones are certain.
    fn fresh(&mut self, results: &Results) -> Option<State> {
        if results.trouble().is_some() {
            return None;
        }
        let operation = OperationId::from_random(self.bytes());
        let image = ImageRef {
            id: ImageId::from_random(self.bytes()),
            size: IMAGE,
            sha256: Hex(self.digest()),
            manifest_sha256: Hex(self.digest()),
        };
        let job = Job {
            operation,
            slot: Slot::default(),
            image,
            requires: Vec::new(),
            options: BTreeMap::new(),
            deadline: None,
            allow_volatile_staging: false,
        };
        self.model.blocks.clear();
        Some(State::new(Record::new(job, StreamId::from_random(self.bytes()))))
    }

    fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        bytes
    }

    fn digest(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes);
        bytes
    }

    /// As the driver saves: only what a restart would do otherwise.
    fn save(&mut self, state: &State, saved: &mut Option<State>, journal: &mut Journal) -> bool {
        if saved.as_ref().is_some_and(|saved| !state.differs_after_restart(saved)) {
            return true;
        }
        self.model.saving(state);
        let written = journal.save(state).is_ok();
        if written && !self.control.is_dead() {
            self.model.saved(state);
            *saved = Some(state.clone());
        }
        written
    }

    fn report(&mut self, before: &State, outcome: &Outcome, after: &State, open: &mut Open) {
        if matches!(outcome, Outcome::Granted) {
            self.event(after, EventBody::Granted, open);
        }
        if let Some(ending) = after.ending() {
            self.keep(after, ending.clone(), open);
            self.event(after, EventBody::Finished { outcome: ending.clone() }, open);
        } else if before.phase() != after.phase() {
            self.event(after, EventBody::Entered { phase: after.phase() }, open);
        }
        if let Step::Postponed { reason, .. } = &after.step
            && before.step != after.step
        {
            let returned = after.record.returned;
            self.event(before, EventBody::Returned { reason: reason.clone(), returned }, open);
        }
        if self.random.chance(25) {
            self.acknowledge(&mut open.outbox);
        }
    }

    fn keep(&mut self, state: &State, outcome: Ending, open: &mut Open) {
        let record = &state.record;
        let ended = Ended {
            operation: record.job.operation,
            slot: record.job.slot.clone(),
            stream: record.stream,
            attempt: record.attempts,
            outcome,
            at: None,
        };
        let kept = open.results.add(ended, None).is_ok();
        if kept && !self.control.is_dead() {
            self.model.ended.push(record.job.operation);
            // As many as are kept.
            let surplus = self.model.ended.len().saturating_sub(4);
            self.model.ended.drain(..surplus);
        }
    }

    fn event(&mut self, state: &State, body: EventBody, open: &mut Open) {
        let record = &state.record;
        let event = open.outbox.append(Draft {
            operation: record.job.operation,
            slot: record.job.slot.clone(),
            stream: record.stream,
            attempt: record.attempts,
            at: None,
            body,
        });
        if self.control.is_dead() {
            return;
        }
        self.model.appended(&event);
        if open.outbox.is_durable() {
            self.model.durable = open.outbox.pending().cloned().collect();
        }
    }

    /// The coordinator answers some of the oldest.
    fn acknowledge(&mut self, outbox: &mut Outbox) {
        let count = usize::try_from(1 + self.random.below(4)).unwrap_or(1);
        let ack = |event: &shared::event::Event| Ack {
            operation: event.operation,
            stream: event.stream,
            seq: event.seq,
            verdict: Verdict::Accepted,
        };
        let oldest: Vec<_> = outbox.pending().take(count).cloned().collect();
        self.model.acknowledged(&oldest);
        outbox.settle(&oldest.iter().map(ack).collect::<Vec<_>>());
    }
}

/// As a slot does it, without the minutes between.
fn open_journal(path: &Path) -> (Result<(Journal, Loaded), JournalError>, Reading) {
    for _ in 0..PATIENCE {
        match Journal::open(path, "boot", Reading::Whole) {
            Err(JournalError::Io { .. }) => {}
            opened => return (opened, Reading::Whole),
        }
    }
    (Journal::open(path, "boot", Reading::Half), Reading::Half)
}

/// As the driver has it.
fn unwritten(state: &State) -> Option<Outcome> {
    match state.step {
        Step::Preparing | Step::Installing { run: Run::Start } => {
            let kind = FailureKind::ToolNotStarted;
            let failure = Failure::untouched(state.phase(), kind, "not written");
            Some(Outcome::NotStarted(failure))
        }
        _ if state.record.holding => None,
        _ => Some(Outcome::Again { reason: "not written".into() }),
    }
}
