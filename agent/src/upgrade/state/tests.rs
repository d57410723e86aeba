//! Single lines of the table that the enumeration does not name.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects; all else fails it"
)]

use super::*;
use shared::{
    desired::{ImageRef, Job},
    failure::{Failure, FailureKind, ModemCondition},
    grant::{Refusal, RefusalCode},
    hex::Hex,
    ids::{ImageId, OperationId, Slot, StreamId},
};

pub(crate) fn record() -> Record {
    let job = Job {
        operation: OperationId::from_random([1; 16]),
        slot: Slot::default(),
        image: ImageRef {
            id: ImageId::from_random([2; 16]),
            size: 1,
            sha256: Hex([0; 32]),
            manifest_sha256: Hex([0; 32]),
        },
        requires: vec![],
        options: Default::default(),
        deadline: None,
        allow_volatile_staging: false,
    };
    Record::new(job, StreamId::from_random([3; 16]))
}

pub(crate) fn before() -> Before {
    Before {
        manufacturer: "Telit".into(),
        model: "FN990A28".into(),
        imei: "356789012345678".into(),
        versions: vec![],
        baseline: Default::default(),
        by_modem: true,
    }
}

pub(crate) fn target() -> Target {
    Target {
        vendor: "Telit".into(),
        model: "FN990A28".into(),
        sequence: 4,
        reaches: vec![],
        profile: "telit-uxfp".into(),
        network_s: None,
    }
}

fn at(step: Step) -> State {
    State { step, ..State::new(record()) }
}

fn apply(state: State, outcome: Outcome) -> State {
    state.apply(outcome, &Policy::default())
}

fn refusal(code: RefusalCode) -> Outcome {
    Outcome::Refused(Refusal { code, detail: "because".into(), retry_after_s: None })
}

#[test]
fn a_refusal_that_passes_waits_where_it_can_be_cancelled() {
    for code in [RefusalCode::Paused, RefusalCode::Concurrency, RefusalCode::Quarantined] {
        let state = apply(at(Step::Committing), refusal(code));
        assert_eq!(state.step, Step::Waiting { gates: Gates::Commit });
        assert!(state.is_cancellable());
        assert_eq!(state.refusals, 1);
    }
}

#[test]
fn a_refusal_for_good_ends_it_untouched() {
    let ending = |code| apply(at(Step::Committing), refusal(code)).ending().cloned();
    assert_eq!(ending(RefusalCode::Cancelled), Some(Ending::Cancelled));
    assert_eq!(ending(RefusalCode::Superseded), Some(Ending::Cancelled));
    let Some(Ending::Failed { failure }) = ending(RefusalCode::Expired) else { panic!() };
    assert_eq!(
        (failure.kind, failure.condition),
        (FailureKind::Expired, ModemCondition::Untouched)
    );
}

#[test]
fn the_request_for_the_grant_cannot_be_cancelled_locally() {
    assert!(!at(Step::Committing).is_cancellable());
    assert!(at(Step::Backoff { delay_s: 1 }).is_cancellable());
}

#[test]
fn a_tool_that_lies_is_not_tried_again() {
    let probing = at(Step::Probing { end: ToolEnd::Success, recoveries: 0, silent: 0 });
    let state = apply(probing, Outcome::Probed(Sighting::Old));
    let Step::Releasing { next: Next::Finish { ending: Ending::Failed { failure } } } = state.step
    else {
        // Nothing was held in this made-up state, so it may also finish at once.
        let Some(Ending::Failed { failure }) = state.ending() else { panic!("{state:?}") };
        assert_eq!(failure.kind, FailureKind::VersionMismatch);
        return;
    };
    assert_eq!(failure.kind, FailureKind::VersionMismatch);
}

