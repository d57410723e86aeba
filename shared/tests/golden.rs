//! What goes over the wire, byte for byte. A change here is a change of the protocol: agents in the
//! field are older or newer than the coordinator.
//!
//! `UPDATE_GOLDEN=1 cargo test -p shared --test golden` writes the files anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml lets tests use them, but does not see helpers of tests as tests"
)]

use serde::{Serialize, de::DeserializeOwned};
use shared::{
    ack::{Ack, Acks, Verdict},
    desired::{Desired, ImageRef, Job, OptionValue},
    event::{Event, EventBody, Events, Outcome, Presence, Tick, VersionLine},
    failure::{Failure, FailureKind, ModemCondition},
    grant::{Grant, Refusal, RefusalCode, StartRequest},
    hex::Hex,
    identity::{Claims, DeviceState, Enrol, Enrolled, Nonce, Token, TokenRequest, Tokens},
    ids::{DeviceId, ImageId, OperationId, SessionId, Slot, StreamId},
    inventory::{Inventory, Modem, Network, Staging},
    manifest::{Encoding, File, Manifest, Tool},
    signature::SecretKey,
    stages::Phase,
};
use std::{fmt::Debug, path::PathBuf};

fn golden_text(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(text, expected, "{name} changed on the wire");
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    golden_text(name, &text);
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{name} reads back");
}

fn operation() -> OperationId {
    OperationId::from_random([1; 16])
}

fn stream() -> StreamId {
    StreamId::from_random([2; 16])
}

fn version() -> VersionLine {
    VersionLine { command: "#SWPKGV".into(), line: 1, value: "45.00.004".into() }
}

fn failure() -> Failure {
    Failure::new(
        Phase::Probing,
        FailureKind::VersionMismatch,
        ModemCondition::OldVersion,
        "the tool reported success, but the old version runs",
    )
}

#[test]
fn the_job_out() {
    let job = Job {
        operation: operation(),
        slot: Slot::default(),
        image: ImageRef {
            id: ImageId::from_random([3; 16]),
            size: 33_554_432,
            sha256: Hex([4; 32]),
            manifest_sha256: Hex([5; 32]),
        },
        requires: vec!["manifest-1".into()],
        options: [
            ("debug".to_owned(), OptionValue::Flag(true)),
            ("speed".to_owned(), OptionValue::Word("921600".into())),
            ("tries".to_owned(), OptionValue::Number(3)),
        ]
        .into(),
        deadline: Some(1_800_000_000_000),
        allow_volatile_staging: false,
    };
    let desired = Desired {
        v: 1,
        generation: "6f9619ff.42".into(),
        time: 1_790_000_000_000,
        jobs: vec![job],
    };
    golden("desired.json", &desired);
    let request = StartRequest {
        attempt: 1,
        stream: stream(),
        dark_expected_s: 600,
        dark_longest_s: 1450,
        returned: 0,
    };
    golden("start_request.json", &request);
    golden("start_anew_request.json", &StartRequest { returned: 2, ..request });
    golden("grant.json", &Grant { attempt: 1, stream: stream() });
    let refusal = Refusal {
        code: RefusalCode::Concurrency,
        detail: "5 of 5 are being flashed".into(),
        retry_after_s: Some(60),
    };
    golden("refusal.json", &refusal);
}

#[test]
fn the_report_back() {
    let outcomes = [
        Outcome::Succeeded { versions: vec![version()], not_compared: None, remark: None },
        Outcome::AlreadyInstalled { versions: vec![version()] },
        Outcome::Cancelled,
        Outcome::Failed { failure: failure() },
    ];
    let mut bodies = vec![
        EventBody::Entered { phase: Phase::Downloading },
        EventBody::Postponed { reason: "the clock is not set".into() },
        EventBody::Granted,
        EventBody::Retrying { failure: failure(), delay_s: 60 },
        EventBody::Recovering { tries: 1, detail: "the modem is in download mode".into() },
        EventBody::Held { reason: "2 devices are in download mode".into() },
    ];
    bodies.extend(outcomes.map(|outcome| EventBody::Finished { outcome }));
    bodies.push(EventBody::Returned { reason: "hotter than 70 °C".into(), returned: 1 });
    let events = (1..).zip(bodies).map(|(seq, body)| Event {
        operation: operation(),
        slot: Slot::default(),
        stream: stream(),
        seq,
        attempt: 1,
        at: (seq > 1).then_some(1_790_000_000_000),
        body,
    });
    golden("events.json", &Events::new(events.collect()));
    let tick = Tick {
        v: 1,
        operation: operation(),
        slot: Slot::default(),
        stream: stream(),
        attempt: 1,
        n: 17,
        phase: Phase::Installing,
        percent: 55,
        stalled: true,
        detail: Some("[+] flashing [#####     ]  50%".into()),
        fetched: Some(33_554_432),
    };
    golden("tick.json", &tick);
    let session = SessionId::from_random([6; 16]);
    golden("presence.json", &Presence { v: 1, session, online: true });
}

#[test]
fn the_acknowledgement() {
    let verdicts = [
        Verdict::Accepted,
        Verdict::Duplicate,
        Verdict::Refused { reason: "the operation is another device's".into() },
    ];
    let acks = (1..).zip(verdicts).map(|(seq, verdict)| Ack {
        operation: operation(),
        stream: stream(),
        seq,
        verdict,
    });
    golden("acks.json", &Acks::new(acks.collect()));
}

