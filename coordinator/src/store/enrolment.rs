//! Enrolment: how a key becomes a device.
//!
//! The same key is always the same device. A MAC address or serial number that is known under
//! another key may be a reinstalled router or somebody who read a label: it waits for an operator,
//! whatever the token allows.

mod claims;

use std::net::IpAddr;

use rusqlite::{OptionalExtension, Row};
use serde_json::json;
use shared::hex::{Hex, Sha256};
use shared::identity::{Claims, DeviceState, Enrolled};
use shared::ids::{DeviceId, OrganizationId, OrganizationSlug};

use claims::Plain;

use super::audit::{self, Entry, Told};
use super::column::parsed;
use super::device::{find_by_key, shown};
use super::note::Note;
use super::user::ENDS;
use super::{Rejection, Store, Tx};

/// A proof that was verified: the key's owner asks to be a device.
#[derive(Debug, Clone)]
pub struct Enrolment {
    pub public_key: Hex<32>,
    /// Digest of the enrolment token.
    pub token: Sha256,
    pub claims: Claims,
    /// The address that it came from.
    pub peer: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolRefusal {
    #[error("there is no such enrolment token")]
    UnknownToken,
    #[error("the enrolment token has expired")]
    ExpiredToken,
    #[error("the enrolment token was used as often as it may be")]
    UsedUpToken,
    #[error("the device was revoked: it needs a new key")]
    Revoked,
    #[error("too many replacements of this device are waiting for an operator")]
    TooManyReplacements,
}

/// Keys that may wait to replace the same device.
const REPLACEMENTS: u32 = 4;

struct Token {
    id: String,
    name: String,
    organization: OrganizationId,
    slug: OrganizationSlug,
    auto_accept: bool,
    uses_left: Option<u32>,
    expires: Option<u64>,
}

impl Store {
    /// Answers with the device, and whether it is a new one.
    pub async fn enrol(
        &self,
        enrolment: Enrolment,
    ) -> Result<(Enrolled, bool), Rejection<EnrolRefusal>> {
        self.write(move |tx| enrol(tx, &enrolment)).await
    }
}

fn enrol(tx: &Tx<'_>, enrolment: &Enrolment) -> Result<(Enrolled, bool), Rejection<EnrolRefusal>> {
    let refuse = |refusal| Err(Rejection::Refused(refusal));
    let Some(token) = find_token(tx, enrolment.token)? else {
        return refuse(EnrolRefusal::UnknownToken);
    };
    if let Some(known) = find_by_key(tx, enrolment.public_key)? {
        if known.state == DeviceState::Revoked {
            return refuse(EnrolRefusal::Revoked);
        }
        let organization = known.organization_slug;
        return Ok((Enrolled { device: known.id, organization, state: known.state }, false));
    }
    if token.expires.is_some_and(|expires| tx.now >= expires) {
        return refuse(EnrolRefusal::ExpiredToken);
    }
    if token.uses_left == Some(0) {
        return refuse(EnrolRefusal::UsedUpToken);
    }
    let claims = Plain::from(&enrolment.claims);
    let replaced = find_replaced(tx, token.organization, &claims)?;
    if let Some(replaced) = replaced
        && waiting(tx, replaced)? >= REPLACEMENTS
    {
        return refuse(EnrolRefusal::TooManyReplacements);
    }
    use_up(tx, &token)?;
    Ok((insert(tx, enrolment, &token, claims, replaced)?, true))
}

fn find_token(tx: &Tx<'_>, digest: Sha256) -> rusqlite::Result<Option<Token>> {
    tx.prepare_cached(&format!(
        "SELECT t.id, t.name, t.organization, o.slug, t.auto_accept, t.uses_left, {ENDS} AS expires
         FROM enrolment_tokens t JOIN organizations o ON o.id = t.organization
         WHERE t.digest = ?1"
    ))?
    .query_row([digest.0], token)
    .optional()
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get("id")?,
        name: row.get("name")?,
        organization: parsed(row, "organization")?,
        slug: parsed(row, "slug")?,
        auto_accept: row.get("auto_accept")?,
        uses_left: row.get("uses_left")?,
        expires: row.get("expires")?,
    })
}

