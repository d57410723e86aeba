//! The manifest, the image and the proof that what is staged is what was signed.

use super::{chain, install::not_started, lost_context, untouched};
use crate::{
    environment::Environment,
    files,
    gates::budget::Budget,
    source::{Download, Source, SourceError, Transfer},
    staging::{self, Staged, Undecodable},
    upgrade::state::{Outcome, State, Step},
    verify::{self, ManifestRefused, SignaturePolicy, VerifiedImage, VerifiedManifest},
};
use shared::{failure::FailureKind, manifest::Decoded};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Between two ticks of progress.
const TICK: Duration = Duration::from_millis(500);

impl Environment {
    /// The job's manifest, from the staging of an earlier life or from the coordinator. Its
    /// signature is checked before it is parsed, whichever way it came.
    pub(super) async fn load_manifest(&mut self, state: &State) -> Result<(), Outcome> {
        if self.load_staged_manifest(state).is_ok() {
            return Ok(());
        }
        let source = self.source()?;
        let image = &state.record.job.image.id;
        let failed = |error: SourceError| match error {
            SourceError::NotFound => {
                let detail = "the coordinator has no manifest for the image".to_owned();
                Outcome::Failed(untouched(state, FailureKind::NoManifest, detail))
            }
            error => self.unfetched(state, &error),
        };
        let bytes = source.manifest(image).await.map_err(failed)?;
        let signature = source.signature(image).await.map_err(failed)?.unwrap_or_default();
        let manifest = self
            .verified_manifest(state, &bytes, &signature)
            .map_err(|(kind, detail)| Outcome::Failed(untouched(state, kind, detail)))?;
        self.job.manifest = Some(manifest);
        self.job.manifest_bytes = Some((bytes, signature));
        Ok(())
    }

