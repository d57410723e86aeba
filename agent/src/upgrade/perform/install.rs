//! Starts the tool through a guardian, waits for one that runs, and says what came of it.

use super::{LOOK, PORT_PATIENCE, chain, inspect::chosen_options, untouched};
use crate::{
    environment::Environment,
    guardian::{
        Ended, ExitRecord, NotStarted, Plan, Presence, Progress, Running, Verdict,
        is_another_running,
        profile::{Call, Places, Purpose, named_image, resolve},
        record::{FORMAT, Follow, Image, RunDir, Timeouts},
    },
    hooks::Stage,
    processes, sysupgrade,
    upgrade::state::{Outcome, State, ToolEnd},
    verify::VerifiedImage,
};
use shared::hex::Hasher;
use shared::{
    failure::{FailureKind, ModemCondition},
    ids::UsbId,
    profile::ToolProfile,
};
use std::path::{Path, PathBuf};
use tokio::time::Instant;
use uuid::Uuid;

/// Seconds without an agent after which a guardian gives back what is held.
const ORPHAN_GRACE_S: u64 = 600;

impl Environment {
    pub(super) async fn install(&mut self, state: &State) -> Outcome {
        if let Err(reason) = self.check_sysupgrade() {
            return not_started(state, FailureKind::ToolNotStarted, reason);
        }
        if let Err(reason) = self.take_hold(state).await {
            return not_started(state, FailureKind::ToolNotStarted, reason);
        }
        if let Some(reason) = self.foreign_tool() {
            return not_started(state, FailureKind::ToolNotStarted, reason);
        }
        // Hashed again, and this open file is what the tool gets.
        let image = match self.verified_image(state).await {
            Ok(image) => image,
            Err(outcome) => return outcome,
        };
        // Of several copies it may be another than the one that was fetched last.
        if let Err(reason) = self.check_survives(state) {
            return not_started(state, FailureKind::ToolNotStarted, reason);
        }
        self.pre_flash(state).await;
        // Last: the image and the hooks take their time, in which ports may get other names.
        let (diag, usb) = match self.diag_port(state).await {
            Ok(ports) => ports,
            Err(reason) => return not_started(state, FailureKind::ToolNotStarted, reason),
        };
        let at = At { diag: diag.as_deref(), port: None, usb: Some(&usb) };
        self.run_tool(state, Purpose::Install, image, at).await
    }

    /// The router's own preparation, before every start of the tool.
    pub(super) async fn pre_flash(&self, state: &State) {
        // Only a pre-check may object.
        let _ = self.hooks(Stage::PreFlash, state).await;
    }

    /// Once when all is over, whoever started the tool: a crash in between changes nothing.
    pub(super) async fn post_flash(&self, state: &State) -> Outcome {
        let _ = self.hooks(Stage::PostFlash, state).await;
        Outcome::PostFlashed
    }

    /// Resolves the call, hands it to a guardian and follows it.
    pub(super) async fn run_tool(
        &mut self,
        state: &State,
        purpose: Purpose,
        image: VerifiedImage,
        at: At<'_>,
    ) -> Outcome {
        let (Some(profile), Some(manifest)) = (self.job.profile.clone(), self.manifest()) else {
            return super::lost_context(state);
        };
        if let Some(reason) = self.port_in_use(&at).await {
            return not_started(state, FailureKind::ToolNotStarted, reason);
        }
        let state_dir = RunDir::new(&self.run_dir()).tool_state();
        let usb = at.usb.map(|(directory, id)| (directory.as_path(), *id));
        let At { diag, port, .. } = at;
        let places = Places { image: image.path(), diag, port, usb, state_dir: &state_dir };
        // The job's own options cannot be changed any more: one that is wrong would spoil every recovery.
        let options = match purpose {
            Purpose::Install => chosen_options(manifest, state),
            Purpose::Recover => manifest.tool.options.clone(),
        };
        let call = match resolve(&profile, purpose, &options, &places) {
            Ok(call) => call,
            Err(error) => return not_started(state, FailureKind::OptionRefused, chain(&error)),
        };
        // Counted before it is started, so that a crash cannot uncount it.
        let at = self.clock_ms();
        let imei = state.record.before.as_ref().map(|before| before.imei.as_str());
        if let Err(error) = self.results.flash(&self.slot.slot, imei, at) {
            if purpose == Purpose::Install {
                return not_started(state, FailureKind::ToolNotStarted, chain(&error));
            }
            log::error!("a start of the tool cannot be counted: {error}");
        }
        let plan = self.plan(state, &profile, call, &image);
        let (run_dir, own) = (self.settings.paths.run_dir.clone(), self.run_dir());
        let objection = || objection(&run_dir, &own);
        let started = self.guardian.start(&plan, &image, objection).await;
        // The guardian's own lock is there to be seen.
        self.job.begun = None;
        match started {
            Ok(running) => self.follow(state, running, &profile).await,
            // Not ours to judge, and nothing may be given back under it.
            Err(NotStarted::Busy) => self.attach(state).await,
            Err(error) => not_started(state, FailureKind::ToolNotStarted, chain(&error)),
        }
    }

