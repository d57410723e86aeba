//! The readers: their queue, and what they remember.

use std::sync::mpsc::{Receiver, Sender, channel};

use futures_util::future::{join_all, poll_immediate};

use super::super::*;
use super::writer::{add, names, scratch};
use crate::store::reader::Snapshot;

/// Keeps every reader busy until the senders are dropped.
async fn occupy(store: &Store) -> (Vec<Sender<()>>, Vec<tokio::task::JoinHandle<()>>) {
    let (begun, begins) = channel();
    let (mut gates, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..READERS {
        let (open, gate): (Sender<()>, Receiver<()>) = channel();
        let (store, begun) = (store.clone(), begun.clone());
        gates.push(open);
        busy.push(tokio::spawn(async move {
            let wait = move |_: &Snapshot<'_>| {
                let _ = begun.send(());
                let _ = gate.recv();
                Ok(())
            };
            store.read(wait).await.unwrap();
        }));
    }
    for _ in 0..READERS {
        while begins.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    }
    (gates, busy)
}

#[tokio::test]
async fn a_query_that_panics_costs_only_its_own_answer() {
    let (_dir, store) = scratch();
    for _ in 0..2 * READERS {
        let answer = store.read::<(), _>(|_| panic!("on purpose")).await;
        assert!(matches!(answer, Err(StoreError::Database(_))));
    }
    add(&store, "a", Ok(())).await.unwrap();
    for seen in join_all((0..2 * READERS).map(|_| names(&store))).await {
        assert_eq!(seen, ["a"], "a reader is stuck in its snapshot");
    }
}

#[tokio::test]
async fn a_remembered_count_ends_with_the_next_commit() {
    let (_dir, store) = scratch();
    let counted = async || {
        let count = |conn: &Snapshot<'_>| Ok(conn.count("SELECT count(*) FROM users", &[])?);
        join_all((0..2 * READERS).map(|_| store.read(count))).await
    };
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        add(&store, name, Ok(())).await.unwrap();
        for _ in 0..2 {
            let all = counted().await.into_iter().collect::<Result<Vec<u64>, _>>().unwrap();
            assert!(all.iter().all(|count| *count == index as u64 + 1), "{name}: {all:?}");
        }
    }
}

#[tokio::test]
async fn counts_of_other_values_are_others() {
    let (_dir, store) = scratch();
    add(&store, "a", Ok(())).await.unwrap();
    let count = |name: &'static str| {
        store.read(move |conn| {
            let sql = "SELECT count(*) FROM users WHERE name = ?";
            Ok(conn.count(sql, &[name.to_owned().into()])?)
        })
    };
    for (name, expected) in [("a", 1), ("b", 0), ("a", 1)] {
        assert_eq!(count(name).await.unwrap(), expected, "{name}");
    }
}

#[tokio::test]
async fn more_than_can_wait_are_refused_and_who_has_gone_is_not_worked_for() {
    let (_dir, store) = scratch();
    let (gates, busy) = occupy(&store).await;
    let (ran, runs) = channel();
    let mut waiting = Vec::new();
    let full = loop {
        let ran = ran.clone();
        let mut query = Box::pin(store.read(move |_| Ok(ran.send(()).is_ok())));
        match poll_immediate(&mut query).await {
            None => waiting.push(query),
            Some(answer) => break answer,
        }
    };
    assert!(matches!(full, Err(StoreError::Unavailable(Unavailable::QueueFull))));
    let patient = waiting.pop().unwrap();
    drop((waiting, gates));
    assert!(patient.await.unwrap());
    join_all(busy).await;
    assert_eq!(names(&store).await, Vec::<String>::new());
    assert_eq!(runs.try_iter().count(), 1);
}

#[tokio::test]
async fn what_is_asked_here_is_what_was_committed_last() {
    let (_dir, store) = scratch();
    let count = |seen: &Snapshot<'_>| {
        Ok(seen.query_row("SELECT count(*) FROM users", [], |row| row.get::<_, u64>(0))?)
    };
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        add(&store, name, Ok(())).await.unwrap();
        let here = store.shared.readers.run_here(count).unwrap();
        assert_eq!(here.unwrap(), index as u64 + 1);
    }
}

#[tokio::test]
async fn who_would_have_to_wait_here_asks_elsewhere() {
    let (_dir, store) = scratch();
    let here = std::thread::current().id();
    let meanwhile = store.clone();
    let asked = store.shared.readers.run_here(move |_| {
        let second = meanwhile.shared.readers.run_here(|_| Ok(()));
        Ok(second.is_none())
    });
    assert!(asked.unwrap().unwrap(), "two at once on one connection");
    let busy = move |_: &Snapshot<'_>| match std::thread::current().id() == here {
        true => Err(Unavailable::Busy.into()),
        false => Ok(true),
    };
    assert!(store.read_here(busy).await.unwrap());
}

/// How often SQLite had to plan this statement anew, whose values are others each time.
fn replanned(conn: &rusqlite::Connection) -> Result<i32, StoreError> {
    let sql = "SELECT id FROM users WHERE name LIKE ?1 ORDER BY id LIMIT ?2";
    let mut count = 0;
    for limit in 0..5 {
        let mut statement = conn.prepare_cached(sql)?;
        let found = statement.query_map((format!("{limit}%"), limit), |_| Ok(()))?.count();
        assert_eq!(found, 0);
        count += statement.get_status(rusqlite::StatementStatus::RePrepare);
    }
    Ok(count)
}

#[tokio::test]
async fn a_cached_statement_is_planned_once() {
    let (_dir, store) = scratch();
    assert_eq!(store.read(|seen| replanned(seen)).await.unwrap(), 0);
    assert_eq!(store.read_here(|seen| replanned(seen)).await.unwrap(), 0);
    let written = store.write::<_, Never, _>(|tx| Ok(replanned(tx)?));
    assert_eq!(written.await.unwrap(), 0);
}
