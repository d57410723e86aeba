//! What `run` says of itself to `status`: one file on tmpfs, replaced as things change.

use crate::{
    files,
    upgrade::results::Ended,
    uplink::{UplinkHandle, UplinkState},
};
use serde::{Deserialize, Serialize};
use shared::{event::Tick, ids::Slot, inventory::Modem};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// A slot that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub slot: Slot,
    pub reason: String,
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub agent_version: String,
    pub modems: Vec<Modem>,
    /// Under way, one a slot at most.
    #[serde(default)]
    pub upgrades: Vec<Tick>,
    pub last_result: Option<Ended>,
    /// Slots that wait for a person, and why.
    #[serde(default)]
    pub held: Vec<Held>,
    pub uplink: Option<UplinkState>,
    /// Why something durable could not be written.
    pub storage_trouble: Option<String>,
    /// Why the time may be wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_trouble: Option<String>,
    /// What is wrong with the router's settings, while the last that were valid are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_refused: Option<String>,
}

impl Status {
    /// How far the upgrade of a slot has come.
    pub fn goes_on(&mut self, tick: Tick) {
        self.is_over(&tick.slot);
        self.upgrades.push(tick);
        self.upgrades.sort_by(|a, b| a.slot.as_str().cmp(b.slot.as_str()));
    }

    pub fn is_over(&mut self, slot: &Slot) {
        self.upgrades.retain(|tick| tick.slot != *slot);
    }
}

/// The file, shared by all who have something to say.
#[derive(Debug, Clone)]
pub struct StatusFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    content: Mutex<Status>,
}

impl StatusFile {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let content =
            Status { agent_version: env!("CARGO_PKG_VERSION").into(), ..Status::default() };
        Self(Arc::new(Inner { path, content: Mutex::new(content) }))
    }

    /// Changes the content and replaces the file, if that changed anything. Whoever reads it is
    /// told the truth of a moment ago at worst.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut content = self.0.content.lock().unwrap_or_else(PoisonError::into_inner);
        let before = content.clone();
        change(&mut content);
        if *content == before {
            return;
        }
        let written = serde_json::to_vec(&*content)
            .map_err(std::io::Error::from)
            .and_then(|bytes| files::publish(&self.0.path, &bytes));
        if let Err(error) = written {
            log::debug!("status.json cannot be written: {error}");
        }
    }

    /// Follows the uplink until the agent ends.
    pub async fn follow(self, uplink: UplinkHandle) {
        let mut state = uplink.state();
        loop {
            let now = state.borrow_and_update().clone();
            crate::failpoint::at!("status.told");
            self.update(|status| status.uplink = Some(now));
            if state.changed().await.is_err() {
                return;
            }
        }
    }
}
