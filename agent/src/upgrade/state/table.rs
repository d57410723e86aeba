//! The transition table. Read it from top to bottom: a line an outcome of each step.

use super::{Gates, Next, Outcome, Run, Sighting, State, Step, Target, ToolEnd};
use crate::upgrade::policy::Policy;
use shared::{
    event::{Outcome as Ending, VersionLine},
    failure::{Failure, FailureKind, ModemCondition},
    grant::{Refusal, RefusalCode},
};

pub(super) fn apply(state: State, outcome: Outcome, policy: &Policy) -> State {
    match (state.step.clone(), outcome) {
        // Before the grant: the modem is untouched by this attempt.
        (_, Outcome::Cancelled) if state.is_cancellable() => state.finish(Ending::Cancelled),
        (Step::Inspecting, Outcome::Inspected(target)) => {
            let mut state = state;
            state.record.target = Some(*target);
            state.to(Step::Waiting { gates: Gates::Download })
        }
        (
            Step::Inspecting | Step::Baselining | Step::Preparing,
            Outcome::AlreadyInstalled(target),
        ) => state.already_installed(*target),
        (Step::Waiting { gates: Gates::Download }, Outcome::GatesOpen) => {
            state.to(Step::Downloading)
        }
        (Step::Downloading, Outcome::Downloaded) => state.to(Step::Verifying),
        (Step::Downloading, Outcome::GatesClosed) => {
            state.to(Step::Waiting { gates: Gates::Download })
        }
        (Step::Verifying, Outcome::Verified) => state.to(Step::Waiting { gates: Gates::Commit }),
        // A medium that does not keep what it was given costs a transfer each time.
        (Step::Verifying | Step::Waiting { gates: Gates::Commit }, Outcome::ImageLost)
            if state.lost >= policy.max_losses =>
        {
            let detail = "what is staged does not stay as it was written";
            let phase = state.phase();
            state.fail(Failure::new(phase, FailureKind::Storage, ModemCondition::Untouched, detail))
        }
        (Step::Verifying | Step::Waiting { gates: Gates::Commit }, Outcome::ImageLost) => {
            let mut state = state;
            state.lost += 1;
            state.to(Step::Waiting { gates: Gates::Download })
        }
        (Step::Waiting { gates: Gates::Commit }, Outcome::GatesOpen) => {
            let mut state = state;
            state.lost = 0;
            state.to(Step::Baselining)
        }
        (Step::Baselining, Outcome::Baselined(before)) => {
            let mut state = state;
            match &state.record.before {
                Some(_) if state.record.attempts > 0 => {}
                // Days may have passed since an earlier look that no grant followed.
                Some(_) | None => state.record.before = Some(*before),
            }
            state.to(Step::Committing)
        }

        // The point of no return.
        (Step::Committing, Outcome::GatesClosed) => {
            let mut state = state;
            // A request without an answer may have been granted.
            state.record.returned += u32::from(state.tries > 0);
            state.to(Step::Waiting { gates: Gates::Commit })
        }
        (Step::Committing, Outcome::Granted) => state.prepare(),
        (Step::Committing, Outcome::Refused(refusal)) => state.refused(refusal),

        // Behind it: every way out leads through Releasing.
        (Step::Preparing, Outcome::Prepared(read, held)) => {
            let mut state = state;
            state.record.held = held;
            match &mut state.record.before {
                Some(before) => before.complete(*read),
                None => state.record.before = Some(*read),
            }
            state.to(Step::Installing { run: Run::Start })
        }
        (Step::Preparing, Outcome::Postponed { reason }) => state.postpone(reason, policy),
        (
            Step::Preparing | Step::Installing { .. },
            Outcome::NotStarted(f) | Outcome::Failed(f),
        ) => state.retry_or_fail(f, policy),
        (Step::Installing { .. }, Outcome::ToolEnded(end)) => state.probe(end, 0),
        (Step::Probing { end, recoveries, silent }, Outcome::Probed(Sighting::Silent))
            if silent < policy.max_rounds =>
        {
            state.to(Step::Probing { end, recoveries, silent: silent + 1 })
        }
        (Step::Probing { end, recoveries, .. }, Outcome::Probed(sighting)) => {
            let mut state = state;
            state.record.tool_end = None;
            state.probed(&end, recoveries, sighting, policy).keeping(end)
        }
        (Step::Restoring, Outcome::Restored) => state.to(Step::Confirming),
        (Step::Confirming, Outcome::Confirmed { not_compared, remark }) => {
            let versions = state.reaches();
            let ending = Ending::Succeeded { versions, not_compared, remark };
            state.release(Next::Finish { ending })
        }
        // It ran and is gone: what is there now decides anew.
        (Step::Restoring | Step::Confirming, Outcome::Vanished { .. })
            if state.tries >= policy.max_rounds =>
        {
            let mut state = state;
            state.record.vanished += 1;
            // Its target was read back: that it was lost, and has to come again, it cannot be.
            state.probe(ToolEnd::Success, 1)
        }
        (Step::Restoring | Step::Confirming, Outcome::Vanished { .. }) => {
            State { tries: state.tries.saturating_add(1), ..state }
        }
        (Step::Restoring | Step::Confirming, Outcome::Again { reason })
            if state.tries >= state.acceptances(policy) =>
        {
            let phase = state.phase();
            state.fail(Failure::new(
                phase,
                FailureKind::Acceptance,
                ModemCondition::Updated,
                reason,
            ))
        }

        // Recovery: a budget of its own, never given up.
        (Step::RecoveryPause { tries, .. }, Outcome::Paused) => {
            state.to(Step::Recovering { tries, run: Run::Start })
        }
        (Step::Recovering { tries, .. }, Outcome::ToolEnded(end)) => {
            let mut state = state;
            // One that a restart cut off before any tool was started says nothing.
            let before = state.record.tool_end.take();
            let end = if end == ToolEnd::Lost { before.unwrap_or(end) } else { end };
            state.probe(end, tries)
        }
        (Step::Recovering { tries, .. }, Outcome::Probed(sighting)) => {
            let mut state = state;
            let end = state.record.tool_end.take().unwrap_or(ToolEnd::Lost);
            state.probed(&end, tries, sighting, policy).keeping(end)
        }
        (Step::Recovering { tries, .. }, Outcome::NotStarted(f) | Outcome::Failed(f)) => {
            let mut state = state;
            state.record.last_failure = Some(f);
            state.recover_later(tries, policy)
        }
        (Step::Held { .. }, Outcome::OperatorReleased) => {
            let mut state = state;
            state.record.holding = true;
            // Somebody has looked, and mended something perhaps.
            state.record.vanished = 0;
            state.probe(ToolEnd::Lost, 0)
        }

        // Giving back.
        (Step::Releasing { .. }, Outcome::PostFlashed) => {
            let mut state = state;
            state.record.post_flash_due = false;
            state
        }
        (Step::Releasing { next }, Outcome::Released) => state.released(next),
        (Step::Releasing { next }, Outcome::Again { .. }) if state.tries >= policy.max_releases => {
            state.released(next)
        }
        (Step::Backoff { .. } | Step::Postponed { .. }, Outcome::Paused) => {
            state.to(Step::Inspecting)
        }

        // A final failure anywhere else, and the same again.
        (_, Outcome::Failed(failure)) => state.fail(failure),
        (_, Outcome::Again { .. }) => State { tries: state.tries.saturating_add(1), ..state },

        // An outcome that its step cannot have is a bug. A person looks before anything goes on;
        // what was not granted ends untouched.
        (_, outcome) => state.contradicted(&outcome),
    }
}

