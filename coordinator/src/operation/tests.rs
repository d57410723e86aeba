//! The rules, alone and against each other in any order.

use proptest::prelude::*;
use serde_json::Map;
use shared::event::{Event, EventBody, Outcome, Tick, VersionLine};
use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::grant::{RefusalCode, StartRequest};
use shared::ids::{OperationId, StreamId};
use shared::stages::Phase;
use uuid::Uuid;

use super::cancel::{CannotCancel, cancel, supersede};
use super::event::{Refused, apply};
use super::expiry::{self, expire};
use super::grant::{Leave, Standing, start};
use super::report::{Report, ReportRefused};
use super::*;

const DAY: u64 = 24 * 3600 * 1000;

fn stream(n: u128) -> StreamId {
    StreamId(Uuid::from_u128(n))
}

pub(crate) fn operation() -> Operation {
    let wanted = Requested {
        id: OperationId(Uuid::from_u128(1)),
        organization: "default".parse().unwrap(),
        device: DeviceId(Uuid::from_u128(2)),
        slot: Slot::default(),
        image: ImageId(Uuid::from_u128(3)),
        retry_of: None,
        upgrade_options: Map::new(),
        allow_volatile_staging: false,
        deadline: 30 * DAY,
    };
    Operation::requested(wanted, "somebody", 0)
}

fn line(value: &str) -> VersionLine {
    VersionLine { command: "+CGMR".into(), line: 1, value: value.into() }
}

fn reaches() -> Vec<VersionLine> {
    vec![line("new")]
}

fn event(seq: u64, attempt: u32, body: EventBody) -> Event {
    let op = operation();
    Event { operation: op.id, slot: op.slot, stream: stream(1), seq, attempt, at: None, body }
}

fn entered(phase: Phase) -> EventBody {
    EventBody::Entered { phase }
}

fn finished(outcome: Outcome) -> EventBody {
    EventBody::Finished { outcome }
}

fn succeeded() -> EventBody {
    finished(Outcome::Succeeded { versions: vec![line("new"), line("else")] })
}

fn failure(condition: ModemCondition) -> Failure {
    Failure::new(Phase::Installing, FailureKind::ToolFailed, condition, "it broke")
}

fn retrying(condition: ModemCondition) -> EventBody {
    EventBody::Retrying { failure: failure(condition), delay_s: 10 }
}

fn request(attempt: u32, n: u128) -> StartRequest {
    StartRequest { attempt, stream: stream(n), dark_expected_s: 60, dark_longest_s: 600 }
}

fn grant(op: &mut Operation, attempt: u32) -> Result<Leave, RefusalCode> {
    start(op, Standing::Good, &request(attempt, 1), 1).map_err(|refusal| refusal.code)
}

fn tick(attempt: u32, n: u64, phase: Phase, percent: u8) -> Tick {
    let op = operation();
    Tick {
        v: 1,
        operation: op.id,
        slot: op.slot,
        stream: stream(1),
        attempt,
        n,
        phase,
        percent,
        stalled: false,
        detail: None,
        fetched: None,
    }
}

fn tell(op: &mut Operation, event: &Event) -> Result<Effects, Refused> {
    apply(op, event, &reaches(), 2)
}

#[test]
fn an_upgrade_from_idle_to_success() {
    let mut op = operation();
    assert_eq!((op.status, op.progress_percent), (Status::Idle, 0));
    tell(&mut op, &event(1, 0, entered(Phase::Downloading))).unwrap();
    assert_eq!(op.status, Status::InProgress);
    tell(&mut op, &event(2, 0, entered(Phase::Verifying))).unwrap();
    assert_eq!(op.progress_percent, 10);
    assert_eq!(grant(&mut op, 1), Ok(Leave::New));
    tell(&mut op, &event(3, 1, EventBody::Granted)).unwrap();
    tell(&mut op, &event(4, 1, entered(Phase::Installing))).unwrap();
    assert_eq!((op.attempt, op.progress_percent), (1, 20));
    assert!(tick::apply(&mut op, &tick(1, 1, Phase::Installing, 55), 2));
    assert_eq!(op.progress_percent, 55);
    let effects = tell(&mut op, &event(5, 1, succeeded())).unwrap();
    assert_eq!(effects.installed.map(|versions| versions.len()), Some(2));
    assert!(effects.desired);
    assert_eq!((op.status, op.progress_percent), (Status::Success, 100));
    assert_eq!(op.evidence, Some(Evidence::Versions));
    assert!(!op.is_granted());
    let log: Vec<_> = op.log.lines().collect();
    assert!(log[0].ends_with("requested by somebody") && log.last().unwrap().ends_with("runs"));
}

