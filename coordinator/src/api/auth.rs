//! Who asks, and what they may: `Authorization: Bearer <token>` (or `Token <token>`, as the
//! predecessor's clients write it).

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::{HeaderMap, Method, header, request::Parts};
use serde_json::Value;
use shared::hex::sha256;
use shared::ids::{DeviceId, OrganizationId, OrganizationSlug};

use super::App;
use super::audit;
use super::error::{Answer, ApiError};
use crate::store::Store;
use crate::store::audit::Entry;
use crate::store::listing::Scope;
use crate::store::repeat::Repeat;
use crate::store::user::{Principal, Role, TokenScope};

/// Tokens are short; anything longer is not one of ours.
const LONGEST_TOKEN: usize = 256;

/// The user behind a request.
#[derive(Debug, Clone)]
pub struct Operator {
    pub user: Principal,
    /// What the audit log says if the request changes something.
    pub entry: Entry,
    /// Where the request has a key.
    repeat: Option<Repeat>,
}

impl FromRequestParts<App> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Reader(operator) = Reader::from_request_parts(parts, app).await?;
        if operator.user.scope == TokenScope::Read && !audit::reads(&parts.method) {
            return Err(ApiError::forbidden_because("This token may only read."));
        }
        Ok(operator)
    }
}

/// The user behind a request that changes nothing, whatever its method.
#[derive(Debug, Clone)]
pub struct Reader(pub Operator);

impl FromRequestParts<App> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let repeat = parts.extensions.get::<Repeat>().cloned();
        if let Some(known) = parts.extensions.get::<Known>() {
            return Ok(Self(Operator { repeat, ..known.0.clone() }));
        }
        let token = token(&parts.headers)?;
        let found = app.store.authenticate(sha256(token.as_bytes())).await?;
        let principal = found.ok_or_else(ApiError::invalid_token)?;
        let now = app.store.clock().now();
        let mut entry = audit::entry(parts, &principal);
        // Many devices report in one user's name: each is counted for itself.
        let mut counted = principal.user.0;
        if let TokenScope::Report(device) = principal.scope {
            let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
            let route = route.and_then(|route| route.strip_prefix(super::BASE));
            if !route.is_some_and(|route| is_of_reports(&parts.method, route)) {
                let only = "This token may only report of its device's upgrades.";
                return Err(ApiError::forbidden_because(only));
            }
            counted = principal.token;
            entry.detail = Some(format!("by the token of device {device}"));
        }
        app.throttle.take(counted, now).map_err(ApiError::throttled)?;
        Ok(Self(Operator { user: principal, entry, repeat }))
    }
}

/// Whom a layer has asked for already, in the request's extensions: a request counts once.
#[derive(Debug, Clone)]
pub(super) struct Known(pub Operator);

/// What the script of a device does: it finds its upgrades, and reports of them. `route` is below
/// [`BASE`](super::BASE).
pub(super) fn is_of_reports(method: &Method, route: &str) -> bool {
    match route {
        "/upgrade-operation/{id}/" => [Method::GET, Method::PATCH].contains(method),
        "/device/{id}/upgrade-operation/" => method == Method::GET,
        _ => false,
    }
}

fn token(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers.get(header::AUTHORIZATION).ok_or_else(ApiError::unauthenticated)?;
    let value = value.to_str().map_err(|_| ApiError::invalid_token())?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let known = ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    match token.trim() {
        _ if !known => Err(ApiError::unauthenticated()),
        token if token.is_empty() || token.len() > LONGEST_TOKEN => Err(ApiError::invalid_token()),
        token => Ok(token),
    }
}

impl Operator {
    /// The store for this user's changes, which are on record.
    pub fn store(&self, app: &App) -> Store {
        self.on_record(app, self.entry.clone())
    }

    /// The same, with what was asked for on record as well.
    pub fn store_for(&self, app: &App, asked: Value) -> Store {
        self.on_record(app, Entry { asked: Some(asked), ..self.entry.clone() })
    }

