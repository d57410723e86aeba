//! Looks at the job, the manifest, the profile and the modem, and refuses what cannot work while
//! nothing is touched.

use super::{chain, lost_context, told::Told, untouched};
use crate::{
    clock,
    commands::{self, Call},
    environment::Environment,
    modem::{
        Bus, Modem,
        driver::{Binds, Kernel},
    },
    profiles,
    upgrade::{
        results::Results,
        state::{Before, Outcome, State, Target},
    },
};
use shared::{
    desired::CAPABILITIES,
    event::VersionLine,
    failure::FailureKind,
    manifest::Manifest,
    profile::{ToolProfile, options},
};
use std::path::Path;

/// How long a tool may take to show that it runs.
const PROBE: std::time::Duration = std::time::Duration::from_secs(15);
const THIRTY_DAYS_MS: u64 = 30 * 24 * 3600 * 1000;

impl Environment {
    pub(super) async fn inspect(&mut self, state: &State) -> Outcome {
        match self.inspected(state).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn inspected(&mut self, state: &State) -> Result<Outcome, Outcome> {
        let refuse = |kind, detail: String| Outcome::Failed(untouched(state, kind, detail));
        self.check_deadline(state)?;
        if let Some(refused) = &self.settings.refused {
            let reason = format!("the router's settings are refused: {refused}");
            return Err(Outcome::Again { reason });
        }
        let job = &state.record.job;
        if let Some(unknown) = job.requires.iter().find(|r| !CAPABILITIES.contains(&r.as_str())) {
            let detail = format!("the job requires {unknown:?}; upgrade this agent");
            return Err(refuse(FailureKind::AgentTooOld, detail));
        }
        self.load_manifest(state).await?;
        let manifest = self.manifest().cloned().ok_or_else(|| lost_context(state))?;
        let profile = self.load_profile(&manifest).map_err(|(k, d)| refuse(k, d))?;
        self.check_manifest(&manifest).map_err(|(k, d)| refuse(k, d))?;
        let chosen = chosen_options(&manifest, state);
        options::argv(&profile.options, &chosen)
            .map_err(|e| refuse(FailureKind::OptionRefused, e.to_string()))?;
        self.check_needs(&profile).await.map_err(|detail| {
            // Modules are loaded, and sticks mounted, when they are found.
            if self.may_still_come() {
                Outcome::Again { reason: detail }
            } else {
                refuse(FailureKind::ToolMissing, detail)
            }
        })?;
        self.lock_modem().map_err(|reason| Outcome::Again { reason })?;
        let looked = match self.read_modem(state, &manifest).await {
            Ok(told) => self.look(state, &manifest, &profile, &told).await,
            Err(outcome) => Err(outcome),
        };
        // Between looking and flashing others may use the modem.
        self.job.lock = None;
        looked
    }

    pub(super) async fn look(
        &mut self,
        state: &State,
        manifest: &Manifest,
        profile: &ToolProfile,
        told: &Told,
    ) -> Result<Outcome, Outcome> {
        let bus_id = &told.modem.bus_id;
        self.job.bus_id = Some(bus_id.clone());
        self.job.sole_uplink = Some(self.is_sole_uplink(bus_id).await);
        self.judged(state, manifest, profile, told)
    }

    /// Whether the firmware is for this modem, as far as is told of it.
    pub(super) fn judged(
        &self,
        state: &State,
        manifest: &Manifest,
        profile: &ToolProfile,
        told: &Told,
    ) -> Result<Outcome, Outcome> {
        let refuse = |kind, detail: String| Outcome::Failed(untouched(state, kind, detail));
        let Before { manufacturer, model, by_modem, .. } = &told.before;
        // ModemManager has makers' names of its own.
        let vendor = if *by_modem { manufacturer } else { &manifest.vendor };
        if !manifest.fits(vendor, model) {
            let wanted = manifest.models.join(", ");
            let detail =
                format!("the firmware is for {wanted}, the modem is a {manufacturer} {model}");
            return Err(refuse(FailureKind::WrongModel, detail));
        }
        if !profile.fits(vendor, model) {
            let detail = format!("profile {} is not for a {vendor} {model}", profile.name);
            return Err(refuse(FailureKind::NoProfile, detail));
        }
        check_bus(profile, &told.modem).map_err(|detail| refuse(FailureKind::NoProfile, detail))?;
        check_diag(state, profile, &told.modem)?;
        let target = Box::new(target(manifest, model, profile));
        if told.has(&manifest.reaches) {
            return Ok(Outcome::AlreadyInstalled(target));
        }
        if !manifest.from.is_empty() && !manifest.from.iter().any(|set| told.may_have(set)) {
            let found = describe(&told.before.versions);
            let detail = format!("the firmware does not start from {found}");
            return Err(refuse(FailureKind::WrongStartVersion, detail));
        }
        self.check_history(state, manifest, &told.before)?;
        Ok(Outcome::Inspected(target))
    }

    fn load_profile(&mut self, manifest: &Manifest) -> Result<ToolProfile, (FailureKind, String)> {
        let name = &manifest.tool.profile;
        let profile = profiles::find(&self.settings.paths.profiles_dir, name)
            .map_err(|e| (FailureKind::NoProfile, chain(&e)))?;
        self.job.profile = Some(profile.clone());
        Ok(profile)
    }

    fn check_manifest(&self, manifest: &Manifest) -> Result<(), (FailureKind, String)> {
        match (manifest.not_after, self.clock_ms()) {
            (Some(not_after), Some(now)) if now > not_after => {
                Err((FailureKind::ManifestExpired, "the manifest's not_after has passed".into()))
            }
            _ => Ok(()),
        }
    }

    /// The tool and its kernel driver, while the modem is untouched.
    async fn check_needs(&self, profile: &ToolProfile) -> Result<(), String> {
        use std::os::unix::fs::PermissionsExt;
        let program = &profile.tool.program;
        let runs = std::fs::metadata(program)
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if !runs {
            return Err(format!("{program} is not an executable file"));
        }
        check_runs(profile).await?;
        let drivers = self.settings.paths.sysfs.join("bus/usb/drivers");
        match profile.needs.drivers.iter().find(|name| !drivers.join(name).exists()) {
            Some(name) => Err(format!("the kernel driver {name} is not loaded")),
            None => self.check_download_mode(profile),
        }
    }

    /// Whether a modem in download mode would get a port: without one the tool loses it.
    fn check_download_mode(&self, profile: &ToolProfile) -> Result<(), String> {
        if !profile.needs.binds_download_mode {
            return Ok(());
        }
        let paths = &self.settings.paths;
        let kernel = Kernel::new(&paths.sysfs, &paths.proc, Path::new("/lib/modules"));
        for id in &profile.fits.download_mode {
            let drivers = profile.needs.drivers.iter();
            let told: Vec<_> = drivers.map(|driver| kernel.binds(driver, *id)).collect();
            if told.contains(&Binds::Yes) {
                continue;
            }
            let drivers = profile.needs.drivers.join(", ");
            return Err(if told.contains(&Binds::Unknown) {
                format!(
                    "whether {drivers} drives {id}, the download mode, cannot be told of this kernel; \
                     a profile with needs.binds_download_mode = false does not ask"
                )
            } else {
                format!("{drivers} does not drive {id}, the download mode")
            });
        }
        Ok(())
    }

    /// Whether what is missing may come by itself: the router has only just started.
    pub(super) fn may_still_come(&self) -> bool {
        clock::boottime() < self.settings.upgrade.settle
    }

    fn check_history(
        &self,
        state: &State,
        manifest: &Manifest,
        modem: &Before,
    ) -> Result<(), Outcome> {
        let refuse = |kind, detail: String| Err(Outcome::Failed(untouched(state, kind, detail)));
        let state_dir = &self.settings.paths.state_dir;
        let installed = Results::sequence_anywhere(state_dir, &manifest.vendor, &modem.model);
        if let Some(installed) = installed.filter(|i| manifest.sequence < *i)
            && !manifest.allow_rollback
        {
            let detail =
                format!("sequence {} is below {installed}, which was installed", manifest.sequence);
            return refuse(FailureKind::SequenceTooLow, detail);
        }
        let now = self.clock_ms();
        let since = now.unwrap_or(0).saturating_sub(THIRTY_DAYS_MS);
        let slot = &self.slot.slot;
        let flashed = Results::flashes_anywhere(state_dir, slot, Some(&modem.imei), since);
        let most = self.settings.upgrade.max_flashes_per_30_days;
        if flashed < most {
            return Ok(());
        }
        if now.is_none() {
            let reason = "how often the modem was flashed in 30 days waits for the clock to be set";
            return Err(Outcome::Again { reason: reason.into() });
        }
        let detail = format!("flashed {flashed} times in 30 days; this router allows {most}");
        refuse(FailureKind::TooManyFlashes, detail)
    }
}

/// Whether the tool reaches a modem that is attached like this.
fn check_bus(profile: &ToolProfile, modem: &Modem) -> Result<(), String> {
    let Modem { bus_id, usb, .. } = modem;
    match modem.bus {
        Bus::Pcie => Err(format!("the modem at {bus_id} is on PCIe, and is flashed over USB only")),
        Bus::Usb if !profile.fits_usb(*usb) => {
            Err(format!("profile {} is not for a modem that is {usb} on USB", profile.name))
        }
        Bus::Usb => Ok(()),
    }
}

/// Whether the port is there that the tool wants: before the grant, and before anybody lets go.
fn check_diag(state: &State, profile: &ToolProfile, modem: &Modem) -> Result<(), Outcome> {
    if !profile.needs.diag || modem.diag.is_some() {
        return Ok(());
    }
    if modem.has_known_ports() {
        let reason = "the modem's diagnostic port, which the tool needs, is not there";
        return Err(Outcome::Again { reason: reason.into() });
    }
    let detail = format!("which port of a {} is the diagnostic one is not known", modem.usb);
    Err(Outcome::Failed(untouched(state, FailureKind::NoProfile, detail)))
}

/// Whether the tool is a program for this processor with all its libraries, by a call that touches
/// no modem.
async fn check_runs(profile: &ToolProfile) -> Result<(), String> {
    let arguments: Vec<&str> = profile.needs.probe_argv.iter().map(String::as_str).collect();
    if arguments.is_empty() {
        return Ok(());
    }
    let program = &profile.tool.program;
    let environment: Vec<_> = super::install::environment(profile).into_iter().collect();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let call = Call {
        environment: Some(&environment),
        ..Call::new(Path::new(program), &arguments, PROBE)
    };
    let shown = arguments.join(" ");
    match commands::run(&call).await {
        Err(error) => Err(format!("{program} {shown}: {error}")),
        // As shells tell "not found" and "cannot be executed"; loaders end so without a library.
        Ok(done) if matches!(done.status.code(), Some(126 | 127) | None) => {
            Err(format!("{program} {shown} ended with {}: it does not run here", done.status))
        }
        Ok(_) => Ok(()),
    }
}

/// Signed options, with the job's on top: both are checked against the profile.
pub(super) fn chosen_options(
    manifest: &Manifest,
    state: &State,
) -> std::collections::BTreeMap<String, shared::desired::OptionValue> {
    let mut chosen = manifest.tool.options.clone();
    chosen.extend(state.record.job.options.clone());
    chosen
}

fn target(manifest: &Manifest, model: &str, profile: &ToolProfile) -> Target {
    Target {
        vendor: manifest.vendor.clone(),
        model: model.to_owned(),
        sequence: manifest.sequence,
        reaches: manifest.reaches.clone(),
        profile: manifest.tool.profile.clone(),
        network_s: profile.timeouts.network_s,
    }
}

fn describe(versions: &[VersionLine]) -> String {
    let lines: Vec<_> = versions.iter().map(|l| format!("{} {}", l.command, l.value)).collect();
    lines.join(", ")
}
