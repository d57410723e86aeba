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
