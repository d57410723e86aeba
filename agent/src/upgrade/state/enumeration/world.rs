//! The world of the enumeration: a modem, staging, a coordinator that grants, and what every action
//! may come to in it.

use super::super::{tests::before, tests::target, *};
use shared::{
    failure::{Failure, FailureKind},
    grant::{Refusal, RefusalCode},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Modem {
    Old,
    Target,
    Download,
    Absent,
}

/// What a tool run will come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Run_ {
    Works,
    /// Works and exits with an error.
    WorksSilently,
    FailsAtOnce,
    FailsHalfway,
    Refuses,
    Lies,
    Vanishes,
}

pub(super) const RUNS: [Run_; 7] = [
    Run_::Works,
    Run_::WorksSilently,
    Run_::FailsAtOnce,
    Run_::FailsHalfway,
    Run_::Refuses,
    Run_::Lies,
    Run_::Vanishes,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub modem: Modem,
    /// The staged image, and whether it is what the manifest says.
    pub staged: Option<bool>,
    pub durable: bool,
    /// The modem has become the only way to the coordinator.
    pub sole: bool,
    pub held: bool,
    /// A tool was started since the post-flash hooks ran.
    pub hooked: bool,
    pub running: Option<Run_>,
    /// In volatile memory.
    pub exit: Option<&'static str>,
    pub granted: u32,
    /// At the coordinator: the attempt may touch the modem, and nobody can cancel.
    pub open: bool,
    pub cancelled: bool,
    pub installs: u32,
    pub cuts: u32,
}

impl World {
    fn finish(&mut self, run: Run_) -> ToolEnd {
        self.running = None;
        self.modem = match run {
            Run_::Works | Run_::WorksSilently => Modem::Target,
            Run_::FailsHalfway => Modem::Download,
            Run_::Vanishes => Modem::Absent,
            Run_::FailsAtOnce | Run_::Refuses | Run_::Lies => self.modem,
        };
        let failed = |kind| ToolEnd::Failed { kind, detail: String::new() };
        match run {
            Run_::Works | Run_::Lies => ToolEnd::Success,
            Run_::Refuses => failed(FailureKind::ToolRefused),
            Run_::WorksSilently | Run_::FailsAtOnce | Run_::FailsHalfway => {
                failed(FailureKind::ToolFailed)
            }
            Run_::Vanishes => failed(FailureKind::ToolTimeout),
        }
    }

    /// Power is cut: the tool ends wherever it was.
    pub(super) fn power_cuts(&self) -> Vec<Self> {
        let mut base = self.clone();
        base.cuts += 1;
        base.exit = None;
        base.held = false;
        if !base.durable {
            base.staged = None;
        }
        if base.running.take().is_none() {
            return vec![base];
        }
        [self.modem, Modem::Download, Modem::Target]
            .map(|modem| Self { modem, ..base.clone() })
            .to_vec()
    }

    /// ◆ After a power cut nothing could be recovered: no image here, and no way to another.
    fn would_strand(&self) -> bool {
        self.sole && !self.durable
    }

    fn start_tool(&mut self, recovery: bool) {
        assert!(recovery || !self.would_strand(), "begun with all the modem needs in memory alone");
        assert!(self.open, "the tool was started after its grant was over");
        assert_eq!(self.staged, Some(true), "an unverified image reached the tool");
        assert_eq!(self.running, None, "two tools on one modem");
        assert!(self.held, "the tool was started without its holders");
        self.hooked = true;
        if !recovery {
            self.installs += 1;
            assert!(self.installs <= self.granted, "a start without a grant");
        }
    }

    fn sighting(&self) -> Sighting {
        assert_eq!(self.running, None, "the modem was probed under a running tool");
        match self.modem {
            Modem::Old => Sighting::Old,
            Modem::Target => Sighting::Target,
            Modem::Download => Sighting::DownloadMode,
            Modem::Absent => Sighting::Absent,
        }
    }
}

