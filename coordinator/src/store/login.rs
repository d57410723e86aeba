//! Logins: a password lets a user in for a while, so often and no more.

use rusqlite::OptionalExtension;
use serde_json::json;
use shared::hex::Sha256;
use shared::ids::UserId;

use super::audit::Told;
use super::column::parsed;
use super::user::{self, Kind, NewApiToken, TokenScope};
use super::{Rejection, Store, StoreError, Tx};
use crate::api::time::Time;

/// What a login is checked against.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: UserId,
    /// A hash; `None`: nobody logs in.
    pub password: Option<String>,
}

/// A password that was right.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: UserId,
    /// The hash that it was checked against.
    pub password: String,
    /// Of the token to be.
    pub digest: Sha256,
    pub lifetime_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefusal {
    #[error("the user or the password changed meanwhile")]
    Changed,
    /// Until when, in unix milliseconds, as the next.
    #[error("{LIVE_LOGINS} logins are live")]
    TooManyLive(u64),
    #[error("{LOGINS_A_DAY} logins were made today")]
    TooManyToday(u64),
}

/// Tokens of logins that one user may have at a time.
pub const LIVE_LOGINS: u64 = 10;
/// Logins of one user in a day (UTC).
pub const LOGINS_A_DAY: u64 = 20;
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Store {
    /// Of the active user of this name.
    pub async fn credentials(&self, name: String) -> Result<Option<Credentials>, StoreError> {
        self.read(move |conn| {
            let found = conn
                .prepare_cached("SELECT id, password FROM users WHERE name = ?1 AND active")?
                .query_row([name], |row| {
                    Ok(Credentials { user: parsed(row, "id")?, password: row.get("password")? })
                })
                .optional()?;
            Ok(found)
        })
        .await
    }

    /// Opens a login; answers when its token ends, in unix milliseconds.
    pub async fn login(&self, login: Login) -> Result<u64, Rejection<LoginRefusal>> {
        self.write(move |tx| open_login(tx, &login)).await
    }
}

fn open_login(tx: &Tx<'_>, login: &Login) -> Result<u64, Rejection<LoginRefusal>> {
    let id = login.user.to_string();
    let day = tx.now / DAY_MS;
    let standing: Option<(Option<String>, u64, u64)> = tx
        .prepare_cached("SELECT password, login_day, logins FROM users WHERE id = ?1 AND active")?
        .query_row([&id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((Some(password), last_day, logins)) = standing else {
        return Err(Rejection::Refused(LoginRefusal::Changed));
    };
    if password != login.password {
        return Err(Rejection::Refused(LoginRefusal::Changed));
    }
    let logins = if last_day == day { logins } else { 0 };
    if logins >= LOGINS_A_DAY {
        return Err(Rejection::Refused(LoginRefusal::TooManyToday((day + 1) * DAY_MS)));
    }
    let (live, next_end): (u64, Option<u64>) = tx
        .prepare_cached(
            "SELECT count(*), min(expires) FROM api_tokens
             WHERE user = ?1 AND kind = 'login' AND expires > ?2",
        )?
        .query_row((&id, tx.now), |row| Ok((row.get(0)?, row.get(1)?)))?;
    if live >= LIVE_LOGINS {
        let until = next_end.unwrap_or(tx.now + login.lifetime_ms);
        return Err(Rejection::Refused(LoginRefusal::TooManyLive(until)));
    }
    tx.prepare_cached(
        "UPDATE users SET last_login = ?2, login_day = ?3, logins = ?4 WHERE id = ?1",
    )?
    .execute((&id, tx.now, day, logins + 1))?;
    let expires = tx.now + login.lifetime_ms;
    let new = NewApiToken {
        user: login.user,
        name: "login".into(),
        digest: login.digest,
        scope: TokenScope::Write,
        expires: Some(expires),
    };
    user::insert_token(tx, &new, Kind { login: true, idle_ms: None })?;
    tx.tell(Told::default().after(json!({ "login": login.user, "expires": Time(expires) })));
    Ok(expires)
}
