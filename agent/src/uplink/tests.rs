mod stand_in;

use std::path::Path;

use serde_json::json;
use shared::event::EventBody;
use shared::grant::RefusalCode;
use shared::ids::{Slot, StreamId};
use shared::stages::Phase;
use tempfile::TempDir;

use super::*;
use crate::settings::{Fragment, SpkiPin, from_fragments};
use stand_in::{Broker, ENROLMENT_TOKEN, StandIn, Standing};

struct Agent {
    _uplink: Uplink,
    handle: UplinkHandle,
    _state: Option<TempDir>,
}

fn settings(stand_in: &StandIn, state: &Path, mqtt: bool, pin: SpkiPin) -> Settings {
    let token_file = state.join("enrolment-token");
    std::fs::write(&token_file, format!("{ENROLMENT_TOKEN}\n")).unwrap();
    let text = format!(
        "[coordinator]\nurl = \"https://127.0.0.1:{}\"\nca_file = \"/unused\"\n\
         enrolment_token_file = \"{}\"\n[uplink]\nmqtt = {mqtt}",
        stand_in.port,
        token_file.display()
    );
    let mut settings = from_fragments([Fragment::from_toml(&text, "test").unwrap()]).unwrap();
    settings.coordinator.trust = crate::settings::Trust { pins: vec![pin], ca_file: None };
    // A test's seconds are dear.
    settings.uplink.retry = Duration::from_millis(20);
    settings.uplink.retry_max = Duration::from_millis(200);
    settings.uplink.mqtt_patience = Duration::from_secs(3_600);
    settings
}

fn start_with(settings: &Settings, state: &Path) -> Agent {
    let clock = Arc::new(Clock::new(state.join("clock-set")));
    let mut settings = settings.clone();
    settings.paths.state_dir = state.to_owned();
    settings.paths.sysfs = state.join("sys");
    let (uplink, handle) = Uplink::start(Arc::new(settings), clock, Outbox::open(state));
    Agent { _uplink: uplink, handle, _state: None }
}

fn start(stand_in: &StandIn, mqtt: bool) -> Agent {
    let state = tempfile::tempdir().unwrap();
    let settings = settings(stand_in, state.path(), mqtt, stand_in.pin);
    let agent = start_with(&settings, state.path());
    Agent { _state: Some(state), ..agent }
}

fn operation() -> OperationId {
    OperationId::from_random([1; 16])
}

fn draft() -> Draft {
    Draft {
        operation: operation(),
        slot: Slot::default(),
        stream: StreamId::from_random([2; 16]),
        attempt: 0,
        at: None,
        body: EventBody::Entered { phase: Phase::Downloading },
    }
}

fn tick(n: u64) -> Tick {
    Tick {
        v: 1,
        operation: operation(),
        slot: Slot::default(),
        stream: StreamId::from_random([2; 16]),
        attempt: 1,
        n,
        phase: Phase::Installing,
        percent: 30,
        stalled: false,
        detail: None,
        fetched: None,
    }
}

fn inventory() -> Inventory {
    Inventory {
        v: 1,
        agent_version: "0.1.0".into(),
        capabilities: Vec::new(),
        board: String::new(),
        hostname: String::new(),
        boot_id: String::new(),
        require_signature: true,
        keys: Vec::new(),
        profiles: Vec::new(),
        staging: Vec::new(),
        modems: Vec::new(),
    }
}

fn ask() -> StartRequest {
    StartRequest {
        attempt: 1,
        stream: StreamId::from_random([2; 16]),
        dark_expected_s: 300,
        dark_longest_s: 900,
        returned: 0,
    }
}

const LONG: Duration = Duration::from_secs(30);

async fn state_is(handle: &UplinkHandle, wanted: impl FnMut(&UplinkState) -> bool) {
    let mut state = handle.state();
    let seen = timeout(LONG, state.wait_for(wanted)).await.map(|seen| seen.is_ok());
    assert!(seen == Ok(true), "{:?}", state.borrow());
}

