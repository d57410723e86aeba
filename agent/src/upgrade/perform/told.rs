//! The modem by whoever can tell of it: itself, or ModemManager while it has the modem's ports.
//!
//! What ModemManager does not know is left open until [`Environment::last_look`], which decides by the
//! modem's own word, once the ports are free and before a tool starts.

use super::{LOOK, all_found, chain, lost_context, untouched, version_lines};
use crate::{
    clock,
    environment::Environment,
    modem::{
        Baseline, Modem, NotReady, Port, Ready, Seen,
        dialect::{self, VersionCommands},
        manager::{self, Managed},
        standing, wait_ready,
    },
    upgrade::state::{Before, Outcome, State},
};
use shared::{event::VersionLine, failure::FailureKind, manifest::Manifest, profile::ToolProfile};
use tokio::time::Instant;

/// Who told, and can be asked for more.
enum Source {
    Modem(Port),
    Manager(Managed),
}

/// The modem as it is told of.
pub(super) struct Told {
    /// Without the baseline yet.
    pub before: Before,
    pub modem: Modem,
    source: Source,
}

impl Told {
    fn by_manager(managed: Managed, modem: Modem) -> Self {
        let before = Before {
            manufacturer: managed.manufacturer.clone(),
            model: managed.model.clone(),
            imei: managed.imei.clone(),
            versions: managed.versions(),
            baseline: Baseline::default(),
            by_modem: false,
        };
        Self { before, modem, source: Source::Manager(managed) }
    }

    /// Whether it runs these versions for certain.
    pub fn has(&self, wanted: &[VersionLine]) -> bool {
        all_found(wanted, &self.before.versions)
    }

    /// Whether it may run these versions, as far as is told.
    pub fn may_have(&self, wanted: &[VersionLine]) -> bool {
        let contradicts = |line: &VersionLine| {
            let of = |told: &&VersionLine| told.command == line.command && told.line == line.line;
            self.before.versions.iter().find(of).is_some_and(|told| told.value != line.value)
        };
        if self.before.by_modem { self.has(wanted) } else { !wanted.iter().any(contradicts) }
    }
}

impl Environment {
    /// The modem of the slot and its versions; the same modem as before, once there is a before.
    pub(super) async fn read_modem(
        &self,
        state: &State,
        manifest: &Manifest,
    ) -> Result<Told, Outcome> {
        let again = |reason| Outcome::Again { reason };
        let imei = state.record.before.as_ref().map(|b| b.imei.as_str());
        match self.answering(imei, self.settings.modem.boot_silence).await {
            Ok(ready) => self.told_by(ready, manifest).await.map_err(again),
            Err(NotReady { seen: Seen::InUse { by } }) => {
                let managed =
                    manager::find(&self.settings.paths.mmcli, self.slot.sought(imei)).await;
                match managed {
                    Ok(managed) if !managed.imei.is_empty() => {
                        let seen = self.place.snapshot().modems();
                        let ours = seen.into_iter().find(|modem| modem.bus_id == managed.bus_id);
                        match ours {
                            Some(modem) => Ok(Told::by_manager(managed, modem)),
                            None => Err(again(format!("no modem is seen at {}", managed.bus_id))),
                        }
                    }
                    Ok(_) => Err(again(format!("in use by {by}, which does not tell its IMEI"))),
                    Err(error) => Err(again(format!("in use by {by}; {}", chain(&error)))),
                }
            }
            Err(error) => Err(again(chain(&error))),
        }
    }

    async fn told_by(&self, mut ready: Ready, manifest: &Manifest) -> Result<Told, String> {
        let commands = self.version_commands(manifest);
        let replies = dialect::read_versions(&mut ready.port, &commands).await;
        let identity = ready.identity;
        let before = Before {
            manufacturer: identity.manufacturer,
            model: identity.model,
            imei: identity.imei,
            versions: version_lines(replies.map_err(|e| chain(&e))?),
            baseline: Baseline::default(),
            by_modem: true,
        };
        Ok(Told { before, modem: ready.modem, source: Source::Modem(ready.port) })
    }