#[test]
fn every_sighting_has_its_own_end() {
    let mut record = record();
    (record.attempts, record.holding) = (3, true);
    let kind = |sighting| {
        let step = Step::Probing { end: ToolEnd::Lost, recoveries: 0, silent: 99 };
        let state = State { step, tries: 0, refusals: 0, lost: 0, record: record.clone() };
        match apply(state, Outcome::Probed(sighting)).step {
            Step::Releasing { next: Next::Finish { ending: Ending::Failed { failure } } } => {
                Ok((failure.kind, failure.condition))
            }
            step => Err(step),
        }
    };
    use {FailureKind as Kind, ModemCondition as Modem};
    for (sighting, expected) in [
        (Sighting::Old, (Kind::AttemptLost, Modem::OldVersion)),
        (
            Sighting::OtherVersion { found: "x".into() },
            (Kind::VersionMismatch, Modem::OtherVersion),
        ),
        (Sighting::WrongModem { imei: "1".into() }, (Kind::WrongModem, Modem::Unknown)),
        (Sighting::CrashDump, (Kind::ModemCrashed, Modem::CrashDump)),
        (Sighting::Silent, (Kind::ModemSilent, Modem::Silent)),
    ] {
        assert_eq!(kind(sighting), Ok(expected));
    }
    assert_eq!(kind(Sighting::DownloadMode), Err(Step::Recovering { tries: 1, run: Run::Start }));
    assert!(matches!(kind(Sighting::Absent), Err(Step::RecoveryPause { tries: 1, .. })));
    let ambiguous = Sighting::Ambiguous { reason: "two".into() };
    assert!(matches!(kind(ambiguous), Err(Step::Releasing { next: Next::Hold { .. } })));
}

#[test]
fn only_what_has_touched_the_modem_keeps_its_turn_and_hooks_are_owed_once() {
    let mut state = at(Step::Committing);
    assert!(!state.has_touched() && !state.keeps_its_turn());
    state = apply(state, Outcome::Granted);
    assert!(state.has_touched() && state.keeps_its_turn() && state.record.post_flash_due);
    for paused in
        [Step::RecoveryPause { tries: 9, delay_s: 3600 }, Step::Held { reason: String::new() }]
    {
        assert!(at(paused.clone()).has_touched() && !at(paused).keeps_its_turn());
    }
    let next = Next::Hold { reason: "who is it".into() };
    state = State { step: Step::Releasing { next }, ..state };
    assert_eq!(state.action(), Some(Action::PostFlash));
    let saved = state.clone();
    state = apply(state, Outcome::PostFlashed);
    assert!(state.differs_after_restart(&saved), "else a crash would run them again");
    assert_eq!(state.action(), Some(Action::Release));
    // A person lets it go on: owed again only once a tool is started again.
    state = apply(apply(state, Outcome::Released), Outcome::OperatorReleased);
    assert!(!state.record.post_flash_due);
    state = apply(state, Outcome::Probed(Sighting::DownloadMode));
    assert!(state.record.post_flash_due);
}

#[test]
fn what_only_the_modem_tells_is_read_once_and_never_again() {
    use crate::modem::{Baseline, Registration};
    let told = |composition: &str, by_modem| {
        let usb_composition = Some(composition.to_owned()).filter(|_| by_modem);
        let lte = (!by_modem).then_some(Registration::Home);
        let baseline = Baseline { usb_composition, lte, ..Default::default() };
        Box::new(Before { baseline, by_modem, ..before() })
    };
    let mut state = apply(at(Step::Baselining), Outcome::Baselined(told("", false)));
    state = apply(state, Outcome::Granted);
    let saved = state.clone();
    state = apply(state, Outcome::Prepared(told("1", true), vec![]));
    assert!(state.differs_after_restart(&saved), "the tool waits until it is written down");
    let known = state.record.before.clone().unwrap();
    assert_eq!(known.baseline.usb_composition.as_deref(), Some("1"));
    assert_eq!(known.baseline.lte, Some(Registration::Home), "from before its holders let go");
    // The next attempt meets a modem that the first may have changed.
    state.step = Step::Preparing;
    state = apply(state, Outcome::Prepared(told("2", true), vec![]));
    assert_eq!(state.record.before, Some(known));
}

#[test]
fn the_baseline_is_the_last_look_before_the_first_grant() {
    use crate::modem::Baseline;
    let looked = |composition: &str| {
        let usb_composition = Some(composition.to_owned());
        let baseline = Baseline { usb_composition, ..Default::default() };
        Outcome::Baselined(Box::new(Before { baseline, ..before() }))
    };
    let known = |state: &State| {
        state.record.before.as_ref().and_then(|before| before.baseline.usb_composition.clone())
    };
    // Paused for days, in which the owner changes the modem, with restarts in between.
    let mut state = apply(at(Step::Baselining), looked("1"));
    state = apply(state, refusal(RefusalCode::Paused)).resume();
    state.step = Step::Baselining;
    state = apply(state, looked("2"));
    assert_eq!(known(&state).as_deref(), Some("2"));
    state = apply(state, Outcome::Granted);
    state.step = Step::Baselining;
    state = apply(state, looked("3"));
    assert_eq!(known(&state).as_deref(), Some("2"), "an attempt may have changed it");
}

