//! Plays one plan on one subject, and judges how it ended.
//!
//! ```text
//! reset ─► assign an image ─► start ─► strikes, faults, procd's restarts ─► the end ─► verdict
//! ```

use super::{
    control::{Action, Coverage, EVERY_KIND, Rule},
    judge::{self, Found},
    plan::{Plan, Strike, What, When},
    subject::{Subject, Victim},
    twist::Twist,
};
use crate::{
    coordinator::Api,
    faults,
    modem::{Mode, SimulatedModem},
    watch,
};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two looks at processes and files.
const LOOK: Duration = Duration::from_millis(3);
/// Between two questions to the coordinator; an operator has a thousand a minute.
const ASK: Duration = Duration::from_millis(150);
/// As long as faults that do not end by count last.
const FAULTS_LAST: Duration = Duration::from_secs(3);
/// When the coordinator is asked although the agent has no result on disk: there may have been none
/// to be written.
const ASK_ANYWAY: Duration = Duration::from_secs(2);
/// procd's pause before it starts an agent again, at the agent's speed.
const RESPAWN: Duration = Duration::from_millis(100);
/// A run that has not ended by then never will; it ends much sooner on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Giving back may come after the report.
const SETTLES: Duration = Duration::from_secs(20);
/// Where the device's key is on disk.
const MADE: &str = "identity.made";

/// What the modem is to get.
#[derive(Debug, Clone)]
pub struct Target {
    /// The image's id.
    pub image: String,
    pub package: String,
    /// Lowercase hex.
    pub sha256: String,
}

/// How a run went.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// `success`, or a failure's kind.
    pub ending: String,
    pub violations: Vec<String>,
    pub cuts: u32,
    pub kills: u32,
    /// Operations that failed by the plan.
    pub faults: u64,
    /// Strikes of the plan that found their occasion.
    pub struck: usize,
    /// Names of failpoints at which something struck.
    pub failpoints: Vec<String>,
    pub starts: u32,
    /// Operations on files and ports in all.
    pub operations: u64,
    pub coverage: Coverage,
}

/// One run under way.
struct Play<'a> {
    subject: &'a mut Subject,
    plan: &'a Plan,
    verdict: Verdict,
    began: Instant,
    /// Lines of the failpoints' file that were dealt with.
    seen: usize,
    restart_at: Option<Instant>,
    /// The key that a first start had made when it was struck.
    key: Option<Vec<u8>>,
}

/// # Errors
/// The lab itself fails: that is no verdict.
pub async fn play(
    subject: &mut Subject,
    api: &Api,
    plan: &Plan,
    target: &Target,
) -> anyhow::Result<Verdict> {
    let rules: Vec<Rule> = plan.faults.iter().map(super::plan::Fault::rule).collect();
    subject.reset(&rules)?;
    if let Some(tool) = &plan.tool {
        faults::write_tool_faults(&subject.router.dir, std::slice::from_ref(tool))?;
    }
    let mut play = Play {
        subject,
        plan,
        verdict: Verdict::default(),
        began: Instant::now(),
        seen: 0,
        restart_at: None,
        key: None,
    };
    play.arm()?;
    if plan.twist == Twist::FirstStart {
        play.first_start().await?;
    }
    let subject = &play.subject;
    let mut operations = Vec::new();
    for (slot, _) in subject.modems() {
        operations.push(watch::assign_to(api, &subject.device, slot, &target.image).await?);
    }
    play.start()?;
    let ended = play.until_all_end(api, &operations).await?;
    play.settle().await?;
    let Play { subject, mut verdict, .. } = play;
    verdict.faults = subject.control.struck();
    let names = subject.struck().into_iter();
    verdict.failpoints = names.filter_map(|line| Some(line.split_once('@')?.0.into())).collect();
    verdict.operations = subject.control.operations();
    verdict.coverage = subject.control.coverage();
    let mut modems = Vec::new();
    for ((_, modem), operation) in subject.modems().zip(&ended) {
        modems.push((modem.state()?, operation));
    }
    let found = Found { plan, target, modems: &modems, subject };
    let (ending, violations) = judge::judge(&found);
    verdict.ending = ending;
    verdict.violations.extend(violations);
    Ok(verdict)
}

