//! `run`: brings the parts together and works on one upgrade after the other.
//!
//! ```text
//! unfinished journals first ─► then, for ever: wait for what is desired ─► drive one job ─► inventory
//! ```
//! Several modems in a router are flashed one at a time.

use crate::{
    clock::{self, Clock},
    environment::{self, Environment, Ports, journal_path},
    files,
    guardian::Presence,
    identity::{Board, Identity, IdentityError},
    inventory,
    outbox::Outbox,
    random, route,
    settings::{Settings, SlotSettings},
    source,
    status::StatusFile,
    tls::{Tls, TlsError},
    upgrade::{
        driver,
        journal::{Journal, JournalError, Loaded, aside},
        perform::release_word,
        state::{Record, State, Step},
    },
    uplink::{Uplink, UplinkError, UplinkHandle},
};
use shared::{
    desired::{Desired, Job},
    event::{EventBody, Outcome},
    failure::{Failure, FailureKind},
    hex::Sha256,
    ids::{OperationId, StreamId},
    stages::Phase,
};
use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// First pause before a modem that could not be asked is looked at again; it doubles.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the directory {path} cannot be used")]
    Directory { path: PathBuf, source: io::Error },
    #[error("another agent runs with the same run directory {0}")]
    Running(PathBuf),
    #[error("the boot id cannot be read")]
    BootId(#[source] io::Error),
    #[error("the device's identity cannot be used")]
    Identity(#[from] IdentityError),
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    #[error("the HTTPS client for images cannot be made")]
    Client(#[source] reqwest::Error),
    #[error("the uplink cannot be started")]
    Uplink(#[from] UplinkError),
}

/// Runs until the process is told to end. A running tool belongs to its guardian and goes on.
///
/// # Errors
/// What must be mended by a person; procd starts the agent again and again meanwhile.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let settings = Arc::new(settings);
    let paths = &settings.paths;
    for path in [&paths.state_dir, &paths.run_dir] {
        files::create_private_dir(path)
            .map_err(|source| RunError::Directory { path: path.clone(), source })?;
    }
    let _presence = Presence::announce(&paths.run_dir)
        .map_err(|source| RunError::Directory { path: paths.run_dir.clone(), source })?
        .ok_or_else(|| RunError::Running(paths.run_dir.clone()))?;
    let boot_id = clock::boot_id(&paths.proc).map_err(RunError::BootId)?;
    let clock = Arc::new(Clock::new(paths.ntp_marker()));
    let board = Board::read(&paths.sysfs);
    let identity = Identity::open(&paths.state_dir, &board)?;
    let outbox = Outbox::open(&paths.state_dir);
    let tls = Tls::new(&settings.coordinator.trust, clock.clone())?;
    let mut claims = board.claims(&paths.proc);
    claims.openwisp_uuid = settings.openwisp_uuid.clone();
    let client = source::client(tls.config()).map_err(RunError::Client)?;
    let (_tasks, uplink) = Uplink::start(&settings, tls, identity, claims, outbox)?;
    let status = StatusFile::new(paths.status_file());
    tokio::spawn(status.clone().follow(uplink.clone()));
    let resent = HashSet::new();
    let look_again = LOOK_AGAIN;
    let mut agent = Agent { settings, uplink, client, clock, status, boot_id, resent, look_again };
    tokio::select! {
        result = agent.work() => result,
        () = ended() => Ok(()),
    }
}

async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            log::error!("SIGTERM cannot be heard: {error}");
            std::future::pending().await
        }
    }
}

struct Agent {
    settings: Arc<Settings>,
    uplink: UplinkHandle,
    client: reqwest::Client,
    clock: Arc<Clock>,
    status: StatusFile,
    boot_id: String,
    /// Finished operations whose result was sent again by this process.
    resent: HashSet<OperationId>,
    /// The pause before modems that could not be asked are looked at again.
    look_again: Duration,
}

impl Agent {
    async fn work(&mut self) -> Result<(), RunError> {
        let slots = self.settings.slots.clone();
        let mut settled = true;
        for slot in &slots {
            settled &= self.resume(slot).await?;
        }
        if settled {
            // Whatever a crash left staged belongs to nothing any more.
            let staging = environment::staging(&self.settings);
            if let Err(error) = files::off_runtime(move || staging.clean(&[])).await {
                log::warn!("staging is not cleaned: {error}");
            }
        }
        let mut desired = self.uplink.desired();
        let mut next_inventory = tokio::time::Instant::now();
        loop {
            if tokio::time::Instant::now() >= next_inventory {
                next_inventory = self.next_inventory().await;
            }
            let jobs = desired.borrow_and_update().clone();
            let worked = match jobs {
                Some(desired) => self.work_on(&desired, &slots).await?,
                None => false,
            };
            if worked {
                next_inventory = self.next_inventory().await;
                continue;
            }
            self.give_back_leftovers().await;
            tokio::select! {
                changed = desired.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(next_inventory) => {}
            }
        }
    }