#[test]
fn the_same_grant_counts_once() {
    let mut op = operation();
    assert_eq!(grant(&mut op, 1), Ok(Leave::New));
    let once = op.clone();
    assert_eq!(grant(&mut op, 1), Ok(Leave::Repeated));
    assert_eq!(op, once);
    assert_eq!(op.attempts_granted, 1);
}

#[test]
fn three_attempts_and_no_more() {
    let mut op = operation();
    for attempt in 1..=3 {
        assert_eq!(grant(&mut op, attempt), Ok(Leave::New));
    }
    assert_eq!(grant(&mut op, 4), Err(RefusalCode::Attempts));
    assert_eq!(grant(&mut op, 1), Err(RefusalCode::Attempts));
    assert_eq!(op.attempts_granted, 3);
}

#[test]
fn a_cancel_before_the_grant_means_no_flash_ever() {
    let mut op = operation();
    cancel(&mut op, "admin", 1).unwrap();
    assert_eq!(op.status, Status::Cancelled);
    assert_eq!(grant(&mut op, 1), Err(RefusalCode::Cancelled));
    let effects = tell(&mut op, &event(1, 0, finished(Outcome::Cancelled)));
    assert_eq!(effects, Err(Refused::TooLate), "nothing had been heard of this journal");
    assert_eq!(op.late_result, None);
}

#[test]
fn a_cancel_after_the_grant_is_refused_until_the_attempt_is_over() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    assert_eq!(cancel(&mut op, "admin", 2), Err(CannotCancel::PastPointOfNoReturn(1)));
    // In download mode the modem is still in the attempt's hands.
    tell(&mut op, &event(1, 1, retrying(ModemCondition::InDownloadMode))).unwrap();
    assert_eq!(cancel(&mut op, "admin", 2), Err(CannotCancel::PastPointOfNoReturn(1)));
    tell(&mut op, &event(2, 1, retrying(ModemCondition::OldVersion))).unwrap();
    cancel(&mut op, "admin", 2).unwrap();
    assert_eq!(grant(&mut op, 2), Err(RefusalCode::Cancelled));
    assert_eq!(grant(&mut op, 1), Err(RefusalCode::Cancelled));
    tell(&mut op, &event(3, 1, finished(Outcome::Cancelled))).unwrap();
    assert_eq!((op.status, op.late_result), (Status::Cancelled, None));
}

#[test]
fn an_old_attempts_failure_does_not_reopen_a_new_grant() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    grant(&mut op, 2).unwrap();
    tell(&mut op, &event(9, 1, retrying(ModemCondition::OldVersion))).unwrap();
    assert!(op.is_granted());
    assert_eq!(cancel(&mut op, "admin", 2), Err(CannotCancel::PastPointOfNoReturn(2)));
}

#[test]
fn a_newer_operation_supersedes_only_an_ungranted_one() {
    let newer = OperationId(Uuid::from_u128(9));
    let mut op = operation();
    supersede(&mut op, newer, 1).unwrap();
    assert_eq!(grant(&mut op, 1), Err(RefusalCode::Superseded));
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    assert!(supersede(&mut op, newer, 1).is_err());
}

#[test]
fn quarantined_and_expired_operations_are_not_started() {
    let mut op = operation();
    let refused = start(&mut op, Standing::Quarantined, &request(1, 1), 1).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Quarantined);
    let refused = start(&mut op, Standing::Good, &request(1, 1), 30 * DAY).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Expired);
    assert_eq!(op, operation());
}

#[test]
fn a_reinstalled_agent_is_not_taken_for_its_past() {
    let other = |seq, body| Event { stream: stream(2), ..event(seq, 0, body) };
    let mut op = operation();
    tell(&mut op, &event(7, 0, entered(Phase::Downloading))).unwrap();
    // Before the grant the newest journal speaks, from its own beginning.
    tell(&mut op, &other(1, entered(Phase::Inspecting))).unwrap();
    assert_eq!((op.stream, op.last_seq), (Some(stream(2)), 1));
    grant(&mut op, 1).unwrap();
    assert_eq!(op.stream, Some(stream(1)));
    let before = op.clone();
    assert_eq!(tell(&mut op, &other(2, succeeded())), Err(Refused::OtherStream));
    let refused = start(&mut op, Standing::Good, &request(1, 2), 1).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Quarantined);
    assert!(refused.code.passes() && refused.retry_after_s.is_some());
    let foreign = Tick { stream: stream(2), ..tick(0, 99, Phase::Confirming, 99) };
    assert!(!tick::apply(&mut op, &foreign, 2));
    assert_eq!(op, before);
}