    /// Who else has the tool's port open, after a moment to close it: two who use it brick the modem.
    async fn port_in_use(&self, at: &At<'_>) -> Option<String> {
        let deadline = Instant::now() + PORT_PATIENCE;
        loop {
            // A tool of ours that runs is attached to, not competed with.
            if self.guardian.attach().is_some() {
                return None;
            }
            let mut ports = at.diag.into_iter().chain(at.port);
            let user = |port: &Path| {
                let user = processes::having_open(&self.settings.paths.proc, port)?;
                Some(format!("{user} has {} open", port.display()))
            };
            let reason = ports.find_map(user)?;
            if Instant::now() >= deadline {
                return Some(reason);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn plan(
        &self,
        state: &State,
        profile: &ToolProfile,
        call: Call,
        image: &VerifiedImage,
    ) -> Plan {
        let limits = &profile.timeouts;
        let state_dir = RunDir::new(&self.run_dir()).tool_state();
        let ms = |seconds: u64| seconds.saturating_mul(1000);
        Plan {
            format: FORMAT,
            id: plan_id(state),
            boot_id: self.boot_id.clone(),
            program: call.program,
            argv: call.argv,
            environment: environment(profile),
            working_dir: self.run_dir(),
            image: planned(image, profile, &state_dir),
            output: profile.output.clone(),
            follow: profile.follow.as_ref().zip(call.follow).map(|(follow, (program, argv))| {
                Follow {
                    program,
                    argv,
                    every_ms: ms(follow.every_s),
                    running: follow.running.clone(),
                    log: follow.log.as_ref().map(|name| state_dir.join(name)),
                }
            }),
            timeouts: Timeouts {
                idle_ms: ms(limits.idle_s),
                total_ms: ms(limits.total_s),
                grace_ms: ms(limits.grace_s),
            },
            holders: self.settings.holders.programs(&self.settings.paths),
            agent_lock: Presence::lock_path(&self.settings.paths.run_dir),
            orphan_grace_s: ORPHAN_GRACE_S,
        }
    }

    /// A tool that an earlier life of this agent may have started.
    pub(super) async fn attach(&mut self, state: &State) -> Outcome {
        // First: it says who has to let go.
        let profile = self.profile_again(state);
        // A reboot may have started the holders again; without the tool's lock they only matter
        // when somebody opens the ports.
        if let Err(reason) = self.take_hold(state).await {
            log::warn!("{reason}");
        }
        let Some(profile) = profile else {
            return self.wait_unread().await;
        };
        match self.guardian.attach() {
            Some(running) => self.follow(state, running, &profile).await,
            None => Outcome::ToolEnded(match self.guardian.last_exit(plan_id(state)) {
                Some(record) => tool_end(&record, &profile),
                None => ToolEnd::Lost,
            }),
        }
    }

    /// The profile is gone: wait for the tool all the same, and let the modem speak.
    async fn wait_unread(&self) -> Outcome {
        if let Some(mut running) = self.guardian.attach() {
            running.wait().await;
        }
        Outcome::ToolEnded(ToolEnd::Lost)
    }

    async fn follow(
        &mut self,
        state: &State,
        mut running: Running,
        profile: &ToolProfile,
    ) -> Outcome {
        while let Some(progress) = running.next_progress().await {
            let Progress { percent, line, stalled, .. } = progress;
            self.tick(state, percent.unwrap_or(0), Some(line), stalled);
        }
        let ours = running.plan_id() == Some(plan_id(state));
        Outcome::ToolEnded(match running.wait().await {
            Ended::Exited(record) if ours => {
                log::info!("the tool ended: {record}");
                tool_end(&record, profile)
            }
            Ended::Exited(_) | Ended::Lost => ToolEnd::Lost,
        })
    }

    /// The diagnostic port and the USB device of the modem with the IMEI from before.
    async fn diag_port(&self, state: &State) -> Result<(Option<PathBuf>, UsbPlace), String> {
        let imei = state.record.before.as_ref().map(|b| b.imei.as_str());
        let ready = self.answering(imei, self.settings.modem.boot_silence).await;
        let ready = ready.map_err(|e| chain(&e))?;
        let needed = self.job.profile.as_ref().is_some_and(|p| p.needs.diag);
        let usb = self.usb_place(&ready.modem.bus_id, ready.modem.usb);
        match ready.modem.diag {
            Some(name) => Ok((Some(self.place.port(&name)), usb)),
            None if needed => Err("the modem's diagnostic port is not known".into()),
            None => Ok((None, usb)),
        }
    }

    pub(super) fn usb_place(&self, bus_id: &str, id: UsbId) -> UsbPlace {
        (self.settings.paths.sysfs.join("bus/usb/devices").join(bus_id), id)
    }
}

/// Why no tool may run on this router now, though none runs in this slot.
fn objection(run_dir: &Path, own: &Path) -> Option<String> {
    // Whatever the other slot is called, and whether the settings name it: one tool at a time.
    let other = is_another_running(run_dir, own).then(|| "another slot's tool runs".to_owned());
    other.or_else(|| sysupgrade::under_way(run_dir))
}

/// A device's directory in sysfs, and its id.
pub(super) type UsbPlace = (PathBuf, UsbId);

/// Where the tool finds its modem.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub diag: Option<&'a Path>,
    /// The download mode's port.
    pub port: Option<&'a Path>,
    pub usb: Option<&'a UsbPlace>,
}

/// Names one start of the tool, the same for every process that works on it.
fn plan_id(state: &State) -> Uuid {
    use crate::upgrade::state::Step;
    let recoveries = match state.step {
        Step::Recovering { tries, .. } => tries,
        _ => 0,
    };
    let mut hasher = Hasher::new();
    hasher.update(state.record.job.operation.0.as_bytes());
    hasher.update(state.record.stream.0.as_bytes());
    hasher.update(&state.record.attempts.to_be_bytes());
    hasher.update(&recoveries.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finish().0[..16]);
    Uuid::from_bytes(bytes)
}

fn planned(image: &VerifiedImage, profile: &ToolProfile, state_dir: &Path) -> Image {
    let (device, inode) = image.inode();
    Image {
        argument: profile.tool.image,
        path: image.path().to_owned(),
        device,
        inode,
        size: image.size(),
        link: named_image(&profile.tool, state_dir),
    }
}

pub(super) fn environment(profile: &ToolProfile) -> std::collections::BTreeMap<String, String> {
    let mut environment = profile.tool.environment.clone();
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    environment.entry("PATH".into()).or_insert_with(|| path.into());
    environment
}

fn tool_end(record: &ExitRecord, profile: &ToolProfile) -> ToolEnd {
    let kind = match record.verdict(&profile.exit) {
        Verdict::Succeeded => return ToolEnd::Success,
        Verdict::Failed => FailureKind::ToolFailed,
        Verdict::Refused => FailureKind::ToolRefused,
        Verdict::TimedOut => FailureKind::ToolTimeout,
    };
    ToolEnd::Failed { kind, detail: shared::limits::cut(record.to_string()) }
}

pub(super) fn not_started(state: &State, kind: FailureKind, detail: impl Into<String>) -> Outcome {
    let mut failure = untouched(state, kind, detail);
    if state.record.attempts > 1 {
        failure.condition = ModemCondition::OldVersion;
    }
    Outcome::NotStarted(failure)
}
