//! Settings in the shapes of the parts that use them.

use super::{Holders, Paths, Settings};
use crate::guardian::holders::Programs;
use crate::upgrade::policy::Policy;

/// Milliseconds that stopping or starting one holder may take.
const HOLDER_TIMEOUT_MS: u64 = 60_000;

impl Settings {
    /// The limits of one upgrade.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            max_attempts: u32::from(self.upgrade.max_attempts),
            backoff_s: self.upgrade.backoff.as_secs(),
            recovery_s: self.upgrade.recovery.as_secs(),
            again_s: self.upgrade.again.as_secs(),
            ..Policy::default()
        }
    }
}

impl Holders {
    /// The programs that make them let go and take hold again.
    #[must_use]
    pub fn programs(&self, paths: &Paths) -> Programs {
        Programs {
            services: paths.init_dir.clone(),
            ifup: paths.ifup.clone(),
            ifdown: paths.ifdown.clone(),
            ifstatus: paths.ifstatus.clone(),
            ubus: paths.ubus.clone(),
            mmcli: paths.mmcli.clone(),
            timeout_ms: HOLDER_TIMEOUT_MS,
        }
    }
}