#[test]
fn an_attempt_that_was_never_granted_is_not_believed() {
    let mut op = operation();
    assert_eq!(tell(&mut op, &event(1, 1, succeeded())), Err(Refused::NotGranted));
    assert_eq!(tell(&mut op, &event(0, 0, EventBody::Granted)), Err(Refused::BadNumber));
    let elsewhere = Event { slot: "second".parse().unwrap(), ..event(1, 0, succeeded()) };
    assert_eq!(tell(&mut op, &elsewhere), Err(Refused::OtherSlot));
    assert_eq!(op, operation());
}

#[test]
fn success_needs_the_versions() {
    for outcome in [
        Outcome::Succeeded { versions: vec![] },
        Outcome::Succeeded { versions: vec![line("old")] },
        Outcome::AlreadyInstalled { versions: vec![] },
        Outcome::Unknown,
    ] {
        let mut op = operation();
        let effects = tell(&mut op, &event(1, 0, finished(outcome))).unwrap();
        assert_eq!((effects.installed, op.status), (None, Status::Failed));
        assert_eq!(op.failure.unwrap().condition, ModemCondition::Unknown);
    }
    // A manifest that names no versions proves nothing either.
    let mut op = operation();
    apply(&mut op, &event(1, 0, succeeded()), &[], 2).unwrap();
    assert_eq!(op.status, Status::Failed);
    let mut op = operation();
    let already = Outcome::AlreadyInstalled { versions: reaches() };
    assert!(tell(&mut op, &event(1, 0, finished(already))).unwrap().installed.is_some());
    assert_eq!(op.status, Status::Success);
}

#[test]
fn untouched_is_aborted_and_touched_is_failed() {
    let ends = |condition| {
        let mut op = operation();
        let failed = finished(Outcome::Failed { failure: failure(condition) });
        tell(&mut op, &event(1, 0, failed)).unwrap();
        op.status
    };
    assert_eq!(ends(ModemCondition::Untouched), Status::Aborted);
    assert_eq!(ends(ModemCondition::OldVersion), Status::Failed);
    assert_eq!(ends(ModemCondition::Unknown), Status::Failed);
}

#[test]
fn dark_is_not_failed_until_nobody_can_hope_any_more() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    let longest = 1 + 600 * 1000 + expiry::PATIENCE_MS;
    assert!(!expire(&mut op, 0, longest - 1));
    assert!(!expire(&mut op, 0, 0));
    assert!(!expire(&mut op, 2, longest), "nobody listened before");
    assert!(expire(&mut op, 0, longest));
    assert_eq!((op.status, op.is_granted()), (Status::Failed, false));
    // What comes later is kept, moves `installed`, and turns nothing round.
    let effects = apply(&mut op, &event(1, 1, succeeded()), &reaches(), longest + 1).unwrap();
    assert!(effects.installed.is_some() && !effects.desired);
    assert_eq!(op.status, Status::Failed);
    assert!(matches!(op.late_result.unwrap().outcome, Outcome::Succeeded { .. }));
}

#[test]
fn a_deadline_ends_what_was_not_granted() {
    let mut op = operation();
    assert!(!expire(&mut op, 0, 30 * DAY - 1));
    assert!(expire(&mut op, 0, 30 * DAY));
    assert_eq!(op.status, Status::Aborted);
    assert_eq!(op.failure.unwrap().kind, FailureKind::Expired);
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    op.heard_at = Some(30 * DAY);
    assert!(!expire(&mut op, 0, 30 * DAY), "a granted one finishes and reports");
}

#[test]
fn a_deadline_after_a_failed_attempt_does_not_say_untouched() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    tell(&mut op, &event(1, 1, retrying(ModemCondition::OldVersion))).unwrap();
    assert!(expire(&mut op, 0, 30 * DAY));
    let failure = op.failure.unwrap();
    assert_eq!((op.status, failure.kind), (Status::Failed, FailureKind::Expired));
    assert_eq!(failure.condition, ModemCondition::OldVersion);
}

#[test]
fn a_lost_answer_is_given_again_whatever_became_of_the_device() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    let again = start(&mut op, Standing::Quarantined, &request(1, 1), 1);
    assert_eq!(again, Ok(Leave::Repeated));
    let next = start(&mut op, Standing::Quarantined, &request(2, 1), 1).unwrap_err();
    assert_eq!(next.code, RefusalCode::Quarantined);
}