impl State {
    fn to(mut self, step: Step) -> Self {
        // Both are journaled before the tool is started.
        let starts = matches!(step, Step::Preparing | Step::Recovering { .. });
        self.record.post_flash_due |= starts;
        self.step = step;
        self.tries = 0;
        self
    }

    fn finish(self, ending: Ending) -> Self {
        if self.record.holding {
            self.release(Next::Finish { ending })
        } else {
            self.to(Step::Finished(ending))
        }
    }

    fn release(self, next: Next) -> Self {
        self.to(Step::Releasing { next })
    }

    /// After an earlier attempt, "untouched" means that the old version was seen since.
    fn fail(self, mut failure: Failure) -> Self {
        if self.earlier_attempts() > 0 && failure.condition == ModemCondition::Untouched {
            failure.condition = ModemCondition::OldVersion;
        }
        self.finish(Ending::Failed { failure })
    }

    fn prepare(mut self) -> Self {
        self.record.holding = true;
        self.record.attempts += 1;
        self.record.vanished = 0;
        self.refusals = 0;
        self.to(Step::Preparing)
    }

    fn probe(self, end: ToolEnd, recoveries: u32) -> Self {
        self.to(Step::Probing { end, recoveries, silent: 0 })
    }

    fn reaches(&self) -> Vec<VersionLine> {
        self.record.target.as_ref().map(|t| t.reaches.clone()).unwrap_or_default()
    }

