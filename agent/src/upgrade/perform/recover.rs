//! A modem in download mode: exactly one, of ours, with nobody else at it; then the tool's recovery
//! with the staged image, without any network.

use super::install::{At, not_started};
use crate::{
    environment::Environment,
    guardian::profile::Purpose,
    processes,
    upgrade::state::{Outcome, Sighting, State},
    verify::VerifiedImage,
};
use shared::{failure::FailureKind, profile::ToolProfile};
use std::path::Path;

impl Environment {
    pub(super) async fn recover(&mut self, state: &State) -> Outcome {
        if let Err(reason) = self.check_sysupgrade() {
            return not_started(state, FailureKind::ToolNotStarted, reason);
        }
        if self.profile_again(state).is_none() {
            let reason = "the tool profile is gone from this router";
            return not_started(state, FailureKind::NoProfile, reason);
        }
        // Its ports are looked at: by one process at a time.
        if let Err(reason) = self.lock_modem() {
            return Outcome::Again { reason };
        }
        // First, while those who hold modems may still dial another one.
        let image = self.image_for_recovery(state).await;
        if let Err(reason) = self.take_hold(state).await {
            return Outcome::Again { reason };
        }
        if let Err(outcome) = self.see_loader(state).await {
            return outcome;
        }
        let image = match image {
            Ok(image) => image,
            Err(outcome) => return outcome,
        };
        self.pre_flash(state).await;
        // Meanwhile another device may have come, or the loader have become a modem again.
        if let Err(outcome) = self.see_loader(state).await {
            return outcome;
        }
        let device = self
            .place
            .snapshot()
            .abnormal()
            .into_iter()
            .find(|device| self.download_mode().contains(&device.usb));
        let Some(device) = device else {
            let reason = "the download mode is gone again";
            return not_started(state, FailureKind::ToolNotStarted, reason);
        };
        // Some tools drive the device through usbfs, without any port.
        let needs_port = self
            .job
            .profile
            .as_ref()
            .is_some_and(|p| p.tool.recovery_argv.iter().any(|argument| argument == "{port}"));
        let port = device.ttys.first().map(|name| self.place.port(name));
        if needs_port && port.is_none() {
            let reason = "the download mode has no port yet";
            return not_started(state, FailureKind::ToolNotStarted, reason);
        }
        let usb = self.usb_place(&device.bus_id, device.usb);
        let at = At { diag: None, port: port.as_deref(), usb: Some(&usb) };
        self.run_tool(state, Purpose::Recover, image, at).await
    }

    /// Nobody but us, and exactly one device that fits.
    async fn see_loader(&mut self, state: &State) -> Result<(), Outcome> {
        if let Some(reason) = self.foreign_tool() {
            return Err(Outcome::Probed(Sighting::Ambiguous { reason }));
        }
        match self.sight(state).await {
            Sighting::DownloadMode => Ok(()),
            other => Err(Outcome::Probed(other)),
        }
    }

    /// The staged image; if it is gone or spoilt, once more from the coordinator, should there be
    /// another way than over this modem.
    async fn image_for_recovery(&mut self, state: &State) -> Result<VerifiedImage, Outcome> {
        let staged = match self.verified_image(state).await {
            Ok(image) => return Ok(image),
            Err(outcome) => outcome,
        };
        // It may have become a modem again meanwhile: then no data is spent.
        if let Sighting::Target | Sighting::Old | Sighting::OtherVersion { .. } =
            self.sight(state).await
        {
            return Err(staged);
        }
        log::warn!("the staged image cannot be used: {staged:?}; it is fetched again");
        self.load_manifest(state).await.map_err(|_| staged)?;
        // Any place is better than none: the modem leads nowhere by now.
        if self.check_place(state, true).await.is_err() {
            self.check_place(state, false).await?;
        }
        // A modem in download mode goes before the data budget, which counts it all the same.
        match self.fetched(state, false).await {
            Outcome::Downloaded => self.verified_image(state).await,
            Outcome::Again { reason } => {
                Err(not_started(state, FailureKind::ToolNotStarted, reason))
            }
            other => Err(other),
        }
    }

    /// A process of the vendor's tool that is not ours: two of them on one modem brick it.
    pub(super) fn foreign_tool(&self) -> Option<String> {
        let program = Path::new(&self.job.profile.as_ref()?.tool.program);
        let paths = &self.settings.paths;
        let found = processes::running(&paths.proc, program, &paths.run_dir)?;
        Some(format!("{found} runs {}, and not for us", program.display()))
    }

    /// The profile of the job and the manifest, if it is still staged, found again by a fresh
    /// process without any network.
    pub(super) fn profile_again(&mut self, state: &State) -> Option<ToolProfile> {
        if self.job.manifest.is_none()
            && let Err(reason) = self.load_staged_manifest(state)
        {
            log::info!("the staged manifest cannot be used: {reason}");
        }
        if self.job.profile.is_none() {
            let name = &state.record.target.as_ref()?.profile;
            match crate::profiles::find(&self.settings.paths.profiles_dir, name) {
                Ok(profile) => self.job.profile = Some(profile),
                Err(error) => log::warn!("{}", super::chain(&error)),
            }
        }
        self.job.profile.clone()
    }
}
