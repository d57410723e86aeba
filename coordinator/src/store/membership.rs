//! Who belongs to an organization, and as what.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::json;
use shared::ids::{OrganizationId, UserId};

use super::account::raise_epoch;
use super::audit::Told;
use super::column::parsed;
use super::listing::{Found, Order, Rows, Scope, Where, list};
use super::user::{self, Role};
use super::{Rejection, Store, StoreError, Tx};

/// A user as their organization sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub user: UserId,
    pub name: String,
    pub role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefusal {
    #[error("the user is no member")]
    Unknown,
    #[error("there is no such user")]
    UnknownUser,
    #[error("the user is a member already")]
    Known,
}

const FROM: &str = "users t JOIN memberships m ON m.user = t.id";
const COLUMNS: &str = "t.id, t.name, m.role";

impl Store {
    pub async fn members(
        &self,
        organization: OrganizationId,
        order: Order,
        rows: Rows,
    ) -> Result<Found<Member>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.and("m.organization = ?", organization.to_string());
            list(conn, (COLUMNS, FROM), &filter, order, rows, member)
        })
        .await
    }

    pub async fn member(
        &self,
        organization: OrganizationId,
        user: UserId,
    ) -> Result<Option<Member>, StoreError> {
        self.read(move |conn| Ok(find(conn, organization, user)?)).await
    }

    /// Makes the user of this name a member. Who belongs to an organization that `scope` does not
    /// see is not there.
    pub async fn add_member(
        &self,
        scope: Scope,
        organization: OrganizationId,
        name: String,
        role: Role,
    ) -> Result<Member, Rejection<MemberRefusal>> {
        self.write(move |tx| {
            let user = tx
                .prepare_cached("SELECT id FROM users WHERE name = ?1")?
                .query_row([&name], |row| parsed(row, "id"))
                .optional()?
                .ok_or(Rejection::Refused(MemberRefusal::UnknownUser))?;
            if find(tx, organization, user)?.is_some() {
                return Err(Rejection::Refused(MemberRefusal::Known));
            }
            if !is_within(tx, &scope, user)? {
                return Err(Rejection::Refused(MemberRefusal::UnknownUser));
            }
            if !is_organization(tx, organization)? {
                return Err(Rejection::Refused(MemberRefusal::Unknown));
            }
            set(tx, user, organization, role)?;
            tx.tell(
                Told::of(Some(organization))
                    .after(json!({"id": user, "username": name, "role": role.as_str()})),
            );
            Ok(Member { user, name, role })
        })
        .await
    }

    pub async fn change_member(
        &self,
        organization: OrganizationId,
        user: UserId,
        role: Role,
    ) -> Result<Member, Rejection<MemberRefusal>> {
        self.write(move |tx| {
            let before =
                find(tx, organization, user)?.ok_or(Rejection::Refused(MemberRefusal::Unknown))?;
            set(tx, user, organization, role)?;
            tx.tell(told(organization, &before).after(json!({"role": role.as_str()})));
            Ok(Member { role, ..before })
        })
        .await
    }

    pub async fn remove_member(
        &self,
        organization: OrganizationId,
        user: UserId,
    ) -> Result<(), Rejection<MemberRefusal>> {
        self.write(move |tx| {
            let before =
                find(tx, organization, user)?.ok_or(Rejection::Refused(MemberRefusal::Unknown))?;
            tx.prepare_cached("DELETE FROM memberships WHERE user = ?1 AND organization = ?2")?
                .execute((user.to_string(), organization.to_string()))?;
            raise_epoch(tx, user)?;
            tx.tell(told(organization, &before));
            Ok(())
        })
        .await
    }
}

fn told(organization: OrganizationId, before: &Member) -> Told {
    Told::of(Some(organization))
        .before(json!({"id": before.user, "username": before.name, "role": before.role.as_str()}))
}

pub(super) fn set(
    tx: &Tx<'_>,
    user: UserId,
    organization: OrganizationId,
    role: Role,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO memberships (user, organization, role) VALUES (?1, ?2, ?3)
         ON CONFLICT (user, organization) DO UPDATE SET role = excluded.role",
    )?
    .execute((user.to_string(), organization.to_string(), role.as_str()))?;
    Ok(())
}

pub(super) fn is_organization(tx: &Tx<'_>, id: OrganizationId) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM organizations WHERE id = ?1")?.exists([id.to_string()])
}

fn is_within(tx: &Tx<'_>, scope: &Scope, id: UserId) -> rusqlite::Result<bool> {
    if *scope == Scope::Everything {
        return Ok(true);
    }
    let superuser: bool = tx
        .prepare_cached("SELECT superuser FROM users WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))?;
    let elsewhere = user::memberships(tx, id)?;
    Ok(!superuser && elsewhere.iter().all(|of| scope.sees(Some(of.organization))))
}

fn find(
    conn: &Connection,
    organization: OrganizationId,
    user: UserId,
) -> rusqlite::Result<Option<Member>> {
    conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE m.organization = ?1 AND t.id = ?2"
    ))?
    .query_row((organization.to_string(), user.to_string()), member)
    .optional()
}

fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member { user: parsed(row, "id")?, name: row.get("name")?, role: parsed(row, "role")? })
}
