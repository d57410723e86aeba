//! The journal as it lies on disk, byte for byte: a router's agent is upgraded in the middle of an upgrade,
//! and what an earlier one wrote must mean the same to it.
//!
//! `golden.txt` has a line a state: the slot's header in hex, and its body. `UPDATE_GOLDEN=1 cargo test` writes
//! it anew. `earlier.txt` was written by agents of earlier versions and is never written again.

use super::*;
use crate::{
    modem::{Baseline, Registration},
    upgrade::state::{
        Before, Gates, Next, Record, Run, Step, Target, ToolEnd,
        tests::{before, record, target},
    },
};
use shared::{
    desired::{Job, OptionValue},
    event::{Outcome as Ending, VersionLine},
    failure::{Failure, FailureKind, ModemCondition},
    hex::Hex,
    stages::Phase,
};

/// Bytes of the header, in hex.
const HEAD: usize = 2 * HEADER;

fn version(value: &str) -> VersionLine {
    VersionLine { command: "#SWPKGV".into(), line: 1, value: value.into() }
}

fn failure() -> Failure {
    Failure::new(
        Phase::Installing,
        FailureKind::ToolFailed,
        ModemCondition::Unknown,
        "exit status 251",
    )
}

/// Every step, and every form of what stands in it.
fn steps() -> Vec<Step> {
    let failed = ToolEnd::Failed { kind: FailureKind::ToolTimeout, detail: "1200 s".into() };
    let mut steps = vec![
        Step::Inspecting,
        Step::Waiting { gates: Gates::Download },
        Step::Waiting { gates: Gates::Commit },
        Step::Downloading,
        Step::Verifying,
        Step::Baselining,
        Step::Committing,
        Step::Preparing,
        Step::Installing { run: Run::Start },
        Step::Installing { run: Run::Attach },
        Step::Restoring,
        Step::Confirming,
        Step::Releasing { next: Next::Backoff { delay_s: 60 } },
        Step::Releasing { next: Next::Hold { reason: "two devices".into() } },
        Step::Releasing { next: Next::Postpone { delay_s: 60, reason: "too hot".into() } },
        Step::Postponed { delay_s: 60, reason: "too hot".into() },
        Step::Backoff { delay_s: 60 },
        Step::RecoveryPause { tries: 2, delay_s: 60 },
        Step::Recovering { tries: 2, run: Run::Start },
        Step::Recovering { tries: 2, run: Run::Attach },
        Step::Held { reason: "two devices".into() },
    ];
    let ends = [ToolEnd::Success, failed, ToolEnd::Lost];
    steps.extend(ends.map(|end| Step::Probing { end, recoveries: 1, silent: 2 }));
    let endings = [
        Ending::Succeeded {
            versions: vec![version("45.00.004")],
            not_compared: None,
            remark: None,
        },
        Ending::Succeeded {
            versions: vec![],
            not_compared: Some("another SIM".into()),
            remark: None,
        },
        Ending::AlreadyInstalled { versions: vec![version("45.00.004")] },
        Ending::Cancelled,
        Ending::Failed { failure: failure() },
    ];
    for ending in endings {
        steps.push(Step::Releasing { next: Next::Finish { ending: ending.clone() } });
        steps.push(Step::Finished(ending));
    }
    steps
}

/// A step of its own has a line above.
fn is_covered(step: &Step) -> bool {
    match step {
        Step::Inspecting
        | Step::Waiting { .. }
        | Step::Downloading
        | Step::Verifying
        | Step::Baselining
        | Step::Committing
        | Step::Preparing
        | Step::Installing { .. }
        | Step::Probing { .. }
        | Step::Restoring
        | Step::Confirming
        | Step::Releasing { .. }
        | Step::Backoff { .. }
        | Step::Postponed { .. }
        | Step::RecoveryPause { .. }
        | Step::Recovering { .. }
        | Step::Held { .. }
        | Step::Finished(_) => true,
    }
}

