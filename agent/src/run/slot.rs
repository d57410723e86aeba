//! One slot of the router: its journal, and the upgrade under way in it.
//!
//! ```text
//! Closed ── open ──► Idle ◄── ended ── Busy        a job starts one; an unfinished journal goes on
//!   │ ▲               └──── a job ──────▲
//!   │ └── a person says "go on" ── Unreadable
//!   └──► Newer: left alone
//! ```

mod opening;

use super::{
    recent::{Begun, Operations},
    turns::Wish,
};
use crate::{
    environment::{self, Environment, Ports, journal_path},
    guardian, random,
    settings::{Settings, SlotSettings},
    status::Held,
    upgrade::{
        driver::{Stint, Upgrade},
        journal::Journal,
        perform::release_word,
        results::Results,
        state::{Record, State, Step},
    },
};
use shared::{desired::Job, event::EventBody, hex::Sha256, ids::StreamId};
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Between two looks for a person's word.
const LOOK: Duration = Duration::from_secs(2);
/// Before something is tried again that the disk refused.
const DISK_AGAIN: Duration = Duration::from_secs(60);

pub struct Slot {
    pub place: SlotSettings,
    settings: Arc<Settings>,
    ports: Ports,
    work: Work,
    /// Operations that are over, and whose result was reported by this process to this coordinator.
    over: Operations,
    /// Jobs whose sender was told that the slot is held.
    told: Operations,
    /// What began within a day.
    begun: Begun,
    /// Nothing is begun before: the disk refused.
    not_before: Instant,
    /// What it said.
    trouble: String,
    /// How often.
    refused: u32,
}

enum Work {
    /// The journal is not open.
    Closed,
    /// It was unreadable and lies here until a person says "go on": attempts must not start over at
    /// 0.
    Unreadable(PathBuf),
    /// A newer version's journal.
    Newer,
    Idle {
        journal: Journal,
        last: Option<Box<State>>,
    },
    /// `due`: when its pause is over; `None`: when a person says "go on".
    Busy {
        upgrade: Box<Upgrade>,
        env: Box<Environment>,
        due: Option<Instant>,
    },
}

impl Slot {
    pub fn new(settings: Arc<Settings>, ports: Ports, place: SlotSettings) -> Self {
        Self {
            place,
            settings,
            ports,
            work: Work::Closed,
            over: Operations::default(),
            told: Operations::default(),
            begun: Begun::default(),
            not_before: Instant::now(),
            trouble: String::new(),
            refused: 0,
        }
    }

    /// Whoever asks now has not heard what others were told.
    pub fn repeat_answers(&mut self) {
        self.over = Operations::default();
        self.told = Operations::default();
    }

    /// What it would do now. An upgrade in a pause is due early when its job was withdrawn.
    pub fn wish(&mut self, jobs: &[Job], answered: bool, default_route: bool) -> Wish {
        let now = Instant::now();
        match &self.work {
            Work::Closed | Work::Unreadable(_) | Work::Newer => Wish::Nothing,
            Work::Idle { .. } if self.begins_at(now).is_some() => Wish::Nothing,
            Work::Idle { .. } => match self.job(jobs) {
                Some(_) => Wish::Upgrade { default_route },
                None => Wish::Nothing,
            },
            Work::Busy { upgrade, due, .. } => {
                let state = &upgrade.state;
                let wanted = jobs.iter().any(|job| job.operation == state.record.job.operation);
                let withdrawn = answered && !wanted && state.is_cancellable();
                let due = due.map_or_else(|| self.word().exists(), |due| due <= now);
                if !due && !withdrawn {
                    Wish::Nothing
                } else if state.has_touched() {
                    Wish::Recover
                } else {
                    Wish::Upgrade { default_route }
                }
            }
        }
    }

    /// Its turn: until the upgrade ends or pauses for long. Says whether it has ended.
    pub async fn serve(&mut self, jobs: &[Job]) -> bool {
        match std::mem::replace(&mut self.work, Work::Closed) {
            Work::Idle { journal, last } => match self.job(jobs).cloned() {
                Some(job) => self.work = self.begin(&job, journal, last),
                None => self.work = Work::Idle { journal, last },
            },
            work => self.work = work,
        }
        let Work::Busy { upgrade, env, due } = &mut self.work else { return false };
        match upgrade.drive(env).await {
            Stint::Parked(until) => {
                *due = until;
                false
            }
            Stint::Ended => {
                self.ended();
                true
            }
        }
    }

    /// When the next upgrade may begin, if that is not now.
    fn begins_at(&self, now: Instant) -> Option<Instant> {
        self.begun.opens().into_iter().chain([self.not_before]).max().filter(|at| *at > now)
    }

    fn begin(&mut self, job: &Job, journal: Journal, last: Option<Box<State>>) -> Work {
        let stream = match random::bytes() {
            Ok(bytes) => StreamId::from_random(bytes),
            Err(error) => {
                log::error!("no upgrade is started: {error}");
                self.not_before = Instant::now() + DISK_AGAIN;
                return Work::Idle { journal, last };
            }
        };
        log::info!("operation {} for slot {}", job.operation, job.slot);
        self.begun.add(Instant::now());
        let state = State::new(Record::new(job.clone(), stream));
        self.busy(state, journal).unwrap_or_else(|error| self.closed(&error))
    }

    fn busy(&self, state: State, journal: Journal) -> io::Result<Work> {
        let upgrade = Box::new(Upgrade::new(state, journal));
        Ok(Work::Busy { upgrade, env: Box::new(self.environment()?), due: Some(Instant::now()) })
    }