#[tokio::test]
async fn an_unknown_device_enrols_and_learns_what_is_wanted() {
    let stand_in = StandIn::start().await;
    stand_in.world().standing = Standing::Unknown;
    let agent = start(&stand_in, false);
    let mut desired = agent.handle.desired();
    let wanted = timeout(LONG, desired.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert_eq!(wanted.unwrap().generation, "\"g1\"");
    assert_eq!(stand_in.world().enrolments, 1);
    state_is(&agent.handle, |state| state.access == Access::Accepted).await;
}

#[tokio::test]
async fn a_pending_device_waits_until_it_is_accepted() {
    let stand_in = StandIn::start().await;
    stand_in.world().standing = Standing::Unknown;
    stand_in.world().enrolled_as = Standing::Pending;
    let agent = start(&stand_in, false);
    state_is(&agent.handle, |state| state.access == Access::Pending).await;
    assert_eq!(stand_in.world().desired_asked, 0);
    stand_in.world().standing = Standing::Accepted;
    state_is(&agent.handle, |state| state.access == Access::Accepted).await;
    assert_eq!(stand_in.world().enrolments, 1, "enrolled once, however long it waits");
}

#[tokio::test]
async fn a_device_that_is_not_known_and_has_no_token_says_so_and_waits() {
    let stand_in = StandIn::start().await;
    stand_in.world().standing = Standing::Unknown;
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(&stand_in, state.path(), false, stand_in.pin);
    settings.coordinator.enrolment_token_file = Some(state.path().join("nothing-here"));
    let agent = start_with(&settings, state.path());
    let refused = Access::Refused { code: "unknown".into() };
    state_is(&agent.handle, |state| state.access == refused).await;
    assert_eq!(stand_in.world().enrolments, 0);
    stand_in.world().standing = Standing::Accepted;
    state_is(&agent.handle, |state| state.access == Access::Accepted).await;
}

#[tokio::test]
async fn a_server_with_another_key_is_told_nothing() {
    let stand_in = StandIn::start().await;
    let state = tempfile::tempdir().unwrap();
    let settings = settings(&stand_in, state.path(), true, SpkiPin([1; 32]));
    let agent = start_with(&settings, state.path());
    state_is(&agent.handle, |state| matches!(state.access, Access::Unreachable { .. })).await;
    assert_eq!(stand_in.world().tokens_given, 0);
    let leave = timeout(Duration::from_millis(200), agent.handle.credentials()).await;
    assert!(leave.is_err(), "nobody to ask");
}

#[tokio::test]
async fn what_is_reported_before_trust_is_mended_arrives_afterwards() {
    let stand_in = StandIn::start().await;
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(&stand_in, state.path(), false, stand_in.pin);
    // A directory where the identity's file should be cannot be read.
    let identity = state.path().join("identity/device.json");
    std::fs::create_dir_all(&identity).unwrap();
    settings.uplink.request_timeout = Duration::from_millis(100);
    let agent = start_with(&settings, state.path());
    let event = agent.handle.report(draft());
    state_is(&agent.handle, |state| {
        matches!(&state.access, Access::Unreachable { reason } if reason.contains("identity"))
    })
    .await;
    let answer = agent.handle.request_start(operation(), &ask()).await;
    assert!(matches!(answer, StartAnswer::NoAnswer(_)), "{answer:?}");
    assert!(agent.handle.images().is_none());

    std::fs::remove_dir(&identity).unwrap();
    assert!(agent.handle.flushed(LONG).await);
    assert_eq!(stand_in.world().events, [event]);
}

#[tokio::test]
async fn events_go_over_https_where_there_is_no_line() {
    let stand_in = StandIn::start().await;
    let agent = start(&stand_in, false);
    let sent: Vec<Event> = (0..100).map(|_| agent.handle.report(draft())).collect();
    assert!(agent.handle.flushed(LONG).await);
    assert_eq!(stand_in.world().events, sent, "each once, in order");
}

#[tokio::test]
async fn events_of_a_former_life_are_sent_by_the_next() {
    let stand_in = StandIn::start().await;
    stand_in.world().broken = Some(503);
    let state = tempfile::tempdir().unwrap();
    let settings = settings(&stand_in, state.path(), false, stand_in.pin);
    let first = start_with(&settings, state.path());
    let event = first.handle.report(draft());
    assert!(!first.handle.flushed(Duration::from_millis(300)).await);
    drop(first);
    stand_in.world().broken = None;
    let second = start_with(&settings, state.path());
    assert!(second.handle.flushed(LONG).await);
    assert_eq!(stand_in.world().events, [event]);
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    let stand_in = StandIn::start().await;
    let agent = start(&stand_in, false);
    stand_in.until("signed in", |world| world.desired_asked > 0).await;
    stand_in.world().good_token = "another".into();
    agent.handle.report(draft());
    assert!(agent.handle.flushed(LONG).await);
    assert_eq!(stand_in.world().tokens_given, 2);
}

#[tokio::test]
async fn one_event_that_is_never_taken_does_not_block_the_others() {
    let stand_in = StandIn::start().await;
    stand_in.world().poison = Some(2);
    let agent = start(&stand_in, false);
    for _ in 0..4 {
        agent.handle.report(draft());
    }
    assert!(agent.handle.flushed(LONG).await);
    let seqs: Vec<u64> = stand_in.world().events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 3, 4]);
}

