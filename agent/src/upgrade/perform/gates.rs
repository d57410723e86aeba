//! The gates: what must hold before bytes are fetched, and again before the grant is asked for.
//! A closed gate that may open by itself postpones; one that cannot is a failure, the modem
//! untouched.

use super::{chain, lost_context, untouched};
use crate::{
    clock,
    environment::{self, Environment},
    files,
    hooks::{self, Postponed, Stage},
    route::{Network, Sole, Way},
    staging::{self, Durability, Mounts, NoPlace, Unusable},
    sysupgrade,
    upgrade::{
        results::Results,
        state::{Gates, Outcome, State},
    },
};
use shared::{failure::FailureKind, hex::Sha256, profile::ToolProfile};
use std::{path::Path, time::Duration};

/// Bytes that must be free where journal and outbox lie: file systems that write out of place need
/// room for every save.
const STATE_ROOM: u64 = 512 * 1024;
/// How long the picture of the modem from before holds likewise: then it is taken anew.
const PICTURE_HOLDS: Duration = Duration::from_secs(6 * 3600);
/// How long the answers of all gates hold while the grant is asked for.
const ANSWERS_HOLD: Duration = Duration::from_secs(5 * 60);

/// What may change by itself while nothing can be staged.
#[derive(Debug, Clone, Copy, Default)]
struct Chances {
    /// A directory is not there yet.
    mounts: bool,
    /// Another image takes room, and goes.
    room: bool,
    /// Another uplink may come back.
    way: bool,
}

impl Chances {
    fn help(self, error: &NoPlace) -> bool {
        self.mounts
            || match error {
                NoPlace::NoSpace { .. } => self.room,
                NoPlace::NotDurable(_) => self.way,
                NoPlace::Unusable(_) => false,
            }
    }
}

impl Environment {
    pub(super) async fn check_gates(&mut self, gates: Gates, state: &State) -> Outcome {
        self.look_at_way().await;
        let checked = match gates {
            Gates::Download => self.check_download(state).await,
            Gates::Commit => self.check_commit(state).await,
        };
        checked.err().unwrap_or(Outcome::GatesOpen)
    }

    async fn check_download(&mut self, state: &State) -> Result<(), Outcome> {
        self.check_storage(state).await?;
        self.check_budget(state).await
    }

    async fn check_commit(&mut self, state: &State) -> Result<(), Outcome> {
        self.check_storage(state).await?;
        self.check_staged()?;
        self.check_moment(state)?;
        self.check_surroundings(state).await?;
        let asked = self.hooks(Stage::PreCheck, state).await;
        asked.map_err(|postponed| Outcome::Again { reason: postponed.reason })?;
        self.job.gates_open = Some(clock::boottime());
        Ok(())
    }

    /// Right before the grant is asked for, again and again for hours perhaps: the coordinator may be out
    /// of reach. All gates once more where the way has changed or their answers are old, else those that
    /// close by themselves.
    pub(super) async fn check_again(&mut self, state: &State) -> Result<(), Outcome> {
        let since = |then: Duration| clock::boottime().saturating_sub(then);
        if self.job.pictured.is_none_or(|taken| since(taken) > PICTURE_HOLDS) {
            return Err(Outcome::GatesClosed);
        }
        let changed = self.look_at_way().await;
        let since = self.job.gates_open.map(since);
        if changed || since.is_none_or(|since| since > ANSWERS_HOLD) {
            self.check_commit(state).await
        } else {
            self.check_moment(state)
        }
    }

    /// With the grant, right before anything is held: what the coordinator was told of the way, and where
    /// the image lies, still hold.
    pub(super) async fn check_way(&mut self, state: &State) -> Result<(), String> {
        let changed = self.look_at_way().await;
        if changed && self.job.sole_uplink == Some(true) {
            return Err("the modem has become the only way to the coordinator".into());
        }
        self.check_survives(state)
    }

    /// ◆ What is staged survives a power cut where the modem is the only way back.
    pub(super) fn check_survives(&self, state: &State) -> Result<(), String> {
        let durability = self.job.staged.as_ref().map(staging::Staged::durability);
        if self.must_survive(state) && durability != Some(Durability::Durable) {
            let reason = "the modem is the only way to the coordinator, and what is staged does not \
                          survive a power cut";
            return Err(reason.into());
        }
        Ok(())
    }

    /// Looks which way leads to the coordinator now; whether it is another than before. A failover to
    /// the modem makes it the only one.
    async fn look_at_way(&mut self) -> bool {
        let Some(bus_id) = self.job.bus_id.clone() else { return false };
        let now = Some(self.is_sole_uplink(&bus_id).await);
        std::mem::replace(&mut self.job.sole_uplink, now) != now
    }