#[test]
fn the_inventory() {
    let modem = Modem {
        slot: Slot::default(),
        manufacturer: "Telit".into(),
        model: "FN990A28".into(),
        imei: "356789012340012".into(),
        versions: vec![version()],
        usb: Some("1bc7:1070".parse().unwrap()),
        sole_uplink: true,
        network: Some(Network {
            sim: Some(true),
            sim_issuer: Some("894902".into()),
            registration: Some("home".into()),
            operator: Some("Lab Mobile".into()),
            technology: Some("lte".into()),
            rsrp_dbm: Some(-81),
        }),
        unreadable: None,
    };
    // Agents of earlier versions do not tell it.
    let earlier = r#"{"slot":"main","manufacturer":"","model":"","imei":"","versions":[],"sole_uplink":true}"#;
    assert_eq!(serde_json::from_str::<Modem>(earlier).unwrap().network, None);
    let inventory = Inventory {
        v: 1,
        agent_version: "0.1.0".into(),
        capabilities: vec!["manifest-1".into(), "grant-1".into()],
        board: "glinet,gl-x3000".into(),
        hostname: "router-1".into(),
        boot_id: "b2f0".into(),
        require_signature: true,
        keys: vec!["0102030405060708".into()],
        profiles: vec!["telit-uxfp".into()],
        staging: vec![Staging {
            path: "/mnt/usb/staging".into(),
            free_bytes: 1 << 30,
            durable: true,
            problem: None,
        }],
        modems: vec![modem],
    };
    golden("inventory.json", &inventory);
}

#[test]
fn who_the_device_is() {
    let (nonce, public_key) = (Hex([7; 32]), Hex([8; 32]));
    golden(
        "nonce.json",
        &Nonce { nonce, expires_in: 60, audience: "hub".into(), time: 1_790_000_000_000 },
    );
    let claims = Claims {
        hostname: "router-1".into(),
        board: "glinet,gl-x3000".into(),
        mac: Some("94:83:c4:00:00:01".into()),
        serial: None,
        openwisp_uuid: None,
        agent_version: "0.1.0".into(),
    };
    let claims = serde_json::to_string(&claims).unwrap();
    let enrol = Enrol { nonce, public_key, token: "token".into(), claims, signature: Hex([9; 64]) };
    golden("enrol.json", &enrol);
    golden("token_request.json", &TokenRequest { nonce, public_key, signature: Hex([9; 64]) });
    let device = DeviceId::from_random([10; 16]);
    let organization: shared::ids::OrganizationSlug = "default".parse().unwrap();
    let state = DeviceState::Pending;
    golden("enrolled.json", &Enrolled { device, organization: organization.clone(), state });
    let token = |token: &str| Token { token: token.into(), expires_in: 3600 };
    let tokens = Tokens {
        device,
        organization,
        api: token("a"),
        mqtt: token("b"),
        mqtt_port: 8883,
        time: 1_790_000_000_000,
    };
    golden("tokens.json", &tokens);
}

#[test]
fn the_manifest_and_its_signature() {
    let manifest = Manifest {
        format: 1,
        vendor: "Telit".into(),
        models: vec!["FN990A28".into()],
        category: "FN990A".into(),
        sequence: 4,
        not_after: Some(1_900_000_000_000),
        allow_rollback: true,
        reaches: vec![version()],
        from: vec![vec![VersionLine { value: "45.00.002".into(), ..version() }]],
        tool: Tool {
            profile: "telit-uxfp".into(),
            options: [("speed".to_owned(), OptionValue::Word("921600".into()))].into(),
        },
        file: File {
            name: "FN990A28_45.00.004.bin".into(),
            size: 5,
            sha256: Hex([4; 32]),
            encoding: Encoding::Identity,
            decoded: None,
        },
        block_size: shared::limits::BLOCK,
        blocks: vec![Hex([4; 32])],
        critical: vec!["sequence".into()],
    };
    manifest.check().unwrap();
    golden("manifest.json", &manifest);
    let key = SecretKey::from_random([11; 32], [12; 8]).unwrap();
    let bytes = serde_json::to_vec(&manifest).unwrap();
    golden_text("key.pub", &key.public().to_text("golden public key"));
    golden_text("key.sec", &key.to_text("golden secret key"));
    golden_text("manifest.sig", &key.sign(&bytes).to_text("verify with golden.pub"));
}

#[test]
fn what_is_newer_is_read_as_unknown() {
    let body: EventBody = serde_json::from_str(r#"{"type":"teleported","to":"Mars"}"#).unwrap();
    assert_eq!(body, EventBody::Unknown);
    let verdict = Verdict::Duplicate;
    let ack = Ack { operation: operation(), stream: stream(), seq: 1, verdict };
    let newer = serde_json::to_string(&ack).unwrap().replace("duplicate", "perhaps");
    let Ack { verdict, .. } = serde_json::from_str(&newer).unwrap();
    assert_eq!(verdict, Verdict::Unknown);
    let outcome: Outcome = serde_json::from_str(r#"{"result":"ascended"}"#).unwrap();
    assert_eq!(outcome, Outcome::Unknown);
    let kind: FailureKind = serde_json::from_str("\"gremlins\"").unwrap();
    assert!(!kind.is_recoverable());
    let code: RefusalCode = serde_json::from_str("\"mercury-in-retrograde\"").unwrap();
    assert!(code.passes(), "an unknown refusal leaves the modem untouched and asks again");
}
