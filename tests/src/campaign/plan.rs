//! What one run meets: chosen by name, or drawn from a seed.

use super::{
    control::{Action, Rule},
    subject::Victim,
    twist::Twist,
};
use crate::{
    faults::{ToolFault, ToolFaultKind},
    random::Random,
};
use std::fmt;

/// When something strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// At the `n`-th pass of a named failpoint, counted over the run.
    Failpoint(String, u64),
    /// At this file or serial operation after the last strike.
    Operation(u64),
    /// With this share of the firmware in the modem.
    Percent(u8),
}

/// What strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Kill(Victim),
    /// The router's power; the modem's as well, where it has no other supply.
    Cut {
        modem_too: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    pub when: When,
    pub what: What,
}

/// Operations that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub at: u64,
    pub times: u64,
    pub kind: Action,
    /// Kinds of operations, as bits.
    pub kinds: u64,
    pub name: &'static str,
}

impl Fault {
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule { at: self.at, times: self.times, action: self.kind, kinds: self.kinds }
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// For `--only`.
    pub name: String,
    pub seed: u64,
    /// One after the other, each armed when the one before has struck.
    pub strikes: Vec<Strike>,
    pub faults: Vec<Fault>,
    pub tool: Option<ToolFault>,
    pub twist: Twist,
    /// How often a strike that found no occasion was moved to an earlier pass.
    moved: u32,
}

/// What [`Plan::failpoint_then_cut`] adds to its name.
pub const THEN_CUT: &str = "+cut";

/// How often a strike is moved; the last time to the first pass.
const MOVES: u32 = 3;

/// Operations of a smooth upgrade, more or less: where chance picks an instant.
const OPERATIONS: u64 = 3000;

impl Plan {
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            name: "calm".into(),
            seed,
            strikes: vec![],
            faults: vec![],
            tool: None,
            twist: Twist::None,
            moved: 0,
        }
    }

    /// The runs that lead past every failpoint, the smooth one first: the tool fails halfway, an attempt
    /// is lost before its tool is started, the power fails in the middle of the flash, alone and with a
    /// stranger's modem there when it comes back, and the agent starts for the first time.
    #[must_use]
    pub fn bases(seed: u64) -> Vec<Self> {
        let calm = Self::calm(seed);
        let tool = ToolFault { kind: ToolFaultKind::Fail { at_percent: 40 }, times: Some(1) };
        let halfway = Self { name: "halfway".into(), tool: Some(tool), ..calm.clone() };
        let lost = calm.clone().failpoint("driver.preparing.acted", 1, What::Kill(Victim::Agent));
        let mut cut = calm.clone();
        cut.strikes.push(in_the_flash());
        // So slow that there is a middle, however busy the machine.
        let slow = ToolFaultKind::Slow { bytes_per_second: 512 << 10 };
        cut.tool = Some(ToolFault { kind: slow, times: Some(1) });
        let stranger = Self { name: "stranger".into(), twist: Twist::Stranger, ..cut.clone() };
        let cut = Self { name: "cut-in-the-flash".into(), ..cut };
        let first = Self { name: "first-start".into(), twist: Twist::FirstStart, ..calm.clone() };
        vec![calm, halfway, lost, cut, stranger, first]
    }

    /// Names of the failpoints at which it strikes.
    pub fn failpoints(&self) -> impl Iterator<Item = &str> {
        self.strikes.iter().filter_map(|strike| match &strike.when {
            When::Failpoint(name, _) => Some(name.as_str()),
            When::Operation(_) | When::Percent(_) => None,
        })
    }

    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.strikes.is_empty()
            && self.tool.is_none()
            && self.faults.is_empty()
            && self.twist == Twist::None
    }

    /// The run once more, where the strike after `struck` others was at a failpoint and found no occasion:
    /// how often one is passed is chance where answers come in batches. `passes`: those there were.
    #[must_use]
    pub fn moved(&self, struck: usize, passes: &[(String, u64)]) -> Option<Self> {
        let When::Failpoint(name, pass) = &self.strikes.get(struck)?.when else { return None };
        if self.moved >= MOVES {
            return None;
        }
        let there = passes.iter().find(|(passed, _)| passed == name).map_or(0, |(_, count)| *count);
        let last = self.moved + 1 == MOVES;
        let earlier = if last { 1 } else { there.min(pass.saturating_sub(1)).max(1) };
        let mut again = self.clone();
        again.name = self.name.replacen(&format!("@{pass}/"), &format!("@{earlier}/"), 1);
        again.strikes[struck].when = When::Failpoint(name.clone(), earlier);
        again.moved += 1;
        Some(again)
    }

    /// A strike at a failpoint, on top of all that there is.
    #[must_use]
    pub fn failpoint(mut self, name: &str, pass: u64, what: What) -> Self {
        let when = When::Failpoint(name.into(), pass);
        self.name = format!("{name}@{pass}/{}", what.name());
        self.strikes.push(Strike { when, what });
        self
    }

    /// The agent is killed at a failpoint, and later the power fails in the middle of the flash: what
    /// the second agent found was perhaps not on disk.
    #[must_use]
    pub fn failpoint_then_cut(self, name: &str, pass: u64) -> Self {
        let mut plan = self.failpoint(name, pass, What::Kill(Victim::Agent));
        plan.name.push_str(THEN_CUT);
        plan.strikes.push(in_the_flash());
        plan
    }

    /// Up to three strikes at random instants.
    #[must_use]
    pub fn crashes(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xc4a5);
        let count = 1 + random.below(3);
        let strikes = (0..count).map(|_| strike(&mut random)).collect();
        let tool = tool_fault(&mut random);
        Self { name: "crashes".into(), strikes, tool, ..Self::calm(seed) }
    }

    /// One to three faults of disk or port, now and then with a crash among them.
    #[must_use]
    pub fn faults(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xfa17);
        let count = 1 + random.below(3);
        let faults = (0..count).map(|_| fault(&mut random)).collect();
        let strikes = if random.chance(25) { vec![strike(&mut random)] } else { vec![] };
        Self { name: "faults".into(), strikes, faults, ..Self::calm(seed) }
    }

    /// The failpoints to arm once `struck` strikes have struck.
    #[must_use]
    pub fn armed(&self, struck: usize) -> String {
        match self.strikes.get(struck) {
            Some(Strike { when: When::Failpoint(name, pass), what }) => {
                let kill = *what == What::Kill(Victim::Agent);
                format!("{name}@{pass}={}", if kill { "kill" } else { "freeze" })
            }
            _ => String::new(),
        }
    }
}

