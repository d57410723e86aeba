//! The agent's API over real TLS: enrolment, tokens, a job from its request to its proof, and what
//! is refused.

use crate::manifest::versions;
use crate::peer::{Device, FIRMWARE, Operator, code};
use coordinator::config::{Config, Fragment};
use coordinator::serve::{self, Bootstrap, Running, StartError};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::json;
use shared::ack::{Acks, Verdict};
use shared::desired::Desired;
use shared::event::{Event, EventBody, Events, Outcome, Tick};
use shared::grant::{Grant, Refusal, RefusalCode, StartRequest};
use shared::identity::{DeviceState, Enrolled, Tokens};
use shared::ids::{OperationId, Slot, StreamId};
use shared::stages::Phase;
use uuid::Uuid;

pub struct Stand {
    pub running: Running,
    bootstrap: Bootstrap,
    client: Client,
    pub operator: Operator,
    pub dir: tempfile::TempDir,
}

fn config(dir: &tempfile::TempDir) -> Config {
    let anywhere = Some("127.0.0.1:0".parse().unwrap());
    Fragment {
        data: Some(dir.path().to_owned()),
        https: anywhere,
        mqtt: anywhere,
        reserve: Some(0),
        ..Fragment::default()
    }
    .validate()
    .unwrap()
}

impl Stand {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (running, bootstrap) = serve::start(config(&dir)).await.unwrap();
        let bootstrap = bootstrap.unwrap();
        let client = crate::peer::client(dir.path());
        let (address, token) = (running.https, bootstrap.api_token.clone());
        let operator = Operator { client: client.clone(), address, token };
        Self { running, bootstrap, client, operator, dir }
    }

    fn device(&self, seed: u8) -> Device {
        Device::new(&self.client, self.running.https, seed)
    }

    pub async fn ready(&self, seed: u8) -> (Device, shared::ids::DeviceId) {
        let token = &self.bootstrap.enrolment_token;
        Device::ready(&self.client, self.running.https, seed, token).await
    }
}

pub fn event(operation: OperationId, seq: u64, attempt: u32, body: EventBody) -> Event {
    let stream = StreamId(Uuid::from_u128(1));
    Event { operation, slot: Slot::default(), stream, seq, attempt, at: None, body }
}

fn start(attempt: u32) -> StartRequest {
    let stream = StreamId(Uuid::from_u128(1));
    StartRequest { attempt, stream, dark_expected_s: 300, dark_longest_s: 1800, returned: 0 }
}

