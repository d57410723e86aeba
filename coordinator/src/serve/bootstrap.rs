//! The first start: random secrets, made once, printed once, kept only as digests.
//!
//! They are in a private file of the data directory before the digests are committed, so that a
//! power cut or a lost output in between locks nobody out.

use std::fmt;
use std::path::Path;

use shared::hex::sha256;
use shared::ids::OrganizationSlug;

use super::StartError;
use crate::store::Store;
use crate::store::bootstrap::FirstStart;
use crate::tls::Pin;
use crate::{secret, secret_file};

/// In the data directory: what the first start made, to be deleted once it was read.
pub(super) const FILE: &str = "first-start";
const SUPERUSER: &str = "admin";
const ORGANIZATION: &str = "default";

/// What the first start made. Prints as `key: value` lines.
#[derive(Clone)]
pub struct Bootstrap {
    pub superuser: String,
    pub organization: OrganizationSlug,
    /// The superuser's.
    pub api_token: String,
    /// Devices that come with it are accepted at once.
    pub enrolment_token: String,
    /// Of the certificate, in the form that curl's `--pinnedpubkey` takes.
    pub pin: Pin,
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "superuser: {}", self.superuser)?;
        writeln!(f, "organization: {}", self.organization)?;
        writeln!(f, "api_token: {}", self.api_token)?;
        writeln!(f, "enrolment_token: {}", self.enrolment_token)?;
        writeln!(f, "pin: {}", self.pin)
    }
}

/// Makes it if there is no user yet.
pub(super) async fn first_start(
    store: &Store,
    pin: Pin,
    data: &Path,
) -> Result<Option<Bootstrap>, StartError> {
    if store.has_users().await? {
        return Ok(None);
    }
    let bootstrap = Bootstrap {
        superuser: SUPERUSER.into(),
        organization: ORGANIZATION.parse().map_err(|_| StartError::NoRandomness)?,
        api_token: secret(secret::API)?,
        enrolment_token: secret(secret::ENROLMENT)?,
        pin,
    };
    let first = FirstStart {
        superuser: bootstrap.superuser.clone(),
        organization: bootstrap.organization.clone(),
        api_token: sha256(bootstrap.api_token.as_bytes()),
        enrolment_token: sha256(bootstrap.enrolment_token.as_bytes()),
    };
    let path = data.join(FILE);
    secret_file::write(&path, bootstrap.to_string().as_bytes())
        .map_err(|source| StartError::Data { path: path.clone(), source })?;
    tracing::info!(path = %path.display(), "the first secrets are in this file: delete it once read");
    Ok(store.bootstrap(first).await?.then_some(bootstrap))
}

fn secret(prefix: &str) -> Result<String, StartError> {
    secret::make(prefix).map_err(|_| StartError::NoRandomness)
}
