//! What goes wrong in the lab: chosen one by one, or drawn from a seed.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// What a router meets during one upgrade.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// What it was drawn from, and the seed of fragments and unsolicited codes.
    pub seed: u64,
    pub modem: Vec<ModemFault>,
    pub tool: Vec<ToolFault>,
    pub link: Vec<LinkFault>,
}

/// Faults of the modem. Each waits for its occasion and happens once, if not said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum ModemFault {
    /// Unsolicited codes between all lines and when nobody asks, until the power goes.
    UrcStorm,
    /// Silent after the next boot, on top of the usual time.
    SilentBoot {
        ms: u64,
    },
    /// Says who it is after the next boot and refuses to tell its versions, for this long after its silence.
    LateVersions {
        ms: u64,
    },
    /// Restarts by itself after this many more commands.
    Restart {
        after_commands: u32,
    },
    /// The power fails with this share of the firmware written, and is back after `off_ms`
    /// (never by itself without it).
    PowerCut {
        at_percent: u8,
        off_ms: Option<u64>,
    },
    /// Stops acknowledging with this share of the firmware written.
    StopsAnswering {
        at_percent: u8,
    },
    /// The next interrupted flash leaves nothing that shows on USB.
    NeverRecovers,
    /// Comes up as a crash dump after the next flash.
    CrashAfterFlash,
    /// Has this package after the next flash, whatever was flashed.
    OtherVersionAfterFlash {
        package: String,
    },
    OtherImeiAfterFlash {
        imei: String,
    },
    /// Comes up with another USB composition (and product id) after the next flash.
    CompositionAfterFlash {
        composition: u8,
    },
    /// FWSWITCH is at its default after the next flash.
    SettingsLostAfterFlash,
    SimLostAfterFlash,
    /// Finds no network after the next flash.
    NetworkLostAfterFlash,
    /// Waits for its PIN after the next flash.
    SimLockedAfterFlash,
    /// Somebody has changed the SIM by then.
    OtherSimAfterFlash {
        iccid: String,
    },
}

/// A fault of the vendor's tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFault {
    #[serde(flatten)]
    pub kind: ToolFaultKind,
    /// In so many runs; always without it. A run takes the first one left, and all that are always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum ToolFaultKind {
    /// Stops for ever, with the modem as it is then.
    Hang { at_percent: u8 },
    /// Hangs, and SIGTERM does not help.
    HangIgnoringTerm { at_percent: u8 },
    /// Ends with `[+] could not complete firmware upload`.
    Fail { at_percent: u8 },
    /// Says that all went well and has not touched the modem.
    Lie,
    /// Moves so many bytes a second.
    Slow { bytes_per_second: u64 },
}

/// A fault of the way to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum LinkFault {
    /// Every connection ends after so many bytes, this many times.
    Cut { after_bytes: u64, times: u32 },
    /// Nothing passes for so long, after so many bytes.
    Stall { after_bytes: u64, ms: u64 },
    /// Moves so many bytes a second.
    Slow { bytes_per_second: u64 },
}

impl FaultPlan {
    /// A plan without faults.
    pub fn calm(seed: u64) -> FaultPlan {
        FaultPlan { seed, ..FaultPlan::default() }
    }