#[test]
fn a_target_that_only_the_modem_could_tell_of_ends_it_before_any_tool() {
    let granted = |attempts| {
        let mut state = at(Step::Committing);
        state.record.attempts = attempts;
        apply(state, Outcome::Granted)
    };
    let there = || Outcome::AlreadyInstalled(Box::new(target()));
    let Step::Releasing { next: Next::Finish { ending } } = apply(granted(0), there()).step else {
        panic!("everything held is given back")
    };
    assert!(matches!(ending, Ending::AlreadyInstalled { .. }));
    // After an earlier attempt it is that one's work.
    assert_eq!(apply(granted(1), there()).step, Step::Confirming);
    let kind = FailureKind::WrongStartVersion;
    let refused = Outcome::Failed(Failure::untouched(Phase::Preparing, kind, ""));
    let Step::Releasing { next: Next::Finish { ending: Ending::Failed { failure } } } =
        apply(granted(0), refused).step
    else {
        panic!("not tried again")
    };
    assert_eq!(failure.kind, kind);
}

#[test]
fn a_bug_is_held_for_a_person_once_the_modem_may_be_touched() {
    let mut state = at(Step::Confirming);
    state.record.holding = true;
    let state = apply(apply(state, Outcome::Downloaded), Outcome::Released);
    assert!(matches!(state.step, Step::Held { .. }));
    let state = apply(at(Step::Downloading), Outcome::Granted);
    let Some(Ending::Failed { failure }) = state.ending() else { panic!() };
    assert_eq!(failure.kind, FailureKind::Internal);
}

#[test]
fn a_failure_after_an_attempt_does_not_call_the_modem_untouched() {
    let mut state = at(Step::Waiting { gates: Gates::Commit });
    state.record.attempts = 1;
    let failure = Failure::untouched(Phase::Waiting, FailureKind::Expired, "");
    let Some(Ending::Failed { failure }) = apply(state, Outcome::Failed(failure)).ending().cloned()
    else {
        panic!()
    };
    assert_eq!(failure.condition, ModemCondition::OldVersion);
}

#[test]
fn what_the_last_look_refuses_ends_as_before_the_grant() {
    for (attempts, condition) in [(1, ModemCondition::Untouched), (2, ModemCondition::OldVersion)] {
        let mut state = at(Step::Preparing);
        state.record.holding = true;
        state.record.attempts = attempts;
        let failure = Failure::untouched(Phase::Preparing, FailureKind::WrongModel, "");
        let state = apply(state, Outcome::Failed(failure));
        let Step::Releasing { next: Next::Finish { ending: Ending::Failed { failure } } } =
            state.step
        else {
            panic!("{state:?}")
        };
        assert_eq!((failure.kind, failure.condition), (FailureKind::WrongModel, condition));
    }
}

#[test]
fn waiting_and_retrying_cost_no_journal_writes() {
    let saved = at(Step::Inspecting);
    let mut state = saved.clone();
    for outcome in [
        Outcome::Again { reason: "no network".into() },
        Outcome::Inspected(Box::new(target())),
        Outcome::GatesOpen,
        Outcome::Again { reason: "no network".into() },
        Outcome::Downloaded,
        Outcome::Verified,
    ] {
        state = apply(state, outcome);
        assert!(!state.differs_after_restart(&saved), "{state:?}");
    }
    state = apply(state, Outcome::GatesOpen);
    state = apply(state, Outcome::Baselined(Box::new(before())));
    assert!(state.differs_after_restart(&saved));
}

#[test]
fn a_grant_whose_answer_never_came_is_handed_back_before_anything_else() {
    let asked = apply(at(Step::Committing), Outcome::Again { reason: "no answer".into() });
    assert_eq!((asked.step.clone(), asked.record.returned), (Step::Committing, 0));
    let closed = apply(asked.clone(), Outcome::GatesClosed);
    assert_eq!(closed.step, Step::Waiting { gates: Gates::Commit });
    assert_eq!((closed.record.returned, closed.record.attempts), (1, 0));
    assert_eq!(asked.resume().record.returned, 1);
    // Nothing was asked for: gates are looked at before the first request.
    assert_eq!(apply(at(Step::Committing), Outcome::GatesClosed).record.returned, 0);
    assert_eq!(at(Step::Waiting { gates: Gates::Commit }).resume().record.returned, 0);
}

