use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::*;

fn org(name: &str) -> OrganizationSlug {
    name.parse().unwrap()
}

fn change(organization: &str, device: u128, payload: &str) -> Change {
    Change {
        organization: org(organization),
        subject: Subject::Operation {
            device: DeviceId(Uuid::from_u128(device)),
            slot: Slot::default(),
            operation: OperationId(Uuid::from_u128(device + 1000)),
            created: 1,
            has_ended: false,
        },
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

fn batch(n: u128) -> Change {
    Change {
        organization: org("acme"),
        subject: Subject::Batch(BatchId(Uuid::from_u128(n))),
        payload: Bytes::from_static(b"{}"),
    }
}

fn of(organization: &str) -> Interest {
    Interest::in_organization(org(organization))
}

fn feed() -> Arc<Feed> {
    Feed::new(&Clock::manual(1_800_000_000_000).0)
}

fn texts(changes: &[Arc<Published>]) -> Vec<&str> {
    changes.iter().map(|p| std::str::from_utf8(&p.change.payload).unwrap()).collect()
}

async fn soon(subscription: &mut Subscription) -> Vec<Arc<Published>> {
    timeout(Duration::from_secs(10), subscription.next()).await.unwrap().changes
}

#[tokio::test]
async fn a_subscriber_hears_its_own_in_order_and_nothing_of_others() {
    let feed = feed();
    let mut acme = feed.subscribe(of("acme"));
    feed.publish(change("other", 1, "secret"));
    feed.publish(change("acme", 1, "a"));
    feed.publish(change("acme", 2, "b"));
    assert_eq!(texts(&soon(&mut acme).await), ["a", "b"]);

    let interest = Interest {
        subject: Some(One::Operation(OperationId(Uuid::from_u128(1002)))),
        ..of("acme")
    };
    let mut one = feed.subscribe(interest);
    feed.publish(change("acme", 1, "c"));
    feed.publish(batch(1));
    feed.publish(change("acme", 2, "d"));
    assert_eq!(texts(&soon(&mut one).await), ["d"]);
    assert_eq!(texts(&soon(&mut acme).await), ["c", "{}", "d"]);
}

#[tokio::test]
async fn an_older_operation_that_ends_late_is_not_the_state_of_its_slot() {
    let feed = feed();
    let created_at = |at: u64, payload| {
        let mut change = change("acme", 1, payload);
        let Subject::Operation { operation, created, has_ended, .. } = &mut change.subject else {
            panic!("no operation");
        };
        (*operation, *created) = (OperationId(Uuid::from_u128(at.into())), at);
        *has_ended = payload.contains("cancelled");
        change
    };
    let mut all = feed.subscribe(of("acme"));
    feed.publish(created_at(1, "v2 waits"));
    feed.publish(created_at(2, "v3 waits"));
    feed.publish(created_at(1, "v2 is cancelled"));
    let (retained, _) = feed.retained(&org("acme"));
    assert_eq!(texts(&retained), ["v3 waits"]);
    let heard = soon(&mut all).await;
    assert_eq!(texts(&heard), ["v2 waits", "v3 waits", "v2 is cancelled"]);
    assert!(heard[2].outlived && !heard[1].outlived);
    feed.publish(created_at(2, "v3 begins"));
    assert_eq!(texts(&feed.retained(&org("acme")).0), ["v3 begins"]);
    feed.publish(created_at(2, "v3 is cancelled"));
    feed.publish(created_at(1, "v2 is cancelled, once more"));
    assert_eq!(texts(&feed.retained(&org("acme")).0), ["v3 is cancelled"]);
    // The server's clock was set back: what is under way is the slot's state whatever its time.
    feed.publish(created_at(1, "v4 waits"));
    assert_eq!(texts(&feed.retained(&org("acme")).0), ["v4 waits"]);
}

#[tokio::test]
async fn a_sleeper_is_woken() {
    let feed = feed();
    let mut subscription = feed.subscribe(of("acme"));
    let waiting = tokio::spawn(async move { subscription.next().await });
    tokio::task::yield_now().await;
    feed.publish(change("other", 1, "x"));
    tokio::task::yield_now().await;
    feed.publish(change("acme", 1, "a"));
    let heard = timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(texts(&heard.changes), ["a"]);
}

#[tokio::test]
async fn resuming_continues_after_the_last_event() {
    let feed = feed();
    let first = feed.publish(change("acme", 1, "a"));
    let second = feed.publish(change("acme", 1, "b"));
    assert_eq!(second, first + 1);
    assert_eq!(texts(&soon(&mut feed.resume(of("acme"), first)).await), ["b"]);
}

#[tokio::test]
async fn who_is_too_slow_gets_the_latest_states_and_then_the_rest() {
    let feed = feed();
    let mut slow = feed.subscribe(of("acme"));
    feed.publish(change("acme", 1, "lost"));
    for n in 0..RING_CHANGES {
        feed.publish(change("acme", 2, &n.to_string()));
    }
    feed.publish(change("acme", 1, "last of 1"));
    let newest = (RING_CHANGES - 1).to_string();
    assert_eq!(texts(&soon(&mut slow).await), [newest.as_str(), "last of 1"]);
    feed.publish(change("acme", 1, "on"));
    assert_eq!(texts(&soon(&mut slow).await), ["on"]);
}

#[tokio::test]
async fn an_id_of_a_later_life_gets_the_latest_states() {
    let feed = feed();
    feed.publish(change("acme", 1, "a"));
    feed.publish(change("acme", 1, "b"));
    assert_eq!(texts(&soon(&mut feed.resume(of("acme"), u64::MAX - 1)).await), ["b"]);
    assert_eq!(texts(&soon(&mut feed.resume(of("acme"), 0)).await), ["b"]);
}

#[tokio::test]
async fn who_follows_one_subject_is_told_of_the_gap() {
    let feed = feed();
    let operation = OperationId(Uuid::from_u128(1001));
    let one = Interest { subject: Some(One::Operation(operation)), ..of("acme") };
    let mut slow = feed.subscribe(one.clone());
    let before = feed.publish(change("acme", 1, "lost"));
    for _ in 0..RING_CHANGES {
        feed.publish(change("acme", 2, "x"));
    }
    let latest = feed.lock().latest;
    let read = timeout(Duration::from_secs(10), slow.next()).await.unwrap();
    assert_eq!((texts(&read.changes), read.lost), (vec![], Some(latest)));
    let (read, last) = feed.resume(one, before - 1).now();
    assert_eq!((texts(&read.changes), read.lost, last), (vec![], Some(latest), latest));
    feed.publish(change("acme", 1, "on"));
    assert_eq!(texts(&soon(&mut slow).await), ["on"]);
}

#[tokio::test]
async fn the_latest_states_come_in_pages() {
    let feed = feed();
    let devices = LOOK as u128 + 10;
    for device in 0..devices {
        feed.publish(change("acme", device, &device.to_string()));
    }
    let mut behind = feed.resume(of("acme"), 0);
    for _ in 0..RING_CHANGES {
        feed.publish(change("other", 1, "x"));
    }
    let mut seen = Vec::new();
    for size in [LOOK, 10] {
        let (Read { changes: page, lost }, last) = behind.now();
        assert_eq!((page.len(), lost), (size, Some(last)));
        assert!(page.iter().all(|published| published.id <= last));
        seen.extend(page);
        behind = feed.resume(of("acme"), last);
    }
    assert!(behind.now().0.changes.is_empty());
    let expected: Vec<_> = (0..devices).map(|device| device.to_string()).collect();
    assert_eq!(texts(&seen), expected);
}

#[test]
fn ids_of_before_a_restart_are_older() {
    let before = Feed::new(&Clock::manual(1000).0).publish(batch(1));
    let after = Feed::new(&Clock::manual(1001).0).publish(batch(1));
    assert!(before < after);
}

#[test]
fn one_state_a_slot_is_retained_and_few_batches() {
    let feed = feed();
    feed.publish(change("acme", 1, "a"));
    feed.publish(change("acme", 1, "b"));
    feed.publish(change("other", 2, "c"));
    assert_eq!(texts(&feed.retained(&org("acme")).0), ["b"]);
    for n in 0..300 {
        feed.publish(batch(n));
    }
    let (states, _) = feed.retained(&org("acme"));
    assert_eq!(states.len(), 1 + BATCHES);
    assert!(!states.iter().any(|s| s.change.subject == batch(0).subject));
    feed.forget_device(&org("acme"), DeviceId(Uuid::from_u128(1)));
    assert_eq!(feed.retained(&org("acme")).0.len(), BATCHES);
}

#[test]
fn the_past_is_bounded_in_bytes() {
    let feed = feed();
    for _ in 0..400 {
        feed.publish(change("acme", 1, &"x".repeat(LARGEST)));
    }
    let state = feed.lock();
    assert!(state.ring_bytes <= RING_BYTES && state.ring.len() < 400);
}