#[test]
fn a_closed_grant_does_not_bind_a_reinstalled_agent() {
    let other = |seq, attempt, body| Event { stream: stream(2), ..event(seq, attempt, body) };
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    tell(&mut op, &event(1, 1, retrying(ModemCondition::OldVersion))).unwrap();
    tell(&mut op, &other(1, 0, entered(Phase::Downloading))).unwrap();
    let early = other(2, 1, succeeded());
    assert_eq!(tell(&mut op, &early), Err(Refused::NotGranted));
    assert_eq!(start(&mut op, Standing::Good, &request(1, 2), 2), Ok(Leave::New));
    assert_eq!(op.attempts_granted, 2, "it counts on");
    let late = event(2, 1, entered(Phase::Backoff));
    assert_eq!(tell(&mut op, &late), Err(Refused::OtherStream));
    tell(&mut op, &early).unwrap();
    assert_eq!(op.status, Status::Success);
}

#[test]
fn an_attempt_above_the_granted_one_is_not_believed() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    assert_eq!(tell(&mut op, &event(1, 2, succeeded())), Err(Refused::NotGranted));
    assert!(op.is_granted());
}

#[test]
fn ticks_only_go_forward() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    tell(&mut op, &event(1, 1, entered(Phase::Installing))).unwrap();
    assert!(tick::apply(&mut op, &tick(1, 5, Phase::Installing, 50), 2));
    let before = op.clone();
    assert!(!tick::apply(&mut op, &tick(1, 5, Phase::Installing, 51), 3), "seen");
    assert!(!tick::apply(&mut op, &tick(1, 4, Phase::Installing, 60), 3), "older");
    assert!(!tick::apply(&mut op, &tick(0, 6, Phase::Installing, 60), 3), "an older attempt");
    assert!(!tick::apply(&mut op, &tick(1, 6, Phase::Downloading, 60), 3), "an earlier stage");
    assert!(!tick::apply(&mut op, &tick(2, 6, Phase::Installing, 60), 3), "never granted");
    assert_eq!(op, before);
    assert!(tick::apply(&mut op, &tick(1, 6, Phase::Installing, 40), 3));
    assert_eq!(op.progress_percent, 50, "within an attempt it never falls");
    grant(&mut op, 2).unwrap();
    assert!(tick::apply(&mut op, &tick(2, 7, Phase::Installing, 21), 4));
    assert_eq!(op.progress_percent, 21, "a new attempt begins anew");
}

#[test]
fn a_scripts_word_moves_only_what_no_agent_has_taken_up() {
    let mut op = operation();
    let halfway = Report { progress_percent: Some(65), status: Some(Status::InProgress) };
    report::apply(&mut op, halfway, 1).unwrap();
    assert_eq!((op.status, op.progress_percent), (Status::InProgress, 65));
    let done = Report { status: Some(Status::Success), ..Report::default() };
    report::apply(&mut op, done, 1).unwrap();
    assert_eq!((op.status, op.evidence), (Status::Success, Some(Evidence::Reported)));
    let again = report::apply(&mut op, halfway, 1);
    assert_eq!(again, Err(ReportRefused::Finished(Status::Success)));
    let mut op = operation();
    tell(&mut op, &event(1, 0, entered(Phase::Inspecting))).unwrap();
    assert_eq!(report::apply(&mut op, done, 1), Err(ReportRefused::AgentReports));
}

#[test]
fn the_log_is_bounded_and_has_a_line_each() {
    let mut op = operation();
    for seq in 1..2000 {
        let reason = "a\n\u{1b}[2J\u{85}b".repeat(100);
        tell(&mut op, &event(seq, 0, EventBody::Postponed { reason })).unwrap();
    }
    assert!(op.log.len() < log::LIMIT + 1024);
    assert!(op.log.ends_with("(the log is full)\n"));
    assert!(!op.log.contains(|c: char| c.is_control() && c != '\n'));
    assert!(op.log.lines().all(|line| line.starts_with("1970-01-01T") || line.starts_with('(')));
}

#[derive(Debug, Clone)]
enum Action {
    Tell(Event),
    Tick(Tick),
    Start(StartRequest),
    Cancel,
    Supersede,
    Pass(u64),
    Report(Status),
}

