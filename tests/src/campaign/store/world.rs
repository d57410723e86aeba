//! What the world says to an action of the machine: the modem, the tool and the coordinator are chance,
//! the staging is the real one.

use super::life::{Life, Open};
use crate::random::Random;
use agent::{
    staging::{ImageFile, Staged},
    upgrade::{
        results::Results,
        state::{Action, Before, Outcome, Sighting, State, Target, ToolEnd},
    },
};
use shared::{
    event::VersionLine,
    failure::{Failure, FailureKind},
    grant::{Refusal, RefusalCode},
    ids::Slot,
};

/// Bytes of an image.
pub(super) const IMAGE: u64 = (BLOCKS * BLOCK) as u64;
const BLOCKS: usize = 3;
const BLOCK: usize = 4096;
const NAME: &str = "image.bin";

impl Life<'_> {
    /// What the world says to the pending action; `None`: the life ends here.
    pub(super) fn act(
        &mut self,
        action: Action,
        state: &State,
        open: &mut Open,
    ) -> Option<Outcome> {
        let again = || Outcome::Again { reason: "chance".into() };
        let chance = |random: &mut Random, outcome: Outcome| {
            if random.chance(93) { outcome } else { again() }
        };
        Some(match action {
            Action::Inspect => chance(self.random, Outcome::Inspected(Box::new(target()))),
            Action::CheckGates(_) => Outcome::GatesOpen,
            Action::Download => match self.download(state) {
                Ok(()) => Outcome::Downloaded,
                Err(reason) => Outcome::Again { reason },
            },
            Action::Verify => {
                if self.is_staged(state) {
                    Outcome::Verified
                } else {
                    Outcome::ImageLost
                }
            }
            Action::Baseline => Outcome::Baselined(Box::new(before(self.random.chance(50)))),
            Action::RequestGrant { attempt } => self.ask(attempt, state),
            // A gate that was not looked at before.
            Action::Prepare if self.random.chance(7) => {
                Outcome::Postponed { reason: "chance".into() }
            }
            Action::Prepare => Outcome::Prepared(Box::new(before(true)), vec![]),
            Action::Install => self.install(state, &mut open.results),
            Action::Attach => Outcome::ToolEnded(ToolEnd::Lost),
            Action::Probe => Outcome::Probed(self.sighting(state)),
            Action::Restore => chance(self.random, Outcome::Restored),
            Action::Confirm => {
                chance(self.random, Outcome::Confirmed { not_compared: None, remark: None })
            }
            Action::PostFlash => Outcome::PostFlashed,
            Action::Release => chance(self.random, Outcome::Released),
            Action::Pause { .. } => Outcome::Paused,
            Action::Recover => self.recover(state),
            Action::AwaitRelease => return None,
        })
    }

    fn ask(&mut self, attempt: u32, state: &State) -> Outcome {
        let record = &state.record;
        let refusal =
            |code| Outcome::Refused(Refusal { code, detail: "chance".into(), retry_after_s: None });
        if self.random.chance(7) {
            return refusal(RefusalCode::Paused);
        }
        if self.model.grant(record.job.operation, attempt, record.stream) {
            Outcome::Granted
        } else {
            refusal(RefusalCode::Attempts)
        }
    }

    fn download(&mut self, state: &State) -> Result<(), String> {
        let image = &state.record.job.image;
        let staged = self
            .staging
            .stage(&image.manifest_sha256, image.size, 0, false)
            .map_err(|e| e.to_string())?;
        staged.keep_manifest(b"{}", "signature").map_err(|e| e.to_string())?;
        let file = staged.open_image(NAME).map_err(|e| e.to_string())?;
        for index in 0..BLOCKS {
            if holds(&file, state, index) && self.model.blocks.contains(&index) {
                continue;
            }
            file.write_block((index * BLOCK) as u64, &block(state, index))
                .map_err(|e| e.to_string())?;
            if !self.control.is_dead() {
                self.model.blocks.insert(index);
            }
        }
        Ok(())
    }

    /// Whether every block is there, with the right bytes. One that was said to be on disk must be,
    /// unless the disk refuses to say.
    fn is_staged(&mut self, state: &State) -> bool {
        let struck = self.control.struck();
        let found = self.staged(state).and_then(|staged| staged.open_image(NAME).ok());
        let present = |index: &usize| found.as_ref().is_some_and(|file| holds(file, state, *index));
        let lost = self.model.blocks.iter().filter(|index| !present(index)).count();
        let whole = (0..BLOCKS).all(|index| present(&index));
        if lost > 0 && self.control.struck() == struck && !self.control.is_dead() {
            self.model.wrong(format!("{lost} staged blocks were lost"));
            self.model.blocks.clear();
        }
        whole
    }

    fn staged(&self, state: &State) -> Option<Staged> {
        let image = &state.record.job.image;
        self.staging.find_all(&image.manifest_sha256, image.size).into_iter().next()
    }

    fn install(&mut self, state: &State, results: &mut Results) -> Outcome {
        if state.record.before.as_ref().is_none_or(|before| !before.by_modem) {
            self.model.wrong("a tool is started at a modem that nobody asked");
        }
        let refuse = |kind| Outcome::NotStarted(Failure::untouched(state.phase(), kind, "chance"));
        if !self.is_staged(state) {
            return refuse(FailureKind::ChecksumMismatch);
        }
        if results.flash(&Slot::default(), None, Some(1)).is_err() {
            return refuse(FailureKind::ToolNotStarted);
        }
        if self.control.is_dead() {
            return Outcome::Paused;
        }
        self.model.flashes += 1;
        self.model.start(state.record.job.operation, state.record.attempts);
        Outcome::ToolEnded(match self.random.below(3) {
            0 => ToolEnd::Success,
            1 => ToolEnd::Failed { kind: FailureKind::ToolFailed, detail: "chance".into() },
            _ => ToolEnd::Lost,
        })
    }

    /// A modem in download mode has nothing but the staged image.
    fn recover(&mut self, state: &State) -> Outcome {
        if self.is_staged(state) {
            Outcome::ToolEnded(ToolEnd::Success)
        } else {
            let kind = FailureKind::ChecksumMismatch;
            Outcome::NotStarted(Failure::untouched(state.phase(), kind, "not staged"))
        }
    }

    fn sighting(&mut self, state: &State) -> Sighting {
        let flashed = (state.record.job.operation, state.record.attempts);
        if !self.model.started.contains(&flashed) {
            return Sighting::Old;
        }
        match self.random.below(10) {
            0..=5 => Sighting::Target,
            6..=7 => Sighting::Old,
            8 => Sighting::DownloadMode,
            _ => Sighting::Silent,
        }
    }
}

/// The bytes of a block, different in every image.
fn block(state: &State, index: usize) -> Vec<u8> {
    let seed = state.record.job.image.sha256.0[0];
    let mut bytes = vec![0; BLOCK];
    Random::new(u64::from(seed) * 64 + index as u64 + 1).fill(&mut bytes);
    bytes
}

fn holds(file: &ImageFile, state: &State, index: usize) -> bool {
    let mut found = vec![0; BLOCK];
    file.read_block((index * BLOCK) as u64, &mut found).is_ok() && found == block(state, index)
}

fn version(value: &str) -> VersionLine {
    VersionLine { command: "+CGMR".into(), line: 1, value: value.into() }
}

fn target() -> Target {
    Target {
        vendor: "Telit".into(),
        model: "FN990A28".into(),
        sequence: 4,
        reaches: vec![version("new")],
        profile: "telit-uxfp".into(),
        network_s: None,
    }
}

fn before(by_modem: bool) -> Before {
    Before {
        by_modem,
        manufacturer: "Telit".into(),
        model: "FN990A28".into(),
        imei: "356789012340018".into(),
        versions: vec![version("old")],
        baseline: agent::modem::Baseline::default(),
    }
}