    fn ended(&mut self) {
        let Work::Busy { upgrade, env, .. } = std::mem::replace(&mut self.work, Work::Closed)
        else {
            return;
        };
        let (state, journal) = upgrade.into_parts();
        self.over.insert(state.record.job.operation);
        if let Some(outcome) = state.ending() {
            log::info!("operation {} ended: {outcome:?}", state.record.job.operation);
        }
        self.ports.status.update(|status| {
            status.last_result = env.results.last().cloned();
            status.is_over(&self.place.slot);
        });
        self.work = Work::Idle { journal, last: Some(Box::new(state)) };
    }

    /// The first job that is not over. Results of others are sent again, once a process: what the
    /// coordinator knows already changes nothing there.
    fn job<'a>(&mut self, jobs: &'a [Job]) -> Option<&'a Job> {
        let ours = jobs.iter().filter(|job| job.slot == self.place.slot);
        for job in ours {
            if self.over.contains(job.operation) {
                continue;
            }
            let Some(state) = self.result_of(job) else { return Some(job) };
            self.over.insert(job.operation);
            if let Some(outcome) = state.ending().cloned() {
                let (stream, attempt) = (state.record.stream, state.record.attempts);
                self.ports.answer_as(job, stream, attempt, EventBody::Finished { outcome });
            }
        }
        None
    }

    /// A known operation never runs again.
    fn result_of(&self, job: &Job) -> Option<State> {
        if let Work::Idle { last: Some(state), .. } = &self.work
            && state.record.job.operation == job.operation
        {
            return Some(State::clone(state));
        }
        let directory = self.settings.paths.state_dir.join(self.place.slot.as_str());
        let ended = Results::open(&directory).of(job.operation).cloned()?;
        let mut record = Record::new(job.clone(), ended.stream);
        record.attempts = ended.attempt;
        Some(State { step: Step::Finished(ended.outcome), ..State::new(record) })
    }

    /// When to look at it again if nothing else happens.
    pub fn due(&self) -> Option<Instant> {
        match &self.work {
            Work::Closed => Some(self.not_before),
            Work::Unreadable(_) => Some(Instant::now() + LOOK),
            Work::Newer => None,
            Work::Idle { .. } => self.begins_at(Instant::now()),
            Work::Busy { due, .. } => Some(due.unwrap_or_else(|| Instant::now() + LOOK)),
        }
    }

    /// Why it waits for a person, if it does.
    pub fn held(&self) -> Option<Held> {
        let reason = match &self.work {
            Work::Unreadable(corrupt) => {
                format!("its journal was unreadable and is kept as {}", corrupt.display())
            }
            Work::Newer => "its journal was written by a newer version".to_owned(),
            Work::Busy { upgrade, .. } => match &upgrade.state.step {
                Step::Held { reason } => reason.clone(),
                _ => return None,
            },
            Work::Closed => self.trouble.clone(),
            Work::Idle { .. } => return None,
        };
        Some(Held { slot: self.place.slot.clone(), reason })
    }

    /// Tells whoever wants something of a slot without a journal why nothing happens, once a job.
    pub fn explain(&mut self, jobs: &[Job]) {
        if matches!(self.work, Work::Idle { .. } | Work::Busy { .. }) {
            return;
        }
        let Some(Held { slot, reason }) = self.held() else { return };
        for job in jobs.iter().filter(|job| job.slot == slot) {
            if !self.told.insert(job.operation) {
                continue;
            }
            let reason = shared::limits::cut(format!("slot {slot} waits for a person: {reason}"));
            self.ports.answer(job, EventBody::Postponed { reason });
        }
    }

    /// The manifests of the images that it may still need. `None`: nobody knows; an unreadable
    /// journal may have been about anything.
    pub fn needed(&self) -> Option<Vec<Sha256>> {
        let state = match &self.work {
            Work::Closed | Work::Unreadable(_) | Work::Newer => return None,
            Work::Idle { last: None, .. } if self.released().exists() => return None,
            Work::Idle { last, .. } => last.as_deref(),
            Work::Busy { upgrade, .. } => Some(&upgrade.state),
        };
        let needing = state.filter(|state| state.may_need_image());
        Some(needing.map(|state| state.record.job.image.manifest_sha256).into_iter().collect())
    }

    /// What could not be given back at the end of an upgrade is tried again while none has the modem.
    pub async fn give_back_leftovers(&self) {
        let ours = match &self.work {
            Work::Idle { .. } => false,
            // Between two attempts, or held for a person, nothing of it is to be held.
            Work::Busy { upgrade, .. } => upgrade.state.record.holding,
            Work::Closed | Work::Unreadable(_) | Work::Newer => true,
        };
        if ours || guardian::is_any_running(&self.settings.paths.run_dir) {
            return;
        }
        let holders = environment::holders(&self.settings, &self.place);
        let held = holders.taken().is_ok_and(|taken| !taken.is_empty());
        if held && let Err(error) = holders.give_back().await {
            log::error!("slot {}: {error}", self.place.slot);
        }
    }

    fn environment(&self) -> io::Result<Environment> {
        Environment::new(self.settings.clone(), self.place.clone(), self.ports.clone())
    }

    fn journal_path(&self) -> PathBuf {
        journal_path(&self.settings, &self.place)
    }

    fn word(&self) -> PathBuf {
        release_word(&self.settings.paths.run_dir, self.place.slot.as_str())
    }
}