    /// What could not be given back at the end of an upgrade is tried again while nothing is under
    /// way.
    async fn give_back_leftovers(&self) {
        for slot in &self.settings.slots {
            let Ok(env) = self.environment(slot) else { continue };
            let held = env.holders.taken().is_ok_and(|taken| !taken.is_empty());
            if held && let Err(error) = env.holders.give_back().await {
                log::error!("slot {}: {error}", slot.slot);
            }
        }
    }

    /// Works on the first job that is not done yet; says whether there was one.
    async fn work_on(
        &mut self,
        desired: &Desired,
        slots: &[SlotSettings],
    ) -> Result<bool, RunError> {
        for job in &desired.jobs {
            match slots.iter().find(|slot| slot.slot == job.slot) {
                Some(slot) if self.start(slot, job).await? => return Ok(true),
                Some(_) => {}
                None => self.refuse(job),
            }
        }
        Ok(false)
    }

    /// Starts a new upgrade, unless its result is known: then that is sent again.
    async fn start(&mut self, slot: &SlotSettings, job: &Job) -> Result<bool, RunError> {
        let mut env = self.environment(slot)?;
        let Some((mut journal, loaded)) = self.journal(&env).await? else { return Ok(false) };
        if let Loaded::State { state, .. } = loaded {
            if state.ending().is_none() {
                self.drive(state.resume(), &mut journal, &mut env).await;
                return Ok(true);
            }
            if state.record.job.operation == job.operation {
                self.send_again(&env, *state);
                return Ok(false);
            }
        }
        if let Some(ended) = env.results.of(job.operation).cloned() {
            let mut record = Record::new(job.clone(), ended.stream);
            record.attempts = ended.attempt;
            let state = State { step: Step::Finished(ended.outcome), ..State::new(record) };
            self.send_again(&env, state);
            return Ok(false);
        }
        let stream = match random::bytes() {
            Ok(bytes) => StreamId::from_random(bytes),
            Err(error) => {
                log::error!("no upgrade is started: {error}");
                return Ok(false);
            }
        };
        log::info!("operation {} for slot {}", job.operation, job.slot);
        let state = State::new(Record::new(job.clone(), stream));
        self.drive(state, &mut journal, &mut env).await;
        Ok(true)
    }

    /// Once a process: what the coordinator knows already changes nothing there.
    fn send_again(&mut self, env: &Environment, state: State) {
        if let Some(outcome) = state.ending().cloned()
            && self.resent.insert(state.record.job.operation)
        {
            env.report(&state, EventBody::Finished { outcome });
        }
    }

    /// Goes on where a journal stopped; says whether the slot has no upgrade under way now. A
    /// journal that this version cannot read may have one, and need its image; so may a modem that was
    /// left in a bad condition.
    async fn resume(&mut self, slot: &SlotSettings) -> Result<bool, RunError> {
        let mut env = self.environment(slot)?;
        let Some((mut journal, loaded)) = self.journal(&env).await? else { return Ok(false) };
        let Loaded::State { state, same_boot } = loaded else {
            // Nobody knows what the unreadable journal was about.
            return Ok(!released(&journal_path(&self.settings, slot)).exists());
        };
        if state.ending().is_some() {
            return Ok(!state.may_need_image());
        }
        let boot = if same_boot { "this boot" } else { "an earlier boot" };
        log::info!(
            "operation {} found in {}, from {boot}",
            state.record.job.operation,
            state.phase()
        );
        let ended = self.drive(state.resume(), &mut journal, &mut env).await;
        Ok(!ended.may_need_image())
    }

    async fn drive(&mut self, state: State, journal: &mut Journal, env: &mut Environment) -> State {
        let ended = driver::drive(state, journal, env).await;
        self.resent.insert(ended.record.job.operation);
        self.status.update(|status| {
            status.last_result = env.results.last().cloned();
            status.phase = None;
            status.progress = None;
        });
        let mut needed = self.still_needed(&env.slot);
        if ended.may_need_image()
            && let Some(needed) = &mut needed
        {
            needed.push(ended.record.job.image.manifest_sha256);
        }
        env.clean_up(needed).await;
        if let Some(outcome) = ended.ending() {
            log::info!("operation {} ended: {outcome:?}", ended.record.job.operation);
        }
        ended
    }