#[test]
fn a_gate_that_is_closed_at_the_last_look_costs_no_attempt_however_often() {
    let mut state = at(Step::Inspecting);
    for (returned, delay_s) in [(1, 60), (2, 120), (3, 240)] {
        state = apply(State { step: Step::Committing, ..state }, Outcome::Granted);
        assert_eq!((state.record.attempts, state.record.returned), (1, returned - 1));
        state = apply(state, Outcome::Postponed { reason: "too hot".into() });
        assert!(state.record.holding && !state.is_cancellable() && !state.record.post_flash_due);
        assert_eq!(state.action(), Some(Action::Release));
        // A crash in between gives back once more.
        assert_eq!(state.clone().resume(), state);
        state = apply(state, Outcome::Released);
        assert_eq!(state.step, Step::Postponed { delay_s, reason: "too hot".into() });
        assert_eq!((state.record.attempts, state.record.returned), (0, returned));
        assert!(!state.record.holding && state.is_cancellable() && !state.keeps_its_turn());
        assert_eq!((state.phase(), state.clone().resume()), (Phase::Waiting, state.clone()));
    }
    assert_eq!(apply(state.clone(), Outcome::Cancelled).ending(), Some(&Ending::Cancelled));
    assert_eq!(apply(state, Outcome::Paused).step, Step::Inspecting);
}

#[test]
fn a_medium_that_keeps_nothing_is_not_written_for_ever() {
    let mut state = at(Step::Verifying);
    for _ in 0..2 {
        state = apply(state, Outcome::ImageLost);
        assert_eq!(state.step, Step::Waiting { gates: Gates::Download });
        state = apply(apply(state, Outcome::GatesOpen), Outcome::Downloaded);
    }
    let staged = apply(state.clone(), Outcome::Verified);
    let late = apply(apply(staged.clone(), Outcome::GatesOpen), Outcome::GatesClosed);
    let late =
        apply(State { step: Step::Waiting { gates: Gates::Commit }, ..late }, Outcome::ImageLost);
    assert_eq!(late.step, Step::Waiting { gates: Gates::Download }, "it was there in between");
    // Right in the page cache, and gone at the next look.
    for lost in [state, staged] {
        let Some(Ending::Failed { failure }) = apply(lost, Outcome::ImageLost).ending().cloned()
        else {
            panic!("it goes on")
        };
        let told = (failure.kind, failure.condition);
        assert_eq!(told, (FailureKind::Storage, ModemCondition::Untouched), "{failure:?}");
    }
}

#[test]
fn somebody_elses_device_ends_no_recovery() {
    let foreign = Sighting::ForeignDownloadMode { usb: "18d1:d00d".into() };
    let probing = Step::Probing { end: ToolEnd::Success, recoveries: 0, silent: 0 };
    let mut state = apply(at(probing), Outcome::Probed(foreign.clone()));
    let failure = state.record.last_failure.clone().unwrap();
    assert!(failure.detail.contains("18d1:d00d"), "{failure:?}");
    let stranger = Sighting::WrongModem { imei: "351234560000022".into() };
    for sighting in [stranger, foreign, Sighting::Absent] {
        assert!(matches!(state.step, Step::RecoveryPause { .. }), "{state:?}");
        state = apply(state, Outcome::Paused);
        assert!(matches!(state.step, Step::Recovering { .. }), "{state:?}");
        state = apply(state, Outcome::Probed(sighting));
    }
    assert!(state.may_need_image(), "{state:?}");
    // A new modem in the place of one that died: the router is not kept from it for ever.
    let stranger = Sighting::WrongModem { imei: "351234560000022".into() };
    let mut looks = 0;
    while !matches!(state.step, Step::Releasing { .. }) {
        looks += 1;
        assert!(looks < 20, "{state:?}");
        state = apply(apply(state, Outcome::Paused), Outcome::Probed(stranger.clone()));
    }
    let Step::Releasing { next: Next::Hold { reason } } = &state.step else { panic!("{state:?}") };
    assert!(reason.contains("351234560000022"), "{reason}");
}