impl What {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill(Victim::Agent) => "kill",
            Self::Kill(Victim::Guardian) => "kill-guardian",
            Self::Kill(Victim::Both) => "kill-both",
            Self::Kill(Victim::Tool) => "kill-tool",
            Self::Cut { modem_too: true } => "cut",
            Self::Cut { modem_too: false } => "cut-router",
        }
    }
}

fn in_the_flash() -> Strike {
    Strike { when: When::Percent(40), what: What::Cut { modem_too: true } }
}

fn strike(random: &mut Random) -> Strike {
    let what = match random.below(10) {
        0 => What::Kill(Victim::Agent),
        1 => What::Kill(Victim::Guardian),
        2 => What::Kill(Victim::Both),
        3 => What::Kill(Victim::Tool),
        4 => What::Cut { modem_too: false },
        _ => What::Cut { modem_too: true },
    };
    let percent = u8::try_from(random.below(100)).unwrap_or(0);
    let when = if what == What::Kill(Victim::Tool) || random.chance(25) {
        When::Percent(percent)
    } else {
        When::Operation(1 + random.below(OPERATIONS))
    };
    Strike { when, what }
}

fn fault(random: &mut Random) -> Fault {
    let (kind, name) = *random.pick(&Action::FAULTS).unwrap_or(&Action::FAULTS[0]);
    let times = match random.below(4) {
        0 => 1,
        1 => 1 + random.below(4),
        2 => 1 + random.below(30),
        // Until it is over.
        _ => 1 << 32,
    };
    let at = 1 + random.below(OPERATIONS);
    Fault { at, times: kind.times(times), kind, kinds: kind.draw_kinds(random), name }
}

fn tool_fault(random: &mut Random) -> Option<ToolFault> {
    let kind = match random.below(12) {
        0 => ToolFaultKind::Fail { at_percent: u8::try_from(random.below(100)).unwrap_or(0) },
        1 => ToolFaultKind::Lie,
        _ => return None,
    };
    Some(ToolFault { kind, times: Some(1) })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seed {}", self.name, self.seed)?;
        for Strike { when, what } in &self.strikes {
            match when {
                When::Failpoint(name, pass) => write!(f, ", {} at {name}@{pass}", what.name())?,
                When::Operation(at) => write!(f, ", {} at operation {at}", what.name())?,
                When::Percent(percent) => write!(f, ", {} at {percent} %", what.name())?,
            }
        }
        for fault in &self.faults {
            let times = if fault.times > 1 << 16 {
                "until it is over".into()
            } else {
                format!("{} times", fault.times)
            };
            write!(f, ", {} from operation {} {times}", fault.name, fault.at)?;
        }
        if let Some(tool) = &self.tool {
            write!(f, ", the tool: {:?}", tool.kind)?;
        }
        match self.twist {
            Twist::None => {}
            Twist::Stranger => write!(f, ", a stranger's modem beside ours")?,
            Twist::FirstStart => write!(f, ", the agent's first start")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_plan() {
        for seed in 0..200 {
            assert_eq!(Plan::crashes(seed), Plan::crashes(seed));
            let faults = Plan::faults(seed);
            assert_eq!(faults, Plan::faults(seed));
            assert!((1..=3).contains(&faults.faults.len()));
            assert!((1..=3).contains(&Plan::crashes(seed).strikes.len()));
        }
    }

    #[test]
    fn strikes_are_armed_one_after_the_other() {
        let plan = Plan::calm(1).failpoint("a.b", 2, What::Kill(Victim::Agent));
        let plan = plan.failpoint("c", 1, What::Cut { modem_too: true });
        assert_eq!(plan.armed(0), "a.b@2=kill");
        assert_eq!(plan.armed(1), "c@1=freeze");
        assert_eq!(plan.armed(2), "");
    }

    #[test]
    fn a_strike_without_occasion_is_moved_to_a_pass_that_there_is() {
        let plan = Plan::calm(1).failpoint("a", 9, What::Kill(Victim::Agent));
        let at = |plan: &Plan| (plan.name.clone(), plan.armed(0));
        assert_eq!(plan.moved(1, &[]), None, "it has struck");
        let plan = plan.moved(0, &[("a".into(), 7)]).unwrap();
        assert_eq!(at(&plan), ("a@7/kill".into(), "a@7=kill".into()));
        let plan = plan.moved(0, &[("a".into(), 8)]).unwrap();
        assert_eq!(at(&plan), ("a@6/kill".into(), "a@6=kill".into()));
        let plan = plan.moved(0, &[]).unwrap();
        assert_eq!(at(&plan), ("a@1/kill".into(), "a@1=kill".into()));
        assert_eq!(plan.moved(0, &[]), None);
    }
}