    /// The modem by its own word, with its holders gone and nothing done to it.
    pub(super) async fn last_look(&mut self, state: &State) -> Result<Outcome, Outcome> {
        let failed =
            |reason| Outcome::Failed(untouched(state, FailureKind::ToolNotStarted, reason));
        let (Some(manifest), Some(profile)) = (self.manifest().cloned(), self.job.profile.clone())
        else {
            return Err(lost_context(state));
        };
        let ready = self.alone_with(state).await.map_err(failed)?;
        let mut told = self.told_by(ready, &manifest).await.map_err(failed)?;
        match self.judged(state, &manifest, &profile, &told) {
            Ok(Outcome::Inspected(_)) => {}
            // Nobody waits with the modem in hold.
            Err(Outcome::Again { reason }) => return Err(Outcome::Postponed { reason }),
            other => return other,
        }
        if let Source::Modem(port) = &mut told.source {
            self.measure_what_was_not_told(&profile.gates, port)
                .await
                .map_err(|e| failed(chain(&e)))?
                .map_err(|reason| Outcome::Postponed { reason })?;
            if state.record.before.as_ref().is_none_or(|before| !before.by_modem) {
                told.before.baseline =
                    standing::baseline(port).await.map_err(|e| failed(chain(&e)))?;
            }
        }
        let held = self.holders.taken().unwrap_or_default();
        Ok(Outcome::Prepared(Box::new(told.before), held))
    }

    /// The modem from before, with nobody else at its ports: a holder may need a moment to close them.
    async fn alone_with(&self, state: &State) -> Result<Ready, String> {
        let place = self.place.clone().sparing(&self.settings.paths.proc);
        let imei = state.record.before.as_ref().map(|b| b.imei.as_str());
        let deadline = Instant::now() + self.settings.modem.boot_silence;
        loop {
            match wait_ready(&place, self.slot.sought(imei), deadline).await {
                Ok(ready) => return Ok(ready),
                Err(NotReady { seen: Seen::InUse { .. } }) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(chain(&error)),
            }
        }
    }

    /// The modem as it is before the first attempt.
    pub(super) async fn baseline(&mut self, state: &State) -> Outcome {
        let (Some(manifest), Some(profile)) = (self.manifest().cloned(), self.job.profile.clone())
        else {
            return lost_context(state);
        };
        if let Err(reason) = self.lock_modem() {
            return Outcome::Again { reason };
        }
        let picture = match self.picture(state, &manifest, &profile).await {
            Ok(Outcome::Baselined(before)) => match self.obstacle(Some(&before.imei)).await {
                Some(reason) => Err(Outcome::Again { reason }),
                None => {
                    self.job.pictured = Some(clock::boottime());
                    Ok(Outcome::Baselined(before))
                }
            },
            other => other,
        };
        self.job.lock = None;
        match picture {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    /// Days may lie between inspecting and the grant: the same questions once more.
    async fn picture(
        &mut self,
        state: &State,
        manifest: &Manifest,
        profile: &ToolProfile,
    ) -> Result<Outcome, Outcome> {
        let mut told = self.read_modem(state, manifest).await?;
        match self.look(state, manifest, profile, &told).await? {
            Outcome::Inspected(_) => {}
            other => return Ok(other),
        }
        told.before.baseline = match &mut told.source {
            Source::Modem(port) => {
                standing::baseline(port).await.map_err(|e| Outcome::Again { reason: chain(&e) })?
            }
            Source::Manager(managed) => {
                manager::baseline(&self.settings.paths.mmcli, managed).await
            }
        };
        Ok(Outcome::Baselined(Box::new(told.before)))
    }

    /// The manifest decides by its own; the profile's only tell more.
    fn version_commands(&self, manifest: &Manifest) -> VersionCommands {
        let decisive = manifest.reaches.iter().chain(manifest.from.iter().flatten());
        let profile = self.job.profile.iter().flat_map(|p| &p.versions.commands);
        VersionCommands::new(decisive.map(|line| &line.command), profile)
    }
}
