//! A fleet with batches, and what happens to it.

use shared::event::Event;
use shared::grant::StartRequest;

use super::act::Journal;
use super::*;

/// How far it came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reached {
    pub grants: u32,
    /// After one that was handed back.
    pub anew: u32,
    pub handed_back: u32,
    /// To an agent that was installed anew.
    pub to_another_journal: u32,
    pub later_waves: u32,
    /// By themselves.
    pub paused: u32,
    /// Pieces of a resumption that broke off.
    pub forgiven: u32,
    /// Pieces of a cancellation.
    pub withdrawn: u32,
    pub retries: u32,
    /// Batches that were launched to take modems over from others.
    pub takeovers: u32,
    /// Of them, those that could not have everybody.
    pub left_out: u32,
}

impl Reached {
    pub fn add(&mut self, other: Self) {
        self.grants += other.grants;
        self.anew += other.anew;
        self.handed_back += other.handed_back;
        self.to_another_journal += other.to_another_journal;
        self.later_waves += other.later_waves;
        self.paused += other.paused;
        self.forgiven += other.forgiven;
        self.withdrawn += other.withdrawn;
        self.retries += other.retries;
        self.takeovers += other.takeovers;
        self.left_out += other.left_out;
    }
}

pub struct Scene {
    pub f: Fixture,
    /// The newest, which things happen to.
    pub batch: BatchId,
    pub batches: Vec<BatchId>,
    /// Modems that each was to have.
    pub chosen: HashMap<BatchId, u64>,
    image: ImageId,
    other: ImageId,
    members: Vec<(DeviceId, OperationId)>,
    pub ended: HashMap<OperationId, Status>,
    pub before: HashMap<BatchId, Batch>,
    pub hands: HashMap<(OperationId, Journal), Hands>,
    /// With one member a turn, and what it remembers.
    pilot: Arc<Pilot>,
    pub reached: Reached,
}

fn pilot(store: &Store) -> Arc<Pilot> {
    Pilot::in_turns_of(1, store.clone(), Feed::new(store.clock()), Arc::default())
}

impl Scene {
    pub async fn new() -> Self {
        let f = Fixture::new().await;
        let (image, other) = (f.image("v2").await, f.image("v3").await);
        let mut devices = Vec::new();
        for key in 0..DEVICES {
            devices.push(f.device(u8::try_from(key).unwrap() + 1).await);
        }
        let signs = devices.iter().map(|device| Sign::Seen(*device, NOW)).collect();
        f.store.record_signs(signs).await.unwrap();
        let batch = begin(&f, image).await;
        let all = devices.iter().map(|device| member(*device, image, None)).collect();
        f.store.add_members(batch, all, "admin".into()).await.unwrap();
        f.store.launch_batch(batch).await.unwrap();
        let members = f.store.operations_of_batch(batch, Default::default(), 100, true).await;
        let members = members.unwrap().into_iter().map(|(_, op)| (op.device, op.id)).collect();
        Self {
            batch,
            batches: vec![batch],
            chosen: HashMap::from([(batch, DEVICES as u64)]),
            image,
            other,
            members,
            ended: HashMap::new(),
            before: HashMap::new(),
            hands: HashMap::new(),
            pilot: pilot(&f.store),
            reached: Reached::default(),
            f,
        }
    }