    /// Manifests of the images that upgrades of other slots may still need: theirs may be all
    /// that a modem in download mode can be recovered from. `None` when a journal cannot be read:
    /// then everything may be needed.
    fn still_needed(&self, but: &SlotSettings) -> Option<Vec<Sha256>> {
        let mut needed = Vec::new();
        for slot in self.settings.slots.iter().filter(|slot| slot.slot != but.slot) {
            match Journal::open(&journal_path(&self.settings, slot), &self.boot_id) {
                Ok((_, Loaded::State { state, .. })) if state.may_need_image() => {
                    needed.push(state.record.job.image.manifest_sha256);
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        Some(needed)
    }

    /// The slot's journal. One that was unreadable is held until a person says "go on": attempts
    /// must not start over at 0. A newer version's journal is left alone and its slot unused.
    async fn journal(&self, env: &Environment) -> Result<Option<(Journal, Loaded)>, RunError> {
        let path = journal_path(&self.settings, &env.slot);
        self.await_release_of(&aside(&path), env).await;
        loop {
            match Journal::open(&path, &self.boot_id) {
                Ok(opened) => return Ok(Some(opened)),
                Err(JournalError::Corrupt { aside }) => self.await_release_of(&aside, env).await,
                Err(error @ JournalError::Newer { .. }) => {
                    log::error!("{error}");
                    return Ok(None);
                }
                Err(JournalError::Io { path, source }) => {
                    return Err(RunError::Directory { path, source });
                }
            }
        }
    }

    /// Holds the slot while an unreadable journal lies there, until a person says "go on".
    async fn await_release_of(&self, corrupt: &Path, env: &Environment) {
        let slot = &env.slot.slot;
        let word = release_word(&self.settings.paths.run_dir, slot.as_str());
        let mut said = false;
        while corrupt.exists() {
            if !said {
                // A word from before was about something else.
                let _ = std::fs::remove_file(&word);
                log::error!(
                    "slot {slot} is held: its journal was unreadable and is kept as {}; look at the \
                     modem, then run `modem-upgrader-agent recover --slot {slot}`",
                    corrupt.display()
                );
                said = true;
            }
            if std::fs::remove_file(&word).is_ok() {
                let kept = released(&journal_path(&self.settings, &env.slot));
                if let Err(error) = std::fs::rename(corrupt, kept) {
                    log::error!("{} cannot be moved: {error}", corrupt.display());
                }
            } else {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }

    fn environment(&self, slot: &SlotSettings) -> Result<Environment, RunError> {
        let ports = Ports {
            uplink: self.uplink.clone(),
            client: self.client.clone(),
            clock: self.clock.clone(),
            status: self.status.clone(),
            boot_id: self.boot_id.clone(),
        };
        let run_dir = self.settings.paths.run_dir.clone();
        Environment::new(self.settings.clone(), slot.clone(), ports)
            .map_err(|source| RunError::Directory { path: run_dir, source })
    }

    /// A job for a slot that this router does not have.
    fn refuse(&mut self, job: &Job) {
        if !self.resent.insert(job.operation) {
            return;
        }
        let Ok(bytes) = random::bytes() else { return };
        let detail = format!("this router has no slot {:?}", job.slot.as_str());
        let failure = Failure::untouched(Phase::Inspecting, FailureKind::WrongModem, detail);
        self.uplink.report(crate::outbox::Draft {
            operation: job.operation,
            slot: job.slot.clone(),
            stream: StreamId::from_random(bytes),
            attempt: 0,
            at: None,
            body: EventBody::Finished { outcome: Outcome::Failed { failure } },
        });
    }

    /// Takes an inventory and says when the next one is due. A modem that could not be asked, for
    /// instance because it is still booting, is looked at again soon: nothing can be asked of a
    /// device whose modem the coordinator does not know.
    async fn next_inventory(&mut self) -> tokio::time::Instant {
        let interval = self.settings.uplink.inventory_interval;
        let pause = if self.refresh_inventory().await {
            self.look_again = LOOK_AGAIN;
            interval
        } else {
            let pause = self.look_again.min(interval);
            self.look_again = pause.saturating_mul(2);
            pause
        };
        tokio::time::Instant::now() + pause
    }

    /// Whether every modem could be read.
    async fn refresh_inventory(&self) -> bool {
        let hosts = route::addresses(self.uplink.base()).await;
        let inventory = inventory::take(&self.settings, &self.boot_id, &hosts).await;
        self.status.update(|status| status.modems = inventory.modems.clone());
        let readable = inventory.modems.iter().all(|modem| modem.unreadable.is_none());
        self.uplink.set_inventory(inventory);
        readable
    }
}

/// Where an unreadable journal is kept once a person has said "go on".
fn released(journal: &Path) -> PathBuf {
    journal.with_extension("released")
}
