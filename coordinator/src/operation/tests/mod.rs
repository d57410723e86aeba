//! The rules, alone and against each other in any order.

mod grant;
mod order;
mod silence;
mod word;

use serde_json::Map;
use shared::event::{Event, EventBody, Outcome, Tick, VersionLine};
use shared::failure::{Failure, FailureKind, ModemCondition};
use shared::grant::{RefusalCode, StartRequest};
use shared::ids::{OperationId, StreamId};
use shared::stages::Phase;
use uuid::Uuid;

use super::cancel::{CannotCancel, cancel, skip, supersede};
use super::event::{Refused, apply};
use super::expiry::{self, expire, write_off};
use super::grant::{Leave, Standing, start};
use super::report::{Report, ReportRefused};
use super::*;

const DAY: u64 = 24 * 3600 * 1000;

fn stream(n: u128) -> StreamId {
    StreamId(Uuid::from_u128(n))
}

pub(crate) fn operation() -> Operation {
    let wanted = Requested {
        id: OperationId(Uuid::from_u128(1)),
        organization: "default".parse().unwrap(),
        device: DeviceId(Uuid::from_u128(2)),
        slot: Slot::default(),
        image: ImageId(Uuid::from_u128(3)),
        batch: None,
        retry_of: None,
        upgrade_options: Map::new(),
        allow_volatile_staging: false,
        deadline: 30 * DAY,
    };
    Operation::requested(wanted, "somebody", 0)
}

fn line(value: &str) -> VersionLine {
    VersionLine { command: "+CGMR".into(), line: 1, value: value.into() }
}

fn reaches() -> Vec<VersionLine> {
    vec![line("new")]
}

fn event(seq: u64, attempt: u32, body: EventBody) -> Event {
    let op = operation();
    Event { operation: op.id, slot: op.slot, stream: stream(1), seq, attempt, at: None, body }
}

fn entered(phase: Phase) -> EventBody {
    EventBody::Entered { phase }
}

fn finished(outcome: Outcome) -> EventBody {
    EventBody::Finished { outcome }
}

fn succeeded() -> EventBody {
    finished(Outcome::Succeeded {
        versions: vec![line("new"), line("else")],
        not_compared: None,
        remark: None,
    })
}

fn failure(condition: ModemCondition) -> Failure {
    Failure::new(Phase::Installing, FailureKind::ToolFailed, condition, "it broke")
}

fn retrying(condition: ModemCondition) -> EventBody {
    EventBody::Retrying { failure: failure(condition), delay_s: 10 }
}

fn request(attempt: u32, n: u128) -> StartRequest {
    StartRequest {
        attempt,
        stream: stream(n),
        dark_expected_s: 60,
        dark_longest_s: 600,
        returned: 0,
    }
}

fn grant(op: &mut Operation, attempt: u32) -> Result<Leave, RefusalCode> {
    start(op, Standing::Good, &request(attempt, 1), 1).map_err(|refusal| refusal.code)
}

fn tick(attempt: u32, n: u64, phase: Phase, percent: u8) -> Tick {
    let op = operation();
    Tick {
        v: 1,
        operation: op.id,
        slot: op.slot,
        stream: stream(1),
        attempt,
        n,
        phase,
        percent,
        stalled: false,
        detail: None,
        fetched: None,
    }
}

fn tell(op: &mut Operation, event: &Event) -> Result<Effects, Refused> {
    apply(op, event, &reaches(), 2)
}