    pub async fn act(&mut self, act: &Act) {
        let (store, id) = (self.f.store.clone(), self.batch);
        let reason = || Reason::Operator { by: "admin".into() };
        match *act {
            Act::Fly => fly(&store, id).await,
            Act::FlyATurn => self.pilot.fly(id).await.unwrap(),
            Act::Work(nth, word, journal) => self.work(nth, word, journal).await,
            Act::Ask(device, attempt, journal) => self.ask(device, attempt, journal).await,
            Act::Tell(device, seq, attempt, word, journal) => {
                self.tell(device, seq, attempt, word, journal).await;
            }
            Act::HandBack(device, seq, journal) => self.hand_back(device, seq, journal).await,
            Act::SayAgain(nth) => self.say_again(nth).await,
            Act::Pause => drop(store.pause_batch(Scope::Everything, id, reason()).await),
            Act::Resume => drop(store.resume_batch(Scope::Everything, id).await),
            Act::Forgive => {
                let forgiven = store.forgive_some(Scope::Everything, id, 1).await;
                self.reached.forgiven += u32::from(forgiven.is_ok_and(|some| some > 0));
            }
            Act::Cancel(pieces) => {
                drop(store.cancel_batch(Scope::Everything, id, reason()).await);
                for _ in 0..pieces {
                    let withdrawn = store.withdraw_some(id, 1).await.unwrap();
                    self.reached.withdrawn += u32::from(withdrawn > 0);
                }
            }
            Act::Crash => {
                store.stop();
                let path = self.f.dir.path().join("db");
                self.f.store = Store::open(&path, store.clock().clone()).unwrap();
                self.f.store.recover_batches().await.unwrap();
                self.pilot = pilot(&self.f.store);
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
            Act::SeeAll => {
                let now = store.clock().now();
                let seen = self.members.iter().map(|(device, _)| Sign::Seen(*device, now));
                store.record_signs(seen.collect()).await.unwrap();
            }
            Act::Retry(cancels) => self.retry(cancels).await,
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
    async fn retry(&mut self, cancels: bool) {
        let mut failed = Vec::new();
        for (device, id) in &self.members {
            let op = self.f.operation(*id).await;
            let is_own = op.batch == Some(self.batch);
            if is_own && matches!(op.status, Status::Failed | Status::Aborted) {
                failed.push((*device, *id));
            }
        }
        if failed.is_empty() {
            return;
        }
        let (store, id) = (&self.f.store, self.batch);
        if cancels {
            let reason = Reason::Operator { by: "admin".into() };
            drop(store.cancel_batch(Scope::Everything, id, reason).await);
            fly(store, id).await;
        }
        let now = store.batch(Scope::Everything, id).await.unwrap().unwrap();
        if now.course != Course::Finished {
            return;
        }
        let Some(batch) = try_launch(&self.f, self.image, &failed).await else { return };
        self.reached.retries += 1;
        self.batches.push(batch);
        self.chosen.insert(batch, failed.len() as u64);
        self.batch = batch;
        self.follow().await;
        let now = self.f.store.batch(Scope::Everything, batch).await.unwrap().unwrap();
        self.before.insert(batch, now);
    }

    /// A later batch of the other image takes over what nobody has begun, and its launch may break off.
    async fn over(&mut self, joined: usize) {
        let (store, image) = (self.f.store.clone(), self.other);
        let batch = begin(&self.f, image).await;
        let members = self.members.iter().map(|(device, _)| member(*device, image, None));
        store.add_members(batch, members.collect(), "admin".into()).await.unwrap();
        let made = store.batch(Scope::Everything, batch).await.unwrap().unwrap();
        if store.launch_in(batch, joined).await.is_err() {
            store.discard_batch(batch).await.unwrap();
            return;
        }
        self.reached.takeovers += u32::from(made.takeovers > 0);
        std::mem::swap(&mut self.image, &mut self.other);
        self.batches.push(batch);
        self.chosen.insert(batch, self.members.len() as u64);
        self.reached.left_out += u32::from(made.left_out > 0);
        self.batch = batch;
        let now = store.batch(Scope::Everything, batch).await.unwrap().unwrap();
        self.before.insert(batch, now);
    }

    /// Things happen to each device's newest operation.
    pub async fn follow(&mut self) {
        for operation in operations(&self.f.store, self.batch).await {
            let member = self.members.iter_mut().find(|(device, _)| *device == operation.device);
            member.unwrap().1 = operation.id;
        }
    }

    /// What agents do.
    async fn work(&mut self, nth: usize, word: Word, journal: Journal) {
        let mut ready = Vec::new();
        for (place, (_, id)) in self.members.clone().into_iter().enumerate() {
            let op = self.f.operation(id).await;
            if op.wave.is_some() && op.is_wanted() && self.hands(id, journal).attempt.is_none() {
                ready.push((place, op));
            }
        }
        let Some((place, op)) = ready.get(nth % ready.len().max(1)) else { return };
        let unused = self.hands(op.id, journal).handed_back.filter(|_| op.is_granted());
        let attempt = unused.unwrap_or(op.attempts_granted + 1);
        self.ask(*place, attempt, journal).await;
        if self.hands(op.id, journal).attempt == Some(attempt) {
            let seq = self.f.operation(op.id).await.last_seq + 1;
            match word {
                Word::Returned => self.hand_back(*place, seq, journal).await,
                word => self.tell(*place, seq, attempt, word, journal).await,
            }
        }
    }

    /// A grant comes only to a member of an open wave of a batch that is under way.
    async fn ask(&mut self, device: usize, attempt: u32, journal: Journal) {
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
        let returned = self.hands(id, journal).returned;
        let request = StartRequest { stream: stream(journal), returned, ..request(attempt) };
        let Ok(leave) = self.f.store.start(device, id, request).await else { return };
        self.hands(id, journal).granted(attempt);
        if leave == Leave::Repeated {
            return;
        }
        let course = self.before[&batch].course;
        assert!(course == Course::Open && before.wave.is_some(), "{course:?} {before:?}");
        assert!(!before.status.is_terminal() && !before.held);
        assert_eq!(tripped, None, "a grant past the threshold");
        assert!(!(promised && waits), "another batch has this modem");
        assert!(!lost || report.tally.pool == 0, "a grant past a gate that is lost");
        self.reached.grants += 1;
        self.reached.anew += u32::from(returned > 0);
        self.reached.to_another_journal += u32::from(journal > 1);
    }

    async fn tell(&mut self, device: usize, seq: u64, attempt: u32, word: Word, journal: Journal) {
        let (device, id) = self.members[device];
        let returned = self.hands(id, journal).returned;
        let heard = self.report(device, id, (journal, seq, attempt), word.body(returned)).await;
        self.hands(id, journal).said(attempt, word, heard);
    }

    async fn hand_back(&mut self, device: usize, seq: u64, journal: Journal) {
        let (device, id) = self.members[device];
        let handed_back = self.hands(id, journal).hand_back();
        let Some((attempt, returned)) = handed_back else { return };
        let body = Word::Returned.body(returned);
        let heard = self.report(device, id, (journal, seq, attempt), body).await;
        self.hands(id, journal).unheard = !heard;
        self.reached.handed_back += u32::from(heard);
    }

    /// Its number was not kept, so that it is said under another one as well.
    async fn say_again(&mut self, nth: usize) {
        let mut said: Vec<_> = self.hands.iter().collect();
        said.retain(|(_, hands)| hands.handed_back.is_some());
        said.sort_by_key(|(of, _)| **of);
        let Some(((id, journal), hands)) = said.get(nth % said.len().max(1)) else { return };
        let body = Word::Returned.body(hands.returned);
        let op = self.f.operation(*id).await;
        let attempt = hands.handed_back.unwrap_or_default();
        self.report(op.device, *id, (*journal, op.last_seq + 1, attempt), body).await;
    }

    /// Whether it was taken.
    async fn report(
        &self,
        device: DeviceId,
        id: OperationId,
        (journal, seq, attempt): (Journal, u64, u32),
        body: EventBody,
    ) -> bool {
        let event = Event { stream: stream(journal), ..event(id, seq, attempt, body) };
        let acks = self.f.store.record_events(vec![reported(device, event)]).await.unwrap();
        acks[0].verdict == Verdict::Accepted
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
}

/// A batch that two bad ones of the canary's stop already.
async fn begin(f: &Fixture, image: ImageId) -> BatchId {
    let mut new = wanted(f, image).await;
    new.strategy.failure_threshold.minimum = 2;
    f.store.create_batch(new).await.unwrap()
}

/// None where nobody may be upgraded any more.
async fn try_launch(
    f: &Fixture,
    image: ImageId,
    failed: &[(DeviceId, OperationId)],
) -> Option<BatchId> {
    let batch = begin(f, image).await;
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
