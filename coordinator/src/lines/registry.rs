//! Which devices and dashboards are on a line at this moment, and the way to each: a mailbox that
//! coalesces, so that an idle line costs a few hundred bytes and a slow one cannot pile up.
//!
//! A name has one line. Whoever comes later under it takes the seat; the older line is told, and
//! the newer waits for its end, so that what the older still had to say is said before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ack::{Ack, Acks};
use shared::ids::DeviceId;
use tokio::sync::Notify;
use uuid::Uuid;

use super::reason::Reason;

/// Acks that wait for a device at most. More are dropped: its outbox sends the events again.
const ACKS: usize = 512;

/// All lines.
#[derive(Debug, Default)]
pub struct Registry {
    devices: Mutex<HashMap<DeviceId, Arc<Line>>>,
    dashboards: Mutex<BTreeMap<(Uuid, String), Arc<Line>>>,
}

/// The mailbox of one line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    mail: Mutex<Mail>,
    arrived: Notify,
    gone: Notify,
}

/// What waits for a line.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub wake: bool,
    pub acks: Vec<Ack>,
    pub close: Option<Reason>,
    ended: bool,
}

impl Registry {
    /// Tells the device to fetch `desired`. False = it is not connected and will find out by itself.
    pub fn wake(&self, device: DeviceId) -> bool {
        self.post(device, |mail| mail.wake = true)
    }

    /// Sends acks to the device. False = it is not connected; it will send the events again.
    pub fn send_ack(&self, device: DeviceId, acks: Acks) -> bool {
        self.post(device, |mail| mail.add(acks))
    }

    /// Ends the device's line: its tokens were revoked.
    pub fn kick(&self, device: DeviceId) {
        self.post(device, |mail| mail.close = Some(Reason::Revoked));
    }

    /// Ends all lines of a user's dashboards: the user's tokens were revoked.
    pub fn kick_user(&self, user: Uuid) {
        for line in self.of_user(user) {
            line.post(|mail| mail.close = Some(Reason::Revoked));
        }
    }

    /// Ends every line without wills: the coordinator stops.
    pub fn close_all(&self) {
        let mut lines: Vec<_> = lock(&self.devices).values().cloned().collect();
        lines.extend(lock(&self.dashboards).values().cloned());
        for line in lines {
            line.post(|mail| mail.close = Some(Reason::Stopping));
        }
    }

    #[must_use]
    pub fn is_connected(&self, device: DeviceId) -> bool {
        lock(&self.devices).contains_key(&device)
    }

    /// How many devices are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        lock(&self.devices).len()
    }

    /// How many dashboards are connected.
    #[must_use]
    pub fn dashboards(&self) -> usize {
        lock(&self.dashboards).len()
    }

    pub(crate) fn dashboards_of(&self, user: Uuid) -> usize {
        self.of_user(user).len()
    }

    /// Seats a device and tells the line that had the seat.
    pub(crate) fn seat_device(self: &Arc<Self>, device: DeviceId) -> (Seat, Option<Arc<Line>>) {
        let line = Arc::new(Line::default());
        let old = lock(&self.devices).insert(device, line.clone());
        (self.seated(Name::Device(device), line), old.inspect(|old| old.take_over()))
    }

    /// Seats a dashboard and tells the line that had the seat.
    pub(crate) fn seat_dashboard(
        self: &Arc<Self>,
        user: Uuid,
        client_id: &str,
    ) -> (Seat, Option<Arc<Line>>) {
        let line = Arc::new(Line::default());
        let name = (user, client_id.to_owned());
        let old = lock(&self.dashboards).insert(name.clone(), line.clone());
        (self.seated(Name::Dashboard(name), line), old.inspect(|old| old.take_over()))
    }

    fn seated(self: &Arc<Self>, name: Name, line: Arc<Line>) -> Seat {
        Seat { registry: self.clone(), name, line }
    }

    fn post(&self, device: DeviceId, change: impl FnOnce(&mut Mail)) -> bool {
        let line = lock(&self.devices).get(&device).cloned();
        line.is_some_and(|line| {
            line.post(change);
            true
        })
    }

    fn of_user(&self, user: Uuid) -> Vec<Arc<Line>> {
        let dashboards = lock(&self.dashboards);
        let from = (user, String::new());
        dashboards
            .range(from..)
            .take_while(|((owner, _), _)| *owner == user)
            .map(|(_, line)| line.clone())
            .collect()
    }
}

