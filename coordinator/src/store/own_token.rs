//! API tokens as their users see them: their own.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::json;
use shared::ids::UserId;
use uuid::Uuid;

use super::account::raise_epoch;
use super::audit::Told;
use super::column::parsed;
use super::listing::{Found, Order, Rows, Where, list};
use super::user::{self, Kind, NewApiToken, TokenScope};
use super::{Never, Rejection, Store, StoreError};
use crate::api::time::Time;

/// A token of a user's own, of which only the digest is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnToken {
    pub id: Uuid,
    pub name: String,
    pub scope: TokenScope,
    /// Whether it came of a password.
    pub login: bool,
    /// Unix milliseconds, as the two below.
    pub created: u64,
    pub expires: Option<u64>,
    pub last_used: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnTokenRefusal {
    #[error("the user has {OWN_TOKENS} tokens")]
    TooMany,
    #[error("the device has {DEVICE_TOKENS} tokens")]
    TooManyOfDevice,
    #[error("the user has no such token")]
    Unknown,
    #[error("there is no such user any more")]
    UnknownUser,
}

/// Tokens that one user may have at a time, those of devices' scripts aside.
pub const OWN_TOKENS: u64 = 100;
/// Tokens that one device's scripts may have at a time.
pub const DEVICE_TOKENS: u64 = 4;
/// How long a token that has ended is still there.
const SWEPT_AFTER_MS: u64 = 30 * 24 * 3600 * 1000;

impl Store {
    /// The user's tokens that are still good.
    pub async fn own_tokens(
        &self,
        user: UserId,
        order: Order,
        rows: Rows,
    ) -> Result<Found<OwnToken>, StoreError> {
        let now = self.clock().now();
        self.read(move |conn| {
            let ends = user::ENDS;
            let columns = format!(
                "t.id, t.name, t.scope, t.device, t.kind = 'login' AS login, t.created, t.last_used,
                 {ends} AS expires"
            );
            let mut filter = Where::default();
            filter.and("t.user = ?", user.to_string());
            filter.and(
                &format!("coalesce({ends}, 9000000000000000) > ?"),
                i64::try_from(now).unwrap_or(i64::MAX),
            );
            list(conn, (&columns, "api_tokens t"), &filter, order, rows, own_token)
        })
        .await
    }

    /// Makes a token of the user's own; answers with its id and time.
    pub async fn create_own_token(
        &self,
        new: NewApiToken,
    ) -> Result<OwnToken, Rejection<OwnTokenRefusal>> {
        self.write(move |tx| {
            let (condition, key, most, refusal) = match new.scope.device() {
                None => {
                    let own = "t.user = ?1 AND t.device IS NULL";
                    (own, new.user.to_string(), OWN_TOKENS, OwnTokenRefusal::TooMany)
                }
                Some(device) => {
                    let refusal = OwnTokenRefusal::TooManyOfDevice;
                    ("t.device = ?1", device.to_string(), DEVICE_TOKENS, refusal)
                }
            };
            let has_user = tx
                .prepare_cached("SELECT 1 FROM users WHERE id = ?1")?
                .exists([new.user.to_string()])?;
            if !has_user {
                return Err(Rejection::Refused(OwnTokenRefusal::UnknownUser));
            }
            if live_tokens(tx, condition, &key, tx.now)? >= most {
                return Err(Rejection::Refused(refusal));
            }
            let id = user::insert_token(tx, &new, Kind::default())?;
            let told = json!({"id": id, "name": new.name, "scope": new.scope.as_str(),
                "device": new.scope.device(), "expires": new.expires.map(Time)});
            tx.tell(Told::default().after(told));
            Ok(OwnToken {
                id,
                name: new.name,
                scope: new.scope,
                login: false,
                created: tx.now,
                expires: new.expires,
                last_used: None,
            })
        })
        .await
    }

    /// Ends a token of the user's, and the MQTT tokens that may have been got by it.
    pub async fn delete_own_token(
        &self,
        user: UserId,
        id: Uuid,
    ) -> Result<(), Rejection<OwnTokenRefusal>> {
        self.write(move |tx| {
            let name: String = tx
                .prepare_cached(
                    "DELETE FROM api_tokens WHERE id = ?1 AND user = ?2 RETURNING name",
                )?
                .query_row((id.to_string(), user.to_string()), |row| row.get(0))
                .optional()?
                .ok_or(Rejection::Refused(OwnTokenRefusal::Unknown))?;
            raise_epoch(tx, user)?;
            tx.tell(Told::default().before(json!({"id": id, "name": name})));
            Ok(())
        })
        .await
    }

    /// Forgets tokens that ended long ago.
    pub async fn sweep_tokens(&self) -> Result<usize, StoreError> {
        let swept = self.write::<_, Never, _>(|tx| {
            let sql = "DELETE FROM api_tokens WHERE expires + ?2 <= ?1";
            Ok(tx.prepare_cached(sql)?.execute((tx.now, SWEPT_AFTER_MS))?)
        });
        Ok(swept.await?)
    }
}

fn live_tokens(conn: &Connection, of: &str, key: &str, now: u64) -> rusqlite::Result<u64> {
    let ends = user::ENDS;
    conn.prepare_cached(&format!(
        "SELECT count(*) FROM api_tokens t
         WHERE {of} AND coalesce({ends}, 9000000000000000) > ?2"
    ))?
    .query_row((key, now), |row| row.get(0))
}

fn own_token(row: &Row<'_>) -> rusqlite::Result<OwnToken> {
    Ok(OwnToken {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        scope: TokenScope::of(row)?,
        login: row.get("login")?,
        created: row.get("created")?,
        expires: row.get("expires")?,
        last_used: row.get("last_used")?,
    })
}
