//! Ends by time.

use super::*;

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
fn a_person_gives_up_what_would_never_end() {
    use expiry::CannotWriteOff::{Finished, NotGranted, UnderWay};
    let mut op = operation();
    assert_eq!(write_off(&mut op, "admin", 1), Err(NotGranted));
    grant(&mut op, 1).unwrap();
    tell(&mut op, &event(1, 1, entered(Phase::Installing))).unwrap();
    assert_eq!(write_off(&mut op, "admin", 1), Err(UnderWay(1)), "it may end well");
    let recovering = EventBody::Recovering { tries: 9, detail: "no answer".into() };
    tell(&mut op, &event(2, 1, recovering)).unwrap();
    // Its router talks, so no silence ends it.
    op.heard_at = Some(400 * DAY);
    assert!(!expire(&mut op, 0, 400 * DAY));
    write_off(&mut op, "admin", 400 * DAY).unwrap();
    let failure = op.failure.clone().unwrap();
    assert_eq!((op.status, failure.condition), (Status::Failed, ModemCondition::Unknown));
    assert!(failure.detail.contains("admin") && !op.is_granted() && !op.is_wanted());
    // Another upgrade waits until the router has said something since.
    assert!(expiry::is_lost(&op, 400 * DAY) && !expiry::is_lost(&op, 400 * DAY + 1));
    let effects = apply(&mut op, &event(3, 1, succeeded()), &reaches(), 401 * DAY).unwrap();
    assert!(effects.installed.is_some() && op.late_result.is_some());
    assert_eq!(write_off(&mut op, "admin", 401 * DAY), Err(Finished(Status::Failed)));
}
