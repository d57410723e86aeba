//! The grant: who gets it, how often, and what it makes impossible.

use super::*;

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
    assert_eq!(grant(&mut op, 2), Err(RefusalCode::Finished));
    assert_eq!(grant(&mut op, 1), Err(RefusalCode::Finished));
    tell(&mut op, &event(3, 1, finished(Outcome::Cancelled))).unwrap();
    assert_eq!((op.status, op.late_result), (Status::Failed, None));
}

/// Attempts that have left these conditions, one after the other.
fn tried(left: &[ModemCondition]) -> Operation {
    let mut op = operation();
    for (attempt, condition) in (1..).zip(left) {
        grant(&mut op, attempt).unwrap();
        tell(&mut op, &event(attempt.into(), attempt, retrying(*condition))).unwrap();
    }
    assert!(!op.is_granted());
    op
}

type Ending = Box<dyn Fn(&mut Operation)>;

#[test]
fn what_is_taken_back_after_a_failed_attempt_has_failed() {
    use ModemCondition::{OldVersion, Untouched};
    let device =
        |outcome| move |op: &mut Operation| drop(tell(op, &event(9, 0, finished(outcome))));
    let full = failure(Untouched);
    let ends: [(&str, Ending); 6] = [
        ("operator", Box::new(|op| cancel(op, "admin", 5).unwrap())),
        ("batch", Box::new(|op| skip(op, "the batch was taken back", 5).unwrap())),
        ("newer", Box::new(|op| supersede(op, OperationId(Uuid::from_u128(9)), 5).unwrap())),
        ("deadline", Box::new(|op| assert!(expire(op, 0, 30 * DAY)))),
        ("device", Box::new(move |op| device(Outcome::Cancelled)(op))),
        ("untouched", Box::new(move |op| device(Outcome::Failed { failure: full.clone() })(op))),
    ];
    for (who, end) in ends {
        for attempts in [&[OldVersion][..], &[OldVersion, OldVersion], &[OldVersion, Untouched]] {
            let mut op = tried(attempts);
            end(&mut op);
            assert_eq!(op.status, Status::Failed, "{who} after {attempts:?}");
            let failure = op.failure.clone().unwrap();
            assert_eq!(failure.condition, OldVersion, "{who} after {attempts:?}");
            assert!(crate::batch::charge::counts(op.status, op.failure.as_ref()), "{who}");
        }
        for attempts in [&[][..], &[Untouched], &[Untouched, Untouched]] {
            let mut op = tried(attempts);
            end(&mut op);
            let kind = op.failure.as_ref().map(|failure| failure.condition);
            assert!(matches!(op.status, Status::Cancelled | Status::Aborted), "{who}: {kind:?}");
        }
    }
}

#[test]
fn a_failure_from_before_the_first_grant_is_no_attempts() {
    let mut op = operation();
    tell(&mut op, &event(1, 0, retrying(ModemCondition::Silent))).unwrap();
    grant(&mut op, 1).unwrap();
    tell(&mut op, &event(2, 1, retrying(ModemCondition::Untouched))).unwrap();
    cancel(&mut op, "admin", 2).unwrap();
    assert_eq!(op.status, Status::Cancelled);
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
fn a_lost_answer_is_given_again_whatever_became_of_the_device() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    let again = start(&mut op, Standing::Quarantined, &request(1, 1), 1);
    assert_eq!(again, Ok(Leave::Repeated));
    let next = start(&mut op, Standing::Quarantined, &request(2, 1), 1).unwrap_err();
    assert_eq!(next.code, RefusalCode::Quarantined);
}

fn handed_back(seq: u64, attempt: u32, returned: u32) -> Event {
    event(seq, attempt, EventBody::Returned { reason: "too hot".into(), returned })
}

fn anew(op: &mut Operation, attempt: u32, returned: u32) -> Result<Leave, RefusalCode> {
    let request = StartRequest { returned, ..request(attempt, 1) };
    start(op, Standing::Good, &request, 1).map_err(|refusal| refusal.code)
}

