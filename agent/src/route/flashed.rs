//! The same question for the time of a flash, when whoever holds the modem lets go of it.

use super::{Network, Sole, Way};
use crate::modem::manager::{self, NoAnswer};
use std::path::Path;

impl Network {
    /// Whether the modem is the only way while it is flashed. `stopped`: the `mmcli` of a ModemManager that is
    /// stopped for that; the interfaces of all its modems go down.
    pub async fn is_sole_during_flash(
        &self,
        modem: &str,
        way: &Way,
        stopped: Option<&Path>,
    ) -> Sole {
        let sole = self.is_sole_uplink(modem, way, &[]);
        let Some(mmcli) = stopped.filter(|_| !sole.counts_as_sole()) else { return sole };
        match manager::modems(mmcli).await {
            Ok(managed) => {
                let dialled: Vec<_> = managed.into_iter().flat_map(|modem| modem.ports).collect();
                self.is_sole_uplink(modem, way, &dialled)
            }
            Err(NoAnswer::NotDone(error)) if !error.is_absent() => {
                Sole::Unknown(format!("which interfaces go down with the modem: mmcli {error}"))
            }
            // It is not there, or does not run.
            Err(_) => sole,
        }
    }
}
