//! The audit log: who changed what, when. Rows are only ever added.

use rusqlite::Row;

use super::{Never, Store, StoreError, Tx};

/// A change that somebody made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `user:<name>`, `device:<id>` or `coordinator`.
    pub actor: String,
    /// A slug, where the change is one organization's.
    pub organization: Option<String>,
    /// What was done, for instance `POST` or `enrol`.
    pub action: String,
    /// To what: a path of the API, or an id.
    pub subject: String,
    pub detail: Option<String>,
}

/// An [`Entry`] with its time in unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub at: u64,
    pub entry: Entry,
}

impl Store {
    /// Records what changes nothing here and is to be known nevertheless.
    pub async fn record_audit(&self, entry: Entry) -> Result<(), StoreError> {
        Ok(self.on_record(entry).write::<_, Never, _>(|_| Ok(())).await?)
    }

    /// The newest entries, newest first.
    pub async fn audit(&self, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        self.read(move |conn| {
            let mut statement =
                conn.prepare_cached("SELECT * FROM audit ORDER BY id DESC LIMIT ?1")?;
            let rows = statement.query_map([limit], recorded)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Within the transaction of the change itself.
pub(super) fn record(tx: &Tx<'_>, entry: &Entry) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO audit (at, actor, organization, action, subject, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        tx.now,
        &entry.actor,
        &entry.organization,
        &entry.action,
        &entry.subject,
        &entry.detail,
    ))?;
    Ok(())
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    Ok(Recorded {
        at: row.get("at")?,
        entry: Entry {
            actor: row.get("actor")?,
            organization: row.get("organization")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            detail: row.get("detail")?,
        },
    })
}