#[tokio::test]
async fn only_the_coordinator_ends_an_event_and_no_status_ends_a_grant() {
    for (by_proxy, body) in
        [(true, EventBody::Entered { phase: Phase::Downloading }), (false, EventBody::Granted)]
    {
        let stand_in = StandIn::start().await;
        stand_in.world().poison = Some(2);
        stand_in.world().poison_by_proxy = by_proxy;
        let agent = start(&stand_in, false);
        for _ in 0..4 {
            agent.handle.report(Draft { body: body.clone(), ..draft() });
        }
        stand_in.until("the others", |world| world.events.len() == 3).await;
        assert!(!agent.handle.flushed(Duration::from_millis(500)).await, "it is kept");
        stand_in.world().poison = None;
        assert!(agent.handle.flushed(LONG).await);
        let seqs: Vec<u64> = stand_in.world().events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [1, 3, 4, 2]);
    }
}

#[tokio::test]
async fn leave_is_given_refused_or_not_answered() {
    let stand_in = StandIn::start().await;
    let agent = start(&stand_in, false);
    let StartAnswer::Refused(refusal) = agent.handle.request_start(operation(), &ask()).await
    else {
        panic!("not refused");
    };
    assert_eq!((refusal.code, refusal.retry_after_s), (RefusalCode::Paused, Some(7)));

    stand_in.world().start = (200, json!({"attempt": 1, "stream": ask().stream}));
    let answer = agent.handle.request_start(operation(), &ask()).await;
    assert_eq!(answer, StartAnswer::Granted(Grant { attempt: 1, stream: ask().stream }));

    for other in [
        (200, json!({"attempt": 2, "stream": ask().stream})),
        (200, json!({})),
        (404, json!({"code": "not_found", "detail": ""})),
        (500, json!(null)),
        (302, json!(null)),
        (409, json!("what?")),
    ] {
        stand_in.world().start = other.clone();
        let answer = agent.handle.request_start(operation(), &ask()).await;
        assert!(matches!(answer, StartAnswer::NoAnswer(_)), "{other:?}: {answer:?}");
    }
}

#[tokio::test]
async fn the_inventory_arrives_after_failures() {
    let stand_in = StandIn::start().await;
    stand_in.world().broken = Some(503);
    let agent = start(&stand_in, false);
    agent.handle.set_inventory(inventory());
    state_is(&agent.handle, |state| matches!(state.access, Access::Unreachable { .. })).await;
    stand_in.world().broken = None;
    stand_in.until("inventory", |world| world.inventories == 1).await;
    agent.handle.set_inventory(Inventory { board: "b".into(), ..inventory() });
    stand_in.until("the changed one", |world| world.inventories == 2).await;
}

#[tokio::test]
async fn progress_goes_over_https_where_there_is_no_line() {
    let stand_in = StandIn::start().await;
    let agent = start(&stand_in, false);
    agent.handle.tick(tick(1));
    stand_in.until("tick", |world| world.ticks == 1).await;
}

