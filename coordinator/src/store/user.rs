//! Users, what they may do where, and their API tokens, of which only digests are kept.

use rusqlite::{Connection, OptionalExtension, Row, ToSql};
use shared::hex::Sha256;
use shared::ids::{DeviceId, OrganizationId, OrganizationSlug, UserId};
use uuid::Uuid;

use super::audit::Told;
use super::column::{parsed, parsed_opt};
use super::listing::Scope;
use super::note::Note;
use super::{Never, Priority, Rejection, Store, StoreError, Tx, membership};
use crate::api::time::Time;

/// What a user may do in an organization; each includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Operator,
    Administrator,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenScope {
    Read,
    Write,
    /// For the script of one device: to see its upgrades and to report of them, and nothing else.
    Report(DeviceId),
}

impl TokenScope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Report(_) => "report",
        }
    }

    pub fn device(self) -> Option<DeviceId> {
        match self {
            Self::Read | Self::Write => None,
            Self::Report(device) => Some(device),
        }
    }

    /// From the columns `scope` and `device`.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(match (parsed_opt(row, "device")?, row.get_ref("scope")?.as_str()?) {
            (Some(device), _) => Self::Report(device),
            (None, "write") => Self::Write,
            (None, _) => Self::Read,
        })
    }

    /// What the column takes: no more than a token for reading may.
    fn column(self) -> &'static str {
        match self {
            Self::Read | Self::Report(_) => "read",
            Self::Write => "write",
        }
    }
}

macro_rules! from_column {
    ($type:ty, $($variant:expr),+) => {
        impl std::str::FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let known = [$($variant),+].into_iter().find(|known| known.as_str() == text);
                known.ok_or_else(|| format!("{text:?} is none of ours"))
            }
        }
    };
}
from_column!(Role, Role::Viewer, Role::Operator, Role::Administrator);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub organization: OrganizationId,
    pub slug: OrganizationSlug,
    pub role: Role,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    pub name: String,
    pub superuser: bool,
    /// Of the user's MQTT tokens.
    pub epoch: u32,
    pub token: Uuid,
    pub scope: TokenScope,
    /// Whether the token came of a password.
    pub login: bool,
    /// When the token ends, in unix milliseconds.
    pub expires: Option<u64>,
    pub memberships: Vec<Membership>,
    last_used: Option<u64>,
}

impl Principal {
    /// Whose rows they may see.
    pub fn sees(&self) -> Scope {
        if self.superuser {
            return Scope::Everything;
        }
        Scope::Organizations(self.memberships.iter().map(|of| of.organization).collect())
    }

    /// Whether they have at least this role; what is shared (`None`) is the superuser's.
    pub fn has(&self, role: Role, organization: Option<OrganizationId>) -> bool {
        self.superuser
            || self
                .memberships
                .iter()
                .any(|of| Some(of.organization) == organization && of.role >= role)
    }
}

/// A token to be recorded; the token itself is shown once and not kept.
#[derive(Debug, Clone)]
pub struct NewApiToken {
    pub user: UserId,
    pub name: String,
    pub digest: Sha256,
    pub scope: TokenScope,
    /// Unix milliseconds.
    pub expires: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserRefusal {
    #[error("a user of this name exists")]
    NameTaken,
    #[error("there is no such user")]
    Unknown,
    #[error("there is no such organization")]
    UnknownOrganization,
    #[error("nobody would be left who may do everything: make another superuser first")]
    LastSuperuser,
    #[error("the password was changed meanwhile")]
    PasswordChanged,
}

/// `last_used` is for people: a minute is fine enough.
const LAST_USED_MS: u64 = 60_000;

impl Store {
    pub async fn create_user(
        &self,
        name: String,
        superuser: bool,
    ) -> Result<UserId, Rejection<UserRefusal>> {
        self.write(move |tx| {
            let taken =
                tx.prepare_cached("SELECT 1 FROM users WHERE name = ?1")?.exists([&name])?;
            if taken {
                return Err(Rejection::Refused(UserRefusal::NameTaken));
            }
            Ok(insert(tx, &name, superuser)?)
        })
        .await
    }

    /// Gives the user a role in an organization, or another one.
    pub async fn set_role(
        &self,
        user: UserId,
        organization: OrganizationId,
        role: Role,
    ) -> Result<(), StoreError> {
        let set =
            self.write::<_, Never, _>(move |tx| Ok(membership::set(tx, user, organization, role)?));
        Ok(set.await?)
    }

    /// Answers with the token's id.
    pub async fn create_api_token(&self, new: NewApiToken) -> Result<Uuid, StoreError> {
        Ok(self
            .write::<_, Never, _>(move |tx| {
                let id = insert_token(tx, &new, Kind::default())?;
                tx.tell(Told::default().after(serde_json::json!({
                    "id": id,
                    "user": new.user,
                    "name": new.name,
                    "scope": new.scope.as_str(),
                    "expires": new.expires.map(Time),
                })));
                Ok(id)
            })
            .await?)
    }