impl Mail {
    fn add(&mut self, acks: Acks) {
        let room = ACKS.saturating_sub(self.acks.len());
        self.acks.extend(acks.acks.into_iter().take(room));
    }
}

impl Line {
    /// Until the line has ended.
    pub(crate) async fn gone(&self) {
        // Made before the question, so that an end in between is not missed.
        let gone = self.gone.notified();
        if !lock(&self.mail).ended {
            gone.await;
        }
    }

    fn post(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut lock(&self.mail));
        self.arrived.notify_one();
    }

    fn take_over(&self) {
        self.post(|mail| mail.close = Some(Reason::TakenOver));
    }
}

#[derive(Debug)]
enum Name {
    Device(DeviceId),
    Dashboard((Uuid, String)),
}

/// A line's place in the registry, for as long as its task lives; a panic gives it back too.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Arc<Registry>,
    name: Name,
    line: Arc<Line>,
}

impl Seat {
    /// Until something may be in the mail. Safe to cancel.
    pub(crate) async fn arrived(&self) {
        self.line.arrived.notified().await;
    }

    /// Looks at the mail and changes it.
    pub(crate) fn mail<T>(&self, look: impl FnOnce(&mut Mail) -> T) -> T {
        look(&mut lock(&self.line.mail))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let is_ours = |line: &mut Arc<Line>| Arc::ptr_eq(line, &self.line);
        match &self.name {
            Name::Device(device) => {
                let mut devices = lock(&self.registry.devices);
                if devices.get_mut(device).is_some_and(is_ours) {
                    devices.remove(device);
                }
            }
            Name::Dashboard(name) => {
                let mut dashboards = lock(&self.registry.dashboards);
                if dashboards.get_mut(name).is_some_and(is_ours) {
                    dashboards.remove(name);
                }
            }
        }
        lock(&self.line.mail).ended = true;
        self.line.gone.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use shared::ack::Verdict;
    use shared::ids::{OperationId, StreamId};

    use super::*;

    fn device(n: u128) -> DeviceId {
        DeviceId(Uuid::from_u128(n))
    }

    fn acks(count: u64) -> Acks {
        let ack = |seq| Ack {
            operation: OperationId(Uuid::nil()),
            stream: StreamId(Uuid::nil()),
            seq,
            verdict: Verdict::Accepted,
        };
        Acks::new((0..count).map(ack).collect())
    }

    #[tokio::test]
    async fn mail_is_coalesced_and_bounded() {
        let registry = Arc::new(Registry::default());
        assert!(!registry.wake(device(1)));
        let (seat, old) = registry.seat_device(device(1));
        assert!(old.is_none());
        assert!(registry.wake(device(1)) && registry.wake(device(1)));
        assert!(registry.send_ack(device(1), acks(400)) && registry.send_ack(device(1), acks(400)));
        seat.arrived().await;
        assert!(seat.mail(|mail| mail.wake));
        assert_eq!(seat.mail(|mail| mail.acks.len()), ACKS);
        assert_eq!(registry.connected(), 1);
        drop(seat);
        assert_eq!(registry.connected(), 0);
    }

    #[tokio::test]
    async fn the_older_line_is_told_and_does_not_take_the_seat_with_it() {
        let registry = Arc::new(Registry::default());
        let (first, _) = registry.seat_device(device(1));
        let (second, old) = registry.seat_device(device(1));
        first.arrived().await;
        assert_eq!(first.mail(|mail| mail.close), Some(Reason::TakenOver));
        let waiting = tokio::spawn(async move { old.unwrap().gone().await });
        drop(first);
        waiting.await.unwrap();
        assert!(registry.is_connected(device(1)));
        assert_eq!(second.mail(|mail| mail.close), None);
    }

    #[tokio::test]
    async fn a_kick_reaches_only_its_own() {
        let registry = Arc::new(Registry::default());
        let (user, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (one, _) = registry.seat_dashboard(user, "a");
        let (two, _) = registry.seat_dashboard(user, "b");
        let (spared, _) = registry.seat_dashboard(other, "a");
        let (seat, _) = registry.seat_device(device(1));
        assert_eq!(registry.dashboards_of(user), 2);
        registry.kick_user(user);
        let closes = [&one, &two, &spared, &seat].map(|seat| seat.mail(|mail| mail.close));
        assert_eq!(closes, [Some(Reason::Revoked), Some(Reason::Revoked), None, None]);
        registry.kick(device(1));
        assert_eq!(seat.mail(|mail| mail.close), Some(Reason::Revoked));
    }
}
