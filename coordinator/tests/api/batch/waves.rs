//! From the canary to the last wave, and what stops a batch by itself.

use super::*;

#[tokio::test]
async fn a_canary_and_then_the_others() {
    let fleet = Fleet::new(4).await;
    let batch = fleet.start(quick()).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("idle"), &json!("canary")));
    assert_eq!(shown["tally"]["total"], 4);
    let sizes: Vec<_> = shown["waves"].as_array().unwrap().iter().map(|w| &w["size"]).collect();
    assert_eq!(sizes, [1, 2, 1], "{shown}");
    assert_eq!(shown["upgradeoperations"].as_array().unwrap().len(), 4);
    assert_eq!(fleet.work(success).await, 1, "the canary alone has a job");
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("in-progress"), &json!("soaking")));
    assert_eq!(shown["progress_report"], "1 out of 4");
    assert_eq!(shown["success_rate"], 25.0);
    assert_eq!(fleet.working().await, [], "it soaks");
    fleet.pass(10);
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["phase"], "wave");
    assert_eq!(fleet.work(success).await, 2);
    fleet.pass(10);
    fleet.fly(&batch).await;
    assert_eq!(fleet.work(success).await, 1);
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("success"), &json!("finished")));
    assert_eq!(
        (&shown["progress_report"], &shown["success_rate"]),
        (&json!("4 out of 4"), &json!(100.0))
    );
    let again = json!({"upgrade_all": true});
    let refused = fleet.world.post(OPERATOR, &fleet.upgrade(), again).await.ok(400);
    assert!(refused["error"].as_str().unwrap().contains("runs this version"), "{refused}");
}

#[tokio::test]
async fn a_bad_build_stops_itself_after_its_canary() {
    let fleet = Fleet::new(3).await;
    let batch = fleet.start(quick()).await;
    assert_eq!(fleet.work(broken).await, 1);
    fleet.fly(&batch).await;
    fleet.pass(3600);
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("in-progress"), &json!("paused")));
    assert!(shown["paused_reason"].as_str().unwrap().contains("gate"), "{shown}");
    assert_eq!(fleet.working().await, []);
    let cancelled = fleet.act(&batch, "cancel").await.ok(200);
    assert_eq!((&cancelled["cancelled"], &cancelled["will_finish"]), (&json!(2), &json!(0)));
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["phase"]), (&json!("failed"), &json!("finished")));
    assert_eq!(shown["tally"]["cancelled"], 2);
}

#[tokio::test]
async fn a_silent_device_blocks_the_next_wave_and_then_counts_as_failed() {
    let fleet = Fleet::new(3).await;
    let strategy = json!({"failure_threshold": {"count": 1, "then": "abort"}});
    let batch = fleet.start(strategy).await;
    let (device, id) = fleet.working().await[0];
    fleet.ask(device, id).await.unwrap();
    for (seconds, tally) in [(60, "dark"), (200, "suspect"), (600, "overdue")] {
        fleet.pass(seconds);
        let shown = fleet.show(&batch).await;
        assert_eq!(shown["tally"][tally], 1, "{shown}");
        assert_eq!(shown["tally"]["in_progress"], 1, "dark is not failed");
        if tally != "overdue" {
            fleet.fly(&batch).await;
            assert_eq!(fleet.working().await.len(), 1, "no other wave");
        }
    }
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["phase"], &shown["tally"]["cancelled"]), (&json!("cancelling"), &json!(2)));
    fleet.end(device, id, success()).await;
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["tally"]["success"]), (&json!("cancelled"), &json!(1)));
}

#[tokio::test]
async fn an_offline_member_waits_for_a_later_wave() {
    let fleet = Fleet::new(3).await;
    let batch = fleet.start(json!({"canary": 2, "gate": {"soak_s": 0}})).await;
    let working = fleet.working().await;
    let [(first, one), (gone, left)] = working[..] else { panic!("{working:?}") };
    fleet.ask(first, one).await.unwrap();
    fleet.end(first, one, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["wave"], 0, "it may come yet");
    fleet.pass(4000);
    let third = *fleet.devices.iter().find(|id| **id != first && **id != gone).unwrap();
    fleet.see(third).await;
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["wave"], &shown["waves"][1]["size"]), (&json!(1), &json!(1)), "{shown}");
    assert_eq!(fleet.ask(gone, left).await, Err(RefusalCode::Paused), "not in an open wave");
    let job = fleet.job(third).await.unwrap();
    fleet.ask(third, job).await.unwrap();
    fleet.end(third, job, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["wave"], 1, "whoever is away is taken into no wave");
    fleet.see(gone).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["wave"], 2);
    fleet.ask(gone, left).await.unwrap();
    fleet.end(gone, left, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["status"], "success");
}

#[tokio::test]
async fn it_begins_and_ends_at_its_times() {
    let fleet = Fleet::new(2).await;
    let times = json!({"start_at": "2023-11-14T22:23:20Z", "expires_at": "2023-11-15T22:13:20Z"});
    let batch = fleet.start(times).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["phase"], &shown["status"]), (&json!("scheduled"), &json!("idle")));
    assert_eq!(shown["strategy"]["start_at"], "2023-11-14T22:23:20.000Z");
    fleet.pass(600);
    fleet.fly(&batch).await;
    let (device, id) = fleet.working().await[0];
    fleet.pass(24 * 3600);
    assert_eq!(fleet.ask(device, id).await, Err(RefusalCode::Expired));
    fleet.fly(&batch).await;
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["status"], &shown["aborted_rate"]), (&json!("aborted"), &json!(100.0)));
    assert_eq!(shown["tally"]["charged"], 0, "nobody's fault");
}