    /// What may close again while the grant is asked for: a sysupgrade, time, the maintenance window, memory.
    pub(super) fn check_moment(&mut self, state: &State) -> Result<(), Outcome> {
        self.check_sysupgrade().map_err(|reason| Outcome::Again { reason })?;
        self.check_time(state)?;
        self.check_window(state)?;
        self.check_free_memory()
    }

    /// A new system ends every tool, and may come without this agent.
    pub(super) fn check_sysupgrade(&self) -> Result<(), String> {
        sysupgrade::under_way(&self.settings.paths.run_dir).map_or(Ok(()), Err)
    }

    /// The router's own say.
    pub(super) async fn hooks(&self, stage: Stage, state: &State) -> Result<(), Postponed> {
        let image = self.manifest().map(|manifest| manifest.file.name.clone());
        let environment = [
            ("MODEM_UPGRADER_OPERATION", state.record.job.operation.0.to_string()),
            ("MODEM_UPGRADER_SLOT", self.slot.slot.to_string()),
            ("MODEM_UPGRADER_IMAGE", image.unwrap_or_default()),
        ];
        hooks::run(&self.settings.paths.hooks_dir, stage, &environment).await
    }

    async fn check_storage(&mut self, state: &State) -> Result<(), Outcome> {
        self.check_memory(state)?;
        self.check_place(state, self.must_survive(state)).await
    }

    /// What must be written while the modem is flashed has room now.
    fn check_memory(&self, state: &State) -> Result<(), Outcome> {
        let refuse =
            |detail: String| Err(Outcome::Failed(untouched(state, FailureKind::Storage, detail)));
        let own = self.results.trouble().map(str::to_owned);
        let anywhere = || Results::trouble_anywhere(&self.settings.paths.state_dir);
        if let Some(trouble) = own.or_else(anywhere) {
            return refuse(format!("the results of past upgrades are not certain: {trouble}"));
        }
        let (directory, sysfs) = (&self.settings.paths.state_dir, &self.settings.paths.sysfs);
        if let Some(reason) = late_after_a_cut(&environment::mounts(), directory, sysfs) {
            return Err(Outcome::Again { reason });
        }
        match staging::free_bytes(directory) {
            Ok(free) if free < STATE_ROOM => {
                log::info!("{} has {free} bytes free", directory.display());
                let place = directory.display();
                let reason = format!("{place} has less than {STATE_ROOM} bytes free");
                Err(Outcome::Again { reason })
            }
            Ok(_) => Ok(()),
            Err(error) => refuse(format!("{}: {error}", directory.display())),
        }
    }

    /// Whether a power cut must leave the image; what is not known counts as the only uplink.
    fn must_survive(&self, state: &State) -> bool {
        self.job.sole_uplink.unwrap_or(true) && !self.volatile_allowed(state)
    }

    /// Room for the image, on storage that survives a power cut where it has to.
    pub(super) async fn check_place(
        &mut self,
        state: &State,
        durable: bool,
    ) -> Result<(), Outcome> {
        let refuse = |kind, detail: String| Outcome::Failed(untouched(state, kind, detail));
        let journal = self.settings.paths.state_dir.clone();
        if staging::durability(&journal) != Durability::Durable {
            let detail =
                format!("the journal in {} does not survive a power cut", journal.display());
            return Err(refuse(FailureKind::Storage, detail));
        }
        let Some(manifest) = self.job.manifest.as_ref() else { return Err(lost_context(state)) };
        let file = &manifest.manifest().file;
        let (size, beside) = (file.size, file.decoded.as_ref().map_or(0, |decoded| decoded.size));
        let lost = |error| refuse(FailureKind::Storage, chain(&error));
        let (staging, digest) = (self.staging.clone(), *manifest.sha256());
        let staged = files::off_runtime(move || staging.stage(&digest, size, beside, durable))
            .await
            .map_err(lost)?
            .map_err(|error| self.no_place(&error, state, &digest))?;
        if let Some((bytes, signature)) = self.job.manifest_bytes.clone() {
            let place = staged.clone();
            files::off_runtime(move || place.keep_manifest(&bytes, &signature))
                .await
                .map_err(lost)?
                .map_err(|error| refuse(error.kind(), chain(&error)))?;
        }
        self.job.staged = Some(staged);
        Ok(())
    }

    /// The image is where it has to be by now: another place may be asked for than when it was fetched.
    fn check_staged(&self) -> Result<(), Outcome> {
        let size = self.manifest().map(|manifest| manifest.file.size);
        let whole =
            size.zip(self.job.staged.as_ref()).is_some_and(|(size, staged)| staged.holds(size));
        if whole { Ok(()) } else { Err(Outcome::ImageLost) }
    }