/// Everything that may come of an action: the world and the outcome, or only the world if the
/// action is cut short in it.
pub(super) fn perform(
    action: Action,
    world: &World,
    state: &State,
) -> (Vec<(World, Outcome)>, Vec<World>) {
    let again = || Outcome::Again { reason: String::new() };
    let same = |outcome| (vec![(world.clone(), outcome)], vec![]);
    let with = |change: &dyn Fn(&mut World), outcome| {
        let mut after = world.clone();
        change(&mut after);
        (vec![(after.clone(), outcome)], vec![after])
    };
    // Probing and what follows needs the ports: a fresh process takes hold again.
    let mut world = world.clone();
    let needs_holders =
        matches!(action, Action::Probe | Action::Restore | Action::Confirm | Action::Recover);
    if needs_holders && state.record.holding {
        world.held = true;
    }
    let world = &world;
    match action {
        Action::Inspect => match world.modem {
            Modem::Old => same(Outcome::Inspected(Box::new(target()))),
            // ModemManager may not know enough to tell.
            Modem::Target => {
                let told = [Outcome::AlreadyInstalled, Outcome::Inspected];
                (told.map(|told| (world.clone(), told(Box::new(target())))).to_vec(), vec![])
            }
            Modem::Download | Modem::Absent => {
                panic!("inspecting a modem left in {:?}", world.modem)
            }
        },
        Action::CheckGates(_) if world.would_strand() => {
            let kind = FailureKind::NoDurableStaging;
            same(Outcome::Failed(Failure::untouched(state.phase(), kind, "")))
        }
        Action::CheckGates(_) => same(Outcome::GatesOpen),
        Action::Download => with(&|w| w.staged = Some(true), Outcome::Downloaded),
        Action::Verify => {
            let rotten = World { staged: Some(false), ..world.clone() };
            match world.staged {
                Some(true) => {
                    (vec![(world.clone(), Outcome::Verified), (rotten, Outcome::Verified)], vec![])
                }
                Some(false) | None => same(Outcome::ImageLost),
            }
        }
        Action::Baseline => {
            let told = |by_modem| Box::new(Before { by_modem, ..before() });
            let by_manager = (world.clone(), Outcome::Baselined(told(false)));
            match world.modem {
                Modem::Target => {
                    let there = Outcome::AlreadyInstalled(Box::new(target()));
                    (vec![(world.clone(), there), by_manager], vec![])
                }
                _ => (vec![(world.clone(), Outcome::Baselined(told(true))), by_manager], vec![]),
            }
        }
        Action::RequestGrant { attempt } => grant(world, attempt),
        Action::Prepare if world.would_strand() && state.record.returned == 0 => {
            same(Outcome::Postponed { reason: "no other way".into() })
        }
        Action::Prepare if world.would_strand() => {
            let kind = FailureKind::ToolNotStarted;
            same(Outcome::Failed(Failure::untouched(state.phase(), kind, "")))
        }
        Action::Prepare => {
            let mut after = world.clone();
            after.held = true;
            let read = match world.modem {
                Modem::Target => Outcome::AlreadyInstalled(Box::new(target())),
                _ => Outcome::Prepared(Box::new(before()), vec![]),
            };
            let silent = Failure::untouched(state.phase(), FailureKind::ToolNotStarted, "");
            let mut ended = vec![read, Outcome::Failed(silent)];
            if world.modem == Modem::Old && state.record.returned == 0 {
                ended.push(Outcome::Postponed { reason: "too hot".into() });
            }
            (ended.into_iter().map(|outcome| (after.clone(), outcome)).collect(), vec![after])
        }
        Action::Install | Action::Recover => {
            let recovery = action == Action::Recover;
            if recovery && world.modem != Modem::Download {
                return same(Outcome::Probed(world.sighting()));
            }
            if world.staged != Some(true) {
                let kind = FailureKind::ChecksumMismatch;
                return same(Outcome::NotStarted(Failure::untouched(state.phase(), kind, "")));
            }
            install(world, recovery)
        }
        Action::Attach => match world.running {
            Some(run) => {
                let mut after = world.clone();
                let end = after.finish(run);
                (vec![(after, Outcome::ToolEnded(end))], vec![])
            }
            None => same(Outcome::ToolEnded(ToolEnd::Lost)),
        },
        Action::Probe => same(Outcome::Probed(world.sighting())),
        Action::Restore => {
            let vanished = Outcome::Vanished { reason: String::new() };
            let ended = [Outcome::Restored, again(), vanished];
            (ended.map(|outcome| (world.clone(), outcome)).to_vec(), vec![])
        }
        Action::Confirm => {
            assert_eq!(world.modem, Modem::Target);
            let vanished = Outcome::Vanished { reason: String::new() };
            let same = |outcome| (world.clone(), outcome);
            (
                vec![
                    same(Outcome::Confirmed { not_compared: None, remark: None }),
                    same(again()),
                    same(vanished),
                ],
                vec![],
            )
        }
        Action::PostFlash => with(&|w| w.hooked = false, Outcome::PostFlashed),
        Action::Release => with(&|w| w.held = false, Outcome::Released),
        Action::Pause { .. } => same(Outcome::Paused),
        Action::AwaitRelease => same(Outcome::OperatorReleased),
    }
}

/// The coordinator: idempotent for an attempt, refuses when cancelled; the answer may be lost.
pub(super) fn grant(world: &World, attempt: u32) -> (Vec<(World, Outcome)>, Vec<World>) {
    let refused = |code| {
        let refusal = Refusal { code, detail: String::new(), retry_after_s: None };
        (vec![(world.clone(), Outcome::Refused(refusal))], vec![])
    };
    if world.cancelled {
        return refused(RefusalCode::Cancelled);
    }
    if attempt > 3 {
        return refused(RefusalCode::Attempts);
    }
    if world.would_strand() {
        return (vec![(world.clone(), Outcome::GatesClosed)], vec![]);
    }
    assert!(attempt <= world.granted + 1, "an attempt was skipped");
    let mut after = world.clone();
    after.granted = after.granted.max(attempt);
    after.open = true;
    let lost = Outcome::Again { reason: "no answer".into() };
    let closed = (world.clone(), Outcome::GatesClosed);
    (vec![(after.clone(), Outcome::Granted), (after.clone(), lost), closed], vec![after])
}

fn install(world: &World, recovery: bool) -> (Vec<(World, Outcome)>, Vec<World>) {
    let mut started = world.clone();
    started.start_tool(recovery);
    let mut ended = Vec::new();
    let mut cut = Vec::new();
    for run in RUNS {
        if recovery && matches!(run, Run_::Vanishes) {
            continue;
        }
        let running = World { running: Some(run), ..started.clone() };
        let mut after = running.clone();
        let end = after.finish(run);
        ended.push((after, Outcome::ToolEnded(end)));
        cut.push(running);
    }
    (ended, cut)
}
