//! The store's core: groups, savepoints, refusals, priorities, migrations.

use futures_util::future::poll_immediate;

use super::super::*;

pub(super) fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db"), Clock::System).unwrap();
    (dir, store)
}

pub(super) async fn add(
    store: &Store,
    name: &'static str,
    then: Result<(), &'static str>,
) -> Result<(), Rejection<&'static str>> {
    store
        .write(move |tx| {
            tx.execute(
                "INSERT INTO users (id, name, created) VALUES (?1, ?1, ?2)",
                (name, tx.now),
            )?;
            then.map_err(Rejection::Refused)
        })
        .await
}

pub(super) async fn names(store: &Store) -> Vec<String> {
    store
        .read(|conn| {
            let mut rows = conn.prepare("SELECT name FROM users ORDER BY name")?;
            Ok(rows.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_refusal_in_a_group_leaves_no_trace_and_hurts_nobody() {
    let (_dir, store) = scratch();
    let (a, b, c) = tokio::join!(
        add(&store, "a", Ok(())),
        add(&store, "b", Err("no")),
        add(&store, "c", Ok(()))
    );
    assert!(a.is_ok() && c.is_ok());
    assert!(matches!(b, Err(Rejection::Refused("no"))));
    assert_eq!(names(&store).await, ["a", "c"]);
}

#[tokio::test]
async fn the_first_of_a_group_may_refuse_and_so_may_any_other() {
    let (_dir, store) = scratch();
    for refused in 0..8_u32 {
        store.write::<_, Never, _>(|tx| Ok(tx.execute("DELETE FROM users", [])?)).await.unwrap();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let blocked = store.shared.writer.submit::<(), _, _>(Priority::Normal, move |_| {
            let _ = gate.recv();
            Err(Rejection::Refused("no"))
        });
        let then = |place: u32| if refused & (1 << place) > 0 { Err("no") } else { Ok(()) };
        let mut adding = std::pin::pin!(async {
            tokio::join!(
                add(&store, "a", then(0)),
                add(&store, "b", then(1)),
                add(&store, "c", then(2))
            )
        });
        // All of them wait, and become one group.
        assert!(poll_immediate(&mut adding).await.is_none());
        drop(open);
        let (a, b, c) = adding.await;
        let refusals = [a, b, c].map(|added| added.is_err());
        assert_eq!(refusals, [0, 1, 2].map(|place| then(place).is_err()));
        blocked.unwrap().await.unwrap().unwrap_err();
        let kept = ["a", "b", "c"].into_iter().zip(0..).filter(|(_, place)| then(*place).is_ok());
        let kept: Vec<_> = kept.map(|(name, _)| name).collect();
        assert_eq!(names(&store).await, kept, "{refused:03b}");
    }
}

#[tokio::test]
async fn a_statement_that_fails_takes_back_only_its_own_verb() {
    let (_dir, store) = scratch();
    add(&store, "a", Ok(())).await.unwrap();
    let (twice, b) = tokio::join!(add(&store, "a", Ok(())), add(&store, "b", Ok(())));
    assert!(matches!(twice, Err(Rejection::Store(StoreError::Database(_)))));
    b.unwrap();
    assert_eq!(names(&store).await, ["a", "b"]);
}

#[tokio::test]
async fn a_verb_that_panics_leaves_the_writer_alive() {
    let (_dir, store) = scratch();
    let panicked: Result<(), Rejection<Never>> = store.write(|_| panic!("on purpose")).await;
    assert!(matches!(panicked, Err(Rejection::Store(StoreError::Unavailable(_)))));
    add(&store, "a", Ok(())).await.unwrap();
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_reopen() {
    let (dir, store) = scratch();
    add(&store, "a", Ok(())).await.unwrap();
    let again = Store::open(&dir.path().join("db"), Clock::System).unwrap();
    assert_eq!(names(&again).await, ["a"]);
}

#[tokio::test]
async fn a_stopped_store_says_so() {
    let (_dir, store) = scratch();
    store.stop();
    let refused = add(&store, "a", Ok(())).await;
    assert!(matches!(
        refused,
        Err(Rejection::Store(StoreError::Unavailable(Unavailable::Stopped)))
    ));
}

#[tokio::test]
async fn a_writer_that_dies_is_noticed_and_keeps_nobody_waiting() {
    let (_dir, store) = scratch();
    store.check().await.unwrap();
    store.on_commit(|_| panic!("on purpose"));
    let noted = store.write::<_, Never, _>(|tx| {
        tx.note(Note::Desired(shared::ids::DeviceId(uuid::Uuid::nil())));
        Ok(())
    });
    assert!(noted.await.is_err());
    tokio::time::timeout(Duration::from_secs(10), store.ended()).await.unwrap();
    assert!(matches!(store.check().await, Err(StoreError::Unavailable(Unavailable::Stopped))));
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(Store::open(&path, Clock::System).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let refused = Store::open(&path, Clock::System).err();
    assert!(matches!(refused, Some(StoreError::NewerSchema { found: 999, known: 1.. })));
    let said = refused.unwrap().to_string();
    assert!(said.contains("999") && said.contains("upgrade the program"), "{said}");
}

#[tokio::test]
async fn readers_cannot_write() {
    let (_dir, store) = scratch();
    let refused = store.read(|conn| Ok(conn.execute("DELETE FROM users", [])?)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(Unavailable::ReadOnly))));
}

#[tokio::test]
async fn a_queue_that_is_full_refuses_and_then_recovers() {
    let (_dir, store) = scratch();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let blocked = store.shared.writer.submit::<(), Never, _>(Priority::Normal, move |_| {
        let _ = gate.recv();
        Ok(())
    });
    let mut waiting = Vec::new();
    let full = loop {
        match store.shared.writer.submit::<(), Never, _>(Priority::Low, |_| Ok(())) {
            Ok(answer) => waiting.push(answer),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Unavailable(Unavailable::QueueFull)));
    drop(open);
    blocked.unwrap().await.unwrap().unwrap();
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    add(&store, "a", Ok(())).await.unwrap();
}

/// Makes the store believe in a disk of this many pages.
async fn limit(store: &Store, pages: u32) {
    let pragma = format!("PRAGMA max_page_count = {pages}");
    // Nothing is written, so this works whatever the limit is.
    let limited =
        store.write::<_, Never, _>(move |tx| Ok(tx.query_row(&pragma, [], |_| Ok(()))?));
    limited.await.unwrap();
}

#[tokio::test]
async fn a_full_disk_takes_the_group_back_and_is_told() {
    let (_dir, store) = scratch();
    add(&store, "a", Ok(())).await.unwrap();
    limit(&store, 1).await;
    let fill = || {
        store.write::<_, Never, _>(|tx| {
            tx.execute(
                "INSERT INTO users (id, name, created) VALUES ('b', hex(zeroblob(100000)), 0)",
                [],
            )?;
            Ok(())
        })
    };
    let full = fill().await;
    let reason = Unavailable::DiskFull;
    assert!(
        matches!(&full, Err(Rejection::Store(StoreError::Unavailable(found))) if *found == reason),
        "{full:?}"
    );
    assert_eq!(store.trouble(), Some(reason));
    let low = store.write_at::<(), Never, _>(Priority::Low, |_| panic!("must not be tried"));
    assert!(matches!(low.await, Err(Rejection::Store(StoreError::Unavailable(_)))));
    assert_eq!(names(&store).await, ["a"], "what is there can be read");
    limit(&store, 1_000_000).await;
    add(&store, "c", Ok(())).await.unwrap();
    store.write_at::<(), Never, _>(Priority::Low, |_| Ok(())).await.unwrap();
    fill().await.unwrap();
    assert_eq!(names(&store).await.len(), 3);
}

#[tokio::test]
async fn a_small_write_does_not_wait_for_bulk_work_that_has_not_begun() {
    use std::sync::mpsc::{Receiver, channel};
    let (_dir, store) = scratch();
    let queue = |priority, gate: Option<Receiver<()>>| {
        let rule = move |_: &Tx<'_>| {
            gate.into_iter().for_each(|gate| gate.recv().unwrap());
            Ok(())
        };
        store.shared.writer.submit::<(), Never, _>(priority, rule).unwrap()
    };
    let (begin, begins) = channel();
    let (end, ends) = channel();
    let first = queue(Priority::Normal, Some(begins));
    let bulk = queue(Priority::Bulk, Some(ends));
    let small = queue(Priority::Normal, None);
    begin.send(()).unwrap();
    let patience = Duration::from_secs(10);
    for answer in [first, small] {
        tokio::time::timeout(patience, answer).await.expect("it waits").unwrap().unwrap();
    }
    end.send(()).unwrap();
    bulk.await.unwrap().unwrap();
}

#[test]
fn turns_are_shorter_where_the_disk_takes_long_and_grow_again() {
    use crate::store::{SHORTEST_TURN, TURN, WITH_COMMIT, next_turn};
    let slow = |turn| next_turn(turn, WITH_COMMIT * 2);
    let quick = |turn| next_turn(turn, WITH_COMMIT / 2);
    assert_eq!(slow(TURN), TURN / 2);
    assert_eq!(quick(TURN), TURN, "never longer");
    let shortest = (0..20).fold(TURN, |turn, _| slow(turn));
    assert_eq!(shortest, SHORTEST_TURN, "it goes on");
    assert_eq!((0..40).fold(shortest, |turn, _| quick(turn)), TURN);
}