    /// A plan that the seed decides: up to one fault of each kind, all of them survivable.
    pub fn draw(seed: u64) -> FaultPlan {
        let mut random = Random::new(seed);
        let mut percent = || u8::try_from(1 + random.below(98)).unwrap_or(50);
        let (cut, fail, hang, stop) = (percent(), percent(), percent(), percent());
        let modem = [
            ModemFault::UrcStorm,
            ModemFault::SilentBoot { ms: 500 + random.below(2000) },
            ModemFault::Restart {
                after_commands: 1 + u32::try_from(random.below(20)).unwrap_or(0),
            },
            ModemFault::PowerCut { at_percent: cut, off_ms: Some(random.below(1000)) },
            ModemFault::StopsAnswering { at_percent: stop },
            ModemFault::CompositionAfterFlash { composition: 2 },
            ModemFault::SettingsLostAfterFlash,
        ];
        let once = |kind| ToolFault { kind, times: Some(1) };
        let tool = [
            once(ToolFaultKind::Fail { at_percent: fail }),
            once(ToolFaultKind::Hang { at_percent: hang }),
            once(ToolFaultKind::HangIgnoringTerm { at_percent: hang }),
            once(ToolFaultKind::Lie),
        ];
        let link = [
            LinkFault::Cut { after_bytes: 1 + random.below(1 << 22), times: 3 },
            LinkFault::Stall { after_bytes: random.below(1 << 22), ms: random.below(2000) },
        ];
        FaultPlan {
            seed,
            modem: maybe(&mut random, &modem),
            tool: maybe(&mut random, &tool),
            link: maybe(&mut random, &link),
        }
    }
}

fn maybe<T: Clone>(random: &mut Random, choices: &[T]) -> Vec<T> {
    if random.chance(50) { random.pick(choices).cloned().into_iter().collect() } else { Vec::new() }
}

/// Where a tool looks for its faults: beside the `dev` directory of its router.
pub const TOOL_FAULTS_FILE: &str = "tool-faults.json";

/// Writes the faults of the next runs of a tool.
pub fn write_tool_faults(router: &Path, faults: &[ToolFault]) -> io::Result<()> {
    let path = router.join(TOOL_FAULTS_FILE);
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec_pretty(faults)?)?;
    std::fs::rename(fresh, path)
}

/// The faults of this run; those that were for one run less are written back.
pub fn take_tool_faults(router: &Path) -> io::Result<Vec<ToolFaultKind>> {
    let mut faults: Vec<ToolFault> = match std::fs::read(router.join(TOOL_FAULTS_FILE)) {
        Ok(json) => serde_json::from_slice(&json)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut active: Vec<_> =
        faults.iter().filter(|fault| fault.times.is_none()).map(|fault| fault.kind).collect();
    if let Some((fault, left)) = faults
        .iter_mut()
        .find_map(|fault| Some((fault.kind, fault.times.as_mut().filter(|times| **times > 0)?)))
    {
        *left -= 1;
        active.push(fault);
        write_tool_faults(router, &faults)?;
    }
    Ok(active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_plan() {
        assert_eq!(FaultPlan::draw(3), FaultPlan::draw(3));
        let plans: Vec<_> = (0..50).map(FaultPlan::draw).collect();
        assert!(plans.iter().any(|plan| !plan.modem.is_empty()));
        assert!(plans.iter().any(|plan| !plan.tool.is_empty()));
        assert!(plans.iter().any(|plan| !plan.link.is_empty()));
    }

    #[test]
    fn a_plan_survives_being_written() {
        for seed in 0..50 {
            let plan = FaultPlan::draw(seed);
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<FaultPlan>(&json).unwrap(), plan, "{json}");
        }
    }

    #[test]
    fn a_fault_for_one_run_is_gone_in_the_next() {
        let router = tempfile::tempdir().unwrap();
        assert_eq!(take_tool_faults(router.path()).unwrap(), []);
        let slow = ToolFaultKind::Slow { bytes_per_second: 1 };
        let fail = ToolFaultKind::Fail { at_percent: 3 };
        let faults = [
            ToolFault { kind: fail, times: Some(1) },
            ToolFault { kind: slow, times: None },
            ToolFault { kind: ToolFaultKind::Lie, times: Some(1) },
        ];
        write_tool_faults(router.path(), &faults).unwrap();
        assert_eq!(take_tool_faults(router.path()).unwrap(), [slow, fail]);
        assert_eq!(take_tool_faults(router.path()).unwrap(), [slow, ToolFaultKind::Lie]);
        assert_eq!(take_tool_faults(router.path()).unwrap(), [slow]);
    }
}
