//! The planner and the arithmetic.

use super::decide::{Decision, Whom, asks_who_is_there, decide};
use super::*;

const NOW: u64 = 1_000_000_000;
const HOUR: u64 = 3_600_000;

pub(crate) fn batch() -> Batch {
    Batch {
        id: BatchId(Uuid::from_u128(1)),
        organization: OrganizationId(Uuid::from_u128(2)),
        organization_slug: "default".parse().unwrap(),
        build: None,
        group: None,
        location: None,
        upgrade_options: Map::new(),
        strategy: Strategy { canary: 2, ..Strategy::default() },
        retry_of: None,
        course: Course::Open,
        reason: None,
        start_at: None,
        expires_at: NOW + 1000 * HOUR,
        wave: Some(0),
        forgiven: Forgiven::default(),
        counts: Counts::default(),
        granted: 0,
        takeovers: 0,
        left_out: 0,
        created: 0,
        modified: 0,
        finished_at: None,
    }
}

/// Of ten modems: two in the canary wave, which has these counts; the others wait.
fn tally(counts: Counts) -> Tally {
    let all = Counts { idle: counts.idle + 8, ..counts };
    let wave = Wave { n: 0, counts, opened_at: NOW - HOUR, last_result: Some(NOW - HOUR) };
    let best = counts.proved();
    Tally { all, wave: Some(wave), pool: 8, present: 8, best, ..Tally::default() }
}

fn ended(success: u64, failed: u64) -> Tally {
    tally(Counts { success, failed, charged: failed, ..Counts::default() })
}

const NOTHING: Decision = Decision::Wait { until: None };

#[track_caller]
fn decides(batch: &Batch, tally: &Tally, expected: Decision) {
    assert_eq!(decide(batch, tally, NOW), expected, "{tally:?}");
}

#[test]
fn the_canary_is_whoever_is_there() {
    let new = Batch { wave: None, ..batch() };
    let nobody =
        Tally { all: Counts { idle: 10, ..Counts::default() }, pool: 10, ..Tally::default() };
    decides(&new, &nobody, NOTHING);
    decides(&new, &Tally { present: 1, ..nobody }, Decision::Open { wave: 0, members: 1 });
    decides(&new, &Tally { present: 9, ..nobody }, Decision::Open { wave: 0, members: 2 });
    let later = Batch { start_at: Some(NOW + 5), ..new };
    decides(&later, &Tally { present: 9, ..nobody }, Decision::Wait { until: Some(NOW + 5) });
}

#[test]
fn a_wave_opens_on_successes_and_after_its_soak() {
    let batch = batch();
    decides(&batch, &ended(2, 0), Decision::Open { wave: 1, members: 4 });
    let mut fresh = ended(2, 0);
    fresh.wave.as_mut().unwrap().last_result = Some(NOW - 1);
    let soaked = NOW - 1 + 600_000;
    decides(&batch, &fresh, Decision::Wait { until: Some(soaked) });
    assert_eq!(phase::phase(&batch, &fresh, NOW), Phase::Soaking);
    let few = Tally { present: 3, ..ended(2, 0) };
    decides(&batch, &few, Decision::Open { wave: 1, members: 3 });
}

#[test]
fn a_fleet_that_is_away_is_not_taken_at_once() {
    let away = Tally { present: 0, ..ended(2, 0) };
    decides(&batch(), &away, NOTHING);
    assert_eq!(phase::phase(&batch(), &away, NOW), Phase::Waiting);
}

#[test]
fn a_wave_grows_by_what_was_proved_and_not_by_its_number() {
    let strategy = Strategy { canary: 2, ..Strategy::default() };
    // Five waves of one success each, because nobody else was there.
    assert_eq!((strategy.size(5), strategy.next_size(5, 1)), (64, 4));
    assert_eq!(strategy.next_size(5, 30), 60);
    assert_eq!(strategy.next_size(1, 100), 4);
    let mut late = ended(2, 0);
    late.wave.as_mut().unwrap().n = 4;
    late.present = 1000;
    decides(&batch(), &late, Decision::Open { wave: 5, members: 4 });
}

#[test]
fn what_is_planned_is_what_would_be_opened() {
    let strategy = Strategy { canary: 2, ..Strategy::default() };
    let planned = |next, best, members| strategy.planned(next, best, members).collect::<Vec<_>>();
    assert_eq!(planned(0, 0, 20), [2, 4, 8, 6]);
    assert_eq!(planned(5, 1, 30), [4, 8, 16, 2], "though five waves were opened");
    let mut late = ended(2, 0);
    late.wave.as_mut().unwrap().n = 4;
    (late.pool, late.present) = (30, 30);
    let members = planned(5, late.best, late.pool)[0];
    decides(&batch(), &late, Decision::Open { wave: 5, members });
}

