//! Compiles the shim and gives a process what it needs to run under it.

use anyhow::{Context, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("../../shim/shim.c");

/// The compiled shim.
#[derive(Debug, Clone)]
pub struct Shim {
    library: PathBuf,
    /// How often faster time runs in the processes under it.
    pub speed: u64,
    /// `names` or `bytes`: what of fsync it does not hear.
    deaf: Option<&'static str>,
}

impl Shim {
    /// Compiles it with `cc` into `dir`.
    ///
    /// # Errors
    /// There is no C compiler, or it refuses.
    pub fn build(dir: &Path, speed: u64) -> anyhow::Result<Self> {
        let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
        std::fs::write(&source, SOURCE)?;
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .output()
            .context("cc cannot be run; the campaign needs a C compiler")?;
        if !output.status.success() {
            bail!("cc: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { library, speed, deaf: None })
    }

    /// A disk that forgets what was synced, of directories (`names`) or of files (`bytes`).
    #[must_use]
    pub fn deaf_to(&self, what: &'static str) -> Self {
        Self { deaf: Some(what), ..self.clone() }
    }

    #[must_use]
    pub fn at_speed(&self, speed: u64) -> Self {
        Self { speed, ..self.clone() }
    }

    /// Puts `command` under the shim, see [`Self::environment`].
    pub fn cover(&self, command: &mut Command, root: &Path, lab: &Path, name: &str) {
        command.envs(self.environment(root, lab, name));
    }

    /// What puts a process under the shim: the files below `root` are watched, `lab` beside it holds
    /// control file and shadow, and of what it starts the processes called `name…`.
    #[must_use]
    pub fn environment(&self, root: &Path, lab: &Path, name: &str) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut environment = vec![
            ("LD_PRELOAD", path(&self.library)),
            ("MU_SHIM_ROOT", path(root)),
            ("MU_SHIM_LAB", path(lab)),
            ("MU_SHIM_NAME", name.to_owned()),
            ("MU_SHIM_SPEED", self.speed.to_string()),
        ];
        environment.extend(self.deaf.map(|what| ("MU_SHIM_DEAF", what.to_owned())));
        environment
    }
}
