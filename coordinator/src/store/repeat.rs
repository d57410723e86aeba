//! Requests that carry an Idempotency-Key: each is carried out once, whatever becomes of its answer.
//!
//! A request is noted before it runs, and marked done in the transaction of its own change
//! ([`Store::once`]), together with the answer that comes of it ([`Store::answering`]), which is kept
//! for a day. So a crash leaves no doubt whether it was carried out, and takes no answer.

use std::any::Any;
use std::sync::Arc;

use rusqlite::OptionalExtension;
use serde::Serialize;
use shared::hex::{Sha256, sha256};
use shared::ids::UserId;

use super::{Never, Rejection, Store, StoreError, Tx};

/// How long answers are kept.
pub const KEPT_MS: u64 = 24 * 3600 * 1000;
/// Expired keys that go with each new one.
const PIECE: u32 = 250;
/// Bytes of an answer that is kept; a longer one is given once.
const ANSWER: usize = 64 << 10;
/// Keys that one user may have at a time.
const OF_ONE_USER: u64 = 10_000;

/// A request, by its user and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    pub user: UserId,
    pub key: String,
    /// As [`Repeat::route`] makes it.
    pub route: String,
    /// Of the body.
    pub digest: Sha256,
}

impl Repeat {
    /// Of a method and a path with its query, which may be long.
    pub fn route(method: &str, path_and_query: &str) -> String {
        sha256(format!("{method} {path_and_query}").as_bytes()).to_string()
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
}

impl Answered {
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        Self { status, body: serde_json::to_vec(body).unwrap_or_default() }
    }

    fn is_kept(&self) -> bool {
        (1..=ANSWER).contains(&self.body.len())
    }
}

/// Makes the answer of what a verb returns.
type Answers = Arc<dyn Fn(&dyn Any) -> Option<Answered> + Send + Sync>;

/// The request that a change is made by.
#[derive(Clone)]
pub(super) struct Once {
    user: UserId,
    key: Arc<str>,
    answers: Option<Answers>,
}

/// What is known of a request that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing, or that it came to nothing: it may run.
    New,
    Answered(Answered),
    /// It was carried out, and its answer was too long to keep.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RepeatRefused {
    #[error("the key was used for another request")]
    Another,
    #[error("too many keys in a day")]
    TooMany,
}

impl Store {
    /// Notes the request, or tells what became of it. Ask for one key at a time.
    pub async fn begin_repeat(&self, repeat: Repeat) -> Result<Known, Rejection<RepeatRefused>> {
        self.write(move |tx| begin(tx, &repeat)).await
    }

    /// The same store, whose next change is the request's: both commit together.
    pub fn once(&self, repeat: &Repeat) -> Self {
        let once = Once { user: repeat.user, key: repeat.key.as_str().into(), answers: None };
        Self { shared: self.shared.clone(), entry: self.entry.clone(), once: Some(once) }
    }

    /// The same store, whose next change answers its request: what it returns becomes the answer
    /// that is kept, in the same transaction.
    pub fn answering<T: 'static>(
        mut self,
        answer: impl Fn(&T) -> Answered + Send + Sync + 'static,
    ) -> Self {
        if let Some(once) = &mut self.once {
            once.answers = Some(Arc::new(move |done| done.downcast_ref().map(&answer)));
        }
        self
    }

    /// Forgets a request that came to nothing.
    pub async fn forget_repeat(&self, repeat: Repeat) -> Result<(), StoreError> {
        let forgotten = self.write::<_, Never, _>(move |tx| {
            tx.prepare_cached("DELETE FROM repeats WHERE user = ?1 AND key = ?2 AND NOT done")?
                .execute((repeat.user.to_string(), &repeat.key))?;
            Ok(())
        });
        Ok(forgotten.await?)
    }
}

fn begin(tx: &Tx<'_>, repeat: &Repeat) -> Result<Known, Rejection<RepeatRefused>> {
    let user = repeat.user.to_string();
    let over = tx.now.saturating_sub(KEPT_MS);
    tx.prepare_cached(
        "DELETE FROM repeats WHERE created <= ?1 AND (user, key) IN (
             SELECT ?2, ?3 UNION ALL
             SELECT * FROM (SELECT user, key FROM repeats WHERE created <= ?1 LIMIT ?4))",
    )?
    .execute((over, &user, &repeat.key, PIECE))?;
    let found = tx
        .prepare_cached(
            "SELECT route, digest, done, status, body FROM repeats WHERE user = ?1 AND key = ?2",
        )?
        .query_row((&user, &repeat.key), |row| {
            let same = row.get::<_, String>("route")? == repeat.route
                && row.get::<_, [u8; 32]>("digest")? == repeat.digest.0;
            let status: Option<u16> = row.get("status")?;
            let known = match (status, row.get("done")?) {
                (Some(status), _) => Known::Answered(Answered { status, body: row.get("body")? }),
                (None, true) => Known::Done,
                (None, false) => Known::New,
            };
            Ok((same, known))
        })
        .optional()?;
    match found {
        Some((true, known)) => return Ok(known),
        Some((false, _)) => return Err(Rejection::Refused(RepeatRefused::Another)),
        None => {}
    }
    let count: u64 = tx
        .prepare_cached("SELECT count(*) FROM repeats WHERE user = ?1")?
        .query_row([&user], |row| row.get(0))?;
    if count >= OF_ONE_USER {
        return Err(Rejection::Refused(RepeatRefused::TooMany));
    }
    tx.prepare_cached(
        "INSERT INTO repeats (user, key, route, digest, created) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((user, &repeat.key, &repeat.route, repeat.digest.0, tx.now))?;
    Ok(Known::New)
}

/// Within the transaction of the change itself, which came to `done`.
pub(super) fn done(tx: &Tx<'_>, once: &Once, done: &dyn Any) -> rusqlite::Result<()> {
    let answered = once.answers.as_ref().and_then(|answer| answer(done));
    let (status, body) =
        answered.filter(Answered::is_kept).map(|answered| (answered.status, answered.body)).unzip();
    tx.prepare_cached(
        "UPDATE repeats SET done = 1, status = ?3, body = ?4 WHERE user = ?1 AND key = ?2",
    )?
    .execute((once.user.to_string(), once.key.as_ref(), status, body))?;
    Ok(())
}
