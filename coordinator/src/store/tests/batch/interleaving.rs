//! Batches against everything that can come in between: in any order, and over restarts.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::store::batch::launch as launch_some;

const DEVICES: usize = 7;

/// One thing that happens; the numbers choose devices.
#[derive(Debug, Clone)]
enum Act {
    Fly,
    Ask(usize, u32),
    Tell(usize, u64, u32, Word),
    Pause,
    Resume,
    Cancel,
    Crash,
    Pass(u64),
    /// The clock is set back.
    Back(u64),
    Hold(usize, bool),
    Newer(usize),
    See(usize),
    Script(usize),
    Expire,
    Retry,
    /// Another batch of all of them; so many join by its launch, the others have to be seen to.
    Over(usize),
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Entered,
    Retrying,
    Succeeded,
    AlreadyInstalled,
    Failed,
    Untouched,
    Cancelled,
}

fn body(word: Word) -> EventBody {
    let failure =
        |condition| Failure::new(Phase::Installing, FailureKind::ToolFailed, condition, "it broke");
    match word {
        Word::Entered => EventBody::Entered { phase: Phase::Downloading },
        Word::Retrying => {
            EventBody::Retrying { failure: failure(ModemCondition::OldVersion), delay_s: 1 }
        }
        Word::Succeeded => succeeded(),
        Word::AlreadyInstalled => {
            EventBody::Finished { outcome: Outcome::AlreadyInstalled { versions: versions() } }
        }
        Word::Failed => EventBody::Finished {
            outcome: Outcome::Failed { failure: failure(ModemCondition::Silent) },
        },
        Word::Untouched => EventBody::Finished {
            outcome: Outcome::Failed {
                failure: Failure::untouched(Phase::Downloading, FailureKind::NoSpace, "full"),
            },
        },
        Word::Cancelled => EventBody::Finished { outcome: Outcome::Cancelled },
    }
}

fn acts() -> impl Strategy_<Value = Vec<Act>> {
    let device = 0..DEVICES;
    let word = prop_oneof![
        1 => Just(Word::Entered),
        1 => Just(Word::Retrying),
        4 => Just(Word::Succeeded),
        1 => Just(Word::AlreadyInstalled),
        1 => Just(Word::Failed),
        1 => Just(Word::Untouched),
        1 => Just(Word::Cancelled),
    ];
    let act = prop_oneof![
        8 => Just(Act::Fly),
        10 => (device.clone(), 1..3_u32).prop_map(|(device, attempt)| Act::Ask(device, attempt)),
        10 => (device.clone(), 1..5_u64, 0..3_u32, word)
            .prop_map(|(device, seq, attempt, word)| Act::Tell(device, seq, attempt, word)),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => Just(Act::Crash),
        4 => prop_oneof![Just(1), Just(11_000), Just(4_000_000), Just(90_000_000)]
            .prop_map(Act::Pass),
        1 => prop_oneof![Just(11_000), Just(4_000_000)].prop_map(Act::Back),
        1 => (device.clone(), any::<bool>()).prop_map(|(device, held)| Act::Hold(device, held)),
        1 => device.clone().prop_map(Act::Newer),
        3 => device.clone().prop_map(Act::See),
        1 => device.prop_map(Act::Script),
        3 => Just(Act::Retry),
        1 => (1..DEVICES).prop_map(Act::Over),
        1 => prop_oneof![Just(Act::Cancel), Just(Act::Expire)],
    ];
    proptest::collection::vec(act, 1..60)
}

use proptest::strategy::Strategy as Strategy_;

struct Scene {
    f: Fixture,
    /// The newest, which things happen to.
    batch: BatchId,
    batches: Vec<BatchId>,
    image: ImageId,
    other: ImageId,
    members: Vec<(DeviceId, OperationId)>,
    ended: HashMap<OperationId, Status>,
    before: HashMap<BatchId, Batch>,
}

impl Scene {
    async fn new() -> Self {
        let f = Fixture::new().await;
        let (image, other) = (f.image("v2").await, f.image("v3").await);
        let mut devices = Vec::new();
        for key in 0..DEVICES {
            devices.push(f.device(u8::try_from(key).unwrap() + 1).await);
        }
        let batch = launch(&f, image, &devices).await;
        let members = f.store.operations_of_batch(batch, Default::default(), 100, true).await;
        let members = members.unwrap().into_iter().map(|(_, op)| (op.device, op.id)).collect();
        let (ended, before) = (HashMap::new(), HashMap::new());
        Self { f, batch, batches: vec![batch], image, other, members, ended, before }
    }