    /// The target runs before this attempt did anything. After an earlier attempt that is its work,
    /// to be confirmed like any other.
    fn already_installed(mut self, target: Target) -> Self {
        let versions = target.reaches.clone();
        self.record.target = Some(target);
        if self.earlier_attempts() == 0 {
            self.finish(Ending::AlreadyInstalled { versions })
        } else {
            // Confirming takes hold again.
            self.record.holding = true;
            self.to(Step::Confirming)
        }
    }

    /// In Preparing the attempt is counted and its tool not started.
    fn earlier_attempts(&self) -> u32 {
        self.record.attempts.saturating_sub(u32::from(self.step == Step::Preparing))
    }

    fn refused(mut self, refusal: Refusal) -> Self {
        let phase = self.phase();
        let failed = |kind| {
            let detail = format!("the coordinator refused: {}", refusal.detail);
            Failure::untouched(phase, kind, detail)
        };
        match refusal.code {
            RefusalCode::Cancelled | RefusalCode::Superseded | RefusalCode::Finished => {
                self.finish(Ending::Cancelled)
            }
            RefusalCode::Expired => self.fail(failed(FailureKind::Expired)),
            RefusalCode::Attempts => self.fail(failed(FailureKind::Refused)),
            // Nothing was granted, so the wait can be cancelled again.
            RefusalCode::Paused
            | RefusalCode::Concurrency
            | RefusalCode::Quarantined
            | RefusalCode::Unknown => {
                self.refusals += 1;
                self.to(Step::Waiting { gates: Gates::Commit })
            }
        }
    }

    fn retry_or_fail(mut self, failure: Failure, policy: &Policy) -> Self {
        self.record.last_failure = Some(failure.clone());
        if failure.kind.is_recoverable() && self.record.attempts < policy.max_attempts {
            let delay_s = policy.backoff(self.record.attempts);
            self.release(Next::Backoff { delay_s })
        } else {
            self.fail(failure)
        }
    }

    fn postpone(mut self, reason: String, policy: &Policy) -> Self {
        // No tool was started, of whose end hooks could hear.
        self.record.post_flash_due = false;
        let delay_s = policy.postponement(self.record.returned + 1);
        self.release(Next::Postpone { delay_s, reason: shared::limits::cut(reason) })
    }

    /// A modem that is away for a while does not change how its tool ended.
    fn keeping(mut self, end: ToolEnd) -> Self {
        let recovers = matches!(self.step, Step::RecoveryPause { .. } | Step::Recovering { .. });
        self.record.tool_end = Some(end).filter(|end| recovers && *end != ToolEnd::Lost);
        self
    }

    /// Looks again for some hours, with somebody else's device in the place of ours. Then a person has to, and needs
    /// the router as it was.
    fn await_return(mut self, tries: u32, strangers: u32, reason: String, policy: &Policy) -> Self {
        if strangers >= policy.max_strangers {
            return self.release(Next::Hold { reason });
        }
        self.record.strangers = strangers + 1;
        self.recover_later(tries, policy)
    }

    fn recover_later(self, tries: u32, policy: &Policy) -> Self {
        let delay_s = policy.recovery(tries + 1);
        self.to(Step::RecoveryPause { tries: tries + 1, delay_s })
    }

