//! What one upgrade needs from the world, in one place: the ports its actions work through, and
//! what a process keeps in memory on the way (never what it must remember: that is the journal's).

use crate::{
    clock::{self, Clock, Trust},
    files,
    guardian::{
        Guardian,
        holders::{Holder, Holders},
    },
    modem::{Modem, ModemLock, Place, Sought, UsbDevice, manager},
    netifd,
    outbox::Draft,
    random,
    settings::{Settings, SlotSettings},
    staging::{self, Mounts, Staged, Staging},
    status::StatusFile,
    upgrade::{journal, policy::Policy, results::Results, state::State},
    uplink::UplinkHandle,
    verify::VerifiedManifest,
};
use shared::{
    desired::Job,
    event::{EventBody, Tick},
    ids::StreamId,
    limits,
    manifest::Manifest,
    profile::{ModemManager, ToolProfile},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The outside of one slot's upgrades.
pub struct Environment {
    pub settings: Arc<Settings>,
    pub slot: SlotSettings,
    pub policy: Policy,
    pub boot_id: String,
    pub place: Place,
    pub uplink: UplinkHandle,
    pub clock: Arc<Clock>,
    pub holders: Holders,
    pub guardian: Guardian,
    pub staging: Staging,
    pub results: Results,
    pub status: StatusFile,
    /// Of the upgrade under way; found again by a fresh process.
    pub job: JobContext,
    /// The coordinator's "not before" with its last refusal.
    pub retry_after_s: Option<u64>,
    /// When the maintenance window opens, if that is soon.
    pub opens_in_s: Option<u64>,
    /// The last reason that was reported for waiting.
    pub last_reason: Option<String>,
    ticks: u64,
}

/// What is in memory of the upgrade under way.
#[derive(Default)]
pub struct JobContext {
    pub manifest: Option<VerifiedManifest>,
    /// Its exact bytes and its signature, as fetched and not staged yet.
    pub manifest_bytes: Option<(Vec<u8>, String)>,
    pub profile: Option<ToolProfile>,
    pub staged: Option<Staged>,
    /// Held while the modem is ours.
    pub lock: Option<ModemLock>,
    /// Shows that the grant is asked for, or given and its tool not started yet.
    pub begun: Option<std::fs::File>,
    /// Whether this process has taken hold (again).
    pub holding: bool,
    /// Image bytes fetched over the network, all resumptions counted.
    pub fetched: u64,
    /// Whether the way to the coordinator leads over this modem alone.
    pub sole_uplink: Option<bool>,
    /// Whether there was another way at any time of this upgrade.
    pub other_way: bool,
    /// Whether nobody can tell now, for want of the coordinator's address.
    pub unresolved: bool,
    /// When the picture of the modem was taken that is compared with after the flash, since boot.
    pub pictured: Option<Duration>,
    /// When all gates before the grant were last found open, since boot.
    pub gates_open: Option<Duration>,
    /// Something that the profile asks for could not be measured while ModemManager had the modem.
    pub unmeasured: bool,
    /// Where the modem was on the bus when it was last inspected.
    pub bus_id: Option<String>,
}

/// The ports, made once.
#[derive(Clone)]
pub struct Ports {
    pub uplink: UplinkHandle,
    pub clock: Arc<Clock>,
    pub status: StatusFile,
    pub boot_id: String,
}

impl Ports {
    /// Says what becomes of a job that no journal is about, in a stream of its own. Not kept on disk: a
    /// restarted agent says it again.
    pub fn answer(&self, job: &Job, body: EventBody) {
        let Ok(bytes) = random::bytes() else { return };
        self.answer_as(job, StreamId::from_random(bytes), 0, body);
    }

    /// As [`Self::answer`], in the stream of a journal that was about it once.
    pub fn answer_as(&self, job: &Job, stream: StreamId, attempt: u32, body: EventBody) {
        self.uplink.answer(Draft {
            operation: job.operation,
            slot: job.slot.clone(),
            stream,
            attempt,
            at: None,
            body,
        });
    }
}

impl Environment {
    /// # Errors
    /// The run directory cannot be made.
    pub fn new(settings: Arc<Settings>, slot: SlotSettings, ports: Ports) -> std::io::Result<Self> {
        let paths = &settings.paths;
        let run_dir = paths.run_dir.join(slot.slot.as_str());
        files::create_private_dir(&run_dir)?;
        let results = Results::open(&paths.state_dir.join(slot.slot.as_str()));
        Ok(Self {
            policy: settings.policy(),
            boot_id: ports.boot_id,
            place: Place::new(&paths.sysfs, &paths.dev),
            uplink: ports.uplink,
            clock: ports.clock,
            holders: holders(&settings, &slot),
            guardian: Guardian::new(&run_dir),
            staging: staging(&settings),
            results,
            status: ports.status,
            job: JobContext::default(),
            retry_after_s: None,
            opens_in_s: None,
            last_reason: None,
            ticks: 0,
            settings,
            slot,
        })
    }

    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.job.manifest.as_ref().map(VerifiedManifest::manifest)
    }

    /// Where this slot's locks and exit records lie.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.settings.paths.run_dir.join(self.slot.slot.as_str())
    }

    /// Unix milliseconds, if anybody proved them.
    #[must_use]
    pub fn clock_ms(&self) -> Option<u64> {
        let (now, trust) = self.clock.now();
        (trust != Trust::Unset).then_some(now)
    }

    /// A milestone of `state`, into the outbox.
    pub fn report(&self, state: &State, body: EventBody) {
        self.uplink.report(Draft {
            operation: state.record.job.operation,
            slot: state.record.job.slot.clone(),
            stream: state.record.stream,
            attempt: state.record.attempts,
            at: self.clock_ms(),
            body,
        });
    }

    /// Progress within the phase, 0 to 100: only the latest counts.
    pub fn tick(&mut self, state: &State, within: u8, detail: Option<String>, stalled: bool) {
        // Rises within a process by itself, and over restarts with the clock, which OpenWrt never
        // sets back behind the newest file.
        self.ticks = (self.ticks + 1).max(clock::system_unix_ms().saturating_mul(1000));
        let phase = state.phase();
        let tick = Tick {
            v: shared::event::VERSION,
            operation: state.record.job.operation,
            slot: state.record.job.slot.clone(),
            stream: state.record.stream,
            attempt: state.record.attempts,
            n: self.ticks,
            phase,
            percent: phase.stage().percent(within),
            stalled,
            detail: detail.map(limits::cut),
            fetched: Some(self.job.fetched),
        };
        self.status.update(|status| status.goes_on(tick.clone()));
        self.uplink.tick(tick);
    }

    /// Who must let go: what the profile names, what the router's settings name, and netifd's interfaces on
    /// the modem. Those that would restart the router go first, for what follows is what they wait for.
    pub async fn who_holds(&self) -> Vec<Holder> {
        let own = &self.settings.holders;
        let held = self.job.profile.as_ref().map(|p| p.holds.clone()).unwrap_or_default();
        let service = |name: &String| Holder::Service(name.clone());
        let interfaces = own.interfaces.iter().cloned().map(Holder::Interface);
        let mut all: Vec<Holder> =
            held.rebooters.iter().chain(&own.rebooters).map(service).collect();
        all.extend(interfaces);
        all.extend(self.interfaces().await);
        all.push(self.modem_manager(held.modemmanager).await);
        all.extend(held.services.iter().chain(&own.services).map(service));
        let mut holders = Vec::new();
        for holder in all {
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
        holders
    }

    /// ModemManager as a whole, or for this modem alone where the profile says that it suffices and
    /// ModemManager knows the modem.
    async fn modem_manager(&self, how: ModemManager) -> Holder {
        let whole = Holder::Service("modemmanager".to_owned());
        // Without a profile it stays as it was taken.
        if how == ModemManager::Stop && self.job.profile.is_some() {
            return whole;
        }
        let taken = self.holders.taken().unwrap_or_default();
        if let Some(inhibited) = taken.into_iter().find(|h| matches!(h, Holder::Modem(_))) {
            return inhibited;
        }
        if how == ModemManager::Stop {
            return whole;
        }
        let sought = match self.job.bus_id.as_deref() {
            Some(bus_id) => Sought::At(bus_id),
            None => self.slot.sought(None),
        };
        match manager::find(&self.settings.paths.mmcli, sought).await {
            Ok(managed) => Holder::Modem(managed.uid),
            Err(error) => {
                log::warn!("{error}: ModemManager is stopped instead");
                whole
            }
        }
    }

    /// netifd's interfaces on this slot's modem: those that are up on it, and those that are configured to
    /// use it.
    async fn interfaces(&self) -> Vec<Holder> {
        let nodes = self.nodes();
        let mut interfaces = self.holders.interfaces_on(&nodes).await;
        let configuration = netifd::configuration(&self.settings.paths.init_dir);
        let configured = netifd::interfaces_using(&configuration, &nodes);
        interfaces.extend(configured.into_iter().map(Holder::Interface));
        interfaces
    }

    /// What this slot's modem is called: its place, ports, control and network devices. None where it is not
    /// certain which one that is. In download mode nothing says whose modem it is, and its ports are
    /// nobody's but a tool's.
    fn nodes(&self) -> Vec<String> {
        let snapshot = self.place.snapshot();
        let loaders = snapshot.abnormal();
        let download_mode = self.job.profile.as_ref().map(|p| p.fits.download_mode.clone());
        let download_mode = download_mode.unwrap_or_default();
        let place = self.job.bus_id.as_deref().or(self.slot.usb_path.as_deref());
        let alone =
            snapshot.modems().len() == 1 && loaders.is_empty() && self.settings.slots.len() == 1;
        let ours = |modem: &&Modem| place.map_or(alone, |place| modem.bus_id == place);
        let modems = snapshot.modems();
        let net = modems.iter().filter(ours).flat_map(|modem| modem.net.iter().cloned());
        let mut nodes: Vec<String> = net.collect();
        let places = modems.iter().filter(ours).map(|modem| modem.bus_id.as_str());
        let loaders = loaders.iter().filter(|loader| download_mode.contains(&loader.usb));
        for place in places.chain(loaders.map(|loader| loader.bus_id.as_str())) {
            nodes.push(place.to_owned());
            let device = snapshot.devices.iter().find(|device| device.bus_id == place);
            nodes.extend(device.into_iter().flat_map(UsbDevice::ttys));
            nodes.extend(self.place.control_devices(place));
        }
        nodes
    }
}

/// Those who let go of a slot's modem.
#[must_use]
pub fn holders(settings: &Settings, slot: &SlotSettings) -> Holders {
    let run_dir = settings.paths.run_dir.join(slot.slot.as_str());
    Holders::new(&run_dir, settings.holders.programs(&settings.paths))
}

/// Where a slot's journal lies.
#[must_use]
pub fn journal_path(settings: &Settings, slot: &SlotSettings) -> PathBuf {
    journal::path(&settings.paths.state_dir, &slot.slot)
}

/// Where this router mounts what may not be there yet.
#[must_use]
pub fn mounts() -> Mounts {
    Mounts::read(Path::new("/etc/config/fstab"))
}

/// The router's staging directories. What sysupgrade would pack into memory is never one.
#[must_use]
pub fn staging(settings: &Settings) -> Staging {
    let kept =
        staging::kept_paths(Path::new("/lib/upgrade/keep.d"), Path::new("/etc/sysupgrade.conf"));
    Staging::new(settings.paths.staging.clone(), settings.image.reserve_bytes, kept).on(mounts())
}
