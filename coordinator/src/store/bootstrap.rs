//! The first start: somebody who may do everything, a first organization, and a way in for devices.

use serde_json::json;
use shared::hex::Sha256;
use shared::ids::{OrganizationId, OrganizationSlug};
use uuid::Uuid;

use super::audit::{Entry, Told, record};
use super::user::{NewApiToken, TokenScope};
use super::{Never, Store, StoreError, Tx, organization, user};

/// Digests of the secrets that the first start makes and prints once.
#[derive(Debug, Clone)]
pub struct FirstStart {
    pub superuser: String,
    pub organization: OrganizationSlug,
    pub api_token: Sha256,
    pub enrolment_token: Sha256,
}

/// An enrolment token to be recorded.
#[derive(Debug, Clone)]
pub struct NewEnrolmentToken {
    pub organization: OrganizationId,
    pub name: String,
    pub digest: Sha256,
    /// Devices that come with it need no operator's leave.
    pub auto_accept: bool,
    /// How many devices may come with it; `None`: any number.
    pub uses: Option<u32>,
    /// Unix milliseconds.
    pub expires: Option<u64>,
}

const DAY_MS: u64 = 24 * 3600 * 1000;
/// What the first start made was printed, and lies in a file: it ends when nobody uses it.
const API_IDLE_MS: u64 = 30 * DAY_MS;
const ENROLMENT_IDLE_MS: u64 = 7 * DAY_MS;

impl Store {
    /// Makes the first superuser and organization; false, and no change, if there is a user.
    pub async fn bootstrap(&self, first: FirstStart) -> Result<bool, StoreError> {
        let made = self.write::<_, Never, _>(move |tx| {
            if tx.prepare("SELECT 1 FROM users")?.exists([])? {
                return Ok(false);
            }
            make(tx, first)?;
            Ok(true)
        });
        Ok(made.await?)
    }

    /// Whether there is such an enrolment token, expired or not: what strangers make up is turned
    /// away without a transaction.
    pub async fn has_enrolment_token(&self, digest: Sha256) -> Result<bool, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT 1 FROM enrolment_tokens WHERE digest = ?1";
            Ok(conn.prepare_cached(sql)?.exists([digest.0])?)
        })
        .await
    }

    /// Whether the first start is over.
    pub async fn has_users(&self) -> Result<bool, StoreError> {
        self.read(|conn| Ok(conn.prepare("SELECT 1 FROM users")?.exists([])?)).await
    }

    /// Answers with the token's id.
    pub async fn create_enrolment_token(&self, new: NewEnrolmentToken) -> Result<Uuid, StoreError> {
        Ok(self
            .write::<_, Never, _>(move |tx| {
                let id = insert_enrolment_token(tx, &new, None)?;
                let told = json!({"id": id, "name": new.name, "auto_accept": new.auto_accept});
                tx.tell(Told::of(Some(new.organization)).after(told));
                Ok(id)
            })
            .await?)
    }
}

fn make(tx: &Tx<'_>, first: FirstStart) -> rusqlite::Result<()> {
    let user = user::insert(tx, &first.superuser, true)?;
    let name = first.organization.to_string();
    let organization = organization::insert(tx, first.organization, name)?;
    let api = NewApiToken {
        user,
        name: "first start".into(),
        digest: first.api_token,
        scope: TokenScope::Write,
        expires: None,
    };
    let token =
        user::insert_token(tx, &api, user::Kind { login: false, idle_ms: Some(API_IDLE_MS) })?;
    let enrolment = NewEnrolmentToken {
        organization: organization.id,
        name: "first start".into(),
        digest: first.enrolment_token,
        auto_accept: true,
        uses: None,
        expires: None,
    };
    let way_in = insert_enrolment_token(tx, &enrolment, Some(ENROLMENT_IDLE_MS))?;
    let told = json!({
        "superuser": { "id": user, "username": first.superuser },
        "organization": { "id": organization.id, "slug": organization.slug },
        "api_token": { "id": token, "name": api.name },
        "enrolment_token": { "id": way_in, "name": enrolment.name, "auto_accept": true },
    });
    let entry = Entry::system("first start", organization.id);
    record(tx, &entry, Some(Told::default().after(told)))
}

pub(super) fn insert_enrolment_token(
    tx: &Tx<'_>,
    new: &NewEnrolmentToken,
    idle_ms: Option<u64>,
) -> rusqlite::Result<Uuid> {
    let id = Uuid::new_v4();
    tx.prepare_cached(
        "INSERT INTO enrolment_tokens
             (id, organization, name, digest, auto_accept, uses_left, created, expires, idle_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute((
        id.to_string(),
        new.organization.to_string(),
        &new.name,
        new.digest.0,
        new.auto_accept,
        new.uses,
        tx.now,
        new.expires,
        idle_ms,
    ))?;
    Ok(id)
}