fn bodies() -> impl Strategy<Value = EventBody> {
    let conditions = prop::sample::select(ModemCondition::ALL);
    prop_oneof![
        prop::sample::select(&[Phase::Waiting, Phase::Installing, Phase::Confirming][..])
            .prop_map(entered),
        Just(EventBody::Granted),
        conditions.clone().prop_map(retrying),
        Just(succeeded()),
        Just(finished(Outcome::Cancelled)),
        conditions
            .prop_map(|condition| { finished(Outcome::Failed { failure: failure(condition) }) }),
        Just(EventBody::Held { reason: "?".into() }),
        Just(EventBody::Unknown),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1..3u128, 0..9u64, 0..5u32, bodies()).prop_map(|(n, seq, attempt, body)| {
            Action::Tell(Event { stream: stream(n), ..event(seq, attempt, body) })
        }),
        2 => (1..3u128, 0..5u32, 0..9u64, any::<u8>()).prop_map(|(n, attempt, i, percent)| {
            let tick = tick(attempt, i, Phase::Installing, percent);
            Action::Tick(Tick { stream: stream(n), ..tick })
        }),
        3 => (1..3u128, 1..6u32).prop_map(|(n, attempt)| Action::Start(request(attempt, n))),
        1 => Just(Action::Cancel),
        1 => Just(Action::Supersede),
        1 => (0..DAY).prop_map(Action::Pass),
        1 => prop::sample::select(&Status::ALL[..]).prop_map(Action::Report),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_order(actions in prop::collection::vec(actions(), 0..60)) {
        let mut op = operation();
        let (mut now, mut granted) = (0, 0);
        for action in actions {
            let before = op.clone();
            match action {
                Action::Tell(event) => {
                    if let Ok(effects) = apply(&mut op, &event, &reaches(), now) {
                        let is_success = event.body == succeeded();
                        prop_assert_eq!(effects.installed.is_some(), is_success);
                    } else {
                        prop_assert_eq!(&op, &before);
                    }
                }
                Action::Tick(tick) => { tick::apply(&mut op, &tick, now); }
                Action::Start(request) => {
                    match start(&mut op, Standing::Good, &request, now) {
                        Ok(Leave::New) => granted += 1,
                        Ok(Leave::Repeated) | Err(_) => prop_assert_eq!(&op, &before),
                    }
                    if before.status.is_terminal() {
                        prop_assert_eq!(&op, &before, "no grant after the end");
                    }
                }
                Action::Cancel => {
                    let cancelled = cancel(&mut op, "x", now).is_ok();
                    let possible = !before.is_granted() && !before.status.is_terminal();
                    prop_assert_eq!(cancelled, possible);
                }
                Action::Supersede => { let _ = supersede(&mut op, OperationId(Uuid::nil()), now); }
                Action::Pass(time) => { now += time; expire(&mut op, 0, now); }
                Action::Report(status) => {
                    let report = Report { progress_percent: None, status: Some(status) };
                    let _ = report::apply(&mut op, report, now);
                }
            }
            prop_assert!(granted <= MAX_ATTEMPTS && op.attempts_granted <= MAX_ATTEMPTS);
            prop_assert!(op.progress_percent <= 100);
            prop_assert!(op.finished_at.is_some() == op.status.is_terminal());
            if before.status.is_terminal() {
                prop_assert_eq!(op.status, before.status, "a terminal status never changes");
                prop_assert_eq!(op.finished_at, before.finished_at);
                prop_assert!(!op.is_granted());
            }
        }
    }

    #[test]
    fn milestones_may_come_in_any_order(order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle()) {
        let history = [
            event(1, 1, EventBody::Granted),
            event(2, 1, entered(Phase::Installing)),
            event(3, 1, retrying(ModemCondition::OldVersion)),
            event(4, 2, entered(Phase::Installing)),
            event(5, 2, entered(Phase::Confirming)),
            event(6, 2, succeeded()),
        ];
        let told = |order: &[usize]| {
            let mut op = operation();
            grant(&mut op, 1).unwrap();
            grant(&mut op, 2).unwrap();
            for &index in order {
                tell(&mut op, &history[index]).unwrap();
            }
            Operation { log: String::new(), ..op }
        };
        let (in_order, shuffled) = (told(&[0, 1, 2, 3, 4, 5]), told(&order));
        prop_assert_eq!(in_order.status, shuffled.status);
        prop_assert_eq!(in_order.failure, shuffled.failure);
        prop_assert_eq!(in_order.progress_percent, shuffled.progress_percent);
        prop_assert_eq!(in_order.phase, shuffled.phase);
    }
}