#[test]
fn a_modem_that_is_away_for_a_while_does_not_change_how_its_tool_ended() {
    let said = ToolEnd::Failed { kind: FailureKind::ToolRefused, detail: "Invalid model".into() };
    for (end, kind) in [
        (ToolEnd::Success, FailureKind::VersionMismatch),
        (said, FailureKind::ToolRefused),
        (ToolEnd::Lost, FailureKind::AttemptLost),
    ] {
        let step = Step::Probing { end, recoveries: 0, silent: 0 };
        let record = Record { attempts: 3, holding: true, ..record() };
        let mut state = apply(State { record, ..at(step) }, Outcome::Probed(Sighting::Absent));
        state = apply(state.resume(), Outcome::Paused);
        state = apply(state, Outcome::Probed(Sighting::Absent));
        state = apply(state.resume(), Outcome::Paused);
        state = apply(state, Outcome::Probed(Sighting::Old));
        let failure = state.record.last_failure.clone().unwrap();
        assert_eq!(failure.kind, kind);
        assert_eq!(state.record.tool_end, None, "it is told");
    }
    // Nor does a restart in the middle of such a look.
    let told = Record { attempts: 3, holding: true, tool_end: Some(ToolEnd::Success), ..record() };
    let step = Step::Recovering { tries: 1, run: Run::Start };
    let state = State { record: told, ..at(step) }.resume();
    let state =
        apply(apply(state, Outcome::ToolEnded(ToolEnd::Lost)), Outcome::Probed(Sighting::Old));
    assert_eq!(state.record.last_failure.unwrap().kind, FailureKind::VersionMismatch);
    // A recovery has an end of its own.
    let step = Step::Recovering { tries: 1, run: Run::Start };
    let record =
        Record { attempts: 3, holding: true, tool_end: Some(ToolEnd::Success), ..record() };
    let failed = ToolEnd::Failed { kind: FailureKind::ToolFailed, detail: "exit 7".into() };
    let state = apply(State { record, ..at(step) }, Outcome::ToolEnded(failed));
    let state = apply(state, Outcome::Probed(Sighting::Old));
    assert_eq!(state.record.last_failure.unwrap().kind, FailureKind::ToolFailed);
}

#[test]
fn a_modem_that_does_not_come_back_into_its_network_in_time_has_failed_and_is_updated() {
    let policy = Policy::default();
    for network_s in [None, Some(600)] {
        let target = Target { network_s, ..target() };
        let record = Record { attempts: 1, holding: true, target: Some(target), ..record() };
        let mut state = State { record, ..at(Step::Confirming) };
        let mut seconds = 0;
        while state.step == Step::Confirming {
            let reason = "the modem is not registered in a network again".into();
            state = state.apply(Outcome::Again { reason }, &policy);
            seconds += policy.rest(&state, 0);
        }
        assert!((network_s.unwrap_or(1200)..3000).contains(&seconds), "{seconds}");
        let Step::Releasing { next: Next::Finish { ending: Ending::Failed { failure } } } =
            state.step
        else {
            panic!("{:?}", state.step)
        };
        assert_eq!(
            (failure.kind, failure.condition),
            (FailureKind::Acceptance, ModemCondition::Updated)
        );
        assert!(failure.detail.contains("not registered"), "{failure:?}");
    }
}

#[test]
fn a_modem_that_is_lost_whenever_it_is_restored_does_not_keep_its_router_dark() {
    let mut state =
        State { record: Record { attempts: 1, holding: true, ..record() }, ..at(Step::Restoring) };
    let policy = Policy::default();
    let mut rounds = 0;
    while !matches!(state.step, Step::Releasing { .. }) {
        rounds += 1;
        assert!(rounds < 100, "{state:?}");
        let outcome = match state.step {
            Step::Probing { .. } => Outcome::Probed(Sighting::Target),
            _ => Outcome::Vanished { reason: "no answer to AT#FWSWITCH?".into() },
        };
        state = state.apply(outcome, &policy).resume();
        // A fresh process forgets its tries, and only those: as often as it comes.
        state.tries = policy.max_rounds;
    }
    let Step::Releasing { next: Next::Finish { ending: Ending::Failed { failure } } } = state.step
    else {
        panic!("{:?}", state.step)
    };
    assert_eq!(
        (failure.kind, failure.condition),
        (FailureKind::Acceptance, ModemCondition::Updated)
    );
}

#[test]
fn a_refused_grant_writes_nothing_however_often_it_is_asked_for() {
    let saved =
        State { record: Record { target: Some(target()), ..record() }, ..at(Step::Committing) };
    let mut state = apply(saved.clone(), refusal(RefusalCode::Paused));
    for _ in 0..3 {
        assert!(!state.differs_after_restart(&saved), "{:?}", state.step);
        state = apply(state, Outcome::GatesOpen);
        assert!(!state.differs_after_restart(&saved), "{:?}", state.step);
        // Another look, with another signal.
        state = apply(state, Outcome::Baselined(Box::new(before())));
        assert_eq!(state.step, Step::Committing);
        assert!(!state.differs_after_restart(&saved), "{:?}", state.step);
        state = apply(state, refusal(RefusalCode::Concurrency));
    }
    let granted = apply(
        apply(apply(state, Outcome::GatesOpen), Outcome::Baselined(Box::new(before()))),
        Outcome::Granted,
    );
    assert!(granted.differs_after_restart(&saved));
}

