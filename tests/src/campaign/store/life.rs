//! One life of an agent as its disk sees it: open everything, go on where the journal stopped, and do
//! what the driver does (save, report, act, apply), with chance for the world.

use super::model::{Model, number};
use crate::{campaign::control::Control, random::Random};
use agent::{
    identity::{Board, Identity},
    outbox::{Draft, Outbox, Trouble},
    staging::{ImageFile, Staged, Staging},
    upgrade::{
        journal::{Journal, JournalError, Loaded},
        policy::Policy,
        results::{Ended, Results},
        state::{Action, Before, Outcome, Record, Run, Sighting, State, Step, Target, ToolEnd},
    },
};
use shared::{
    ack::{Ack, Verdict},
    desired::{ImageRef, Job},
    event::{EventBody, Outcome as Ending, VersionLine},
    failure::{Failure, FailureKind},
    grant::{Refusal, RefusalCode},
    hex::Hex,
    ids::{ImageId, OperationId, Slot, StreamId},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Blocks of an image, and bytes of each.
const BLOCKS: usize = 3;
const BLOCK: usize = 4096;
const NAME: &str = "image.bin";
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
    staging: Staging,
    control: &'a Control,
    model: &'a mut Model,
    random: &'a mut Random,
    policy: Policy,
}

struct Open {
    outbox: Outbox,
    results: Results,
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
        let board = Board { name: Some("lab".into()), mac: None, serial: None };
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
            self.model.pending(&events, forgive || !outbox.is_durable());
        }
        let slot_dir = self.state_dir.join("main");
        let opened = Journal::open(&slot_dir.join("journal"), "boot");
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
        self.model.loaded(loaded.as_ref());
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
            size: (BLOCKS * BLOCK) as u64,
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

    /// What the world says to the pending action; `None`: the life ends here.
    fn act(&mut self, action: Action, state: &State, open: &mut Open) -> Option<Outcome> {
        let again = || Outcome::Again { reason: "chance".into() };
        let chance = |random: &mut Random, outcome: Outcome| {
            if random.chance(93) { outcome } else { again() }
        };
        Some(match action {
            Action::Inspect => chance(self.random, Outcome::Inspected(Box::new(target()))),
            Action::CheckGates(_) => Outcome::GatesOpen,
            Action::Download => match self.download(state) {
                Ok(()) => Outcome::Downloaded,
                Err(reason) => Outcome::Again { reason },
            },
            Action::Verify => {
                if self.is_staged(state) {
                    Outcome::Verified
                } else {
                    Outcome::ImageLost
                }
            }
            Action::Baseline => Outcome::Baselined(Box::new(before(self.random.chance(50)))),
            Action::RequestGrant { attempt } => self.ask(attempt, state),
            // A gate that was not looked at before.
            Action::Prepare if self.random.chance(7) => {
                Outcome::Postponed { reason: "chance".into() }
            }
            Action::Prepare => Outcome::Prepared(Box::new(before(true)), vec![]),
            Action::Install => self.install(state, &mut open.results),
            Action::Attach => Outcome::ToolEnded(ToolEnd::Lost),
            Action::Probe => Outcome::Probed(self.sighting(state)),
            Action::Restore => chance(self.random, Outcome::Restored),
            Action::Confirm => {
                chance(self.random, Outcome::Confirmed { not_compared: None, remark: None })
            }
            Action::PostFlash => Outcome::PostFlashed,
            Action::Release => chance(self.random, Outcome::Released),
            Action::Pause { .. } => Outcome::Paused,
            Action::Recover => self.recover(state),
            Action::AwaitRelease => return None,
        })
    }

    fn ask(&mut self, attempt: u32, state: &State) -> Outcome {
        let record = &state.record;
        let refusal =
            |code| Outcome::Refused(Refusal { code, detail: "chance".into(), retry_after_s: None });
        if self.random.chance(7) {
            return refusal(RefusalCode::Paused);
        }
        if self.model.grant(record.job.operation, attempt, record.stream) {
            Outcome::Granted
        } else {
            refusal(RefusalCode::Attempts)
        }
    }

    fn download(&mut self, state: &State) -> Result<(), String> {
        let image = &state.record.job.image;
        let staged = self
            .staging
            .stage(&image.manifest_sha256, image.size, 0, false)
            .map_err(|e| e.to_string())?;
        staged.keep_manifest(b"{}", "signature").map_err(|e| e.to_string())?;
        let file = staged.open_image(NAME).map_err(|e| e.to_string())?;
        for index in 0..BLOCKS {
            if holds(&file, state, index) && self.model.blocks.contains(&index) {
                continue;
            }
            file.write_block((index * BLOCK) as u64, &block(state, index))
                .map_err(|e| e.to_string())?;
            if !self.control.is_dead() {
                self.model.blocks.insert(index);
            }
        }
        Ok(())
    }

    /// Whether every block is there, with the right bytes. One that was said to be on disk must be,
    /// unless the disk refuses to say.
    fn is_staged(&mut self, state: &State) -> bool {
        let struck = self.control.struck();
        let found = self.staged(state).and_then(|staged| staged.open_image(NAME).ok());
        let present = |index: &usize| found.as_ref().is_some_and(|file| holds(file, state, *index));
        let lost = self.model.blocks.iter().filter(|index| !present(index)).count();
        let whole = (0..BLOCKS).all(|index| present(&index));
        if lost > 0 && self.control.struck() == struck && !self.control.is_dead() {
            self.model.wrong(format!("{lost} staged blocks were lost"));
            self.model.blocks.clear();
        }
        whole
    }

    fn staged(&self, state: &State) -> Option<Staged> {
        let image = &state.record.job.image;
        self.staging.find_all(&image.manifest_sha256, image.size).into_iter().next()
    }

    fn install(&mut self, state: &State, results: &mut Results) -> Outcome {
        if state.record.before.as_ref().is_none_or(|before| !before.by_modem) {
            self.model.wrong("a tool is started at a modem that nobody asked");
        }
        let refuse = |kind| Outcome::NotStarted(Failure::untouched(state.phase(), kind, "chance"));
        if !self.is_staged(state) {
            return refuse(FailureKind::ChecksumMismatch);
        }
        if results.flash(&Slot::default(), Some(1)).is_err() {
            return refuse(FailureKind::ToolNotStarted);
        }
        if self.control.is_dead() {
            return Outcome::Paused;
        }
        self.model.flashes += 1;
        self.model.start(state.record.job.operation, state.record.attempts);
        Outcome::ToolEnded(match self.random.below(3) {
            0 => ToolEnd::Success,
            1 => ToolEnd::Failed { kind: FailureKind::ToolFailed, detail: "chance".into() },
            _ => ToolEnd::Lost,
        })
    }

    /// A modem in download mode has nothing but the staged image.
    fn recover(&mut self, state: &State) -> Outcome {
        if self.is_staged(state) {
            Outcome::ToolEnded(ToolEnd::Success)
        } else {
            let kind = FailureKind::ChecksumMismatch;
            Outcome::NotStarted(Failure::untouched(state.phase(), kind, "not staged"))
        }
    }

    fn sighting(&mut self, state: &State) -> Sighting {
        let flashed = (state.record.job.operation, state.record.attempts);
        if !self.model.started.contains(&flashed) {
            return Sighting::Old;
        }
        match self.random.below(10) {
            0..=5 => Sighting::Target,
            6..=7 => Sighting::Old,
            8 => Sighting::DownloadMode,
            _ => Sighting::Silent,
        }
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
            self.model.durable = open.outbox.pending().map(number).collect();
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
        let acks: Vec<Ack> = outbox.pending().take(count).map(ack).collect();
        for ack in &acks {
            self.model.durable.remove(&(ack.operation, ack.stream, ack.seq));
        }
        outbox.settle(&acks);
    }
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

/// The bytes of a block, different in every image.
fn block(state: &State, index: usize) -> Vec<u8> {
    let seed = state.record.job.image.sha256.0[0];
    let mut bytes = vec![0; BLOCK];
    Random::new(u64::from(seed) * 64 + index as u64 + 1).fill(&mut bytes);
    bytes
}

fn holds(file: &ImageFile, state: &State, index: usize) -> bool {
    let mut found = vec![0; BLOCK];
    file.read_block((index * BLOCK) as u64, &mut found).is_ok() && found == block(state, index)
}

fn version(value: &str) -> VersionLine {
    VersionLine { command: "+CGMR".into(), line: 1, value: value.into() }
}

fn target() -> Target {
    Target {
        vendor: "Telit".into(),
        model: "FN990A28".into(),
        sequence: 4,
        reaches: vec![version("new")],
        profile: "telit-uxfp".into(),
    }
}

fn before(by_modem: bool) -> Before {
    Before {
        by_modem,
        manufacturer: "Telit".into(),
        model: "FN990A28".into(),
        imei: "356789012340018".into(),
        versions: vec![version("old")],
        baseline: agent::modem::Baseline::default(),
    }
}
