//! `users/`: how a user gets in, and what they need beside the API itself.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use axum::{
    Json, extract::FromRequestParts, extract::State, http::StatusCode, http::request::Parts,
};
use serde::Serialize;
use serde_json::json;
use shared::hex::sha256;
use shared::{ids::OrganizationSlug, topics::ROOT};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, audit,
    auth::Reader,
    body::{Fields, any_text, slug},
    error::{Answer, ApiError},
    time::Time,
};
use crate::crowd::neighbourhood;
use crate::secret;
use crate::store::login::{LIVE_LOGINS, LOGINS_A_DAY, Login, LoginRefusal};
use crate::store::{
    Rejection,
    audit::{Entry, Told},
};
use crate::tokens::{Audience, Bearer, Kind};

/// A dashboard asks again before its hour is over.
const LIFETIME: Duration = Duration::from_secs(3600);
/// As many as a user's dashboards need, and no more: each is on record for as long as the audit log is kept.
pub const MQTT_TOKENS_A_DAY: u32 = 500;
/// How long a login is good.
const LOGIN_MS: u64 = 12 * 3600 * 1000;
/// Passwords that one peer may try for one user in a minute.
pub const ATTEMPTS_A_MINUTE: u32 = 10;
/// For all users together; a peer is an address of IPv4 or a /64 of IPv6.
const ATTEMPTS_OF_A_PEER: u32 = 60;
/// A /48 of IPv6.
const ATTEMPTS_OF_A_SITE: u32 = 2 * ATTEMPTS_OF_A_PEER;
/// By all peers together, for one user.
const ATTEMPTS_FOR_A_USER: u32 = 100;

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(audit::peer(parts)))
    }
}

#[derive(Debug, ToSchema)]
pub struct PasswordLogin {
    #[schema(max_length = 150, example = "alice")]
    pub username: String,
    #[schema(format = Password, max_length = 1024, example = "correct horse battery")]
    pub password: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedIn {
    /// For `Authorization: Bearer`. It is shown this once.
    token: String,
    expires: Time,
}

/// A login: each call makes a token that ends after 12 hours. At most 10 of them live at a time, and
/// at most 20 are made in a day.
#[utoipa::path(post, path = "/users/token/", tag = "users", request_body = PasswordLogin,
    security(()), responses((status = 200, body = LoggedIn)))]
pub async fn login(
    State(app): State<App>,
    Peer(peer): Peer,
    mut fields: Fields,
) -> Answer<Json<LoggedIn>> {
    let username = fields.required("username", any_text(150));
    let password = fields.required("password", any_text(1024));
    fields.finish()?;
    let (Some(username), Some(password)) = (username, password) else {
        return Err(wrong());
    };
    take_attempt(&app, peer, &username)?;
    let known = app.store.credentials(username.clone()).await?;
    let hash = known.as_ref().and_then(|known| known.password.clone());
    let right = app.passwords.verify(password, hash.clone()).await?;
    let (Some(known), Some(hash), true) = (known, hash, right) else {
        tracing::warn!(username, ?peer, "a login was refused");
        return Err(wrong());
    };
    let token = secret::make(secret::API).map_err(|error| ApiError::internal(&error))?;
    let entry = Entry {
        actor: format!("user:{username}"),
        actor_id: Some(known.user),
        action: "login".into(),
        subject: known.user.to_string(),
        peer: peer.map(|address| address.to_string()),
        ..Entry::default()
    };
    let digest = sha256(token.as_bytes());
    let login = Login { user: known.user, password: hash, digest, lifetime_ms: LOGIN_MS };
    match app.store.on_record(entry).login(login).await {
        Ok(expires) => Ok(Json(LoggedIn { token, expires: Time(expires) })),
        Err(Rejection::Store(error)) => Err(error.into()),
        Err(Rejection::Refused(LoginRefusal::Changed)) => Err(wrong()),
        Err(Rejection::Refused(LoginRefusal::TooManyLive(until))) => {
            let message = format!(
                "{LIVE_LOGINS} of your logins are live: end one with another of your tokens (DELETE token/{{id}}/, or \
                 `modem-upgrader tokens revoke`), or wait until the oldest ends, at {}.",
                Time(until)
            );
            Err(ApiError::throttled_because(&message, seconds_until(&app, until)))
        }
        Err(Rejection::Refused(LoginRefusal::TooManyToday(until))) => {
            let message = format!(
                "You have logged in {LOGINS_A_DAY} times today, and a day has no more: the next begins at {}.",
                Time(until)
            );
            Err(ApiError::throttled_because(&message, seconds_until(&app, until)))
        }
    }
}

