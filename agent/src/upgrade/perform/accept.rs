//! After the flash: restore, and the comparison that alone makes a success.

use super::{all_found, chain, version_lines};
use crate::{
    environment::Environment,
    modem::{
        Baseline, Difference, PortError, Ready,
        dialect::{self, ModemError, VersionCommands},
        standing,
    },
    upgrade::state::{Outcome, State},
};
use shared::{
    failure::{Failure, FailureKind, ModemCondition},
    profile::Restore,
};

/// Looks for which a SIM may be locked after a restart before that is all that is said: some modems give
/// it its PIN themselves.
const UNLOCKING: u32 = 3;

impl Environment {
    /// Settings that the flash has reset, as far as the profile names them; one at a time where the
    /// modem restarts by itself after it. Another USB composition comes back under another id.
    pub(super) async fn restore(&mut self, state: &State) -> Outcome {
        match self.restored(state).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn restored(&mut self, state: &State) -> Result<Outcome, Outcome> {
        let mut ready = self.back(state).await?;
        let now = standing::baseline(&mut ready.port).await.map_err(|e| unheard(&e))?;
        let restore = self.profile_again(state).map(|profile| profile.restore).unwrap_or_default();
        let lost = lost_settings(state, &now, &restore);
        for difference in &lost {
            log::info!("restoring {difference:?}");
            standing::restore(&mut ready.port, difference).await.map_err(|e| unheard(&e))?;
            let setting = difference.setting();
            if setting.is_some_and(|setting| restore.restarts.contains(&setting)) {
                let reason = format!("restored {difference:?}; the modem restarts");
                return Err(Outcome::Again { reason });
            }
        }
        // What was written is read back before it counts.
        match lost.last() {
            None => Ok(Outcome::Restored),
            Some(last) => Err(Outcome::Again { reason: format!("restored {last:?}") }),
        }
    }

    pub(super) async fn confirm(&mut self, state: &State) -> Outcome {
        match self.confirmed(state).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn confirmed(&mut self, state: &State) -> Result<Outcome, Outcome> {
        let Some(target) = &state.record.target else { return Err(super::lost_context(state)) };
        let mut ready = self.back(state).await?;
        let commands = VersionCommands::new(target.reaches.iter().map(|l| &l.command), []);
        let replies =
            dialect::read_versions(&mut ready.port, &commands).await.map_err(|e| unheard(&e))?;
        if !all_found(&target.reaches, &version_lines(replies)) {
            let detail = "the versions changed between probing and confirming";
            return Err(Outcome::Failed(Failure::new(
                state.phase(),
                FailureKind::VersionMismatch,
                ModemCondition::OtherVersion,
                detail,
            )));
        }
        let now = standing::baseline(&mut ready.port).await.map_err(|e| unheard(&e))?;
        if now.is_locked() && state.tries < UNLOCKING {
            return Err(Outcome::Again { reason: "the SIM waits for its PIN".into() });
        }
        let before = state.record.before.as_ref().map(|before| &before.baseline);
        let not_compared = match before {
            None => Some("there is no baseline from before"),
            Some(before) => before.not_comparable(&now),
        };
        let missing = before
            .filter(|_| not_compared.is_none())
            .and_then(|before| before.missing_network(&now));
        let restore = self.profile_again(state).map(|profile| profile.restore).unwrap_or_default();
        let lost = lost_settings(state, &now, &restore);
        let lost = lost.first().map(|lost| format!("not restored: {lost:?}"));
        match missing.or(lost) {
            Some(reason) => Err(Outcome::Again { reason }),
            None => {
                let comparable = before.filter(|_| not_compared.is_none());
                let remark = comparable.and_then(|before| before.remark(&now));
                let not_compared = not_compared.map(str::to_owned);
                Ok(Outcome::Confirmed { not_compared, remark })
            }
        }
    }

    /// The modem from before, answering.
    async fn back(&mut self, state: &State) -> Result<Ready, Outcome> {
        self.take_hold(state).await.map_err(|reason| Outcome::Again { reason })?;
        let imei = state.record.before.as_ref().map(|b| b.imei.clone());
        self.answering(imei.as_deref(), self.boot_patience()).await.map_err(|e| vanished(&e))
    }
}

/// A modem that does not answer may be gone, and what is there now decides. One that says no is there: that is
/// tried again as long as acceptance may take.
fn unheard(error: &ModemError) -> Outcome {
    match error {
        ModemError::Port(
            PortError::Refused { .. } | PortError::TooLong { .. } | PortError::NotACommand { .. },
        )
        | ModemError::Unreadable { .. }
        | ModemError::Unsteady { .. } => Outcome::Again { reason: chain(error) },
        ModemError::Port(
            PortError::Open { .. }
            | PortError::OpenHangs { .. }
            | PortError::Gone
            | PortError::Timeout { .. }
            | PortError::Io(_),
        ) => vanished(error),
    }
}

fn vanished(error: &dyn std::error::Error) -> Outcome {
    Outcome::Vanished { reason: chain(error) }
}

/// What was set before and is set otherwise now, in the order in which the profile puts it back. A
/// setting that the new firmware does not tell cannot be compared.
fn lost_settings(state: &State, now: &Baseline, restore: &Restore) -> Vec<Difference> {
    let before = state.record.before.as_ref().map(|b| b.baseline.clone()).unwrap_or_default();
    let told = |difference: &Difference| match difference {
        Difference::FirmwareSwitch { after, .. } | Difference::UsbComposition { after, .. } => {
            after.is_some()
        }
        Difference::Context { .. } => true,
        Difference::Sim { .. } | Difference::SimCard { .. } | Difference::Network => false,
    };
    let place = |difference: &Difference| {
        let setting = difference.setting()?;
        restore.commands.iter().position(|command| *command == setting)
    };
    let differences = before.differences(now).into_iter().filter(told);
    let mut lost: Vec<_> = differences.filter_map(|d| Some((place(&d)?, d))).collect();
    lost.sort_by_key(|(place, _)| *place);
    lost.into_iter().map(|(_, difference)| difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modem::at::Final;

    #[test]
    fn a_modem_that_says_no_is_there() {
        let command = || "AT#FWSWITCH=40,0,0".to_owned();
        let refused = PortError::Refused { command: command(), result: Final::Error };
        let unsteady = ModemError::Unsteady { command: command() };
        for there in [refused.into(), PortError::TooLong { command: command() }.into(), unsteady] {
            assert!(matches!(unheard(&there), Outcome::Again { .. }), "{there}");
        }
        let mute = PortError::Timeout { command: command(), limit: std::time::Duration::ZERO };
        for away in [PortError::Gone, mute] {
            let away = away.into();
            assert!(matches!(unheard(&away), Outcome::Vanished { .. }), "{away}");
        }
    }
}
