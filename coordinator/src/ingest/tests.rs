//! From payloads as the lines bring them to what is in the store.

use shared::ack::Verdict;
use shared::event::{EventBody, Events, Presence};
use shared::ids::{DeviceId, SessionId};
use shared::stages::Phase;
use tokio::sync::oneshot::error::RecvError;
use uuid::Uuid;

use super::*;
use crate::store::fixture::{Fixture, event};
use crate::store::listing::Scope;

struct Bench {
    f: Fixture,
    inbound: mpsc::Sender<Inbound>,
}

async fn bench() -> Bench {
    let f = Fixture::new().await;
    let (inbound, received) = mpsc::channel(QUEUE);
    tokio::spawn(run(f.store.clone(), Signs::new(f.store.clone()), received));
    Bench { f, inbound }
}

impl Bench {
    async fn say(&self, device: DeviceId, body: InboundBody) -> Result<Option<Acks>, RecvError> {
        let (done, answer) = oneshot::channel();
        let organization = "default".parse().unwrap();
        self.inbound.send(Inbound { device, organization, body, done }).await.unwrap();
        answer.await
    }
}

fn post(events: Vec<shared::event::Event>) -> InboundBody {
    InboundBody::Events(serde_json::to_vec(&Events::new(events)).unwrap())
}

#[tokio::test]
async fn each_post_gets_its_own_acks_however_many_are_committed_together() {
    let bench = bench().await;
    let image = bench.f.image("v2").await;
    let mut devices = Vec::new();
    for key in 1..=8 {
        let device = bench.f.device(key).await;
        devices.push((device, bench.f.ask(device, image).await.unwrap().id));
    }
    let posts = devices.iter().enumerate().map(|(index, (device, operation))| {
        let body = EventBody::Entered { phase: Phase::Inspecting };
        let events = (1..=index as u64 + 1).map(|seq| event(*operation, seq, 0, body.clone()));
        bench.say(*device, post(events.collect()))
    });
    for (index, answer) in join_all(posts).await.into_iter().enumerate() {
        let acks = answer.unwrap().unwrap().acks;
        assert_eq!(acks.len(), index + 1);
        assert!(acks.iter().all(|ack| ack.operation == devices[index].1));
        assert!(acks.iter().all(|ack| ack.verdict == Verdict::Accepted));
    }
}

#[tokio::test]
async fn garbage_ends_its_line_and_nobody_elses() {
    let bench = bench().await;
    let device = bench.f.device(1).await;
    for garbage in [
        InboundBody::Events(b"{".to_vec()),
        InboundBody::Presence(b"\xff".to_vec()),
        InboundBody::Inventory(vec![b' '; shared::limits::INVENTORY + 1]),
    ] {
        assert!(bench.say(device, garbage).await.is_err());
    }
    assert!(bench.say(device, post(vec![])).await.unwrap().unwrap().acks.is_empty());
}

#[tokio::test]
async fn presence_is_committed_before_it_is_answered() {
    let bench = bench().await;
    let device = bench.f.device(1).await;
    let presence = Presence { v: 1, session: SessionId(Uuid::from_u128(1)), online: true };
    let body = InboundBody::Presence(serde_json::to_vec(&presence).unwrap());
    assert_eq!(bench.say(device, body).await, Ok(None));
    let device = bench.f.store.device(Scope::Everything, device).await.unwrap().unwrap();
    assert!(device.online);
}

#[tokio::test]
async fn a_store_that_is_gone_answers_nobody() {
    let bench = bench().await;
    let device = bench.f.device(1).await;
    let operation = bench.f.ask(device, bench.f.image("v2").await).await.unwrap().id;
    bench.f.store.stop();
    let body = EventBody::Entered { phase: Phase::Inspecting };
    assert!(bench.say(device, post(vec![event(operation, 1, 0, body)])).await.is_err());
}

#[tokio::test]
async fn what_a_full_disk_cannot_take_waits_until_it_can() {
    let bench = bench().await;
    let image = bench.f.image("v2").await;
    let device = bench.f.device(1).await;
    let operation = bench.f.ask(device, image).await.unwrap().id;
    let limit = async |pages: u32| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        let limited = bench.f.store.write::<_, crate::store::Never, _>(move |tx| {
            Ok(tx.query_row(&pragma, [], |_| Ok(()))?)
        });
        limited.await.unwrap();
    };
    limit(1).await;
    let reason = "x".repeat(shared::limits::DETAIL);
    let many = (1..=64)
        .map(|seq| event(operation, seq, 0, EventBody::Postponed { reason: reason.clone() }));
    let events: Vec<_> = many.collect();
    let answer = bench.say(device, post(events.clone()));
    tokio::pin!(answer);
    while bench.f.store.trouble().is_none() {
        let waited = tokio::time::timeout(Duration::from_millis(10), answer.as_mut()).await;
        assert!(waited.is_err(), "nothing is acknowledged that is not on disk: {waited:?}");
    }
    limit(1_000_000).await;
    let acks = answer.await.unwrap().unwrap().acks;
    assert!(acks.iter().all(|ack| ack.verdict == Verdict::Accepted) && acks.len() == 64);
    let again = bench.say(device, post(events)).await.unwrap().unwrap().acks;
    assert!(again.iter().all(|ack| ack.verdict == Verdict::Duplicate));
}

#[test]
fn posts_are_cut_into_transactions_that_hold_nobody_up() {
    let post = |events: usize| {
        let reported = crate::store::event::Reported {
            device: DeviceId(Uuid::nil()),
            operation: shared::ids::OperationId(Uuid::nil()),
            stream: shared::ids::StreamId(Uuid::nil()),
            seq: 1,
            event: Err(crate::operation::event::Refused::Malformed),
            body: String::new(),
        };
        (vec![reported; events], oneshot::channel().0)
    };
    let sizes = |posts: &[usize]| -> Vec<usize> {
        let posts = posts.iter().map(|events| post(*events)).collect();
        pieces(posts).map(|piece| piece.iter().map(|(events, _)| events.len()).sum()).collect()
    };
    assert_eq!(sizes(&[]), Vec::<usize>::new());
    assert_eq!(sizes(&[1, 2, 3]), [6]);
    assert_eq!(sizes(&[EVENTS, 1, EVENTS - 1, 1]), [EVENTS, EVENTS, 1]);
    assert_eq!(sizes(&[EVENTS + 1, 1]), [EVENTS + 1, 1]);
}