#[tokio::test]
async fn what_begins_late_has_its_thirty_days_all_the_same() {
    let fleet = Fleet::new(1).await;
    let batch = fleet.start(json!({})).await;
    let shown = fleet.show(&batch).await;
    assert_eq!(shown["strategy"]["expires_at"], "2023-12-14T22:13:20.000Z");
    fleet.act(&batch, "cancel").await.ok(200);
    let batch = fleet.start(json!({"start_at": "2023-12-24T22:13:20Z"})).await;
    let shown = fleet.show(&batch).await;
    assert_eq!(shown["strategy"]["expires_at"], "2024-01-23T22:13:20.000Z");
    fleet.pass(40 * 24 * 3600);
    fleet.see_all().await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.work(success).await, 1);
}

#[tokio::test]
async fn a_silent_modem_counts_in_the_grant_before_the_pilot_has_looked() {
    let fleet = Fleet::new(3).await;
    fleet.start(json!({"canary": 3, "failure_threshold": {"count": 1}})).await;
    let working = fleet.working().await;
    fleet.ask(working[0].0, working[0].1).await.unwrap();
    fleet.pass(600 + 120);
    fleet.ask(working[1].0, working[1].1).await.unwrap();
    fleet.pass(1);
    assert_eq!(fleet.ask(working[2].0, working[2].1).await, Err(RefusalCode::Paused));
    fleet.end(working[0].0, working[0].1, success()).await;
    fleet.ask(working[2].0, working[2].1).await.unwrap();
}

#[tokio::test]
async fn a_modem_in_recovery_counts_in_the_grant_however_much_its_router_talks() {
    let fleet = Fleet::new(2).await;
    fleet.start(json!({"canary": 2, "failure_threshold": {"count": 1}})).await;
    let working = fleet.working().await;
    let (device, id) = working[0];
    fleet.ask(device, id).await.unwrap();
    let recovering = EventBody::Recovering { tries: 1, detail: "download mode".into() };
    fleet.tell(device, id, 3, 1, recovering).await;
    assert_eq!(fleet.ask(working[1].0, working[1].1).await, Err(RefusalCode::Paused));
}

#[tokio::test]
async fn what_was_forgiven_and_came_back_is_no_credit() {
    let fleet = Fleet::new(6).await;
    let threshold = json!({"count": 2, "percent": null});
    let batch = fleet.start(json!({"canary": 6, "failure_threshold": threshold})).await;
    let working = fleet.working().await;
    let ask = async |n: usize| fleet.ask(working[n].0, working[n].1).await;
    let end = async |n: usize, outcome| fleet.end(working[n].0, working[n].1, outcome).await;
    let phase = async || {
        fleet.fly(&batch).await;
        fleet.show(&batch).await["phase"].clone()
    };
    ask(0).await.unwrap();
    ask(1).await.unwrap();
    fleet.pass(600 + 121);
    assert_eq!(phase().await, "paused", "two are overdue");
    fleet.act(&batch, "resume").await.ok(200);
    assert_eq!(phase().await, "canary", "which was forgiven");
    let shown = fleet.show(&batch).await;
    assert_eq!(shown["tally"]["overdue"], 2, "and is shown all the same");
    end(0, success()).await;
    end(1, broken()).await;
    assert_eq!(phase().await, "canary", "what was forgiven turned out bad");
    ask(2).await.unwrap();
    end(2, broken()).await;
    assert_eq!(phase().await, "canary", "one more");
    ask(3).await.unwrap();
    end(3, broken()).await;
    assert_eq!(ask(4).await, Err(RefusalCode::Paused));
    assert_eq!(phase().await, "paused", "two more");
}

#[tokio::test]
async fn a_canary_that_only_postpones_gives_its_place_to_another() {
    let fleet = Fleet::new(3).await;
    let batch = fleet.start(json!({"canary": 1, "gate": {"soak_s": 0}})).await;
    let (canary, id) = fleet.working().await[0];
    let reason = "maintenance window: opens at 02:00";
    fleet.tell(canary, id, 1, 0, EventBody::Postponed { reason: reason.into() }).await;
    let awaited = fleet.show(&batch).await["awaited"].clone();
    assert_eq!(awaited.as_array().map(Vec::len), Some(1), "{awaited}");
    assert_eq!((&awaited[0]["device"], &awaited[0]["why"]), (&json!(canary), &json!(reason)));
    fleet.pass(24 * 3600);
    fleet.see_all().await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.working().await.len(), 1, "a nightly window comes by within a day");
    fleet.pass(3600);
    fleet.see_all().await;
    fleet.fly(&batch).await;
    let working = fleet.working().await;
    assert_eq!(working.len(), 2, "another one is the canary now");
    assert_eq!(fleet.ask(canary, id).await, Err(RefusalCode::Paused));
    let (other, job) = *working.iter().find(|(device, _)| *device != canary).unwrap();
    let shown = fleet.show(&batch).await;
    assert_eq!((&shown["wave"], &shown["waves"][0]["size"]), (&json!(0), &json!(1)), "{shown}");
    fleet.ask(other, job).await.unwrap();
    fleet.end(other, job, success()).await;
    fleet.fly(&batch).await;
    assert_eq!(fleet.show(&batch).await["wave"], 1);
    fleet.ask(canary, id).await.unwrap();
}

#[tokio::test]
async fn a_lone_canary_is_waited_for() {
    let fleet = Fleet::new(2).await;
    let batch = fleet.start(json!({"canary": 1})).await;
    let (canary, id) = fleet.working().await[0];
    fleet.tell(canary, id, 1, 0, EventBody::Postponed { reason: "weak signal".into() }).await;
    fleet.pass(48 * 3600);
    fleet.see(canary).await;
    fleet.fly(&batch).await;
    fleet.ask(canary, id).await.unwrap();
}
