//! A release as an operator makes one: a key, a firmware, a signed manifest, an upload; all with the
//! operator's own commands.

use crate::{
    coordinator::Coordinator,
    firmware::{self, Model, Versions},
};
use anyhow::Context;
use serde_json::Value;
use shared::signature::SecretKey;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the modems run at first, and what they get.
pub const FROM: &str = "45.00.002";
pub const TO: &str = "45.00.004";

/// A key pair in signify's form.
#[derive(Debug, Clone)]
pub struct Key {
    secret: PathBuf,
    /// The public key file's text.
    pub public: String,
}

impl Key {
    /// Makes `<name>.sec` and `<name>.pub`.
    ///
    /// # Errors
    /// `firmware keygen` fails.
    pub fn make(coordinator: &Coordinator, name: &Path) -> anyhow::Result<Self> {
        coordinator.cli(&["firmware", "keygen", &text(name)])?;
        let public = fs::read_to_string(name.with_extension("pub"))?;
        Ok(Self { secret: name.with_extension("sec"), public })
    }

    fn secret(&self) -> anyhow::Result<SecretKey> {
        Ok(SecretKey::parse(&fs::read_to_string(&self.secret)?)?)
    }
}

/// What is to be released.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub model: Model,
    /// The package, which is also the build's version unless `build` says another.
    pub package: String,
    pub build: Option<String>,
    /// Bytes.
    pub size: usize,
    pub sequence: u64,
    /// Whether routers get it compressed.
    pub compress: bool,
    /// Whether it also names what no inventory tells: then the modem itself has to be asked what it runs.
    pub untold: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            model: Model::Fn990a28,
            package: TO.into(),
            build: None,
            size: 3 << 20,
            sequence: 4,
            compress: false,
            untold: false,
        }
    }
}

/// A signed firmware on the operator's disk.
#[derive(Debug, Clone)]
pub struct Release {
    pub file: PathBuf,
    build: String,
    model: Model,
}

impl Release {
    /// Makes the firmware in `dir` and signs it.
    ///
    /// # Errors
    /// Files cannot be written, or `firmware sign` fails.
    pub fn make(
        coordinator: &Coordinator,
        dir: &Path,
        key: &Key,
        wanted: &Wanted,
    ) -> anyhow::Result<Self> {
        let Wanted { model, package, size, sequence, .. } = wanted;
        let build = wanted.build.clone().unwrap_or_else(|| package.clone());
        let file = dir.join(format!("{}_{build}.bin", model.name()));
        firmware::write_firmware(&file, *model, package, *size, *sequence)?;
        let versions = Versions::of_package(package);
        let reaches =
            [format!("#SWPKGV:1={}", versions.package), format!("+CGMR:1={}", versions.modem)];
        let (key, path, sequence) = (text(&key.secret), text(&file), sequence.to_string());
        let mut arguments = vec!["firmware", "sign", "--key", &key, "--vendor", "Telit"];
        arguments.extend(["--model", model.name(), "--category", "FN990A"]);
        arguments.extend(["--sequence", &sequence, "--tool", "telit-uxfp", "--file", &path]);
        for version in &reaches {
            arguments.extend(["--reaches", version]);
        }
        let untold = format!("+GMM:1={}", model.name());
        if wanted.untold {
            arguments.extend(["--reaches", &untold]);
        }
        if wanted.compress {
            arguments.push("--compress");
        }
        coordinator.cli(&arguments)?;
        let file = if wanted.compress { suffixed(&file, ".zst") } else { file };
        Ok(Self { file, build, model: *model })
    }

    /// Changes the manifest as JSON and signs it anew, with whatever it says then.
    ///
    /// # Errors
    /// Files cannot be read or written.
    pub fn alter(&self, key: &Key, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let mut manifest = serde_json::from_slice(&fs::read(self.manifest())?)?;
        change(&mut manifest);
        self.sign(key, &serde_json::to_vec_pretty(&manifest)?)
    }

    /// Puts these bytes in the manifest's place and signs them.
    ///
    /// # Errors
    /// Files cannot be read or written.
    pub fn sign(&self, key: &Key, manifest: &[u8]) -> anyhow::Result<()> {
        fs::write(self.manifest(), manifest)?;
        fs::write(self.signature(), key.secret()?.sign(manifest).to_text("lab"))?;
        Ok(())
    }

    /// Uploads it, as the only image of a build of its own; gives the image's id.
    ///
    /// # Errors
    /// `upload` fails; the error is what it said.
    pub fn upload(&self, coordinator: &Coordinator) -> anyhow::Result<String> {
        let model = format!("Telit {}", self.model.name());
        let file = text(&self.file);
        let mut arguments = vec!["upload", "--category", "FN990A", "--version", &self.build];
        arguments.extend(["--model", &model, "--tool", "telit-uxfp", "--json", &file]);
        let uploaded = coordinator.cli(&arguments)?;
        let image: Value = serde_json::from_str(&uploaded).context(uploaded)?;
        Ok(image["id"].as_str().context("the upload has no id")?.to_owned())
    }

    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        suffixed(&self.file, ".manifest.json")
    }

    #[must_use]
    pub fn signature(&self) -> PathBuf {
        suffixed(&self.file, ".manifest.json.sig")
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