    /// Waits where a place may still appear, and says what is wrong where it will not.
    fn no_place(&self, error: &NoPlace, state: &State, manifest: &Sha256) -> Outcome {
        let unusable = self.staging.unusable();
        let mut text = self.explain(error, state);
        for Unusable { directory, reason } in &unusable {
            text.push_str(&format!("; {}: {reason}", directory.display()));
        }
        let chances = Chances {
            mounts: !unusable.is_empty() && self.may_still_come(),
            room: self.staging.is_shared(manifest),
            way: self.job.other_way || self.job.unresolved,
        };
        if chances.help(error) {
            Outcome::Again { reason: text }
        } else {
            Outcome::Failed(untouched(state, error.kind(), text))
        }
    }

    /// Both the router and the job have to accept it.
    fn volatile_allowed(&self, state: &State) -> bool {
        self.settings.image.allow_volatile_staging && state.record.job.allow_volatile_staging
    }

    /// What a person can do about it.
    fn explain(&self, error: &NoPlace, state: &State) -> String {
        let mut text = chain(error);
        if error.kind() == FailureKind::NoDurableStaging {
            text.push_str(
                "; the modem is the only way to the coordinator, so the image must survive a power \
                 cut: add a USB stick or SD card to paths.staging, or allow volatile staging",
            );
            if self.settings.image.allow_volatile_staging
                && !state.record.job.allow_volatile_staging
            {
                text.push_str(" in the job as well");
            }
        }
        text
    }

    /// Deadline and `not_after`, by a clock that somebody proved: without one nothing that has
    /// them is flashed.
    fn check_time(&self, state: &State) -> Result<(), Outcome> {
        let not_after = self.manifest().and_then(|manifest| manifest.not_after);
        if self.clock_ms().is_none() && (state.record.job.deadline.or(not_after)).is_some() {
            return Err(Outcome::Again { reason: "the clock is not set".into() });
        }
        self.check_deadline(state)?;
        match (not_after, self.clock_ms()) {
            (Some(not_after), Some(now)) if now > not_after => {
                let detail = "the manifest's not_after has passed";
                Err(Outcome::Failed(untouched(state, FailureKind::ManifestExpired, detail)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the job's deadline has passed for certain.
    pub(super) fn check_deadline(&self, state: &State) -> Result<(), Outcome> {
        match (state.record.job.deadline, self.clock_ms()) {
            (Some(deadline), Some(now)) if now > deadline => {
                let detail = "the job's deadline has passed";
                Err(Outcome::Failed(untouched(state, FailureKind::Expired, detail)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the way to the coordinator leads over this modem alone; what is unknown counts.
    pub(super) async fn is_sole_uplink(&mut self, bus_id: &str) -> bool {
        let paths = &self.settings.paths;
        let way = Way::find(self.uplink.base(), &paths.ip).await;
        let stops = self.job.profile.as_ref().is_none_or(ToolProfile::stops_modemmanager);
        let sole = Network::of(paths)
            .is_sole_during_flash(bus_id, &way, stops.then_some(&paths.mmcli))
            .await;
        log::info!("the uplink: {sole:?}");
        self.job.other_way |= matches!(sole, Sole::NotSole { .. });
        self.job.unresolved = sole == Sole::Unresolved;
        sole.counts_as_sole()
    }
}

/// ◆ Why the journals do not lie where they are read right after a power cut, before anything starts that would
/// use the modem.
fn late_after_a_cut(mounts: &Mounts, state_dir: &Path, sysfs: &Path) -> Option<String> {
    let (point, state_dir) = (mounts.late(state_dir, sysfs)?.display(), state_dir.display());
    Some(format!(
        "{state_dir} is below {point}, which may be mounted only after what would have to be held has started: \
         paths.state_dir belongs on the router's own flash, or on what an enabled entry of fstab has mounted and is \
         not on USB"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_there_before_the_network() {
        let mounts = Mounts::of(vec!["/mnt".into()]);
        let late = |path: &str| late_after_a_cut(&mounts, Path::new(path), Path::new("/sys"));
        assert!(late("/mnt/stick/state").unwrap().contains("below /mnt,"));
        assert_eq!(late("/etc/modem-upgrader/state"), None);
        assert_eq!(late("/mnt2/state"), None);
    }

    #[test]
    fn only_what_may_change_by_itself_is_waited_for() {
        let full = NoPlace::NoSpace { needed: 2, reserve: 0, free: 1 };
        let (volatile, none) = (NoPlace::NotDurable(vec![]), NoPlace::Unusable(vec![]));
        let nothing = Chances::default();
        for error in [&full, &volatile, &none] {
            assert!(!nothing.help(error), "{error}: somebody has to act");
            assert!(Chances { mounts: true, ..nothing }.help(error), "{error}");
        }
        assert!(Chances { room: true, ..nothing }.help(&full));
        assert!(Chances { way: true, ..nothing }.help(&volatile));
        assert!(!Chances { room: true, ..nothing }.help(&volatile));
        assert!(!Chances { way: true, ..nothing }.help(&full));
    }
}