    /// The active user whose unexpired token has this digest.
    pub async fn authenticate(&self, digest: Sha256) -> Result<Option<Principal>, StoreError> {
        let now = self.clock().now();
        let principal = self.read_here(move |conn| Ok(find(conn, digest, now)?)).await?;
        if let Some(principal) = &principal
            && principal.last_used.is_none_or(|used| used + LAST_USED_MS <= now)
        {
            self.touch_token(principal.token);
        }
        Ok(principal)
    }

    fn touch_token(&self, token: Uuid) {
        // Nobody waits for it, and a full queue may drop it.
        let _ = self.shared.writer.submit::<(), Never, _>(Priority::Low, move |tx| {
            tx.prepare_cached("UPDATE api_tokens SET last_used = ?2 WHERE id = ?1")?
                .execute((token.to_string(), tx.now))?;
            Ok(())
        });
    }

    /// The token's user as they stand now; `None` once either is no longer good.
    pub async fn principal(&self, token: Uuid) -> Result<Option<Principal>, StoreError> {
        let now = self.clock().now();
        self.read(move |conn| Ok(find_by(conn, "t.id = ?1", token.to_string(), now)?)).await
    }

    /// Active users and the epoch of their MQTT tokens.
    pub async fn admitted_users(&self) -> Result<Vec<(UserId, u32)>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached("SELECT id, epoch FROM users WHERE active")?;
            let rows =
                statement.query_map([], |row| Ok((parsed(row, "id")?, row.get("epoch")?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

pub(super) fn insert(tx: &Tx<'_>, name: &str, superuser: bool) -> rusqlite::Result<UserId> {
    let id = UserId(Uuid::new_v4());
    tx.prepare_cached(
        "INSERT INTO users (id, name, superuser, created, modified) VALUES (?1, ?2, ?3, ?4, ?4)",
    )?
    .execute((id.to_string(), name, superuser, tx.now))?;
    tx.note(Note::Admitted { subject: id.0, epoch: 1 });
    Ok(id)
}

/// How a token comes about, and how it may end by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kind {
    /// By a password.
    pub login: bool,
    /// It ends when it was not used for so long.
    pub idle_ms: Option<u64>,
}

pub(super) fn insert_token(tx: &Tx<'_>, new: &NewApiToken, kind: Kind) -> rusqlite::Result<Uuid> {
    let id = Uuid::new_v4();
    tx.prepare_cached(
        "INSERT INTO api_tokens (id, user, name, digest, scope, created, expires, kind, idle_ms, device)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute((
        id.to_string(),
        new.user.to_string(),
        &new.name,
        new.digest.0,
        new.scope.column(),
        tx.now,
        new.expires,
        if kind.login { "login" } else { "named" },
        kind.idle_ms,
        new.scope.device().map(|device| device.to_string()),
    ))?;
    Ok(id)
}

fn find(conn: &Connection, digest: Sha256, now: u64) -> rusqlite::Result<Option<Principal>> {
    find_by(conn, "t.digest = ?1", digest.0, now)
}

fn find_by(
    conn: &Connection,
    condition: &str,
    value: impl ToSql,
    now: u64,
) -> rusqlite::Result<Option<Principal>> {
    let principal = conn
        .prepare_cached(&format!(
            "SELECT u.id, u.name, u.superuser, u.epoch, t.id AS token, t.scope, t.device, t.last_used,
                 t.kind = 'login' AS login, {ENDS} AS expires
             FROM api_tokens t JOIN users u ON u.id = t.user
             WHERE {condition} AND u.active AND ({ENDS} IS NULL OR {ENDS} > ?2)
                 AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.id = t.device AND d.state = 'revoked')"
        ))?
        .query_row((value, now), principal)
        .optional()?;
    let Some(mut principal) = principal else { return Ok(None) };
    principal.memberships = memberships(conn, principal.user)?;
    Ok(Some(principal))
}

/// When a token ends as things are: at its time, or when it was not used for too long.
pub(super) const ENDS: &str = "CASE
    WHEN t.idle_ms IS NULL THEN t.expires
    ELSE min(coalesce(t.expires, 9000000000000000), coalesce(t.last_used, t.created) + t.idle_ms)
    END";

pub(super) fn memberships(conn: &Connection, user: UserId) -> rusqlite::Result<Vec<Membership>> {
    let mut statement = conn.prepare_cached(
        "SELECT m.organization, o.slug, m.role
         FROM memberships m JOIN organizations o ON o.id = m.organization
         WHERE m.user = ?1 ORDER BY o.slug",
    )?;
    let rows = statement.query_map([user.to_string()], membership)?;
    rows.collect()
}

fn principal(row: &Row<'_>) -> rusqlite::Result<Principal> {
    Ok(Principal {
        user: parsed(row, "id")?,
        name: row.get("name")?,
        superuser: row.get("superuser")?,
        epoch: row.get("epoch")?,
        token: parsed(row, "token")?,
        scope: TokenScope::of(row)?,
        login: row.get("login")?,
        expires: row.get("expires")?,
        memberships: Vec::new(),
        last_used: row.get("last_used")?,
    })
}

fn membership(row: &Row<'_>) -> rusqlite::Result<Membership> {
    Ok(Membership {
        organization: parsed(row, "organization")?,
        slug: parsed(row, "slug")?,
        role: parsed(row, "role")?,
    })
}