#[test]
fn nobody_is_looked_for_whose_presence_makes_no_difference() {
    let wave = |success, failed, cancelled, ago| Wave {
        n: 0,
        counts: Counts { success, failed, cancelled, charged: failed, ..Counts::default() },
        opened_at: NOW - ago,
        last_result: Some(NOW - ago),
    };
    let waves =
        [(2, 0, 0), (1, 1, 0), (0, 0, 2)].into_iter().flat_map(|(success, failed, rest)| {
            [0, HOUR].map(|ago| Some(wave(success, failed, rest, ago)))
        });
    let (mut asked, mut spared) = (0, 0);
    for of in waves.chain([None]) {
        for course in [Course::Open, Course::Paused, Course::Cancelling, Course::Expiring] {
            for (start_at, takeovers, gate) in
                [(None, 0, None), (Some(NOW + 1), 0, None), (None, 1, None), (None, 0, Some(0))]
            {
                let forgiven = Forgiven { wave: gate, ..Forgiven::default() };
                let wave = of.map(|wave| wave.n);
                let batch = Batch { course, start_at, takeovers, forgiven, wave, ..batch() };
                let of_wave = of.map(|wave| wave.counts).unwrap_or_default();
                let all = Counts { idle: 8, ..of_wave };
                let none =
                    Tally { all, wave: of, pool: 8, best: of_wave.proved(), ..Tally::default() };
                let answers = [0, 8].map(|present| decide(&batch, &Tally { present, ..none }, NOW));
                if asks_who_is_there(&batch, of.as_ref(), NOW) {
                    asked += 1;
                } else {
                    assert_eq!(answers[0], answers[1], "{batch:?} {of:?}");
                    spared += 1;
                }
            }
        }
    }
    assert!(asked > 5 && spared > 50, "{asked} {spared}");
}

#[test]
fn whoever_is_to_join_joins_before_anything_else() {
    let new = Batch { wave: None, takeovers: 3, ..batch() };
    let one = Counts { idle: 1, ..Counts::default() };
    let tally = Tally { all: one, pool: 1, present: 1, ..Tally::default() };
    decides(&new, &tally, Decision::TakeOver);
    assert_eq!(phase::phase(&new, &tally, NOW), Phase::Preparing);
    let over = Tally { all: Counts { success: 1, ..Counts::default() }, ..Tally::default() };
    decides(&new, &over, Decision::TakeOver);
    assert!(!new.has_ended());
    let of = |course| Batch { course, ..new.clone() };
    decides(&of(Course::Paused), &over, Decision::Wait { until: Some(new.expires_at) });
    decides(&of(Course::Cancelling), &over, Decision::Withdraw);
    decides(&Batch { expires_at: NOW, ..new.clone() }, &over, Decision::Expire);
}

#[test]
fn a_gate_that_cannot_be_passed_any_more_stops_at_once() {
    let counts = Counts { failed: 1, charged: 1, in_progress: 3, ..Counts::default() };
    let reason = Reason::Gate { wave: 0, success: 0, failures: 1 };
    decides(&batch(), &tally(counts), Decision::Pause(reason));
    let mut lenient = batch();
    lenient.strategy.gate.success_percent = 75;
    decides(&lenient, &tally(counts), NOTHING);
    let forgiven = Batch { forgiven: Forgiven { wave: Some(0), ..Forgiven::default() }, ..batch() };
    decides(&forgiven, &tally(counts), NOTHING);
}

#[test]
fn no_wave_opens_on_missing_evidence() {
    let batch = batch();
    let open = |decision: &Decision| matches!(decision, Decision::Open { .. });
    for undecided in [
        Counts { success: 1, idle: 1, ..Counts::default() },
        Counts { success: 1, in_progress: 1, ..Counts::default() },
        Counts { cancelled: 2, ..Counts::default() },
        Counts { aborted: 2, ..Counts::default() },
        Counts::default(),
    ] {
        let decision = decide(&batch, &tally(undecided), NOW);
        assert!(!open(&decision), "{undecided:?}: {decision:?}");
    }
    for silence in [
        Silence { granted: 1, ..Silence::default() },
        Silence { granted: 1, suspect: 1, ..Silence::default() },
        Silence { granted: 1, overdue: 1, ..Silence::default() },
    ] {
        let decision = decide(&batch, &Tally { silence, ..ended(2, 0) }, NOW);
        assert!(!open(&decision), "{silence:?}: {decision:?}");
    }
}

