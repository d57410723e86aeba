//! Whose word counts, and what it does: milestones, ticks, a script's report.

use super::*;

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
fn an_attempt_above_the_granted_one_is_not_believed() {
    let mut op = operation();
    grant(&mut op, 1).unwrap();
    assert_eq!(tell(&mut op, &event(1, 2, succeeded())), Err(Refused::NotGranted));
    assert!(op.is_granted());
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
fn success_needs_the_versions() {
    for outcome in [
        Outcome::Succeeded { versions: vec![], not_compared: None, remark: None },
        Outcome::Succeeded { versions: vec![line("old")], not_compared: None, remark: None },
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
fn the_same_end_under_another_number_is_no_news() {
    let retried = |op: &mut Operation| {
        grant(op, 1).unwrap();
        tell(op, &event(1, 1, retrying(ModemCondition::OldVersion))).unwrap();
    };
    let failed = |condition| finished(Outcome::Failed { failure: failure(condition) });
    for (end, retries) in [
        (succeeded(), false),
        (failed(ModemCondition::Silent), false),
        (failed(ModemCondition::Untouched), true),
        (finished(Outcome::Cancelled), true),
    ] {
        let mut op = operation();
        if retries {
            retried(&mut op);
        } else {
            grant(&mut op, 1).unwrap();
        }
        tell(&mut op, &event(2, 1, end.clone())).unwrap();
        let ended = op.clone();
        tell(&mut op, &event(1_000_000, 1, end.clone())).unwrap();
        assert_eq!(op.late_result, None, "{end:?}");
        assert_eq!((op.status, &op.log), (ended.status, &ended.log), "{end:?}");
        // Another one is.
        tell(&mut op, &event(1_000_001, 1, failed(ModemCondition::CrashDump))).unwrap();
        assert!(op.late_result.is_some(), "{end:?}");
    }
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
fn a_tick_of_an_attempt_that_is_over_says_nothing() {
    let ended = |body: EventBody| {
        let mut op = operation();
        grant(&mut op, 1).unwrap();
        tell(&mut op, &event(1, 1, body)).unwrap();
        op
    };
    let mut returned = ended(EventBody::Returned { reason: "hot".into(), returned: 1 });
    assert!(!tick::apply(&mut returned, &tick(1, 5, Phase::Preparing, 50), 2), "it waits");
    assert!(tick::apply(&mut returned, &tick(0, 6, Phase::Committing, 20), 2));
    let mut retrying = ended(retrying(ModemCondition::OldVersion));
    assert!(!tick::apply(&mut retrying, &tick(1, 5, Phase::Probing, 70), 2));
    assert!(tick::apply(&mut retrying, &tick(1, 6, Phase::Backoff, 50), 2));
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
fn an_upgrade_that_a_script_may_be_flashing_is_not_taken_back() {
    let say = |percent, status| Report { progress_percent: percent, status };
    let running = Some(Status::InProgress);
    let passed = Err(CannotCancel::PastPointOfNoReturn(1));
    for (percent, cancelled) in
        [(None, passed), (Some(0), passed), (Some(5), passed), (Some(20), passed)]
    {
        let mut op = operation();
        report::apply(&mut op, say(percent, running), 1).unwrap();
        assert_eq!(cancel(&mut op, "somebody", 2), cancelled, "{percent:?}");
    }
    let mut op = operation();
    report::apply(&mut op, say(Some(85), running), 1).unwrap();
    let newer = op.id;
    assert_eq!(supersede(&mut op, newer, 2), passed);
    let refused = start(&mut op, Standing::Good, &request(1, 2), 2).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Quarantined, "its agent does not flash beside it");
    report::apply(&mut op, say(Some(90), None), 3).unwrap();
    report::apply(&mut op, say(None, Some(Status::Success)), 4).unwrap();
    assert_eq!((op.status, op.is_granted(), op.unproved), (Status::Success, false, true));
}

#[test]
fn a_script_that_falls_silent_is_given_up_and_heard_later() {
    let running = Report { progress_percent: Some(85), status: Some(Status::InProgress) };
    let done = Report { status: Some(Status::Success), ..Report::default() };
    let mut lost = operation();
    report::apply(&mut lost, running, 1).unwrap();
    assert!(!expire(&mut lost, 0, 4 * 3_600_000));
    assert!(expire(&mut lost, 0, 48 * 3_600_000));
    let mut written_off = operation();
    report::apply(&mut written_off, running, 1).unwrap();
    let early = write_off(&mut written_off, "admin", 3_600_001);
    assert_eq!(early, Err(expiry::CannotWriteOff::UnderWay(1)), "it may be flashing");
    write_off(&mut written_off, "admin", 3_600_002).unwrap();
    for mut op in [lost, written_off] {
        assert_eq!(op.status, Status::Failed);
        assert_eq!(
            report::apply(&mut op, running, 3),
            Err(ReportRefused::Finished(Status::Failed))
        );
        report::apply(&mut op, done, 3).unwrap();
        assert_eq!(op.status, Status::Failed, "it has ended");
        assert!(matches!(op.late_result.as_ref().unwrap().outcome, Outcome::Succeeded { .. }));
        assert_eq!(report::apply(&mut op, done, 4), Err(ReportRefused::Finished(Status::Failed)));
    }
    // So too where it was taken back and the script did not look.
    let mut op = operation();
    cancel(&mut op, "somebody", 1).unwrap();
    report::apply(&mut op, done, 2).unwrap();
    assert_eq!((op.status, op.late_result.is_some()), (Status::Cancelled, true));
}

#[test]
fn a_report_says_something_and_takes_nothing_back() {
    let say = |percent, status| Report { progress_percent: percent, status };
    let mut op = operation();
    let untouched = op.clone();
    assert_eq!(report::apply(&mut op, Report::default(), 1), Err(ReportRefused::Nothing));
    report::apply(&mut op, say(None, Some(Status::Idle)), 1).unwrap();
    assert_eq!(op, untouched);
    report::apply(&mut op, say(Some(65), None), 1).unwrap();
    assert_eq!((op.status, op.progress_percent), (Status::InProgress, 65));
    let begun = op.clone();
    let back = report::apply(&mut op, say(Some(5), Some(Status::Idle)), 2);
    assert_eq!((back, &op), (Err(ReportRefused::Begun), &begun));
    report::apply(&mut op, say(None, Some(Status::Success)), 2).unwrap();
    assert_eq!(op.progress_percent, 100);
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