    async fn act(&mut self, act: &Act) {
        let (store, id) = (self.f.store.clone(), self.batch);
        let reason = || Reason::Operator { by: "admin".into() };
        match *act {
            Act::Fly => {
                fly(&store, id).await;
            }
            Act::Ask(device, attempt) => self.ask(device, attempt).await,
            Act::Tell(device, seq, attempt, word) => {
                let (device, op) = self.members[device];
                let events = vec![reported(device, event(op, seq, attempt, body(word)))];
                store.record_events(events).await.unwrap();
            }
            Act::Pause => drop(store.pause_batch(Scope::Everything, id, reason()).await),
            Act::Resume => drop(store.resume_batch(Scope::Everything, id).await),
            Act::Cancel => drop(store.cancel_batch(Scope::Everything, id, reason()).await),
            Act::Crash => {
                store.stop();
                let path = self.f.dir.path().join("db");
                self.f.store = Store::open(&path, store.clock().clone()).unwrap();
                self.f.store.recover_batches().await.unwrap();
            }
            Act::Pass(milliseconds) => self.f.pass(milliseconds),
            Act::Back(milliseconds) => {
                self.f.hand.fetch_sub(milliseconds, Ordering::Relaxed);
            }
            Act::Hold(device, held) => {
                let device = self.members[device].0;
                store.deactivate_device(Scope::Everything, device, held).await.unwrap();
            }
            Act::Newer(device) => drop(self.f.ask(self.members[device].0, self.image).await),
            Act::See(device) => {
                let seen = Sign::Seen(self.members[device].0, store.clock().now());
                store.record_signs(vec![seen]).await.unwrap();
            }
            Act::Retry => self.retry().await,
            Act::Over(joined) => self.over(joined).await,
            Act::Script(device) => {
                let report = Report { progress_percent: None, status: Some(Status::Success) };
                let id = self.members[device].1;
                drop(store.report_operation(Scope::Everything, id, report).await);
            }
            Act::Expire => drop(store.expire_operations().await.unwrap()),
        }
    }

    /// What failed in a batch that is over becomes another batch.
    async fn retry(&mut self) {
        if self.before[&self.batch].course != Course::Finished {
            return;
        }
        let mut failed = Vec::new();
        for (device, id) in &self.members {
            let status = self.f.operation(*id).await.status;
            if matches!(status, Status::Failed | Status::Aborted) {
                failed.push((*device, *id));
            }
        }
        let Some(batch) = try_launch(&self.f, self.image, &failed).await else { return };
        self.batches.push(batch);
        self.batch = batch;
        self.follow().await;
        let now = self.f.store.batch(Scope::Everything, batch).await.unwrap().unwrap();
        self.before.insert(batch, now);
    }

    /// A later batch of the other image takes over what nobody has begun, and its launch may break off.
    async fn over(&mut self, joined: usize) {
        let (store, image) = (self.f.store.clone(), self.other);
        let batch = create(&self.f, image).await;
        let members = self.members.iter().map(|(device, _)| member(*device, image, None));
        store.add_members(batch, members.collect(), "admin".into()).await.unwrap();
        if store.write(move |tx| launch_some(tx, batch, joined)).await.is_err() {
            store.discard_batch(batch).await.unwrap();
            return;
        }
        std::mem::swap(&mut self.image, &mut self.other);
        self.batches.push(batch);
        self.batch = batch;
        let now = store.batch(Scope::Everything, batch).await.unwrap().unwrap();
        self.before.insert(batch, now);
    }

    /// Things happen to each device's newest operation.
    async fn follow(&mut self) {
        for operation in operations(&self.f.store, self.batch).await {
            let member = self.members.iter_mut().find(|(device, _)| *device == operation.device);
            member.unwrap().1 = operation.id;
        }
    }

    /// A grant comes only to a member of an open wave of a batch that is under way.
    async fn ask(&self, device: usize, attempt: u32) {
        let (device, id) = self.members[device];
        let before = self.f.operation(id).await;
        let batch = before.batch.unwrap();
        let newest = self.f.store.batch(Scope::Everything, self.batch).await.unwrap().unwrap();
        let promised = newest.course == Course::Open && batch != self.batch && newest.takeovers > 0;
        let waits = self.waits(device).await;
        let report = self.f.store.batch_report(Scope::Everything, batch).await.unwrap().unwrap();
        let overdue = report.tally.silence.charged();
        let (counts, forgiven) = (&report.batch.counts, &report.batch.forgiven);
        let tripped = report.batch.strategy.tripped(counts, overdue, forgiven);
        let wave = report.waves.last().filter(|wave| !forgiven.has_wave(wave.n));
        let lost = wave.is_some_and(|wave| report.batch.strategy.is_lost(&wave.counts));
        if let Ok(Leave::New) = self.f.store.start(device, id, request(attempt)).await {
            let course = self.before[&batch].course;
            assert!(course == Course::Open && before.wave.is_some(), "{course:?} {before:?}");
            assert!(!before.status.is_terminal() && !before.held);
            assert_eq!(tripped, None, "a grant past the threshold");
            assert!(!(promised && waits), "another batch has this modem");
            assert!(!lost || report.tally.pool == 0, "a grant past a gate that is lost");
        }
    }