#[test]
fn strangers_in_a_row_are_counted_and_not_the_years_of_a_recovery() {
    let foreign = || Outcome::Probed(Sighting::ForeignDownloadMode { usb: "05c6:9008".into() });
    let away = || Outcome::Probed(Sighting::Absent);
    let look = |state: State, outcome| apply(apply(state, Outcome::Paused).resume(), outcome);
    let pause = Step::RecoveryPause { tries: 20, delay_s: 1 };
    let mut state = State { record: Record { holding: true, ..record() }, ..at(pause) };
    let most = Policy::default().max_strangers;
    for round in 0..3 {
        for nth in 0..most {
            state = look(state, foreign());
            assert!(matches!(state.step, Step::RecoveryPause { .. }), "{round} {nth}: {state:?}");
        }
        state = look(state, away());
        assert!(matches!(state.step, Step::RecoveryPause { .. }), "{state:?}");
    }
    for _ in 0..most {
        state = look(state, foreign());
    }
    assert!(matches!(look(state, foreign()).step, Step::Releasing { next: Next::Hold { .. } }));
}

#[test]
fn a_target_that_was_read_back_was_not_lost_to_a_power_cut() {
    let record = Record { attempts: 1, holding: true, ..record() };
    for step in [Step::Restoring, Step::Confirming] {
        let mut state = State { record: record.clone(), ..at(step) };
        while !matches!(state.step, Step::Probing { .. }) {
            state = apply(state, Outcome::Vanished { reason: "it restarts".into() });
        }
        let state = apply(state.resume(), Outcome::Probed(Sighting::Old));
        let Step::Releasing { next: Next::Finish { ending: Ending::Failed { failure } } } =
            state.step
        else {
            panic!("{state:?}")
        };
        assert_eq!(failure.kind, FailureKind::VersionMismatch);
        assert!(failure.detail.contains("read back"), "{failure:?}");
    }
}

/// What a quarter of an hour each makes a hundred days.
const LOOKS: u32 = 9_600;

#[test]
fn a_closed_gate_is_asked_again_for_months_and_never_fails() {
    let policy = Policy::default();
    for gates in [Gates::Download, Gates::Commit] {
        let saved = at(Step::Waiting { gates });
        let mut state = saved.clone();
        let mut seconds = 0;
        for _ in 0..LOOKS {
            let reason = "outside the maintenance window".into();
            state = state.apply(Outcome::Again { reason }, &policy);
            assert_eq!(state.action(), Some(Action::CheckGates(gates)));
            assert!(state.is_cancellable() && !state.differs_after_restart(&saved), "{state:?}");
            seconds += policy.rest(&state, 0);
        }
        assert!(seconds > 90 * 24 * 3600, "{seconds} s");
        assert!(policy.rest(&state, 0) <= policy.again_longest_s);
        assert_eq!(apply(state, Outcome::GatesOpen).tries, 0);
    }
}

#[test]
fn an_attempt_that_is_handed_back_for_months_is_asked_for_again() {
    let policy = Policy::default();
    let mut state = at(Step::Waiting { gates: Gates::Commit });
    for times in 1..=400 {
        state = apply(state, Outcome::GatesOpen);
        state = apply(state, Outcome::Baselined(Box::new(before())));
        assert_eq!(state.action(), Some(Action::RequestGrant { attempt: 1 }), "{times}");
        state = apply(state, Outcome::Granted);
        state = apply(state, Outcome::Postponed { reason: "the modem is too hot".into() });
        state = apply(state, Outcome::Released);
        let Step::Postponed { delay_s, .. } = state.step else { panic!("{state:?}") };
        assert!(delay_s <= policy.slowest_s && state.is_cancellable(), "{state:?}");
        assert_eq!((state.record.attempts, state.record.returned), (0, times));
        state =
            apply(apply(state.resume(), Outcome::Paused), Outcome::Inspected(Box::new(target())));
        for outcome in [Outcome::GatesOpen, Outcome::Downloaded, Outcome::Verified] {
            state = apply(state, outcome);
        }
        assert_eq!(state.step, Step::Waiting { gates: Gates::Commit });
    }
}