impl Play<'_> {
    fn start(&mut self) -> anyhow::Result<()> {
        self.verdict.starts += 1;
        self.restart_at = None;
        self.subject.start(&self.plan.armed(self.verdict.struck))
    }

    fn next(&self) -> Option<&Strike> {
        self.plan.strikes.get(self.verdict.struck)
    }

    /// The agent starts where it never ran; nobody hears of the key that it makes.
    async fn first_start(&mut self) -> anyhow::Result<()> {
        self.subject.put_identity_aside()?;
        self.subject.router.link.cut();
        self.start()?;
        let deadline = Instant::now() + SETTLES;
        while !self.has_made_a_key() || (self.is_due() && Instant::now() < deadline) {
            anyhow::ensure!(Instant::now() < deadline, "a first start makes no key");
            self.tend()?;
            sleep(LOOK).await;
        }
        self.subject.kill_all()?;
        if self.key.is_some() && self.key != self.subject.key() {
            self.verdict.violations.push("a key that was made is another one".to_owned());
        }
        if let Some(spoilt) = self.subject.spoilt_identity() {
            self.verdict.violations.push(format!("a first start leaves {spoilt}"));
        }
        self.subject.take_identity_back()?;
        self.subject.router.link.restore();
        Ok(())
    }

    /// The file is there, and the failpoint behind it was passed.
    fn has_made_a_key(&self) -> bool {
        self.subject.key().is_some() && self.subject.passes().iter().any(|(name, _)| name == MADE)
    }

    /// A strike at the first start is still to come.
    fn is_due(&self) -> bool {
        let at = self.next().map(|strike| &strike.when);
        matches!(at, Some(When::Failpoint(name, _)) if name.starts_with("identity."))
    }

    /// Arms the next strike, if it is one at an operation.
    fn arm(&self) -> anyhow::Result<()> {
        if let Some(Strike { when: When::Operation(after), .. }) = self.next() {
            let at = self.subject.control.operations() + after;
            let rule = Rule { at, times: 1, action: Action::FREEZE, kinds: EVERY_KIND };
            self.subject.control.arm(rule)?;
        }
        Ok(())
    }

    /// The operations as the coordinator has them in the end.
    async fn until_all_end(
        &mut self,
        api: &Api,
        operations: &[String],
    ) -> anyhow::Result<Vec<Value>> {
        let mut asked = Instant::now();
        let mut calm = false;
        let mut last = vec![Value::Null; operations.len()];
        while self.began.elapsed() < PATIENCE {
            self.tend()?;
            if !calm
                && self.began.elapsed() > FAULTS_LAST
                && self.verdict.struck >= self.plan.strikes.len()
            {
                self.subject.control.calm()?;
                calm = true;
            }
            let results = operations.iter().all(|operation| self.subject.has_result(operation));
            if asked.elapsed() > if results { ASK } else { ASK_ANYWAY } {
                asked = Instant::now();
                for (operation, last) in operations.iter().zip(&mut last) {
                    let path = format!("upgrade-operation/{operation}/");
                    if let Ok(value) = api.get(&path).await {
                        *last = value;
                    }
                }
                if last.iter().all(watch::has_ended) {
                    break;
                }
            }
            // A strike that no longer finds its occasion must not hold up the end of the faults.
            if self.began.elapsed() > FAULTS_LAST * 3 && !calm {
                self.subject.control.calm()?;
                calm = true;
            }
            sleep(LOOK).await;
        }
        Ok(last)
    }

    /// Strikes that are due, and agents that have to be started again.
    fn tend(&mut self) -> anyhow::Result<()> {
        let struck = self.subject.struck().len();
        if struck > self.seen {
            self.seen = struck;
            self.strike()?;
        } else if self.subject.control.is_frozen() {
            self.strike()?;
        } else if let Some(Strike { when: When::Percent(percent), .. }) = self.next() {
            let far = |(_, modem): (_, &SimulatedModem)| {
                let state = modem.state();
                state.is_ok_and(|s| s.mode == Mode::Download && s.percent >= *percent)
            };
            if self.subject.modems().any(far) {
                self.strike()?;
            }
        }
        if self.plan.twist == Twist::Stranger {
            self.subject.look_after_held()?;
        }
        if self.subject.ended().is_some() || !self.subject.runs() {
            let at = *self.restart_at.get_or_insert_with(|| Instant::now() + RESPAWN);
            if Instant::now() >= at {
                self.start()?;
            }
        }
        Ok(())
    }

    fn strike(&mut self) -> anyhow::Result<()> {
        let Some(Strike { what, when }) = self.next().cloned() else {
            self.subject.control.freeze(false)?;
            return Ok(());
        };
        self.verdict.struck += 1;
        if matches!(&when, When::Failpoint(name, _) if name == MADE) {
            self.key = self.subject.key();
        }
        match what {
            What::Cut { modem_too } => {
                if self.plan.twist == Twist::Stranger && self.verdict.cuts == 0 {
                    self.subject.plug_stranger()?;
                }
                self.verdict.cuts += 1;
                self.subject.power_cut(modem_too)?;
            }
            What::Kill(victim) => {
                self.verdict.kills += 1;
                // At a failpoint the agent kills itself, or the guardian does.
                if !(victim == Victim::Agent && matches!(when, When::Failpoint(..))) {
                    self.subject.kill(victim);
                }
                self.subject.go_on();
                self.subject.control.freeze(false)?;
            }
        }
        self.arm()?;
        // The running process knows the failpoints that it was started with.
        if matches!(self.next(), Some(Strike { when: When::Failpoint(..), .. })) {
            self.subject.kill(Victim::Agent);
        }
        Ok(())
    }

    /// The last of giving back.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.subject.control.calm()?;
        self.subject.go_on();
        let deadline = Instant::now() + SETTLES;
        while !self.subject.is_at_rest() && Instant::now() < deadline {
            self.tend()?;
            sleep(LOOK).await;
        }
        Ok(())
    }
}