/// With everything said that can be.
fn full() -> Record {
    let job = Job {
        requires: vec!["manifest-1".into()],
        options: [("speed".to_owned(), OptionValue::Word("921600".into()))].into(),
        deadline: Some(1_800_000_000_000),
        allow_volatile_staging: true,
        ..record().job
    };
    let baseline = Baseline {
        sim: Some("READY".into()),
        iccid: Some("8949021000000000018".into()),
        sim_status: Some("0,1,1".into()),
        lte: Some(Registration::Home),
        nr: Some(Registration::NotSearching),
        firmware_switch: Some("40,0,0".into()),
        usb_composition: Some("1".into()),
        contexts: Some(vec![r#"1,"IP","internet""#.into()]),
        access_technology: Some(7),
        operator: Some("Lab Mobile".into()),
        rsrp_dbm: Some(-81),
    };
    Record {
        job: Job { image: shared::desired::ImageRef { sha256: Hex([7; 32]), ..job.image }, ..job },
        attempts: 2,
        holding: true,
        post_flash_due: true,
        target: Some(Target { reaches: vec![version("45.00.004")], ..target() }),
        before: Some(Before { versions: vec![version("45.00.002")], baseline, ..before() }),
        last_failure: Some(failure()),
        returned: 4,
        vanished: 2,
        ..record()
    }
}

fn states() -> Vec<State> {
    let mut states: Vec<_> =
        steps().into_iter().map(|step| State { step, ..State::new(record()) }).collect();
    assert!(states.iter().all(|state| is_covered(&state.step)));
    states.push(State { step: Step::Confirming, ..State::new(full()) });
    states
}

/// What [`Journal::save`] writes of it.
fn line(generation: u64, state: &State) -> String {
    let on_disk = OnDisk::new("b2f0", state);
    let bytes = encode(generation, &serde_json::to_vec(&on_disk).unwrap()).unwrap();
    let (head, body) = bytes.split_at(HEADER);
    let head: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{head} {}\n", std::str::from_utf8(body).unwrap())
}

/// The file of a journal whose only save is this line's.
fn file(line: &str) -> Vec<u8> {
    let (head, body) = line.split_at(HEAD);
    let byte = |at: usize| u8::from_str_radix(&head[at..at + 2], 16).unwrap();
    let mut slot: Vec<u8> = (0..HEAD).step_by(2).map(byte).collect();
    slot.extend(body.trim_start().as_bytes());
    slot.resize(SLOT, 0);
    slot.resize(2 * SLOT, 0);
    slot
}

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/upgrade/journal").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_state_lies_on_disk_as_it_did() {
    let states = states();
    let written: String = (1..).zip(&states).map(|(n, state)| line(n, state)).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/upgrade/journal/golden.txt");
        std::fs::write(path, &written).unwrap();
    }
    let golden = text("golden.txt");
    for (now, then) in written.lines().zip(golden.lines()) {
        assert_eq!(now, then, "the journal changed on disk");
    }
    assert_eq!(written.len(), golden.len());
    for (line, state) in golden.lines().zip(states) {
        assert_eq!(understand(&file(line)), Some(state));
    }
}

#[test]
fn what_earlier_versions_wrote_is_understood() {
    let earlier = text("earlier.txt");
    let mut found = earlier.lines().map(|line| understand(&file(line)).unwrap());
    // Before anything but the modem was asked, and without the operator.
    let mut known = Record { returned: 0, vanished: 0, ..full() };
    known.before.as_mut().unwrap().baseline.operator = None;
    assert_eq!(found.next().unwrap().record, known);
    // Before hooks, failures and baselines were in it.
    let first = found.next().unwrap();
    assert_eq!(first.step, Step::Installing { run: Run::Start });
    let mut known = Record { returned: 0, vanished: 0, ..full() };
    (known.post_flash_due, known.last_failure) = (false, None);
    known.before.as_mut().unwrap().baseline = Baseline::default();
    assert_eq!(first.record, known);
    // Before grants were handed back.
    assert_eq!(found.next().unwrap().record, Record { returned: 0, vanished: 0, ..full() });
    assert_eq!(found.next(), None);
}
