//! What the modem looks like after the tool, whatever the tool said.

use super::{chain, judge, version_lines};
use crate::{
    environment::Environment,
    modem::{Condition, Seen, dialect},
    upgrade::state::{Outcome, Sighting, State},
};

impl Environment {
    pub(super) async fn probe(&mut self, state: &State) -> Outcome {
        if let Err(reason) = self.take_hold().await {
            return Outcome::Again { reason };
        }
        if self.profile_again(state).await.is_none() {
            return Outcome::Again { reason: "the tool profile or the manifest is gone".into() };
        }
        Outcome::Probed(self.sight(state).await)
    }

    /// Waits for the modem as long as it may take to boot, and says what is there.
    pub(super) async fn sight(&mut self, state: &State) -> Sighting {
        let before = state.record.before.as_ref();
        let imei = before.map(|b| b.imei.as_str());
        let (patience, place) = (self.boot_patience(), self.place.clone());
        let waited = tokio::select! {
            waited = self.answering(imei, patience) => waited,
            // A device that settles in one of its other modes will not answer by waiting longer.
            condition = settled(&place, patience) => return self.abnormal(condition),
        };
        let mut ready = match waited {
            Ok(ready) => ready,
            Err(not_ready) => {
                log::info!("{not_ready}");
                return self.unseen(not_ready.seen);
            }
        };
        let Some(manifest) = self.manifest() else { return Sighting::Silent };
        let commands = self.version_commands(manifest);
        let found = match dialect::read_versions(&mut ready.port, &commands).await {
            Ok(replies) => version_lines(replies),
            Err(error) => {
                log::warn!("the versions cannot be read: {}", chain(&error));
                return Sighting::Silent;
            }
        };
        judge(&manifest.reaches, before, &found)
    }

    fn unseen(&self, seen: Seen) -> Sighting {
        match seen {
            Seen::OtherModem { imei } => Sighting::WrongModem { imei },
            Seen::Silent => Sighting::Silent,
            Seen::Abnormal(condition) => self.abnormal(condition),
            Seen::Nothing => Sighting::Absent,
        }
    }

    fn abnormal(&self, condition: Condition) -> Sighting {
        let devices = self.place.snapshot().abnormal();
        let Some(device) = devices.first() else { return Sighting::Absent };
        if condition == Condition::CrashDump {
            return Sighting::CrashDump;
        }
        let profile = self.job.profile.as_ref();
        let known = profile.is_some_and(|p| p.fits.download_mode.contains(&device.usb));
        match devices.len() {
            1 if known => Sighting::DownloadMode,
            1 => Sighting::ForeignDownloadMode { usb: device.usb.to_string() },
            n => Sighting::Ambiguous { reason: format!("{n} devices are in download mode") },
        }
    }
}

/// A device that stays in another mode for a fifth of `patience`, with no modem beside it.
async fn settled(place: &crate::modem::Place, patience: std::time::Duration) -> Condition {
    let mut rounds = 0;
    let mut last = None;
    loop {
        let snapshot = place.snapshot();
        let now = snapshot.abnormal().first().map(|device| device.condition);
        rounds = if now.is_some() && now == last && snapshot.modems().is_empty() {
            rounds + 1
        } else {
            0
        };
        if let (Some(condition), 10) = (now, rounds) {
            return condition;
        }
        last = now;
        tokio::time::sleep(patience / 50).await;
    }
}
