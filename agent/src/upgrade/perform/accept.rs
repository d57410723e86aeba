//! After the flash: restart, restore, and the comparison that alone makes a success.

use super::{all_found, chain, version_lines};
use crate::{
    environment::Environment,
    modem::{baseline, dialect},
    upgrade::state::{Outcome, State},
};
use shared::failure::{Failure, FailureKind, ModemCondition};

impl Environment {
    /// Only for tools that leave the modem running what it ran.
    pub(super) async fn restart(&mut self, state: &State) -> Outcome {
        let imei = state.record.before.as_ref().map(|b| b.imei.clone());
        match self.answering(imei.as_deref(), self.boot_patience()).await {
            Ok(mut ready) => match dialect::reboot(&mut ready.port).await {
                Ok(()) => Outcome::Restarted,
                Err(error) => Outcome::Again { reason: chain(&error) },
            },
            Err(error) => Outcome::Again { reason: chain(&error) },
        }
    }

    /// What a profile says the flash resets; none of the built-in profiles names anything yet.
    pub(super) async fn restore(&mut self, _state: &State) -> Outcome {
        Outcome::Restored
    }

    pub(super) async fn confirm(&mut self, state: &State) -> Outcome {
        if let Err(reason) = self.take_hold().await {
            return Outcome::Again { reason };
        }
        if self.profile_again(state).await.is_none() {
            return Outcome::Again { reason: "the tool profile or the manifest is gone".into() };
        }
        match self.confirmed(state).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn confirmed(&mut self, state: &State) -> Result<Outcome, Outcome> {
        let again = |reason: String| Outcome::Again { reason };
        let Some(manifest) = self.manifest() else { return Err(super::lost_context(state)) };
        let reaches = manifest.reaches.clone();
        let commands = self.version_commands(manifest);
        let before = state.record.before.as_ref();
        let imei = before.map(|b| b.imei.as_str());
        let mut ready =
            self.answering(imei, self.boot_patience()).await.map_err(|e| again(chain(&e)))?;
        let replies = dialect::read_versions(&mut ready.port, &commands)
            .await
            .map_err(|e| again(chain(&e)))?;
        let found = version_lines(replies);
        if !all_found(&reaches, &found) {
            let detail = "the versions changed between probing and confirming";
            return Err(Outcome::Failed(Failure::new(
                state.phase(),
                FailureKind::VersionMismatch,
                ModemCondition::OtherVersion,
                detail,
            )));
        }
        let now = baseline::baseline(&mut ready.port).await.map_err(|e| again(chain(&e)))?;
        let missing = before.map(|b| b.baseline.missing_network(&now)).unwrap_or_default();
        if let Some(missing) = missing {
            return Err(again(missing));
        }
        Ok(Outcome::Confirmed(reaches))
    }
}