    /// The modem decides. `end` only tells a failure worth another attempt from a lie.
    fn probed(mut self, end: &ToolEnd, recoveries: u32, seen: Sighting, policy: &Policy) -> Self {
        use ModemCondition as Modem;
        let strangers = std::mem::take(&mut self.record.strangers);
        let phase = self.phase();
        let failure =
            |kind, condition, detail: String| Failure::new(phase, kind, condition, detail);
        match seen {
            // It answers here and never there: its router must not stay dark for that.
            Sighting::Target if self.record.vanished >= policy.max_rounds => {
                let detail =
                    "it runs, and is lost whenever its settings are read or restored".into();
                self.fail(failure(FailureKind::Acceptance, Modem::Updated, detail))
            }
            Sighting::Target => self.to(Step::Restoring),
            Sighting::Old => self.old_version(end, phase, policy),
            Sighting::OtherVersion { found } => {
                let detail = format!("found {found}");
                self.fail(failure(FailureKind::VersionMismatch, Modem::OtherVersion, detail))
            }
            // Another modem in its place, or beside it for a while: somebody has to say which.
            Sighting::WrongModem { imei } if recoveries > 0 => {
                let reason = format!("modem {imei} answers, and ours is away");
                self.await_return(recoveries, strangers, reason, policy)
            }
            Sighting::WrongModem { imei } => {
                let detail = format!("modem {imei} answers instead");
                self.fail(failure(FailureKind::WrongModem, Modem::Unknown, detail))
            }
            // A modem that was half written may look dead more than once.
            Sighting::CrashDump | Sighting::Silent if recoveries > 0 => {
                self.recover_later(recoveries, policy)
            }
            Sighting::CrashDump => {
                let detail = "the modem is in its crash-dump mode".into();
                self.fail(failure(FailureKind::ModemCrashed, Modem::CrashDump, detail))
            }
            // It may be ours, and it may be a phone: whatever it is, ours may come back.
            Sighting::ForeignDownloadMode { usb } => {
                let detail = format!("{usb} is in a download mode that the profile cannot recover");
                let mut state = self;
                let stuck =
                    failure(FailureKind::StuckInDownloadMode, Modem::Unknown, detail.clone());
                state.record.last_failure = Some(stuck);
                state.await_return(recoveries, strangers, detail, policy)
            }
            Sighting::DownloadMode if recoveries == 0 => {
                self.to(Step::Recovering { tries: 1, run: Run::Start })
            }
            // Absent may still become download mode: keep the image and look again, ever slower.
            Sighting::DownloadMode | Sighting::Absent => self.recover_later(recoveries, policy),
            // A person has to look, and needs the router as it was to do so.
            Sighting::Ambiguous { reason } => self.release(Next::Hold { reason }),
            Sighting::Silent => {
                let detail = "enumerated, but does not answer AT".into();
                self.fail(failure(FailureKind::ModemSilent, Modem::Silent, detail))
            }
        }
    }

    fn old_version(self, end: &ToolEnd, phase: shared::stages::Phase, policy: &Policy) -> Self {
        let (kind, detail) = match end {
            ToolEnd::Success if self.record.vanished > 0 => (
                FailureKind::VersionMismatch,
                "the new version was read back, and the old one runs now".to_owned(),
            ),
            ToolEnd::Success => (
                FailureKind::VersionMismatch,
                "the tool reported success, but the old version runs".to_owned(),
            ),
            ToolEnd::Failed { kind, detail } => (*kind, detail.clone()),
            ToolEnd::Lost => (
                FailureKind::AttemptLost,
                "the attempt was lost to a crash or a power cut".to_owned(),
            ),
        };
        self.retry_or_fail(Failure::new(phase, kind, ModemCondition::OldVersion, detail), policy)
    }

    fn released(mut self, next: Next) -> Self {
        self.record.holding = false;
        match next {
            Next::Finish { ending } => self.to(Step::Finished(ending)),
            Next::Backoff { delay_s } => self.to(Step::Backoff { delay_s }),
            Next::Hold { reason } => self.to(Step::Held { reason }),
            Next::Postpone { delay_s, reason } => {
                self.record.attempts = self.record.attempts.saturating_sub(1);
                self.record.returned += 1;
                self.to(Step::Postponed { delay_s, reason })
            }
        }
    }

    fn contradicted(self, outcome: &Outcome) -> Self {
        let detail = format!("{outcome:?} cannot follow from {:?}", self.step);
        log::error!("{detail}");
        if matches!(self.step, Step::Finished(_)) {
            self
        } else if self.record.holding {
            self.release(Next::Hold { reason: shared::limits::cut(detail) })
        } else {
            let phase = self.phase();
            self.fail(Failure::untouched(phase, FailureKind::Internal, detail))
        }
    }
}
