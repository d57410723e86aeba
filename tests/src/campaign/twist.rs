//! What is out of the ordinary in a run, beside its strikes and faults: what leads past those failpoints
//! that no upgrade of one known modem by one known agent passes.

use super::{cut, subject::Subject};
use agent::{files, status::Status, upgrade::perform::release_word};
use std::{fs, io, path::PathBuf};

/// How it differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Twist {
    #[default]
    None,
    /// When the power comes back, a stranger's modem in download mode is on the bus beside ours. It is
    /// taken away by whoever finds the router waiting for a person, and says "go on".
    Stranger,
    /// Before all else the agent starts for the first time, without a key and without a network.
    FirstStart,
}

/// A device that has no name, as ours has none in that mode.
const STRANGER: &str = "sys/bus/usb/devices/3-1";

impl Subject {
    /// # Errors
    /// Files cannot be written.
    pub fn plug_stranger(&self) -> io::Result<()> {
        let device = self.router.dir.join(STRANGER);
        let interface = device.with_file_name("3-1:1.0");
        fs::create_dir_all(&device)?;
        fs::create_dir_all(&interface)?;
        fs::write(interface.join("bInterfaceNumber"), "00\n")?;
        fs::write(device.join("idProduct"), "9010\n")?;
        fs::write(device.join("idVendor"), "1bc7\n")
    }

    /// # Errors
    /// Files cannot be removed.
    pub fn unplug_stranger(&self) -> io::Result<()> {
        let device = self.router.dir.join(STRANGER);
        cut::remove_tree(&device)?;
        cut::remove_tree(&device.with_file_name("3-1:1.0"))
    }

    /// Where a slot waits for a person and none has come yet, one comes.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn look_after_held(&self) -> anyhow::Result<()> {
        let run_dir = self.router.dir.join("run");
        let text = fs::read_to_string(run_dir.join("status.json")).unwrap_or_default();
        let Ok(status) = serde_json::from_str::<Status>(&text) else { return Ok(()) };
        for held in status.held {
            let word = release_word(&run_dir, held.slot.as_str());
            if !word.exists() {
                self.unplug_stranger()?;
                files::publish(&word, b"")?;
            }
        }
        Ok(())
    }

    /// The key's file, if it is there.
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        fs::read(self.identity().join("device.json")).ok()
    }

    /// The device forgets who it is.
    ///
    /// # Errors
    /// Files cannot be moved.
    pub fn put_identity_aside(&self) -> anyhow::Result<()> {
        cut::remove_tree(&self.aside())?;
        fs::rename(self.identity(), self.aside())?;
        Ok(self.flash.settle()?)
    }

    /// It is again whom the coordinator knows. The agent must not run.
    ///
    /// # Errors
    /// Files cannot be moved.
    pub fn take_identity_back(&self) -> anyhow::Result<()> {
        cut::remove_tree(&self.identity())?;
        fs::rename(self.aside(), self.identity())?;
        Ok(self.flash.settle()?)
    }

    /// What a first start left beside the key and must not.
    #[must_use]
    pub fn spoilt_identity(&self) -> Option<String> {
        let spoilt = ["corrupt.json", "former.json"].into_iter();
        spoilt.map(str::to_owned).find(|name| self.identity().join(name).exists())
    }

    fn identity(&self) -> PathBuf {
        self.router.dir.join("state/identity")
    }

    fn aside(&self) -> PathBuf {
        self.lab().join("identity")
    }
}