fn use_up(tx: &Tx<'_>, token: &Token) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE enrolment_tokens SET uses_left = uses_left - 1, used = used + 1, last_used = ?2
         WHERE id = ?1",
    )?
    .execute((&token.id, tx.now))?;
    Ok(())
}

/// The device of this organization that came with the hardware first, whatever became of it: also
/// what was revoked, or waits, gets no second key by itself.
fn find_replaced(
    tx: &Tx<'_>,
    organization: OrganizationId,
    claims: &Plain,
) -> rusqlite::Result<Option<DeviceId>> {
    tx.prepare_cached(
        "WITH RECURSIVE
             known (id, created) AS (
                 SELECT id, created FROM devices WHERE organization = ?1 AND mac = ?2
                 UNION
                 SELECT id, created FROM devices WHERE organization = ?1 AND serial = ?3),
             chain (id) AS (
                 SELECT id FROM (SELECT id FROM known ORDER BY created DESC, id LIMIT 1)
                 UNION
                 SELECT d.replacement_of FROM devices d JOIN chain ON d.id = chain.id
                 WHERE d.replacement_of IS NOT NULL)
         SELECT d.id FROM devices d JOIN chain ON d.id = chain.id
         WHERE d.replacement_of IS NULL",
    )?
    .query_row((organization.to_string(), &claims.mac, &claims.serial), |row| parsed(row, "id"))
    .optional()
}

fn waiting(tx: &Tx<'_>, replaced: DeviceId) -> rusqlite::Result<u32> {
    tx.prepare_cached(
        "SELECT count(*) FROM devices WHERE replacement_of = ?1 AND state = 'pending'",
    )?
    .query_row([replaced.to_string()], |row| row.get(0))
}

fn insert(
    tx: &Tx<'_>,
    enrolment: &Enrolment,
    token: &Token,
    claims: Plain,
    replaced: Option<DeviceId>,
) -> rusqlite::Result<Enrolled> {
    let device = DeviceId(uuid::Uuid::new_v4());
    let accepted = token.auto_accept && replaced.is_none();
    let state = if accepted { DeviceState::Accepted } else { DeviceState::Pending };
    tx.prepare_cached(
        "INSERT INTO devices (id, organization, name, board, public_key, mac, serial, state,
             replacement_of, last_seen, created, modified)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?10)",
    )?
    .execute((
        device.to_string(),
        token.organization.to_string(),
        claims.name.unwrap_or_else(|| format!("device-{}", &device.to_string()[..8])),
        claims.board.unwrap_or_default(),
        enrolment.public_key.0,
        claims.mac,
        claims.serial,
        state.as_str(),
        replaced.map(|id| id.to_string()),
        tx.now,
    ))?;
    record(tx, enrolment, token)?;
    if accepted {
        tx.note(Note::Admitted { subject: device.0, epoch: 1 });
    }
    Ok(Enrolled { device, organization: token.slug.clone(), state })
}

/// Who came is on record, and with whose token.
fn record(tx: &Tx<'_>, enrolment: &Enrolment, token: &Token) -> rusqlite::Result<()> {
    let Some(device) = find_by_key(tx, enrolment.public_key)? else { return Ok(()) };
    let state = device.state.as_str();
    let entry = Entry {
        actor: format!("device:{}", device.id),
        action: "enrol".into(),
        subject: device.id.to_string(),
        detail: Some(match device.replacement_of {
            Some(replaced) => format!("{state}, would replace {replaced}"),
            None => state.into(),
        }),
        peer: enrolment.peer.map(|address| address.to_string()),
        ..Entry::default()
    };
    let mut told = shown(&device);
    told["enrolment_token"] = json!({ "id": token.id, "name": token.name });
    audit::record(tx, &entry, Some(Told::of(Some(device.organization)).after(told)))
}
