//! Wakes to connected devices whose `desired` changed: each device once however often it was asked
//! for, spread so that a batch of ten thousand does not come back as one wave of HTTPS requests.
//!
//! A wake may be lost, and a device that is not connected is not queued: agents poll.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use shared::ids::DeviceId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::lines::registry::Registry;

/// How fast wakes go out.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub per_second: u32,
    /// A queued wake is late by up to this much, at random.
    pub jitter: Duration,
    /// Wakes that wait at most; the others find out by polling.
    pub longest: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { per_second: 500, jitter: Duration::from_millis(250), longest: 100_000 }
    }
}

/// When each device is to be woken. Decides; knows no clock and no randomness of its own.
#[derive(Debug)]
struct Schedule {
    pace: Pace,
    queued: HashSet<DeviceId>,
    due: BTreeSet<(Instant, DeviceId)>,
    /// When the next place in the row is free.
    free: Option<Instant>,
}

impl Schedule {
    fn new(pace: Pace) -> Self {
        Schedule { pace, queued: HashSet::new(), due: BTreeSet::new(), free: None }
    }

    /// Queues a wake; a lone one is due at once. `chance` of 0..=255 is its share of the jitter.
    fn add(&mut self, device: DeviceId, now: Instant, chance: u8) {
        if self.queued.len() >= self.pace.longest || !self.queued.insert(device) {
            return;
        }
        let place = self.free.map_or(now, |free| free.max(now));
        self.free = Some(place + Duration::from_secs(1) / self.pace.per_second.max(1));
        let late =
            if place > now { self.pace.jitter * u32::from(chance) / 255 } else { Duration::ZERO };
        self.due.insert((place + late, device));
    }

    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn take_due(&mut self, now: Instant) -> Option<DeviceId> {
        let (due, device) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        self.queued.remove(&device);
        Some(device)
    }
}

/// Queues and sends wakes. One for the coordinator, behind an `Arc`; [`Dispatch::run`] sends.
pub struct Dispatch {
    registry: Arc<Registry>,
    schedule: Mutex<Schedule>,
    queued: Notify,
    random: SystemRandom,
}

impl Dispatch {
    #[must_use]
    pub fn new(registry: Arc<Registry>, pace: Pace) -> Arc<Self> {
        let (schedule, random) = (Mutex::new(Schedule::new(pace)), SystemRandom::new());
        Arc::new(Dispatch { registry, schedule, queued: Notify::new(), random })
    }

    /// The device's `desired` changed. Call it after COMMIT; returns at once.
    pub fn wake(&self, device: DeviceId) {
        if self.registry.is_connected(device) {
            let mut chance = [0];
            // Without randomness there is no jitter, which is all it is for.
            let _ = self.random.fill(&mut chance);
            self.lock().add(device, Instant::now(), chance[0]);
            self.queued.notify_one();
        }
    }

    /// Wakes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().queued.len()
    }

    /// Sends what is due, for ever.
    pub async fn run(&self) {
        loop {
            self.send_due();
            let next = self.lock().next();
            match next {
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.queued.notified() => {}
                },
                None => self.queued.notified().await,
            }
        }
    }

    fn send_due(&self) {
        loop {
            let device = self.lock().take_due(Instant::now());
            let Some(device) = device else { break };
            let sent = self.registry.wake(device);
            tracing::debug!(%device, sent, "wake");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn device(n: u128) -> DeviceId {
        DeviceId(Uuid::from_u128(n))
    }

    fn drain(schedule: &mut Schedule, now: Instant) -> usize {
        std::iter::from_fn(|| schedule.take_due(now)).count()
    }

    #[test]
    fn a_lone_wake_is_due_at_once_and_asked_twice_is_one() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Pace::default());
        schedule.add(device(1), now, 255);
        schedule.add(device(1), now, 255);
        assert_eq!(schedule.take_due(now), Some(device(1)));
        assert_eq!((schedule.take_due(now), schedule.next()), (None, None));
    }

    #[test]
    fn a_thousand_are_spread_at_the_pace() {
        let now = Instant::now();
        let pace = Pace { per_second: 100, jitter: Duration::from_millis(50), longest: 1000 };
        let mut schedule = Schedule::new(pace);
        for n in 0..1500 {
            schedule.add(device(n), now, u8::try_from(n % 256).unwrap());
        }
        let after_a_second = drain(&mut schedule, now + Duration::from_secs(1));
        assert!((90..=101).contains(&after_a_second), "{after_a_second}");
        let in_all = after_a_second + drain(&mut schedule, now + Duration::from_secs(11));
        assert_eq!(in_all, 1000);
    }

    #[tokio::test]
    async fn only_connected_devices_are_queued_and_get_it() {
        let registry = Arc::new(Registry::default());
        let (seat, _) = registry.seat_device(device(1));
        let dispatch = Dispatch::new(registry, Pace::default());
        dispatch.wake(device(2));
        assert_eq!(dispatch.waiting(), 0);
        let running = dispatch.clone();
        let running = tokio::spawn(async move { running.run().await });
        dispatch.wake(device(1));
        tokio::time::timeout(Duration::from_secs(10), seat.arrived()).await.unwrap();
        assert!(seat.mail(|mail| mail.wake));
        running.abort();
    }
}
