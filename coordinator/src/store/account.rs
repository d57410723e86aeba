//! Users as those see them who look after them: made, changed, shut out, and let in by password.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::hex::Sha256;
use shared::ids::{OrganizationId, OrganizationSlug, UserId};
use uuid::Uuid;

use super::audit::Told;
use super::column::parsed;
use super::listing::{Found, Order, Rows, Where, list};
use super::note::Note;
use super::user::{self, Kind, Membership, NewApiToken, Role, TokenScope, UserRefusal};
use super::{Never, Rejection, Store, StoreError, Tx, membership};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub name: String,
    pub superuser: bool,
    pub active: bool,
    pub has_password: bool,
    pub memberships: Vec<Membership>,
    /// Unix milliseconds, as the other times.
    pub last_login: Option<u64>,
    pub created: u64,
    pub modified: u64,
}

/// Which users, in what order.
#[derive(Debug, Clone)]
pub struct UserList {
    pub name: Option<String>,
    pub active: Option<bool>,
    pub superuser: Option<bool>,
    pub organization: Option<OrganizationSlug>,
    /// Of the columns `name`, `created` and `modified`.
    pub order: Order,
    pub rows: Rows,
}

/// What to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    pub name: Option<String>,
    pub superuser: Option<bool>,
    pub active: Option<bool>,
    /// A hash; `Some(None)`: no password any more.
    pub password: Option<Option<String>>,
    /// The hash that a change of one's own password was checked against; `None`: it was not.
    pub password_was: Option<Option<String>>,
    /// All of them.
    pub memberships: Option<Vec<(OrganizationId, Role)>>,
}

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
    /// Until when, in unix milliseconds.
    #[error("too many logins are open: end one, or wait")]
    TooMany(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user has {OWN_TOKENS} tokens")]
pub struct TooManyTokens;

/// Tokens of logins that one user may have at a time.
pub const LIVE_LOGINS: u64 = 10;
/// Tokens that one user may have at a time.
pub const OWN_TOKENS: u64 = 100;
/// Logins of one user in a day (UTC).
pub const LOGINS_A_DAY: u64 = 20;
const DAY_MS: u64 = 24 * 3600 * 1000;

const FROM: &str = "users t";
const COLUMNS: &str = "t.id, t.name, t.superuser, t.active, t.password IS NOT NULL AS has_password,
                       t.last_login, t.created, t.modified";

impl Store {
    pub async fn users(&self, wanted: UserList) -> Result<Found<User>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.and_if("t.name = ?", wanted.name);
            filter.and_if("t.active = CAST(? AS INTEGER)", wanted.active.map(u8::from));
            filter.and_if("t.superuser = CAST(? AS INTEGER)", wanted.superuser.map(u8::from));
            filter.and_if(
                "t.id IN (SELECT m.user FROM memberships m
                          JOIN organizations o ON o.id = m.organization WHERE o.slug = ?)",
                wanted.organization,
            );
            let mut found = list(conn, (COLUMNS, FROM), &filter, wanted.order, wanted.rows, user)?;
            for user in &mut found.rows {
                user.memberships = user::memberships(conn, user.id)?;
            }
            Ok(found)
        })
        .await
    }

    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.read(move |conn| Ok(find(conn, id)?)).await
    }

    pub async fn create_account(&self, change: UserChange) -> Result<User, Rejection<UserRefusal>> {
        self.write(move |tx| {
            let name = change.name.clone().unwrap_or_default();
            if is_taken(tx, &name, None)? {
                return refuse(UserRefusal::NameTaken);
            }
            let id = user::insert(tx, &name, change.superuser.unwrap_or(false))?;
            let rest = UserChange { name: None, superuser: None, ..change };
            apply(tx, id, &rest)?;
            let made = found(tx, id)?;
            tx.tell(Told::default().after(shown(&made)));
            Ok(made)
        })
        .await
    }

    /// A changed password, or a user who is not active any more, ends all of the user's tokens.
    pub async fn change_user(
        &self,
        id: UserId,
        change: UserChange,
    ) -> Result<User, Rejection<UserRefusal>> {
        self.write(move |tx| {
            let before = found(tx, id)?;
            if change.password_was.is_some() && change.password_was != Some(password(tx, id)?) {
                return refuse(UserRefusal::PasswordChanged);
            }
            if change.name.as_ref().is_some_and(|name| *name != before.name)
                && is_taken(tx, change.name.as_deref().unwrap_or_default(), Some(id))?
            {
                return refuse(UserRefusal::NameTaken);
            }
            apply(tx, id, &change)?;
            let after = found(tx, id)?;
            keep_a_superuser(tx)?;
            let ended = change.password.is_some() || (before.active && !after.active);
            let narrowed = before.memberships.iter().any(|of| {
                !after.memberships.iter().any(|left| left.organization == of.organization)
            });
            if ended {
                end_tokens(tx, id)?;
            }
            if ended || narrowed || (before.superuser && !after.superuser) {
                raise_epoch(tx, id)?;
            } else if after.active && !before.active {
                admit(tx, id)?;
            }
            let mut now = shown(&after);
            if change.password.is_some() {
                now["password"] = json!("changed");
            }
            tx.tell(Told::default().before(shown(&before)).after(now));
            Ok(after)
        })
        .await
    }

    pub async fn delete_user(&self, id: UserId) -> Result<(), Rejection<UserRefusal>> {
        self.write(move |tx| {
            let before = found(tx, id)?;
            raise_epoch(tx, id)?;
            tx.prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([id.to_string()])?;
            keep_a_superuser(tx)?;
            tx.note(Note::UserRevoked { user: id, epoch: None });
            tx.tell(Told::default().before(shown(&before)));
            Ok(())
        })
        .await
    }

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

    /// The hash of the user's password.
    pub async fn password(&self, id: UserId) -> Result<Option<String>, StoreError> {
        self.read(move |conn| Ok(password(conn, id)?)).await
    }

    /// Opens a login; answers when its token ends, in unix milliseconds.
    pub async fn login(&self, login: Login) -> Result<u64, Rejection<LoginRefusal>> {
        self.write(move |tx| open_login(tx, &login)).await
    }

    /// Forgets tokens that ended long ago.
    pub async fn sweep_tokens(&self) -> Result<usize, StoreError> {
        let swept = self.write::<_, Never, _>(|tx| {
            let sql = "DELETE FROM api_tokens WHERE expires + ?2 <= ?1";
            Ok(tx.prepare_cached(sql)?.execute((tx.now, 30 * DAY_MS))?)
        });
        Ok(swept.await?)
    }
}