#[test]
fn a_wave_that_shows_too_little_takes_more_in() {
    let none = tally(Counts { cancelled: 2, ..Counts::default() });
    decides(&batch(), &none, Decision::Draft { wave: 0, members: 1 });
    decides(&batch(), &Tally { present: 0, ..none }, NOTHING);
}

#[test]
fn a_failed_gate_stops_and_an_operator_may_open_it() {
    let reason = Reason::Gate { wave: 0, success: 1, failures: 1 };
    decides(&batch(), &ended(1, 1), Decision::Pause(reason.clone()));
    let mut abort = batch();
    abort.strategy.failure_threshold.then = strategy::Then::Abort;
    decides(&abort, &ended(1, 1), Decision::Abort(reason));
    let forgiven = Batch { forgiven: Forgiven { wave: Some(0), ..Forgiven::default() }, ..batch() };
    decides(&forgiven, &ended(1, 1), Decision::Open { wave: 1, members: 4 });
    let mut lenient = batch();
    lenient.strategy.gate.success_percent = 50;
    decides(&lenient, &ended(1, 1), Decision::Open { wave: 1, members: 4 });
}

#[test]
fn the_threshold_counts_failures_and_the_overdue() {
    let mut batch = batch();
    batch.strategy.gate.success_percent = 50;
    batch.strategy.failure_threshold.count = Some(2);
    let wave = Counts { success: 3, failed: 1, charged: 1, in_progress: 1, ..Counts::default() };
    let mut tally = tally(wave);
    tally.silence = Silence { granted: 1, overdue: 0, ..Silence::default() };
    decides(&batch, &tally, NOTHING);
    tally.silence.overdue = 1;
    let reason = Reason::Threshold { failures: 2, decided: 5 };
    decides(&batch, &tally, Decision::Pause(reason.clone()));
    batch.strategy.failure_threshold.count = None;
    decides(&batch, &tally, Decision::Pause(reason));
    batch.strategy.failure_threshold.minimum = 6;
    decides(&batch, &tally, NOTHING);
    batch.strategy.failure_threshold.minimum = 5;
    // Resumed: one of the two had failed, the other is overdue still.
    batch.forgiven = Forgiven { failures: 1, decided: 4, wave: None };
    tally.silence.forgiven = 1;
    decides(&batch, &tally, NOTHING);
}

#[test]
fn who_is_in_nobodys_hands_does_not_hold_a_wave_up() {
    let mut tally = tally(Counts { success: 1, in_progress: 1, ..Counts::default() });
    decides(&batch(), &tally, NOTHING);
    tally.stragglers = 1;
    tally.wave.as_mut().unwrap().last_result = Some(NOW - 1);
    decides(&batch(), &tally, Decision::Wait { until: Some(NOW - 1 + HOUR) });
    decides(
        &batch(),
        &Tally { offline: 1, ..tally },
        Decision::Defer { wave: 0, whom: Whom::Offline },
    );
    tally.wave.as_mut().unwrap().last_result = Some(NOW - HOUR);
    decides(&batch(), &tally, Decision::Defer { wave: 0, whom: Whom::Stragglers });
    tally.silence.granted = 1;
    decides(&batch(), &tally, NOTHING);
}

#[test]
fn others_take_the_places_of_members_that_only_postpone() {
    let mut tally = tally(Counts { in_progress: 2, ..Counts::default() });
    tally.stragglers = 2;
    let day = 25 * HOUR;
    decides(&batch(), &tally, Decision::Wait { until: Some(NOW - HOUR + day) });
    let wave = tally.wave.as_mut().unwrap();
    (wave.opened_at, wave.last_result) = (NOW - day, None);
    let defer = Decision::Defer { wave: 0, whom: Whom::Stragglers };
    decides(&batch(), &tally, defer);
    decides(&batch(), &Tally { present: 0, ..tally }, NOTHING);
    tally.silence.granted = 1;
    decides(&batch(), &tally, NOTHING);
}

#[test]
fn the_last_wave_waits_for_everybody() {
    let mut tally = tally(Counts { success: 1, idle: 1, ..Counts::default() });
    tally.pool = 0;
    tally.offline = 1;
    decides(&batch(), &tally, NOTHING);
    assert_eq!(phase::phase(&batch(), &tally, NOW), Phase::Canary);
}

