//! Enrolment tokens: the way in for devices of an organization, of which only digests are kept.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json};
use shared::ids::{OrganizationId, OrganizationSlug};
use uuid::Uuid;

use super::audit::Told;
use super::bootstrap::{NewEnrolmentToken, insert_enrolment_token};
use super::column::parsed;
use super::listing::{Found, OF_ORGANIZATION, Order, Rows, Scope, Where, list};
use super::membership::is_organization;
use super::user::ENDS;
use super::{Never, Rejection, Store, StoreError};
use crate::api::time::Time;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    pub id: Uuid,
    pub organization: OrganizationId,
    pub slug: OrganizationSlug,
    pub name: String,
    /// Devices that come with it need no operator's leave.
    pub auto_accept: bool,
    /// Devices that may still come with it; `None`: any number.
    pub uses_left: Option<u32>,
    /// Devices that came with it.
    pub used: u32,
    /// Unix milliseconds, as the two below.
    pub created: u64,
    pub expires: Option<u64>,
    pub last_used: Option<u64>,
}

/// Which of them, in what order.
#[derive(Debug, Clone)]
pub struct EnrolmentTokenList {
    pub scope: Scope,
    pub organization: Option<OrganizationSlug>,
    /// Of the columns `name` and `created`.
    pub order: Order,
    pub rows: Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such token")]
pub struct UnknownToken;

const FROM: &str = "enrolment_tokens t";

fn columns() -> String {
    format!(
        "t.id, t.organization, t.name, t.auto_accept, t.uses_left, t.used, t.created, t.last_used,
         (SELECT slug FROM organizations o WHERE o.id = t.organization) AS slug,
         {ENDS} AS expires"
    )
}

impl Store {
    pub async fn enrolment_tokens(
        &self,
        wanted: EnrolmentTokenList,
    ) -> Result<Found<EnrolmentToken>, StoreError> {
        self.read(move |conn| {
            let mut filter = Where::default();
            filter.visible("t.organization", &wanted.scope);
            filter.and_if(OF_ORGANIZATION, wanted.organization);
            list(conn, (&columns(), FROM), &filter, wanted.order, wanted.rows, token)
        })
        .await
    }

    pub async fn enrolment_token(&self, id: Uuid) -> Result<Option<EnrolmentToken>, StoreError> {
        self.read(move |conn| Ok(find(conn, id)?)).await
    }

    /// Records it and reads it back; `None` where the organization is gone.
    pub async fn make_enrolment_token(
        &self,
        new: NewEnrolmentToken,
    ) -> Result<Option<EnrolmentToken>, StoreError> {
        let made = self.write::<_, Never, _>(move |tx| {
            if !is_organization(tx, new.organization)? {
                tx.leave_off_record();
                return Ok(None);
            }
            let id = insert_enrolment_token(tx, &new, None)?;
            let made = find(tx, id)?;
            tx.tell(Told::of(Some(new.organization)).after(made.as_ref().map(shown)));
            Ok(made)
        });
        Ok(made.await?)
    }

    /// Nobody comes with it any more; who came stays.
    pub async fn delete_enrolment_token(&self, id: Uuid) -> Result<(), Rejection<UnknownToken>> {
        self.write(move |tx| {
            let before = find(tx, id)?.ok_or(Rejection::Refused(UnknownToken))?;
            tx.prepare_cached("DELETE FROM enrolment_tokens WHERE id = ?1")?
                .execute([id.to_string()])?;
            tx.tell(Told::of(Some(before.organization)).before(shown(&before)));
            Ok(())
        })
        .await
    }
}

fn shown(token: &EnrolmentToken) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "auto_accept": token.auto_accept,
        "uses_left": token.uses_left,
        "expires": token.expires.map(Time),
    })
}

fn find(conn: &Connection, id: Uuid) -> rusqlite::Result<Option<EnrolmentToken>> {
    conn.prepare_cached(&format!("SELECT {} FROM {FROM} WHERE t.id = ?1", columns()))?
        .query_row([id.to_string()], token)
        .optional()
}

fn token(row: &Row<'_>) -> rusqlite::Result<EnrolmentToken> {
    Ok(EnrolmentToken {
        id: parsed(row, "id")?,
        organization: parsed(row, "organization")?,
        slug: parsed(row, "slug")?,
        name: row.get("name")?,
        auto_accept: row.get("auto_accept")?,
        uses_left: row.get("uses_left")?,
        used: row.get("used")?,
        created: row.get("created")?,
        expires: row.get("expires")?,
        last_used: row.get("last_used")?,
    })
}
