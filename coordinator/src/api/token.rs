//! `token/`: a user's own API tokens. A secret is shown once, when it is made.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::Value;
use shared::hex::sha256;
use shared::ids::DeviceId;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, Operator,
    body::{Fields, id, later_than, nullable, shown, text},
    category::missing,
    device,
    error::{Answer, ApiError},
    page::{ListQuery, Listing, Paging},
    path::Ids,
    time::Time,
};
use crate::secret;
use crate::store::{
    Rejection,
    listing::Order,
    own_token::{DEVICE_TOKENS, OWN_TOKENS, OwnToken, OwnTokenRefusal},
    user::{NewApiToken, TokenScope},
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["name", "created"];

#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    id: Uuid,
    name: String,
    #[schema(value_type = ScopeName)]
    scope: &'static str,
    /// Of scope `report`: whose upgrades it reports of.
    #[schema(value_type = Option<Uuid>)]
    device: Option<DeviceId>,
    /// Whether it came of a password.
    login: bool,
    created: Time,
    /// Null: never by itself.
    expires: Option<Time>,
    /// To the minute.
    last_used: Option<Time>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct NewTokenView {
    #[serde(flatten)]
    view: TokenView,
    /// Shown this once.
    token: String,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ScopeName {
    Read,
    Write,
    /// For the script of one device: to see its upgrades, and to report of them (PATCH).
    Report,
}

#[derive(Debug, ToSchema)]
pub struct NewToken {
    /// For people, to tell it by.
    #[schema(min_length = 1, max_length = 64, pattern = "\\S", example = "dashboard")]
    pub name: String,
    /// `write`, if nothing is said.
    #[schema(nullable = false)]
    pub scope: Option<ScopeName>,
    /// Of scope `report`.
    pub device: Option<Uuid>,
    /// Null: never by itself.
    #[schema(format = DateTime, example = "2099-12-31T00:00:00Z")]
    pub expires: Option<String>,
}

fn scope_name(value: Value) -> Result<ScopeName, String> {
    match value.as_str() {
        Some("read") => Ok(ScopeName::Read),
        Some("write") => Ok(ScopeName::Write),
        Some("report") => Ok(ScopeName::Report),
        Some(other) => Err(format!("{:?} is not a valid choice.", shown(other))),
        None => Err("Not a valid string.".into()),
    }
}

fn view(token: OwnToken) -> TokenView {
    TokenView {
        id: token.id,
        name: token.name,
        scope: token.scope.as_str(),
        device: token.scope.device(),
        login: token.login,
        created: Time(token.created),
        expires: token.expires.map(Time),
        last_used: token.last_used.map(Time),
    }
}

#[utoipa::path(get, path = "/token/", tag = "users", params(Paging,
    ("ordering" = Option<String>, Query)),
    responses((status = 200, body = Listing<TokenView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<TokenView>>> {
    let newest = Order { column: "created", descending: true };
    let order = query.order(COLUMNS, newest);
    let found = app.store.own_tokens(operator.user.user, order, query.rows()?).await?;
    Ok(Json(query.listing(found, view)?))
}

/// What is made with a token that ends ends with it; a login may make tokens that stay.
#[utoipa::path(post, path = "/token/", tag = "users", request_body = NewToken,
    responses((status = 201, body = NewTokenView), (status = 409)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<NewTokenView>)> {
    let name = fields.required("name", text(64));
    let scope = fields.optional("scope", scope_name);
    let device = fields.optional("device", nullable(id::<DeviceId>)).flatten();
    match (&scope, device) {
        (Some(ScopeName::Report), None) => {
            fields.refuse("device", "Name the device that it reports of.");
        }
        (Some(ScopeName::Read | ScopeName::Write) | None, Some(_)) => {
            fields.refuse("device", "Only a token of scope report is a device's.");
        }
        (_, _) => {}
    }
    let asked = fields.optional("expires", nullable(later_than(app.store.clock().now())));
    fields.finish()?;
    let name = name.ok_or_else(|| ApiError::field("name", "This field is required."))?;
    let scope = match (scope, device) {
        (Some(ScopeName::Read), _) => TokenScope::Read,
        (_, None) => TokenScope::Write,
        (_, Some(id)) => {
            let device = device::find_own(&app, &operator, id).await;
            TokenScope::Report(device.map_err(|error| error.of_field("device", missing(id)))?.id)
        }
    };
    let bound = operator.user.expires.filter(|_| !operator.user.login);
    let expires = match (asked.flatten(), bound) {
        (Some(asked), Some(bound)) => Some(asked.min(bound)),
        (asked, bound) => asked.or(bound),
    };
    let token = secret::make(secret::API).map_err(|error| ApiError::internal(&error))?;
    let new = NewApiToken {
        user: operator.user.user,
        name,
        digest: sha256(token.as_bytes()),
        scope,
        expires,
    };
    let made = operator.store(&app).create_own_token(new).await?;
    Ok((StatusCode::CREATED, Json(NewTokenView { view: view(made), token })))
}

/// Ends a token at once; that of this request ends the login.
#[utoipa::path(delete, path = "/token/{id}/", tag = "users", params(("id" = Uuid, Path)),
    responses((status = 204)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<Uuid>,
) -> Answer<StatusCode> {
    operator.store(&app).delete_own_token(operator.user.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Rejection<OwnTokenRefusal>> for ApiError {
    fn from(rejection: Rejection<OwnTokenRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(OwnTokenRefusal::Unknown) => Self::not_found(),
            // Deleted since the request came in, and its token with them.
            Rejection::Refused(OwnTokenRefusal::UnknownUser) => Self::invalid_token(),
            Rejection::Refused(OwnTokenRefusal::TooMany) => {
                Self::conflict(format!("You have {OWN_TOKENS} tokens: delete some first."))
            }
            Rejection::Refused(OwnTokenRefusal::TooManyOfDevice) => {
                let message = format!("The device has {DEVICE_TOKENS} tokens: delete some first.");
                Self::conflict(message)
            }
        }
    }
}
