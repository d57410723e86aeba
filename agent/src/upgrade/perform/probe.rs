//! What the modem looks like after the tool, whatever the tool said.

use super::{chain, judge, version_lines};
use crate::{
    environment::Environment,
    modem::{
        self, Condition, Ready, Survey,
        dialect::{self, VersionCommands},
        discovery::condition,
    },
    settings::SlotSettings,
    upgrade::{
        exclusion::{self, Scene},
        state::{Outcome, Sighting, State},
    },
};
use shared::ids::UsbId;
use std::time::Duration;
use tokio::time::Instant;

/// Between two questions to a modem that refuses to tell its versions.
const REFUSED: Duration = Duration::from_secs(2);

impl Environment {
    pub(super) async fn probe(&mut self, state: &State) -> Outcome {
        // First: it says who has to let go.
        self.profile_again(state);
        if let Err(reason) = self.take_hold(state).await {
            return Outcome::Again { reason };
        }
        Outcome::Probed(self.sight(state).await)
    }

    /// Waits for the modem as long as it may take to boot, and says what is there.
    pub(super) async fn sight(&mut self, state: &State) -> Sighting {
        let before = state.record.before.as_ref();
        let imei = before.map(|b| b.imei.as_str());
        let Some(target) = &state.record.target else { return Sighting::Silent };
        let known = before.iter().flat_map(|b| &b.versions);
        let commands = VersionCommands::new(
            target.reaches.iter().map(|line| &line.command),
            known.map(|line| &line.command),
        );
        let deadline = Instant::now() + self.boot_patience();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut ready = match self.wait_or_settle(imei, left).await {
                Ok(ready) => ready,
                Err(sighting) => return sighting,
            };
            match dialect::read_versions(&mut ready.port, &commands).await {
                Ok(replies) => return judge(&target.reaches, before, &version_lines(replies)),
                // Its identity comes before its versions, in a modem that boots.
                Err(error) if Instant::now() + REFUSED < deadline => {
                    log::info!("the versions cannot be read yet: {}", chain(&error));
                }
                Err(error) => {
                    log::warn!("the versions cannot be read: {}", chain(&error));
                    return Sighting::Silent;
                }
            }
            drop(ready);
            tokio::time::sleep(REFUSED).await;
        }
    }

    /// The modem, or what it is instead: at once where a device settles in a mode of ours, which
    /// will not answer by waiting longer, and otherwise when the whole patience is over.
    async fn wait_or_settle(
        &self,
        imei: Option<&str>,
        patience: Duration,
    ) -> Result<Ready, Sighting> {
        let deadline = Instant::now() + patience;
        tokio::select! {
            waited = self.answering(imei, patience) => match waited {
                Ok(ready) => return Ok(ready),
                Err(not_ready) => {
                    log::info!("{not_ready}");
                    return Err(self.by_exclusion(imei).await);
                }
            },
            () = self.settled(self.boot_patience()) => {}
        }
        match self.by_exclusion(imei).await {
            // Others may still be booting; a person is asked only when all had their time.
            Sighting::Ambiguous { reason } => log::info!("{reason}; waiting"),
            sighting => return Err(sighting),
        }
        match self.answering(imei, deadline.saturating_duration_since(Instant::now())).await {
            Ok(ready) => Ok(ready),
            Err(_) => Err(self.by_exclusion(imei).await),
        }
    }

    /// Asks everybody on the bus, and judges by who is left.
    async fn by_exclusion(&self, imei: Option<&str>) -> Sighting {
        self.survey(imei, exclusion::decide).await
    }

    /// Why a flash of our modem should not be begun now, by who else is on the bus. The caller holds
    /// the modems' lock.
    pub(super) async fn obstacle(&self, imei: Option<&str>) -> Option<String> {
        // That ours is mute at this moment is no reason: the tool's start waits for it.
        let is_ours = |bus_id: &String| self.job.bus_id.as_ref() == Some(bus_id);
        self.survey(imei, |scene| {
            let silent: Vec<_> = scene.silent.iter().filter(|id| !is_ours(id)).cloned().collect();
            exclusion::obstacle(&Scene { silent: &silent, ..*scene })
        })
        .await
    }

    async fn survey<T>(&self, imei: Option<&str>, judge: impl FnOnce(&Scene<'_>) -> T) -> T {
        let paths = &self.settings.paths;
        let place = self.place.clone().sparing(&paths.proc);
        let Survey { answering, silent, abnormal } = modem::survey(&place, &paths.mmcli).await;
        let abnormal: Vec<_> = abnormal.iter().map(|d| (d.usb, d.condition)).collect();
        let others: Vec<_> = self.other_slots().filter_map(|s| s.imei.as_deref()).collect();
        judge(&Scene {
            ours: imei.or(self.slot.imei.as_deref()),
            others: &others,
            answering: &answering,
            silent: &silent,
            abnormal: &abnormal,
            download_mode: self.download_mode(),
        })
    }

    fn other_slots(&self) -> impl Iterator<Item = &SlotSettings> {
        self.settings.slots.iter().filter(|slot| slot.slot != self.slot.slot)
    }

    /// The download modes that the profile's tool recovers from.
    pub(super) fn download_mode(&self) -> &[UsbId] {
        self.job.profile.as_ref().map_or(&[], |p| &p.fits.download_mode)
    }

    /// Ends when a device of the profile stays in download mode, or in a crash dump, for a fifth of
    /// `patience`, with exactly the modems of the other slots beside it. Never for another id: a
    /// phone in fastboot is no reason to give up on a modem that boots.
    async fn settled(&self, patience: Duration) {
        let others = self.other_slots().count();
        let mut rounds = 0;
        let mut last = None;
        while rounds < SETTLED_ROUNDS {
            let snapshot = self.place.snapshot();
            let now = snapshot.abnormal().into_iter().map(|device| device.usb).find(|usb| {
                self.download_mode().contains(usb) || condition(*usb) == Some(Condition::CrashDump)
            });
            let same = now.is_some() && now == last && snapshot.modems().len() == others;
            rounds = if same { rounds + 1 } else { 0 };
            last = now;
            tokio::time::sleep(patience / 50).await;
        }
    }
}

/// Fiftieths of the patience that a device has to stay as it is.
const SETTLED_ROUNDS: u32 = 10;