async fn tell(device: &Device, events: Vec<Event>) -> Vec<Verdict> {
    let response = device.post("events", &Events::new(events)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let acks: Acks = response.json().await.unwrap();
    acks.acks.into_iter().map(|ack| ack.verdict).collect()
}

#[tokio::test]
async fn a_second_start_makes_nothing_anew_and_a_second_coordinator_is_kept_out() {
    let stand = Stand::new().await;
    let printed = stand.bootstrap.to_string();
    for key in ["superuser: ", "organization: ", "api_token: ", "enrolment_token: ", "pin: "] {
        assert!(printed.lines().any(|line| line.starts_with(key)), "{printed}");
    }
    let twice = serve::start(config(&stand.dir)).await;
    assert!(matches!(twice, Err(StartError::InUse { .. })));
    let pin = stand.running.pin;
    stand.running.stop().await;
    let (again, bootstrap) = serve::start(config(&stand.dir)).await.unwrap();
    assert!(bootstrap.is_none());
    assert_eq!(again.pin, pin);
    let operator = Operator { address: again.https, ..stand.operator };
    assert_eq!(operator.get("device/").await["count"], 0, "the token is still good");
}

#[tokio::test]
async fn a_proof_is_good_once_and_for_nothing_else() {
    let stand = Stand::new().await;
    let token = &stand.bootstrap.enrolment_token;
    let device = stand.device(1);
    let nonce = device.nonce().await;
    let proof = device.proof(&nonce, token, r#"{"hostname":"router"}"#);
    let first = device.post("enrol", &proof).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    let enrolled: Enrolled = first.json().await.unwrap();
    assert_eq!(enrolled.state, DeviceState::Accepted);
    assert_eq!(code(device.post("enrol", &proof).await).await, (401, "expired".into()), "replay");
    let again = device.enrol(token, "{}").await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(again.json::<Enrolled>().await.unwrap().device, enrolled.device);

    let nonce = device.nonce().await;
    let mut other = device.proof(&nonce, token, "{}");
    other.claims = r#"{"mac":"00:11:22:33:44:55"}"#.into();
    assert_eq!(code(device.post("enrol", &other).await).await, (401, "malformed".into()));
    let unknown = stand.device(2).enrol("a guess", "{}").await;
    assert_eq!(code(unknown).await, (401, "unknown".into()));
    assert_eq!(code(stand.device(2).token().await).await, (401, "unknown".into()));
    let nonce = stand.device(2).nonce().await;
    for _ in 0..2 {
        let guess = stand.device(2).proof(&nonce, "a guess", "{}");
        let answer = code(stand.device(2).post("enrol", &guess).await).await;
        assert_eq!(answer, (401, "unknown".into()), "a guess uses no nonce up");
    }
    let garbage = stand.device(2).enrol(token, "no claims").await;
    assert_eq!(code(garbage).await, (400, "malformed".into()));
    let seen = stand.operator.get("device/").await;
    assert_eq!((seen["count"].as_u64(), &seen["results"][0]["name"]), (Some(1), &json!("router")));
}

#[tokio::test]
async fn a_known_mac_under_a_new_key_waits_for_the_operator() {
    let stand = Stand::new().await;
    let token = &stand.bootstrap.enrolment_token;
    let claims = r#"{"mac":"00:11:22:33:44:55"}"#;
    let (mut old, new) = (stand.device(1), stand.device(2));
    old.enrol(token, claims).await;
    old.api = old.token().await.json::<Tokens>().await.unwrap().api.token;
    assert_eq!(old.get("desired").await.status(), StatusCode::OK);
    let enrolled: Enrolled = new.enrol(token, claims).await.json().await.unwrap();
    assert_eq!(enrolled.state, DeviceState::Pending);
    assert_eq!(code(new.token().await).await, (403, "pending".into()));
    assert_eq!(
        old.get("desired").await.status(),
        StatusCode::OK,
        "nothing happened to the old one"
    );

    let path = format!("device/{}/accept/", enrolled.device);
    let accepted = stand.operator.request(Method::POST, &path).send().await.unwrap();
    assert_eq!(accepted.status(), StatusCode::OK);
    assert_eq!(new.token().await.status(), StatusCode::OK);
    assert_eq!(code(old.get("desired").await).await, (401, "revoked".into()));
    old.api.clear();
    assert_eq!(code(old.token().await).await, (401, "revoked".into()));
}

#[tokio::test]
async fn only_an_api_token_opens_the_api() {
    let stand = Stand::new().await;
    let (mut device, _) = stand.ready(1).await;
    let tokens: Tokens = device.token().await.json().await.unwrap();
    device.api = tokens.mqtt.token;
    assert_eq!(code(device.get("desired").await).await, (401, "audience".into()));
    device.api = "x.y.z".into();
    assert_eq!(code(device.get("desired").await).await, (401, "malformed".into()));
    device.api = stand.bootstrap.api_token.clone();
    assert_eq!(code(device.get("desired").await).await, (401, "malformed".into()));
    device.api.clear();
    assert_eq!(code(device.get("desired").await).await, (401, "missing".into()));
    let operator = Operator { token: tokens.api.token, ..stand.operator.clone() };
    let refused = operator.request(Method::GET, "device/").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn from_the_operators_wish_to_the_proved_version() {
    let stand = Stand::new().await;
    let ((device, id), (other, _)) = (stand.ready(1).await, stand.ready(2).await);
    let image = stand.operator.upload().await;
    let operation = stand.operator.upgrade(id, &image).await;

    let answer = device.get("desired").await;
    let tag = answer.headers()[header::ETAG].clone();
    let desired: Desired = answer.json().await.unwrap();
    assert_eq!(tag.to_str().unwrap(), format!("\"{}\"", desired.generation));
    let job = &desired.jobs[0];
    assert_eq!((job.operation, job.image.size), (operation, FIRMWARE.len() as u64));
    let unchanged = device.request(Method::GET, "desired").header(header::IF_NONE_MATCH, &tag);
    assert_eq!(unchanged.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);

    let path = |what| format!("images/{image}/{what}");
    let manifest = device.get(&path("manifest")).await.bytes().await.unwrap();
    assert_eq!(shared::hex::sha256(&manifest), job.image.manifest_sha256);
    let signature = device.get(&path("signature")).await.text().await.unwrap();
    let key = shared::signature::SecretKey::from_random([1; 32], [2; 8]).unwrap().public();
    let signature = shared::signature::Signature::parse(&signature).unwrap();
    assert!(signature.is_by(&key, &manifest));
    let part = device.request(Method::GET, &path("file")).header(header::RANGE, "bytes=9-");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), FIRMWARE[9..]);
    for what in ["file", "manifest", "signature"] {
        assert_eq!(code(other.get(&path(what)).await).await, (404, "not_found".into()));
    }

    let tick = Tick {
        v: 1,
        operation,
        slot: Slot::default(),
        stream: StreamId(Uuid::from_u128(1)),
        attempt: 0,
        n: 1,
        phase: Phase::Downloading,
        percent: 5,
        stalled: false,
        detail: None,
        fetched: Some(30),
    };
    assert_eq!(device.post("ticks", &tick).await.status(), StatusCode::NO_CONTENT);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while stand.operator.operation(operation).await["progress_percent"] != 5 {
        assert!(tokio::time::Instant::now() < deadline, "the tick did not arrive");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    let begin = format!("operations/{operation}/start");
    assert_eq!(code(other.post(&begin, &start(1)).await).await, (404, "not_found".into()));
    let grant: Grant = device.post(&begin, &start(1)).await.json().await.unwrap();
    assert_eq!(grant.attempt, 1);
    assert_eq!(device.post(&begin, &start(1)).await.status(), StatusCode::OK, "the same again");
    assert_eq!(stand.operator.cancel(operation).await, StatusCode::CONFLICT);
    let finished = EventBody::Finished {
        outcome: Outcome::Succeeded { versions: versions(), not_compared: None, remark: None },
    };
    let events = vec![
        event(operation, 1, 1, EventBody::Granted),
        event(operation, 1, 1, EventBody::Granted),
        event(operation, 2, 1, finished),
    ];
    let foreign = tell(&other, events.clone()).await;
    assert!(foreign.iter().all(|verdict| matches!(verdict, Verdict::Refused { .. })));
    let verdicts = tell(&device, events).await;
    assert_eq!(verdicts, [Verdict::Accepted, Verdict::Duplicate, Verdict::Accepted]);

    let done = stand.operator.operation(operation).await;
    assert_eq!((&done["status"], &done["progress_percent"]), (&json!("success"), &json!(100)));
    let firmware = stand.operator.get(&format!("device/{id}/modem-firmware/")).await;
    assert_eq!(firmware["installed"], true);
    let refusal = device.post(&begin, &start(2)).await;
    assert_eq!(refusal.status(), StatusCode::CONFLICT);
    assert_eq!(refusal.json::<Refusal>().await.unwrap().code, RefusalCode::Finished);
    let rest: Desired = device.get("desired").await.json().await.unwrap();
    assert!(rest.jobs.is_empty());
}

#[tokio::test]
async fn a_cancel_before_the_grant_wins() {
    let stand = Stand::new().await;
    let (device, id) = stand.ready(1).await;
    let image = stand.operator.upload().await;
    let operation = stand.operator.upgrade(id, &image).await;
    assert_eq!(stand.operator.cancel(operation).await, StatusCode::OK);
    let refusal = device.post(&format!("operations/{operation}/start"), &start(1)).await;
    assert_eq!(refusal.status(), StatusCode::CONFLICT);
    assert_eq!(refusal.json::<Refusal>().await.unwrap().code, RefusalCode::Cancelled);
    assert_eq!(stand.operator.operation(operation).await["status"], "cancelled");
    let log = stand.running.store.audit(2).await.unwrap();
    assert!(log.iter().all(|recorded| recorded.entry.actor == "user:admin"));
    assert!(log[0].entry.subject.ends_with(&format!("upgrade-operation/{operation}/cancel/")));
    assert_eq!(log[1].entry.action, "PUT");
}

#[tokio::test]
async fn malformed_and_oversized_requests_are_told_apart() {
    let stand = Stand::new().await;
    let (device, _) = stand.ready(1).await;
    let send = async |path: &str, body: Vec<u8>| {
        let request = device.request(Method::POST, path).body(body);
        code(request.send().await.unwrap()).await
    };
    assert_eq!(send("events", b"{".to_vec()).await, (400, "malformed".into()));
    assert_eq!(send("events", vec![b' '; 65 * 1024]).await, (413, "too_large".into()));
    assert_eq!(send("events", vec![b' '; 200 * 1024]).await, (413, "too_large".into()));
    assert_eq!(send("ticks", vec![b' '; 2000]).await, (413, "too_large".into()));
    assert_eq!(send("enrol", b"[]".to_vec()).await, (400, "malformed".into()));
    let nobody = format!("operations/{}/start", Uuid::nil());
    assert_eq!(code(device.post(&nobody, &start(1)).await).await, (404, "not_found".into()));
    assert_eq!(code(device.post(&nobody, &start(0)).await).await, (400, "malformed".into()));
    let inventory = device.request(Method::PUT, "inventory").json(&json!({ "v": 1 }));
    assert_eq!(code(inventory.send().await.unwrap()).await, (400, "malformed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_too_much_is_told_to_wait_and_the_others_are_served() {
    let stand = Stand::new().await;
    let (loud, _) = stand.ready(1).await;
    let (quiet, _) = stand.ready(2).await;
    let mut refused = None;
    for _ in 0..=2 * coordinator::api::agent::REQUESTS_A_MINUTE {
        let answer = loud.get("desired").await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let refused = refused.unwrap();
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(code(refused).await.1, "too_many");
    assert_eq!(quiet.get("desired").await.status(), StatusCode::OK);
}