#[test]
fn a_grant_that_comes_back_is_over_and_counts_nothing() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    tell(&mut op, &event(1, 1, entered(Phase::Releasing))).unwrap();
    tell(&mut op, &handed_back(2, 1, 1)).unwrap();
    assert!(!op.is_granted() && op.status == Status::InProgress);
    assert_eq!((op.attempt, op.attempts_granted, op.progress_percent), (0, 0, 0));
    assert_eq!((op.phase, op.detail.as_deref()), (Some(Phase::Waiting), Some("too hot")));
    assert!(op.log.contains("attempt 1: postponed, its grant is handed back: too hot"));

    let mut cancelled = op.clone();
    cancel(&mut cancelled, "admin", 2).unwrap();
    assert_eq!(anew(&mut cancelled, 1, 1), Err(RefusalCode::Cancelled));
    let mut late = op.clone();
    assert!(expire(&mut late, 0, 30 * DAY));
    assert_eq!(late.status, Status::Aborted, "the modem was never touched");
    let again = StartRequest { returned: 1, ..request(1, 1) };
    let paused = start(&mut op, Standing::Paused, &again, 1).unwrap_err();
    assert_eq!(paused.code, RefusalCode::Paused);

    assert_eq!(anew(&mut op, 1, 0), Err(RefusalCode::Attempts), "the request of before, late");
    assert_eq!(anew(&mut op, 1, 1), Ok(Leave::New));
    assert_eq!((anew(&mut op, 1, 1), op.attempts_granted), (Ok(Leave::Repeated), 1));
    let once = op.clone();
    tell(&mut op, &handed_back(2, 1, 1)).unwrap();
    assert!(op.is_granted() && op.granted == once.granted, "an earlier grant's end is not its own");
}

#[test]
fn the_request_for_another_grant_may_overtake_the_word_that_the_last_came_back() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    let open = op.clone();
    let again = StartRequest { returned: 1, ..request(1, 1) };
    assert!(start(&mut op, Standing::Paused, &again, 1).is_err());
    assert_eq!(op, open);
    assert_eq!(anew(&mut op, 1, 1), Ok(Leave::New));
    assert_eq!(op.attempts_granted, 1);
    tell(&mut op, &handed_back(1, 1, 1)).unwrap();
    assert_eq!(cancel(&mut op, "admin", 2), Err(CannotCancel::PastPointOfNoReturn(1)));
    tell(&mut op, &handed_back(2, 1, 2)).unwrap();
    cancel(&mut op, "admin", 2).unwrap();
}

#[test]
fn an_attempt_whose_tool_ran_is_not_granted_anew() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    tell(&mut op, &event(1, 1, retrying(ModemCondition::OldVersion))).unwrap();
    assert_eq!(anew(&mut op, 1, 1), Err(RefusalCode::Attempts));
    let other = StartRequest { returned: 9, ..request(1, 2) };
    start(&mut op, Standing::Good, &other, 1).unwrap();
    assert_eq!(op.attempts_granted, 2, "a journal made anew does not uncount another's attempts");
}

#[test]
fn attempts_are_granted_anew_as_often_as_they_come_back_and_used_three_times() {
    let mut op = operation();
    let mut returned = 0;
    for attempt in 1..=3 {
        for _ in 0..50 {
            assert_eq!(anew(&mut op, attempt, returned), Ok(Leave::New));
            returned += 1;
            if returned % 2 == 0 {
                tell(&mut op, &handed_back(returned.into(), attempt, returned)).unwrap();
            }
        }
        assert_eq!(anew(&mut op, attempt, returned), Ok(Leave::New));
        assert_eq!(op.attempts_granted, attempt);
    }
    assert_eq!(anew(&mut op, 4, returned), Err(RefusalCode::Attempts));
}

#[test]
fn who_is_refused_together_comes_back_one_by_one() {
    let again = |standing, n: u128| {
        let id = OperationId(Uuid::from_u128(n << 96));
        let mut op = Operation { id, ..operation() };
        let refused = start(&mut op, standing, &request(1, 1), 1).unwrap_err();
        refused.retry_after_s.unwrap()
    };
    for (standing, least) in
        [(Standing::NotYet, 300), (Standing::Paused, 300), (Standing::Crowded, 60)]
    {
        let all: std::collections::BTreeSet<_> = (0..1000).map(|n| again(standing, n)).collect();
        assert!(all.iter().all(|seconds| (least..least + least / 2).contains(seconds)), "{all:?}");
        assert!(all.len() as u64 >= least / 2, "{all:?}");
        assert_eq!(again(standing, 7), again(standing, 7), "each by its own");
    }
    assert_eq!(again(Standing::GivesWay, 0), 60);
}
