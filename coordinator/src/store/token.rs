//! Tokens of users and for enrolment, seen together: what there is, and its end.

use rusqlite::{OptionalExtension, Row};
use serde_json::json;
use shared::ids::UserId;
use uuid::Uuid;

use super::account::raise_epoch;
use super::audit::Told;
use super::column::parsed;
use super::user::ENDS;
use super::{Rejection, Store, StoreError, Tx};

/// A token, of which only the digest is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub id: Uuid,
    /// `read`, `write`, `report` or `enrol`.
    pub scope: String,
    /// The user it speaks for, or the organization that devices come to with it.
    pub of: String,
    pub name: String,
    /// Unix milliseconds, as the two below.
    pub created: u64,
    pub expires: Option<u64>,
    pub last_used: Option<u64>,
}

impl Store {
    /// All tokens, oldest first.
    pub async fn tokens(&self) -> Result<Vec<Issued>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT t.id, iif(t.device IS NULL, t.scope, 'report') AS scope, u.name AS of, t.name, t.created AS created, {ENDS} AS expires,
                     t.last_used
                 FROM api_tokens t JOIN users u ON u.id = t.user
                 UNION ALL
                 SELECT t.id, 'enrol', o.slug, t.name, t.created, {ENDS}, t.last_used
                 FROM enrolment_tokens t JOIN organizations o ON o.id = t.organization
                 ORDER BY created"
            ))?;
            let rows = statement.query_map([], issued)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The active user of this name.
    pub async fn user_named(&self, name: String) -> Result<Option<UserId>, StoreError> {
        self.read(move |conn| {
            let mut statement =
                conn.prepare_cached("SELECT id FROM users WHERE name = ?1 AND active")?;
            let found = statement.query_map([name], |row| parsed(row, "id"))?.next().transpose()?;
            Ok(found)
        })
        .await
    }

    /// Ends a token, and with a user's the MQTT tokens that may have been got by it. False where
    /// there is none of this id.
    pub async fn revoke_token(&self, id: Uuid) -> Result<bool, StoreError> {
        match self.write(move |tx| revoke(tx, id)).await {
            Ok(()) => Ok(true),
            // What does not happen leaves no entry in the log.
            Err(Rejection::Refused(NoToken)) => Ok(false),
            Err(Rejection::Store(error)) => Err(error),
        }
    }
}

struct NoToken;

fn revoke(tx: &Tx<'_>, id: Uuid) -> Result<(), Rejection<NoToken>> {
    let text = id.to_string();
    let user = tx
        .prepare_cached("SELECT user FROM api_tokens WHERE id = ?1")?
        .query_row([&text], |row| parsed(row, "user"))
        .optional()?;
    if let Some(user) = user {
        raise_epoch(tx, user)?;
    }
    let gone = tx.prepare_cached("DELETE FROM api_tokens WHERE id = ?1")?.execute([&text])?
        + tx.prepare_cached("DELETE FROM enrolment_tokens WHERE id = ?1")?.execute([&text])?;
    if gone == 0 {
        return Err(Rejection::Refused(NoToken));
    }
    tx.tell(Told::default().before(json!({"id": id, "user": user})));
    Ok(())
}

fn issued(row: &Row<'_>) -> rusqlite::Result<Issued> {
    Ok(Issued {
        id: parsed(row, "id")?,
        scope: row.get("scope")?,
        of: row.get("of")?,
        name: row.get("name")?,
        created: row.get("created")?,
        expires: row.get("expires")?,
        last_used: row.get("last_used")?,
    })
}