    /// Whether the newest batch is to take the device's modem over still.
    async fn waits(&self, device: DeviceId) -> bool {
        let batch = self.batch;
        let found = self.f.store.read(move |conn| {
            let sql = "SELECT 1 FROM batch_takeovers WHERE device = ?1 AND batch = ?2";
            Ok(conn.prepare(sql)?.exists((device.to_string(), batch.to_string()))?)
        });
        found.await.unwrap()
    }

    /// What must hold whatever happened.
    async fn check(&mut self) {
        self.follow().await;
        for batch in self.batches.clone() {
            self.check_batch(batch).await;
        }
    }

    async fn check_batch(&mut self, id: BatchId) {
        let operations = operations(&self.f.store, id).await;
        let report = self.f.store.batch_report(Scope::Everything, id).await;
        let report = report.unwrap().unwrap();
        assert_eq!(report.batch.counts, count_all(operations.iter()), "the counters");
        for wave in &report.waves {
            let own = operations.iter().filter(|op| op.wave == Some(wave.n));
            assert_eq!(wave.counts, count_all(own), "of wave {}", wave.n);
        }
        let pool = operations.iter().filter(|op| op.wave.is_none() && !op.status.is_terminal());
        assert_eq!(report.tally.pool, pool.count() as u64);
        let status = stored_status(&self.f.store, id).await;
        assert_eq!(status, report.batch.members().status(), "one arithmetic");
        let begun = |op: &&Operation| op.attempts_granted > 0 && !op.status.is_terminal();
        let silent = |op: &&Operation| !op.is_granted();
        let in_hand = operations.iter().filter(|op| begun(op) && !silent(op)).count();
        assert!(in_hand <= AT_A_TIME as usize, "{in_hand} at a time");
        assert_eq!(report.batch.granted, in_hand as u64, "the counter of grants");
        let silence = report.tally.silence;
        assert!(silence.forgiven <= silence.overdue && silence.overdue <= silence.granted);
        assert!(report.batch.forgiven.failures <= report.batch.counts.charged, "a credit");
        let ended = report.batch.counts.undecided() == 0 && report.batch.takeovers == 0;
        assert!(ended || !status.is_terminal(), "{status}, and somebody is to join still");
        let phase = crate::batch::phase::phase(&report.batch, &report.tally, report.now);
        assert_eq!(ended, report.batch.course == Course::Finished, "{:?}", report.batch.course);
        assert_eq!(ended, phase == crate::batch::Phase::Finished, "{phase:?}");
        for operation in &operations {
            if operation.status.is_terminal() {
                let first = *self.ended.entry(operation.id).or_insert(operation.status);
                assert_eq!(operation.status, first, "terminal never changes");
            }
        }
        self.check_wave(&report.batch, &operations);
        self.before.insert(id, report.batch);
    }

    /// No wave has opened on missing evidence.
    fn check_wave(&self, now: &Batch, operations: &[Operation]) {
        let before = self.before.get(&now.id).and_then(|before| before.wave);
        let (Some(last), Some(newest)) = (before, now.wave) else { return };
        let forgiven = now.forgiven.wave.is_some_and(|wave| wave >= last);
        if newest == last || forgiven {
            return;
        }
        let of_last: Vec<_> = operations.iter().filter(|op| op.wave == Some(last)).collect();
        assert!(of_last.iter().all(|op| op.status.is_terminal()), "an unfinished wave");
        let proved = |op: &&&Operation| op.status == Status::Success && is_proof(op);
        let succeeded = of_last.iter().filter(proved).count();
        assert!(succeeded >= 1, "no success in wave {last}");
        assert!(!of_last.iter().any(|op| op.status == Status::Failed), "a failure passed");
    }
}

/// None where nobody may be upgraded any more.
async fn try_launch(
    f: &Fixture,
    image: ImageId,
    failed: &[(DeviceId, OperationId)],
) -> Option<BatchId> {
    let batch = create(f, image).await;
    let members = failed.iter().map(|(device, id)| member(*device, image, Some(*id))).collect();
    f.store.add_members(batch, members, "admin".into()).await.unwrap();
    match f.store.launch_batch(batch).await {
        Ok(_) => Some(batch),
        Err(_) => {
            f.store.discard_batch(batch).await.unwrap();
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_batch_never_lies_and_never_grants_too_much(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene::new().await;
            scene.check().await;
            for act in &acts {
                scene.act(act).await;
                scene.check().await;
            }
        });
    }
}
