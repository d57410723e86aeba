//! Users as those see them who look after them: made, changed and shut out.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::ids::{OrganizationId, OrganizationSlug, UserId};

use super::audit::{Entry, Told, record};
use super::column::parsed;
use super::listing::{Found, Order, Rows, Where, list};
use super::note::Note;
use super::user::{self, Membership, Role, UserRefusal};
use super::{Rejection, Store, StoreError, Tx, membership};

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
        let entry = self.entry.clone();
        self.write(move |tx| {
            let name = change.name.clone().unwrap_or_default();
            if is_taken(tx, &name, None)? {
                return refuse(UserRefusal::NameTaken);
            }
            let id = user::insert(tx, &name, change.superuser.unwrap_or(false))?;
            let rest = UserChange { name: None, superuser: None, ..change };
            apply(tx, id, &rest)?;
            let made = found(tx, id)?;
            tell_organizations(tx, entry.as_deref(), None, Some(&made))?;
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
        let entry = self.entry.clone();
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
            tell_organizations(tx, entry.as_deref(), Some(&before), Some(&after))?;
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
        let entry = self.entry.clone();
        self.write(move |tx| {
            let before = found(tx, id)?;
            raise_epoch(tx, id)?;
            tx.prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([id.to_string()])?;
            keep_a_superuser(tx)?;
            tx.note(Note::UserRevoked { user: id, epoch: None });
            tell_organizations(tx, entry.as_deref(), Some(&before), None)?;
            tx.tell(Told::default().before(shown(&before)));
            Ok(())
        })
        .await
    }

    /// The hash of the user's password.
    pub async fn password(&self, id: UserId) -> Result<Option<String>, StoreError> {
        self.read(move |conn| Ok(password(conn, id)?)).await
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

/// A user is no organization's, and administrators see what is their organization's: each that the user belongs to, or
/// belonged to, has an entry of its own that says what became of its member.
fn tell_organizations(
    tx: &Tx<'_>,
    entry: Option<&Entry>,
    before: Option<&User>,
    after: Option<&User>,
) -> rusqlite::Result<()> {
    let Some(entry) = entry else { return Ok(()) };
    let memberships = before.into_iter().chain(after).flat_map(|user| &user.memberships);
    let organizations: BTreeSet<_> = memberships.map(|of| of.organization).collect();
    for id in organizations {
        let as_member = |user: Option<&User>| user.and_then(|user| member(user, id));
        let (before, after) = (as_member(before), as_member(after));
        if before != after {
            let told = Told { organization: Some(id), before, after };
            let entry =
                Entry { detail: Some("a member of the organization".into()), ..entry.clone() };
            record(tx, &entry, Some(told))?;
        }
    }
    Ok(())
}

/// What of a user is the organization's to know.
fn member(user: &User, of: OrganizationId) -> Option<Value> {
    let membership = user.memberships.iter().find(|membership| membership.organization == of)?;
    Some(json!({
        "id": user.id,
        "username": user.name,
        "active": user.active,
        "role": membership.role.as_str(),
    }))
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