#[tokio::test]
async fn the_line_carries_presence_events_acks_and_progress() {
    let stand_in = StandIn::start().await;
    let agent = start(&stand_in, true);
    state_is(&agent.handle, |state| state.line).await;
    let sent: Vec<Event> = (0..50).map(|_| agent.handle.report(draft())).collect();
    assert!(agent.handle.flushed(LONG).await);
    agent.handle.tick(tick(1));
    stand_in.until("tick", |world| world.published_on("progress").len() == 1).await;

    let world = stand_in.world();
    assert_eq!(world.events, sent);
    assert_eq!((world.over_https, world.ticks), (0, 0));
    let device = stand_in::DEVICE;
    let connect = &world.connects[0];
    assert_eq!(connect.client_id, device);
    assert!(connect.clean_session);
    let login = connect.login.as_ref().unwrap();
    assert_eq!((login.username.as_str(), login.password.as_str()), (device, "mqtt-1"));
    let down = ["wake", "ack"].map(|down| format!("mu/acme/{device}/down/{down}"));
    assert_eq!(world.subscribed, down);

    let will = connect.last_will.as_ref().unwrap();
    let last: serde_json::Value = serde_json::from_slice(&will.message).unwrap();
    assert_eq!(will.topic, format!("mu/acme/{device}/up/presence"));
    let online = world.published_on("presence")[0];
    assert_eq!((&online["online"], &last["online"]), (&json!(true), &json!(false)));
    assert_eq!(online["session"], last["session"]);
}

#[tokio::test]
async fn a_wake_brings_the_question_forward() {
    let stand_in = StandIn::start().await;
    let agent = start(&stand_in, true);
    state_is(&agent.handle, |state| state.line).await;
    stand_in.until("asked on connection", |world| world.unchanged_said >= 1).await;
    stand_in.world().generation = 2;
    let mut desired = agent.handle.desired();
    let second = |d: &Option<Arc<Desired>>| d.as_ref().is_some_and(|d| d.generation == "\"g2\"");
    // The subscription may be younger than the first wake.
    let woken = timeout(LONG, async {
        loop {
            stand_in.wake();
            if timeout(Duration::from_millis(500), desired.wait_for(second)).await.is_ok() {
                break;
            }
        }
    });
    assert!(woken.await.is_ok());
}

#[tokio::test]
async fn a_broken_line_comes_back_with_another_session() {
    let stand_in = StandIn::start().await;
    let agent = start(&stand_in, true);
    for n in 1..=3 {
        stand_in.until("connected", |world| world.published_on("presence").len() == n).await;
        stand_in.until("subscribed", |world| world.subscribed.len() == 2 * n).await;
        agent.handle.report(draft());
        assert!(agent.handle.flushed(LONG).await);
        stand_in.break_lines();
    }
    let world = stand_in.world();
    let sessions: std::collections::BTreeSet<String> =
        world.published_on("presence").iter().map(|p| p["session"].to_string()).collect();
    assert!(sessions.len() >= 3);
    assert_eq!(world.events.len(), 3);
}

#[tokio::test]
async fn a_broker_that_takes_and_never_answers_stops_nothing() {
    let stand_in = StandIn::start().await;
    stand_in.world().broker = Broker::TakesOnly;
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(&stand_in, state.path(), true, stand_in.pin);
    settings.uplink.mqtt_patience = Duration::from_millis(300);
    let agent = start_with(&settings, state.path());
    state_is(&agent.handle, |state| state.line).await;
    let sent: Vec<Event> = (0..5).map(|_| agent.handle.report(draft())).collect();
    assert!(agent.handle.flushed(LONG).await);
    let world = stand_in.world();
    assert!(!world.published_on("event").is_empty(), "PUBACK alone settles nothing");
    assert_eq!(world.events, sent);
    assert_eq!(world.over_https, 5);
}

#[tokio::test]
async fn a_refused_line_asks_for_other_tokens_and_https_goes_on() {
    let stand_in = StandIn::start().await;
    stand_in.world().broker = Broker::RefusesTokens;
    let agent = start(&stand_in, true);
    stand_in.until("asked again", |world| world.tokens_given >= 2).await;
    agent.handle.report(draft());
    assert!(agent.handle.flushed(LONG).await);
    stand_in.world().broker = Broker::Answers;
    state_is(&agent.handle, |state| state.line).await;
}
