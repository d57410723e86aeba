//! Whatever comes, in whatever order.

use proptest::prelude::*;

use super::*;

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
        (0..4u32).prop_map(|returned| EventBody::Returned { reason: "?".into(), returned }),
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
        3 => (1..3u128, 1..6u32, 0..3u32).prop_map(|(n, attempt, returned)| {
            Action::Start(StartRequest { returned, ..request(attempt, n) })
        }),
        1 => Just(Action::Cancel),
        1 => Just(Action::Supersede),
        1 => (0..DAY).prop_map(Action::Pass),
        1 => prop::sample::select(&Status::ALL[..]).prop_map(Action::Report),
    ]
}

/// Whether the grant that was open before came back between the two.
fn came_back(before: &Operation, after: &Operation) -> bool {
    match (before.granted, after.granted) {
        (Some(before), Some(after)) if before.open => {
            let anew = after.open && after.attempt == before.attempt;
            after.unused || (anew && after.returned != before.returned)
        }
        (_, _) => false,
    }
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_order(actions in prop::collection::vec(actions(), 0..60)) {
        let mut op = operation();
        let (mut now, mut granted, mut touched) = (0, 0, false);
        for action in actions {
            let before = op.clone();
            match action {
                Action::Tell(event) => {
                    if let Ok(effects) = apply(&mut op, &event, &reaches(), now) {
                        let is_success = event.body == succeeded();
                        prop_assert_eq!(effects.installed.is_some(), is_success);
                        touched |= event.attempt > 0 && !before.status.is_terminal()
                            && matches!(&event.body, EventBody::Retrying { failure, .. }
                                if failure.condition != ModemCondition::Untouched);
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
            granted -= u32::from(came_back(&before, &op));
            prop_assert!(granted <= MAX_ATTEMPTS && op.attempts_granted <= MAX_ATTEMPTS);
            prop_assert!(op.progress_percent <= 100);
            prop_assert!(op.finished_at.is_some() == op.status.is_terminal());
            let untouched = matches!(op.status, Status::Cancelled | Status::Aborted);
            prop_assert!(!(touched && untouched), "{:?} after an attempt that failed", op.status);
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