fn refuse<T>(refusal: UserRefusal) -> Result<T, Rejection<UserRefusal>> {
    Err(Rejection::Refused(refusal))
}

fn found(tx: &Tx<'_>, id: UserId) -> Result<User, Rejection<UserRefusal>> {
    find(tx, id)?.ok_or(Rejection::Refused(UserRefusal::Unknown))
}

fn password(conn: &Connection, id: UserId) -> rusqlite::Result<Option<String>> {
    let found = conn
        .prepare_cached("SELECT password FROM users WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}

fn is_taken(tx: &Tx<'_>, name: &str, by: Option<UserId>) -> rusqlite::Result<bool> {
    let own = by.map(|id| id.to_string());
    tx.prepare_cached("SELECT 1 FROM users WHERE name = ?1 AND id IS NOT ?2")?.exists((name, own))
}

fn apply(tx: &Tx<'_>, id: UserId, change: &UserChange) -> Result<(), Rejection<UserRefusal>> {
    tx.prepare_cached(
        "UPDATE users SET name = coalesce(?2, name), superuser = coalesce(?3, superuser),
             active = coalesce(?4, active), password = iif(?5, ?6, password), modified = ?7
         WHERE id = ?1",
    )?
    .execute((
        id.to_string(),
        &change.name,
        change.superuser,
        change.active,
        change.password.is_some(),
        change.password.as_ref().and_then(Option::as_ref),
        tx.now,
    ))?;
    let Some(memberships) = &change.memberships else { return Ok(()) };
    tx.prepare_cached("DELETE FROM memberships WHERE user = ?1")?.execute([id.to_string()])?;
    for (organization, role) in memberships {
        if !membership::is_organization(tx, *organization)? {
            return refuse(UserRefusal::UnknownOrganization);
        }
        membership::set(tx, id, *organization, *role)?;
    }
    Ok(())
}

fn superuser_left(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM users WHERE superuser AND active")?.exists([])
}

/// After a change: whoever made it would lock everybody out.
fn keep_a_superuser(tx: &Tx<'_>) -> Result<(), Rejection<UserRefusal>> {
    if superuser_left(tx)? { Ok(()) } else { refuse(UserRefusal::LastSuperuser) }
}

fn end_tokens(tx: &Tx<'_>, id: UserId) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM api_tokens WHERE user = ?1")?.execute([id.to_string()])?;
    Ok(())
}

/// Ends the user's MQTT tokens and the lines that were opened with them.
pub(super) fn raise_epoch(tx: &Tx<'_>, id: UserId) -> rusqlite::Result<()> {
    let (epoch, active): (u32, bool) = tx
        .prepare_cached("UPDATE users SET epoch = epoch + 1 WHERE id = ?1 RETURNING epoch, active")?
        .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    tx.note(Note::UserRevoked { user: id, epoch: active.then_some(epoch) });
    Ok(())
}

fn admit(tx: &Tx<'_>, id: UserId) -> rusqlite::Result<()> {
    let epoch = tx
        .prepare_cached("SELECT epoch FROM users WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))?;
    tx.note(Note::Admitted { subject: id.0, epoch });
    Ok(())
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
        return Err(Rejection::Refused(LoginRefusal::TooMany((day + 1) * DAY_MS)));
    }
    let (live, next_end): (u64, Option<u64>) = tx
        .prepare_cached(
            "SELECT count(*), min(expires) FROM api_tokens
             WHERE user = ?1 AND kind = 'login' AND expires > ?2",
        )?
        .query_row((&id, tx.now), |row| Ok((row.get(0)?, row.get(1)?)))?;
    if live >= LIVE_LOGINS {
        let until = next_end.unwrap_or(tx.now + login.lifetime_ms);
        return Err(Rejection::Refused(LoginRefusal::TooMany(until)));
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
    tx.tell(Told::default().after(json!({ "login": login.user, "expires": expires })));
    Ok(expires)
}

/// For the log.
fn shown(user: &User) -> Value {
    let of = |of: &Membership| json!({"organization": of.slug, "role": of.role.as_str()});
    json!({
        "id": user.id,
        "username": user.name,
        "superuser": user.superuser,
        "active": user.active,
        "memberships": user.memberships.iter().map(of).collect::<Vec<_>>(),
    })
}

pub(super) fn find(conn: &Connection, id: UserId) -> rusqlite::Result<Option<User>> {
    let found = conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE t.id = ?1"))?
        .query_row([id.to_string()], user)
        .optional()?;
    let Some(mut found) = found else { return Ok(None) };
    found.memberships = user::memberships(conn, id)?;
    Ok(Some(found))
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        superuser: row.get("superuser")?,
        active: row.get("active")?,
        has_password: row.get("has_password")?,
        memberships: Vec::new(),
        last_login: row.get("last_login")?,
        created: row.get("created")?,
        modified: row.get("modified")?,
    })
}

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
                "t.id, t.name, t.scope, t.kind = 'login' AS login, t.created, t.last_used,
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
    ) -> Result<OwnToken, Rejection<TooManyTokens>> {
        self.write(move |tx| {
            if live_tokens(tx, new.user, tx.now)? >= OWN_TOKENS {
                return Err(Rejection::Refused(TooManyTokens));
            }
            let id = user::insert_token(tx, &new, Kind::default())?;
            let told = json!({"id": id, "name": new.name, "scope": new.scope.as_str(), "expires": new.expires});
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

    /// Ends a token of the user's, and the MQTT tokens that may have been got by it. False where
    /// they have none of this id.
    pub async fn delete_own_token(&self, user: UserId, id: Uuid) -> Result<bool, StoreError> {
        let deleted = self.write::<_, Never, _>(move |tx| {
            let gone: Option<String> = tx
                .prepare_cached(
                    "DELETE FROM api_tokens WHERE id = ?1 AND user = ?2 RETURNING name",
                )?
                .query_row((id.to_string(), user.to_string()), |row| row.get(0))
                .optional()?;
            if let Some(name) = &gone {
                raise_epoch(tx, user)?;
                tx.tell(Told::default().before(json!({"id": id, "name": name})));
            }
            Ok(gone.is_some())
        });
        Ok(deleted.await?)
    }
}

fn live_tokens(conn: &Connection, user: UserId, now: u64) -> rusqlite::Result<u64> {
    let ends = user::ENDS;
    conn.prepare_cached(&format!(
        "SELECT count(*) FROM api_tokens t
         WHERE t.user = ?1 AND coalesce({ends}, 9000000000000000) > ?2"
    ))?
    .query_row((user.to_string(), now), |row| row.get(0))
}

fn own_token(row: &Row<'_>) -> rusqlite::Result<OwnToken> {
    Ok(OwnToken {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        scope: parsed(row, "scope")?,
        login: row.get("login")?,
        created: row.get("created")?,
        expires: row.get("expires")?,
        last_used: row.get("last_used")?,
    })
}