#[test]
fn what_is_stopped_ends_what_is_in_nobodys_hands() {
    let mut tally = tally(Counts { success: 1, in_progress: 1, ..Counts::default() });
    tally.silence.granted = 1;
    for course in [Course::Cancelling, Course::Expiring] {
        decides(&Batch { course, ..batch() }, &tally, Decision::Withdraw);
    }
    let expired = Batch { expires_at: NOW, ..batch() };
    decides(&expired, &tally, Decision::Expire);
    decides(&Batch { course: Course::Paused, ..expired }, &tally, Decision::Expire);
    let paused = Batch { course: Course::Paused, ..batch() };
    decides(&paused, &ended(2, 0), Decision::Wait { until: Some(paused.expires_at) });
    tally.all = Counts { in_progress: 1, success: 9, ..Counts::default() };
    decides(&Batch { course: Course::Cancelling, ..batch() }, &tally, NOTHING);
    tally.all = Counts { cancelled: 1, success: 9, ..Counts::default() };
    for course in [Course::Open, Course::Paused, Course::Cancelling, Course::Expiring] {
        decides(&Batch { course, ..batch() }, &tally, Decision::Finish);
    }
    decides(&Batch { course: Course::Finished, ..batch() }, &tally, NOTHING);
}

#[test]
fn what_is_not_made_to_its_end_is_taken_back() {
    let making = Batch { course: Course::Preparing, created: NOW - 1, ..batch() };
    let late = NOW - 1 + HOUR / 4;
    decides(&making, &ended(0, 0), Decision::Wait { until: Some(late) });
    let left = Batch { created: NOW - HOUR, ..making };
    decides(&left, &ended(0, 0), Decision::Abort(Reason::Unfinished));
}

#[test]
fn strategies_that_nobody_meant_are_refused() {
    type Change = fn(&mut Strategy);
    let cases: [(&str, Change); 10] = [
        ("canary", |s| s.canary = 0),
        ("growth", |s| s.growth = 0.5),
        ("growth", |s| s.growth = f64::NAN),
        ("gate.success_percent", |s| s.gate.success_percent = 0),
        ("gate.minimum", |s| s.gate.minimum = 0),
        ("gate.minimum", |s| s.gate.minimum = 2),
        ("max_concurrent", |s| s.max_concurrent = Some(0)),
        ("failure_threshold.percent", |s| s.failure_threshold.percent = Some(101)),
        ("offline_after_s", |s| s.offline_after_s = 0),
        ("patience_s", |s| s.patience_s = 0),
    ];
    for (field, change) in cases {
        let mut strategy = Strategy::default();
        change(&mut strategy);
        assert_eq!(strategy.check().unwrap_err().field, field);
    }
    let one_by_one = Strategy { growth: 1.0, ..Strategy::default() };
    assert_eq!(one_by_one.check_for(200), Ok(()));
    assert_eq!(one_by_one.check_for(201).unwrap_err().field, "growth");
    assert!(serde_json::from_str::<Strategy>(r#"{"canery": 5}"#).is_err());
    let sizes: Vec<_> =
        Strategy { canary: 2, growth: 3.0, ..Strategy::default() }.sizes(24).collect();
    assert_eq!(sizes, [2, 6, 16]);
    assert_eq!(Strategy { growth: 100.0, ..Strategy::default() }.size(200), u64::MAX);
}

#[test]
fn the_status_is_what_is_true_of_all() {
    let of = |idle, in_progress, success, failed, aborted, cancelled| Counts {
        idle,
        in_progress,
        success,
        failed,
        aborted,
        cancelled,
        charged: 0,
        unproved: 0,
    };
    use crate::operation::Status;
    for (counts, status) in [
        (of(3, 0, 0, 0, 0, 0), Status::Idle),
        (of(2, 1, 0, 0, 0, 0), Status::InProgress),
        (of(2, 0, 1, 0, 0, 0), Status::InProgress),
        (of(0, 0, 3, 0, 0, 0), Status::Success),
        (of(0, 0, 2, 1, 1, 1), Status::Failed),
        (of(0, 0, 2, 0, 1, 1), Status::Aborted),
        (of(0, 0, 2, 0, 0, 1), Status::Cancelled),
    ] {
        assert_eq!(counts.status(), status, "{counts:?}");
    }
    let nearly = of(0, 0, 99_999, 1, 0, 0);
    assert_eq!((nearly.rate(Status::Success), nearly.rate(Status::Failed)), (99.99, 0.0));
    assert_eq!(nearly.progress_report(), "100000 out of 100000");
    assert_eq!(of(0, 0, 3, 0, 0, 0).rate(Status::Success), 100.0);
    assert_eq!(of(0, 0, 0, 0, 0, 0).rate(Status::Success), 0.0);
}