    fn on_record(&self, app: &App, entry: Entry) -> Store {
        let store = app.store.on_record(entry);
        match &self.repeat {
            Some(repeat) => store.once(repeat),
            None => store,
        }
    }

    /// Whose rows they may see.
    pub fn sees(&self) -> Scope {
        self.user.sees()
    }

    /// Whether the token is good for this device: one for reports is for its own alone.
    pub fn is_for(&self, device: DeviceId) -> bool {
        self.user.scope.device().is_none_or(|own| own == device)
    }

    /// Passes a row on if its organization is visible; what is another's is not found. Shared rows
    /// (`None`) are everybody's to see.
    pub fn visible<T>(
        &self,
        row: Option<T>,
        organization: impl FnOnce(&T) -> Option<OrganizationId>,
    ) -> Answer<T> {
        row.filter(|row| self.user.sees().sees(organization(row))).ok_or_else(ApiError::not_found)
    }

    /// Whether they may change what belongs to `organization`; shared things are the superuser's.
    pub fn may_change(&self, organization: Option<OrganizationId>) -> Answer<()> {
        if self.user.has(Role::Operator, organization) {
            Ok(())
        } else {
            Err(ApiError::forbidden())
        }
    }

    /// Whether they look after the organization: its devices, tokens and members.
    pub fn may_administer(&self, organization: OrganizationId) -> Answer<()> {
        if self.user.has(Role::Administrator, Some(organization)) {
            Ok(())
        } else {
            Err(ApiError::forbidden())
        }
    }

    pub fn must_be_superuser(&self) -> Answer<()> {
        if self.user.superuser { Ok(()) } else { Err(ApiError::forbidden()) }
    }

    /// The organizations that they look after; 403 where there is none.
    pub fn looks_after(&self) -> Answer<Scope> {
        if self.user.superuser {
            return Ok(Scope::Everything);
        }
        let own = self.user.memberships.iter().filter(|of| of.role == Role::Administrator);
        match own.map(|of| of.organization).collect::<Vec<_>>() {
            none if none.is_empty() => Err(ApiError::forbidden()),
            own => Ok(Scope::Organizations(own)),
        }
    }

    /// As [`Operator::may_change`], by the organization's slug.
    pub fn may_change_in(&self, slug: &OrganizationSlug) -> Answer<()> {
        self.has_in(Role::Operator, slug)
    }

    /// As [`Operator::may_administer`], by the organization's slug.
    pub fn may_administer_in(&self, slug: &OrganizationSlug) -> Answer<()> {
        self.has_in(Role::Administrator, slug)
    }

    fn has_in(&self, role: Role, slug: &OrganizationSlug) -> Answer<()> {
        let of = self.user.memberships.iter().find(|of| of.slug == *slug);
        let has = of.is_some_and(|of| self.user.has(role, Some(of.organization)));
        if has || self.user.superuser { Ok(()) } else { Err(ApiError::forbidden()) }
    }

    /// Where new things go if nothing is said: the user's only organization; for superusers what is
    /// shared. Who has several says which.
    pub fn home(&self) -> Answer<Option<OrganizationId>> {
        match self.user.memberships.as_slice() {
            _ if self.user.superuser => Ok(None),
            [] => Ok(None),
            [only] => Ok(Some(only.organization)),
            _ => Err(ApiError::field("organization", "Name an organization.")),
        }
    }

    /// The organization asked for, or the only one of this user's.
    pub fn organization(&self, asked: Option<OrganizationSlug>) -> Answer<OrganizationSlug> {
        let mut own = self.user.memberships.iter().map(|of| &of.slug);
        match (asked, own.len()) {
            (Some(slug), _) if self.user.superuser || own.any(|of| *of == slug) => Ok(slug),
            (None, 1) => own.next().cloned().ok_or_else(ApiError::not_found),
            (Some(_), _) | (None, 0) => Err(ApiError::not_found()),
            (None, _) => Err(ApiError::field("organization", "Name one of your organizations.")),
        }
    }
}