    /// Only what is staged: needs no network.
    pub(super) fn load_staged_manifest(&mut self, state: &State) -> Result<(), String> {
        let found = self.staged_copies(state);
        let mut refused = "no manifest is staged".to_owned();
        for staged in &found {
            match self.read_staged_manifest(state, staged) {
                Ok((manifest, bytes)) => {
                    self.job.manifest = Some(manifest);
                    // For the place that the image goes to, should that become another one.
                    self.job.manifest_bytes = Some(bytes);
                    // Not necessarily this one: the best copy may have lost its manifest.
                    self.job.staged = found.into_iter().next();
                    return Ok(());
                }
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }

    /// The copies of the job's image, those first that seem whole.
    fn staged_copies(&self, state: &State) -> Vec<Staged> {
        let image = &state.record.job.image;
        self.staging.find_all(&image.manifest_sha256, image.size)
    }

    fn read_staged_manifest(
        &self,
        state: &State,
        staged: &Staged,
    ) -> Result<(VerifiedManifest, (Vec<u8>, String)), String> {
        let (bytes, signature) = staged.manifest().map_err(|error| error.to_string())?;
        let verified = self.verified_manifest(state, &bytes, &signature);
        let manifest = verified.map_err(|(kind, detail)| format!("{kind}: {detail}"))?;
        Ok((manifest, (bytes, signature)))
    }

    /// Whether the manifest is still one to be flashed: between its arrival and the grant days may have passed, in
    /// which its key was revoked.
    pub(super) fn check_trust(&self, state: &State) -> Result<(), Outcome> {
        let Some(staged) = &self.job.staged else { return Err(Outcome::ImageLost) };
        let Ok((bytes, signature)) = staged.manifest() else { return Err(Outcome::ImageLost) };
        let verified = self.verified_manifest(state, &bytes, &signature);
        verified.map(drop).map_err(|(kind, detail)| Outcome::Failed(untouched(state, kind, detail)))
    }

    fn verified_manifest(
        &self,
        state: &State,
        bytes: &[u8],
        signature: &str,
    ) -> Result<VerifiedManifest, (FailureKind, String)> {
        let keyring = verify::read_keyring(&self.settings.paths.keys_dir)
            .map_err(|error| (FailureKind::Storage, chain(&error)))?;
        let begun = matches!(state.step, Step::Probing { .. } | Step::Recovering { .. });
        let policy = if begun {
            SignaturePolicy::TrustedBefore
        } else if self.settings.image.require_signature {
            SignaturePolicy::Required
        } else {
            SignaturePolicy::Optional
        };
        let job = &state.record.job.image;
        let manifest = VerifiedManifest::verify(
            bytes,
            Some(signature),
            &job.manifest_sha256,
            &keyring,
            policy,
        )
        .map_err(|error: ManifestRefused| (error.kind(), chain(&error)))?;
        let file = &manifest.manifest().file;
        if file.size != job.size || file.sha256 != job.sha256 {
            let detail = "the job's image is not the manifest's".to_owned();
            return Err((FailureKind::BadManifest, detail));
        }
        Ok(manifest)
    }

    /// What is missing of the image, as far as the data budget goes.
    pub(super) async fn download(&mut self, state: &State) -> Outcome {
        // Asked on the way to each try: a broken one costs data too.
        match self.check_budget(state).await {
            Err(Outcome::Again { .. }) => Outcome::GatesClosed,
            Err(other) => other,
            Ok(()) => self.fetched(state, true).await,
        }
    }

    /// `limited`: the data budget may end it.
    pub(super) async fn fetched(&mut self, state: &State, limited: bool) -> Outcome {
        let (Some(staged), Some(manifest)) = (&self.job.staged, &self.job.manifest) else {
            return lost_context(state);
        };
        let mut download = match Download::open(staged, manifest).await {
            Ok(download) => download,
            Err(error) => {
                return Outcome::Failed(untouched(state, error.kind(), chain(&error)));
            }
        };
        let source = match self.source() {
            Ok(source) => source.at_most(self.settings.image.cost.bandwidth_kbit_s),
            Err(outcome) => return outcome,
        };
        let mut budget = self.budget();
        let before = self.job.fetched;
        let (progress, mut heard) = watch::channel(download.transfer());
        let image = state.record.job.image.id;
        let mut fetching = std::pin::pin!(source.fetch(&image, &mut download, |transfer| {
            progress.send_replace(transfer);
        }));
        let mut told = Instant::now();
        let ended = loop {
            tokio::select! {
                ended = &mut fetching => break ended,
                Ok(()) = heard.changed() => {
                    let now = *heard.borrow_and_update();
                    let more = before + now.received - self.job.fetched;
                    self.job.fetched = before + now.received;
                    match spend(budget.as_mut(), more) {
                        Err(reason) if limited => return Outcome::Again { reason },
                        Err(reason) => log::warn!("{reason}"),
                        Ok(()) => {}
                    }
                    let missing = now.verified < now.total;
                    let spent = |budget: &Budget| limited && missing && budget.allows(1).is_err();
                    if budget.as_ref().is_some_and(spent) {
                        log::info!("the data budget ends the download");
                        return Outcome::GatesClosed;
                    }
                    if told.elapsed() >= TICK {
                        told = Instant::now();
                        self.tick(state, percent(now), None, false);
                    }
                }
            }
        };
        let more = before + heard.borrow().received - self.job.fetched;
        self.job.fetched += more;
        let settled = spend(budget.as_mut(), more)
            .and_then(|()| budget.as_mut().map_or(Ok(()), Budget::settle).map_err(uncounted));
        if let Err(reason) = settled {
            log::warn!("{reason}");
        }
        match ended {
            Ok(()) => Outcome::Downloaded,
            Err(SourceError::Unauthorized) => {
                self.refuse_token().await;
                self.unfetched(state, &SourceError::Unauthorized)
            }
            Err(error) => self.unfetched(state, &error),
        }
    }

    fn budget(&self) -> Option<Budget> {
        let limits = self.settings.image.cost.data_budget?;
        // Whoever cannot tell the day has not come here: the gate says so.
        let day = |ms: u64| self.zone().ok()?.at(ms / 1000);
        let path = self.settings.paths.state_dir.join("data-budget.json");
        Some(Budget::open(&path, limits, self.clock_ms().and_then(day)))
    }

    /// Whether the router may fetch what is missing.
    pub(super) async fn check_budget(&self, state: &State) -> Result<(), Outcome> {
        let Some(budget) = self.budget() else { return Ok(()) };
        let (Some(staged), Some(manifest)) = (&self.job.staged, &self.job.manifest) else {
            return Err(lost_context(state));
        };
        let again = |reason: String| Outcome::Again { reason };
        let staged = Download::open(staged, manifest).await.map_err(|e| again(chain(&e)))?;
        let Transfer { total, verified, .. } = staged.transfer();
        self.zone().map_err(again)?;
        budget.allows(total - verified).map_err(|error| again(error.to_string()))
    }

    async fn refuse_token(&self) {
        if let Some(credentials) = self.uplink.credentials().await {
            self.uplink.refuse(&credentials);
        }
    }

    /// Proves the staged image once, so that the grant is asked for nothing unproved.
    pub(super) async fn verify(&mut self, state: &State) -> Outcome {
        match self.hashed_image().await {
            Ok(_) => Outcome::Verified,
            Err((FailureKind::ChecksumMismatch, detail)) => {
                log::warn!("the staged image is not the manifest's: {detail}");
                Outcome::ImageLost
            }
            Err((kind, detail)) => Outcome::Failed(untouched(state, kind, detail)),
        }
    }

    /// The proof anew, on every entry to the tool.
    pub(super) async fn verified_image(&mut self, state: &State) -> Result<VerifiedImage, Outcome> {
        if self.job.staged.is_none() || self.job.manifest.is_none() {
            self.load_staged_manifest(state)
                .map_err(|reason| not_started(state, FailureKind::ChecksumMismatch, reason))?;
        }
        self.proved_copy(state).await.map_err(|(kind, detail)| not_started(state, kind, detail))
    }

    /// The copy at hand, or another that is as it should be.
    async fn proved_copy(&mut self, state: &State) -> Result<VerifiedImage, (FailureKind, String)> {
        let refused = match self.hashed_image().await {
            Ok(image) => return Ok(image),
            Err(refused) => refused,
        };
        let tried = self.job.staged.clone();
        for staged in self.staged_copies(state) {
            if tried.as_ref().is_some_and(|tried| tried.path() == staged.path()) {
                continue;
            }
            self.job.staged = Some(staged);
            if let Ok(image) = self.hashed_image().await {
                return Ok(image);
            }
        }
        self.job.staged = tried;
        Err(refused)
    }

    async fn hashed_image(&self) -> Result<VerifiedImage, (FailureKind, String)> {
        let (Some(path), Some(manifest)) = (self.image_path(), &self.job.manifest) else {
            return Err((FailureKind::ChecksumMismatch, "nothing is staged".into()));
        };
        let found = VerifiedImage::open(&path, manifest, |_| {}).await;
        let refused = match found {
            Ok(image) => return Ok(image),
            Err(error) => (error.kind(), chain(&error)),
        };
        let (Some(staged), Some(decoded)) = (&self.job.staged, &manifest.manifest().file.decoded)
        else {
            return Err(refused);
        };
        // Not decoded yet, or the copy was damaged.
        let (staged, file, decoded) =
            (staged.clone(), manifest.manifest().file.clone(), decoded.clone());
        let decoding = files::off_runtime(move || decoded_copy(&staged, &file, &decoded)).await;
        decoding.map_err(|error| (FailureKind::Storage, chain(&error)))??;
        let image = VerifiedImage::open(&path, manifest, |_| {}).await;
        image.map_err(|error| (error.kind(), chain(&error)))
    }

    fn image_path(&self) -> Option<PathBuf> {
        let name = self.manifest()?.tool_file().name;
        self.job.staged.as_ref().map(|staged: &Staged| staged.image_path(name))
    }

    fn source(&self) -> Result<Source, Outcome> {
        let client = self.uplink.images().ok_or_else(|| Outcome::Again {
            reason: "there is no connection to the coordinator yet".into(),
        })?;
        let token = self.uplink.token_provider();
        Ok(Source::new(client, self.uplink.base().clone(), token))
    }

    /// What passes is tried again, what is wrong with the image is a failure.
    fn unfetched(&self, state: &State, error: &SourceError) -> Outcome {
        match error.kind() {
            None => Outcome::Again { reason: chain(error) },
            Some(kind) => Outcome::Failed(untouched(state, kind, chain(error))),
        }
    }
}

/// Counts what came. Data that cannot be counted is not fetched, unless for a recovery.
fn spend(budget: Option<&mut Budget>, bytes: u64) -> Result<(), String> {
    budget.map_or(Ok(()), |budget| budget.spend(bytes)).map_err(uncounted)
}

fn uncounted(error: std::io::Error) -> String {
    format!("the data budget cannot be counted: {error}")
}

/// Decodes the staged image. Where that fails although it is what the manifest says, another
/// download would not help.
fn decoded_copy(
    staged: &Staged,
    file: &shared::manifest::File,
    decoded: &Decoded,
) -> Result<(), (FailureKind, String)> {
    let error = match staging::decode(staged, file, decoded) {
        Ok(()) => return Ok(()),
        Err(Undecodable::Staging(error)) => return Err((error.kind(), chain(&error))),
        Err(error) => error,
    };
    let kind = match verify::is_whole(&staged.image_path(&file.name), file) {
        Ok(true) => FailureKind::BadManifest,
        Ok(false) => FailureKind::ChecksumMismatch,
        Err(unread) => return Err((FailureKind::ChecksumMismatch, chain(&unread))),
    };
    Err((kind, chain(&error)))
}

fn percent(transfer: Transfer) -> u8 {
    let share = transfer.verified.saturating_mul(100) / transfer.total.max(1);
    u8::try_from(share).unwrap_or(100)
}
