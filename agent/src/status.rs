//! What `run` says of itself to `status`, on tmpfs.

use crate::{files, uplink::UplinkState};
use serde::{Deserialize, Serialize};
use shared::{event::Tick, inventory::Modem, stages::Phase};
use std::path::PathBuf;

/// The file `status.json` in the run directory, and its content.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    #[serde(skip)]
    path: PathBuf,
    pub agent_version: String,
    pub modems: Vec<Modem>,
    pub phase: Option<Phase>,
    pub progress: Option<Tick>,
    pub last_result: Option<crate::upgrade::results::Ended>,
    pub uplink: Option<UplinkState>,
    /// Why something durable could not be written.
    pub storage_trouble: Option<String>,
}

impl Status {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, agent_version: env!("CARGO_PKG_VERSION").into(), ..Self::default() }
    }

    pub fn progress(&mut self, tick: &Tick) {
        self.progress = Some(tick.clone());
        self.publish();
    }

    /// Replaces the file; whoever reads it is told the truth of a moment ago at worst.
    pub fn publish(&self) {
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|bytes| files::publish(&self.path, &bytes));
        if let Err(error) = written {
            log::debug!("status.json cannot be written: {error}");
        }
    }
}
