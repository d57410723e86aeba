//! The manifest, the image and the proof that what is staged is what was signed.

use super::{chain, install::not_started, lost_context, untouched};
use crate::{
    environment::Environment,
    source::{Source, SourceError},
    staging::Staged,
    upgrade::state::{Outcome, State},
    verify::{self, ManifestRefused, SignaturePolicy, VerifiedImage, VerifiedManifest},
};
use shared::failure::FailureKind;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Between two ticks of progress.
const TICK: Duration = Duration::from_millis(500);

impl Environment {
    /// The job's manifest, from the staging of an earlier life or from the coordinator. Its
    /// signature is checked before it is parsed, whichever way it came.
    pub(super) async fn load_manifest(&mut self, state: &State) -> Result<(), Outcome> {
        if self.load_staged_manifest(state).is_ok() {
            return Ok(());
        }
        let source = self.source();
        let image = state.record.job.image.id;
        let failed = |error: SourceError| self.unfetched(state, &error);
        let bytes = source.manifest(image).await.map_err(failed)?;
        let signature = source.signature(image).await.map_err(failed)?;
        let manifest = self
            .verified_manifest(state, &bytes, &signature)
            .map_err(|(kind, detail)| Outcome::Failed(untouched(state, kind, detail)))?;
        self.job.manifest = Some(manifest);
        self.job.manifest_bytes = Some((bytes, signature));
        Ok(())
    }

    /// Only what is staged: needs no network.
    pub(super) fn load_staged_manifest(&mut self, state: &State) -> Result<(), String> {
        let digest = state.record.job.image.manifest_sha256;
        let staged = self.staging.find(&digest).ok_or("no manifest is staged")?;
        let (bytes, signature) = staged.manifest().map_err(|error| error.to_string())?;
        let manifest = self
            .verified_manifest(state, &bytes, &signature)
            .map_err(|(kind, detail)| format!("{kind}: {detail}"))?;
        self.job.manifest = Some(manifest);
        self.job.staged = Some(staged);
        Ok(())
    }

    fn verified_manifest(
        &self,
        state: &State,
        bytes: &[u8],
        signature: &str,
    ) -> Result<VerifiedManifest, (FailureKind, String)> {
        let keyring = verify::read_keyring(&self.settings.paths.keys_dir)
            .map_err(|error| (FailureKind::Storage, chain(&error)))?;
        let policy = if self.settings.image.require_signature {
            SignaturePolicy::Required
        } else {
            SignaturePolicy::Optional
        };
        let job = &state.record.job.image;
        let manifest =
            VerifiedManifest::verify(bytes, Some(signature), &job.manifest_sha256, &keyring, policy)
                .map_err(|error: ManifestRefused| (error.kind(), chain(&error)))?;
        let file = &manifest.manifest().file;
        if file.size != job.size || file.sha256 != job.sha256 {
            let detail = "the job's image is not the manifest's".to_owned();
            return Err((FailureKind::BadManifest, detail));
        }
        Ok(manifest)
    }

    pub(super) async fn download(&mut self, state: &State) -> Outcome {
        let (Some(staged), Some(manifest)) = (&self.job.staged, &self.job.manifest) else {
            return lost_context(state);
        };
        let (manifest, name) = (manifest.clone(), manifest.manifest().file.name.clone());
        let file = match staged.open_image(&name) {
            Ok(file) => file,
            Err(error) => {
                return Outcome::Failed(untouched(state, error.kind(), chain(&error)));
            }
        };
        let source = self.source();
        let (progress, mut heard) = tokio::sync::watch::channel(crate::source::Progress::default());
        let before = self.job.fetched;
        let mut fetching =
            std::pin::pin!(source.image(state.record.job.image.id, &manifest, file, progress));
        let mut told = Instant::now();
        loop {
            tokio::select! {
                ended = &mut fetching => {
                    self.job.fetched = before + heard.borrow().fetched;
                    return match ended {
                        Ok(()) => Outcome::Downloaded,
                        Err(error) => self.unfetched(state, &error),
                    };
                }
                Ok(()) = heard.changed() => {
                    let now = *heard.borrow_and_update();
                    self.job.fetched = before + now.fetched;
                    if told.elapsed() >= TICK {
                        told = Instant::now();
                        self.tick(state, percent(now.done, manifest.manifest().file.size), None, false);
                    }
                }
            }
        }
    }

    /// Proves the staged image once, so that the grant is asked for nothing unproved.
    pub(super) async fn verify(&mut self, state: &State) -> Outcome {
        match self.hashed_image().await {
            Ok(_) => Outcome::Verified,
            Err((kind, detail)) if kind == FailureKind::ChecksumMismatch => {
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
        self.hashed_image().await.map_err(|(kind, detail)| not_started(state, kind, detail))
    }

    async fn hashed_image(&self) -> Result<VerifiedImage, (FailureKind, String)> {
        let (Some(path), Some(manifest)) = (self.image_path(), &self.job.manifest) else {
            return Err((FailureKind::ChecksumMismatch, "nothing is staged".into()));
        };
        let image = VerifiedImage::open(&path, manifest, |_| {}).await;
        image.map_err(|error| (error.kind(), chain(&error)))
    }

    fn image_path(&self) -> Option<PathBuf> {
        let name = &self.manifest()?.file.name;
        self.job.staged.as_ref().map(|staged: &Staged| staged.image_path(name))
    }

    fn source(&self) -> Source {
        Source::new(self.uplink.clone())
    }

    /// What passes is tried again, what is wrong with the image is a failure.
    fn unfetched(&self, state: &State, error: &SourceError) -> Outcome {
        match error.kind() {
            None => Outcome::Again { reason: chain(error) },
            Some(kind) => Outcome::Failed(untouched(state, kind, chain(error))),
        }
    }

    /// After the end nothing is staged any more, and the next job starts from nothing.
    pub fn clean_up(&mut self) {
        self.job = crate::environment::JobContext::default();
        self.staging.clean(&[]);
    }
}

fn percent(done: u64, of: u64) -> u8 {
    u8::try_from(done.saturating_mul(100) / of.max(1)).unwrap_or(100)
}
