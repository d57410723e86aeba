//! Enrolment: how a key becomes a device.
//!
//! The same key is always the same device. A MAC address or serial number that is known under
//! another key may be a reinstalled router or somebody who read a label: it waits for an operator,
//! whatever the token allows.

use rusqlite::{OptionalExtension, Row};
use shared::hex::{Hex, Sha256};
use shared::identity::{Claims, DeviceState, Enrolled};
use shared::ids::{DeviceId, OrganizationId, OrganizationSlug};

use super::audit::{self, Entry};
use super::column::parsed;
use super::device::find_by_key;
use super::note::Note;
use super::{Rejection, Store, Tx};

/// A proof that was verified: the key's owner asks to be a device.
#[derive(Debug, Clone)]
pub struct Enrolment {
    pub public_key: Hex<32>,
    /// Digest of the enrolment token.
    pub token: Sha256,
    pub claims: Claims,
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
/// Bytes of a name that a device gives itself.
const NAME: usize = 64;

struct Token {
    id: String,
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
    if token.expires.is_some_and(|expires| tx.now >= expires) {
        return refuse(EnrolRefusal::ExpiredToken);
    }
    if let Some(known) = find_by_key(tx, enrolment.public_key)? {
        if known.state == DeviceState::Revoked {
            return refuse(EnrolRefusal::Revoked);
        }
        let organization = known.organization_slug;
        return Ok((Enrolled { device: known.id, organization, state: known.state }, false));
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
    Ok((insert(tx, enrolment.public_key, &token, claims, replaced)?, true))
}

fn find_token(tx: &Tx<'_>, digest: Sha256) -> rusqlite::Result<Option<Token>> {
    tx.prepare_cached(
        "SELECT t.id, t.organization, o.slug, t.auto_accept, t.uses_left, t.expires
         FROM enrolment_tokens t JOIN organizations o ON o.id = t.organization
         WHERE t.digest = ?1",
    )?
    .query_row([digest.0], token)
    .optional()
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get("id")?,
        organization: parsed(row, "organization")?,
        slug: parsed(row, "slug")?,
        auto_accept: row.get("auto_accept")?,
        uses_left: row.get("uses_left")?,
        expires: row.get("expires")?,
    })
}

fn use_up(tx: &Tx<'_>, token: &Token) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE enrolment_tokens SET uses_left = uses_left - 1, last_used = ?2 WHERE id = ?1",
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
    key: Hex<32>,
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
        key.0,
        claims.mac,
        claims.serial,
        state.as_str(),
        replaced.map(|id| id.to_string()),
        tx.now,
    ))?;
    let entry = Entry {
        actor: format!("device:{device}"),
        organization: Some(token.slug.to_string()),
        action: "enrol".into(),
        subject: device.to_string(),
        detail: Some(match replaced {
            Some(replaced) => format!("{}, would replace {replaced}", state.as_str()),
            None => state.as_str().into(),
        }),
    };
    audit::record(tx, &entry)?;
    if accepted {
        tx.note(Note::Admitted { subject: device.0, epoch: 1 });
    }
    Ok(Enrolled { device, organization: token.slug.clone(), state })
}

/// Claims as far as they can be shown and compared; they are hints.
struct Plain {
    name: Option<String>,
    board: Option<String>,
    mac: Option<String>,
    serial: Option<String>,
}

impl From<&Claims> for Plain {
    fn from(claims: &Claims) -> Self {
        Self {
            name: plain(&claims.hostname),
            board: plain(&claims.board),
            mac: claims.mac.as_deref().and_then(mac),
            serial: claims.serial.as_deref().and_then(serial),
        }
    }
}

fn plain(text: &str) -> Option<String> {
    let mut plain: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    while plain.len() > NAME {
        plain.pop();
    }
    (!plain.is_empty()).then_some(plain)
}

/// What firmware says where nobody wrote a serial number: letters and digits only, lower case.
const NO_SERIALS: [&str; 16] = [
    "none",
    "null",
    "na",
    "nil",
    "unknown",
    "default",
    "defaultstring",
    "empty",
    "invalid",
    "serial",
    "serialnumber",
    "systemserialnumber",
    "notspecified",
    "notapplicable",
    "notavailable",
    "tobefilledbyoem",
];

/// None for what cannot tell devices apart.
fn serial(text: &str) -> Option<String> {
    let serial = plain(text)?;
    let word: String =
        serial.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let mut digits = word.chars();
    let repeated = digits.next().is_none_or(|first| digits.all(|digit| digit == first));
    let counted = "1234567890".starts_with(&word) || "0123456789".starts_with(&word);
    let usable = !repeated && !counted && !NO_SERIALS.contains(&word.as_str());
    usable.then_some(serial)
}

/// `00:11:22:aa:bb:cc`, whatever way it was written; None for what cannot tell devices apart.
fn mac(text: &str) -> Option<String> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b':' | b'-')).collect();
    let usable = digits.len() == 12
        && digits.iter().all(u8::is_ascii_hexdigit)
        && digits.iter().any(|digit| !matches!(digit, b'0'))
        && digits.iter().any(|digit| !matches!(digit, b'f' | b'F'));
    let pairs = digits.chunks(2).map(|pair| String::from_utf8_lossy(pair).to_lowercase());
    usable.then(|| pairs.collect::<Vec<_>>().join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_has_one_spelling() {
        for text in ["00:11:22:AA:bb:cc", "00-11-22-aa-bb-cc", "001122aabbcc"] {
            assert_eq!(mac(text).unwrap(), "00:11:22:aa:bb:cc");
        }
        for text in
            ["", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "00:11:22:aa:bb", "zz:11:22:aa:bb:cc"]
        {
            assert_eq!(mac(text), None, "{text}");
        }
    }

    #[test]
    fn a_serial_that_many_have_is_none() {
        for text in ["", "0", "0000", "N/A", "None", "To be filled by O.E.M.", "0123456789", "---"]
        {
            assert_eq!(serial(text), None, "{text}");
        }
        assert_eq!(serial(" RN-00123 "), Some("RN-00123".into()));
    }

    #[test]
    fn names_are_plain_and_short() {
        assert_eq!(plain(" a\u{1b}[31mb\n "), Some("a[31mb".into()));
        assert_eq!(plain("\n"), None);
        assert!(plain(&"ä".repeat(100)).unwrap().len() <= NAME);
    }
}
