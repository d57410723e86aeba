//! One run of the storage layer: some lives of an agent, each ended by a power cut or a crash, the last
//! one without any fault.

use super::{
    life::{End, Life},
    model::Model,
};
use crate::{
    campaign::{
        control::{Action, Control, Coverage, EVERY_KIND, Rule},
        cut::{self, Flash},
    },
    random::Random,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// File operations of a life, more or less: where chance picks an instant.
const OPERATIONS: u64 = 420;
/// As many lives meet something.
const LIVES: u64 = 3;

/// The place where runs are played, one after the other.
pub struct Stage {
    root: PathBuf,
    control: Control,
    flash: Flash,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Played {
    pub violations: Vec<String>,
    pub cuts: u64,
    pub faults: u64,
    pub operations: u64,
}

impl Stage {
    /// # Errors
    /// The control file is not there.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        let lab = root.with_extension("lab");
        // Opened, not made: the shim has it mapped.
        let control = Control::open(&lab)?;
        Ok(Self { root: root.to_owned(), control, flash: Flash::new(root, &lab) })
    }

    /// Of all that was played.
    pub fn coverage(&self) -> Coverage {
        self.control.coverage()
    }

    /// # Errors
    /// The lab fails.
    pub fn play(&mut self, seed: u64) -> anyhow::Result<Played> {
        let mut random = Random::new(seed ^ 0x0005_702e);
        let mut played = Played::default();
        let mut model = Model { cut: true, ..Model::default() };
        self.control.reset(&[])?;
        for tree in ["state", "staging"] {
            cut::remove_tree(&self.root.join(tree))?;
        }
        fs::create_dir_all(self.root.join("state"))?;
        self.flash.settle()?;
        let lives = 1 + random.below(LIVES);
        for last in (0..=lives).map(|number| number == lives) {
            let rules = if last { Vec::new() } else { misfortune(&mut random) };
            self.control.reset(&rules)?;
            if !last && random.chance(70) {
                let at = 1 + random.below(OPERATIONS);
                self.control.arm(Rule { at, times: 1, action: Action::DIE, kinds: EVERY_KIND })?;
            }
            let end = Life::new(&self.root, &self.control, &mut model, &mut random).live();
            played.faults += self.control.struck();
            played.operations += self.control.operations();
            let dead = self.control.is_dead();
            self.control.reset(&[])?;
            model.cut = dead || random.chance(30);
            if model.cut {
                played.cuts += 1;
                self.flash.cut(&mut random)?;
            }
            if last && let End::Refused(reason) = end {
                model.wrong(format!("without any fault the agent does not start: {reason}"));
            }
        }
        played.violations = model.violations;
        Ok(played)
    }
}

/// Faults of the disk: none to three kinds.
fn misfortune(random: &mut Random) -> Vec<Rule> {
    (0..random.below(4))
        .map(|_| {
            let (action, _) = *random.pick(&Action::FAULTS).unwrap_or(&Action::FAULTS[0]);
            let times = match random.below(3) {
                0 => 1,
                1 => 1 + random.below(12),
                _ => 1 << 32,
            };
            let at = 1 + random.below(OPERATIONS);
            Rule { at, times: action.times(times), action, kinds: action.draw_kinds(random) }
        })
        .collect()
}