fn seconds_until(app: &App, until: u64) -> u64 {
    until.saturating_sub(app.store.clock().now()).div_ceil(1000).max(1)
}

/// The same whoever was named, so that nobody learns who is there.
fn wrong() -> ApiError {
    ApiError::field("non_field_errors", "Unable to log in with provided credentials.")
}

/// Counted before the password is looked at: guessing is slow for everybody.
fn take_attempt(app: &App, peer: Option<IpAddr>, username: &str) -> Answer<()> {
    let now = app.store.clock().now();
    let place = |text: String| {
        let digest = sha256(text.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        Uuid::from_bytes(id)
    };
    let (near, site) = neighbourhood(peer.unwrap_or(Ipv6Addr::UNSPECIFIED.into()));
    let take = |limit, text: String| {
        let taken = app.logins.take_of(limit, place(text), now);
        taken.map_err(ApiError::throttled)
    };
    // The peer first: one that is refused leaves no trace of the names it tries.
    if let Some(site) = site {
        take(ATTEMPTS_OF_A_SITE, format!("site {site}"))?;
    }
    take(ATTEMPTS_OF_A_PEER, format!("peer {near}"))?;
    take(ATTEMPTS_A_MINUTE, format!("peer {near} {username}"))?;
    take(ATTEMPTS_FOR_A_USER, format!("user {username}"))
}

#[derive(Debug, ToSchema)]
pub struct MqttTokenRequest {
    /// A slug; may be left out by who has only one.
    #[schema(nullable = false, pattern = "^[a-z0-9-]{1,32}$", example = "default")]
    pub organization: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MqttToken {
    /// The password of the MQTT connection.
    token: String,
    /// Seconds.
    expires_in: u64,
    #[schema(value_type = String)]
    organization: OrganizationSlug,
    #[schema(value_type = Uuid)]
    username: shared::ids::UserId,
    port: u16,
    /// What it may listen to.
    topics: Vec<String>,
}

/// A token with which a dashboard may listen to the organization's topics over MQTT, and may do
/// nothing else. It ends when the one it was asked for with does, or after an hour. 500 are made in a day at most.
#[utoipa::path(post, path = "/users/mqtt-token/", tag = "users", request_body = MqttTokenRequest,
    responses((status = 201, body = MqttToken), (status = 404)))]
pub async fn mqtt_token(
    State(app): State<App>,
    Reader(operator): Reader,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<MqttToken>)> {
    let asked = fields.optional("organization", slug);
    fields.finish()?;
    let organization = match asked {
        None if operator.user.superuser => the_only(&app).await?,
        asked => operator.organization(asked)?,
    };
    if app.store.organization(organization.clone()).await?.is_none() {
        return Err(ApiError::not_found());
    }
    // Each is on record, and asked for by who may change nothing.
    let taken = app.mqtt_tokens.take(operator.user.user.0, app.store.clock().now());
    taken.map_err(ApiError::throttled)?;
    let bearer = Bearer {
        subject: operator.user.user.0,
        organization: organization.clone(),
        kind: Kind::User,
        epoch: operator.user.epoch,
    };
    let now = app.store.clock().now();
    let left =
        operator.user.expires.map(|expires| Duration::from_millis(expires.saturating_sub(now)));
    let lifetime = left.map_or(LIFETIME, |left| left.min(LIFETIME));
    let entry = Entry { organization: Some(organization.to_string()), ..operator.entry };
    let ends = now.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
    let told = Told::default().after(json!({ "mqtt_token_expires": Time(ends) }));
    app.store.record_audit(entry, told).await?;
    let token = app.tokens.issue(Audience::Mqtt, &bearer, lifetime);
    let token = token.map_err(|error| ApiError::internal(&error))?;
    let answer = MqttToken {
        token,
        expires_in: lifetime.as_secs(),
        username: operator.user.user,
        port: app.mqtt_port,
        topics: vec![
            format!("{ROOT}/{organization}/+/+/operation"),
            format!("{ROOT}/{organization}/batches/+"),
        ],
        organization,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn the_only(app: &App) -> Answer<OrganizationSlug> {
    let mut all = app.store.organizations().await?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only.slug),
        _ => Err(ApiError::field("organization", "Name one of several organizations.")),
    }
}
