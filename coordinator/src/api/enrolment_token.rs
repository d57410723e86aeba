//! `enrolment-token/`: the way in for devices, which an organization's administrators hand out.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::Value;
use shared::hex::sha256;
use shared::ids::OrganizationSlug;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, Operator,
    body::{Fields, boolean, later_than, nullable, slug, text},
    error::{Answer, ApiError},
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::secret;
use crate::store::{
    Rejection,
    bootstrap::NewEnrolmentToken,
    enrolment_token::{EnrolmentToken, EnrolmentTokenList, UnknownToken},
    listing::Order,
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["name", "created"];

#[derive(Debug, Serialize, ToSchema)]
pub struct EnrolmentTokenView {
    id: Uuid,
    /// A slug.
    #[schema(value_type = String)]
    organization: OrganizationSlug,
    name: String,
    /// Devices that come with it need no operator's leave, unless they replace one.
    auto_accept: bool,
    /// Devices that may still come with it; null: any number.
    uses_left: Option<u32>,
    /// Devices that came with it.
    used: u32,
    created: Time,
    /// Null: never by itself.
    expires: Option<Time>,
    last_used: Option<Time>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct NewEnrolmentTokenView {
    #[serde(flatten)]
    view: EnrolmentTokenView,
    /// Shown this once.
    token: String,
}

#[derive(Debug, ToSchema)]
pub struct NewEnrolmentTokenBody {
    /// A slug; may be left out by who has only one.
    #[schema(nullable = false, pattern = "^[a-z0-9-]{1,32}$", example = "default")]
    pub organization: Option<String>,
    /// For people, to tell it by.
    #[schema(min_length = 1, max_length = 64, pattern = "\\S", example = "van 7")]
    pub name: String,
    /// False, if nothing is said: devices wait for an operator.
    #[schema(nullable = false)]
    pub auto_accept: Option<bool>,
    /// How many devices may come with it: 1 is a one-time token, null any number.
    #[schema(minimum = 1, example = 20)]
    pub uses: Option<u32>,
    /// Null: never by itself.
    #[schema(format = DateTime, example = "2099-12-31T00:00:00Z")]
    pub expires: Option<String>,
}

fn view(token: EnrolmentToken) -> EnrolmentTokenView {
    EnrolmentTokenView {
        id: token.id,
        organization: token.slug,
        name: token.name,
        auto_accept: token.auto_accept,
        uses_left: token.uses_left,
        used: token.used,
        created: Time(token.created),
        expires: token.expires.map(Time),
        last_used: token.last_used.map(Time),
    }
}

#[utoipa::path(get, path = "/enrolment-token/", tag = "enrolment", params(Page),
    responses((status = 200, body = Listing<EnrolmentTokenView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<EnrolmentTokenView>>> {
    let newest = Order { column: "created", descending: true };
    let wanted = EnrolmentTokenList {
        scope: operator.looks_after()?,
        organization: query.organization()?,
        order: query.order(COLUMNS, newest),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.enrolment_tokens(wanted).await?, view)?))
}

#[utoipa::path(post, path = "/enrolment-token/", tag = "enrolment",
    request_body = NewEnrolmentTokenBody, responses((status = 201, body = NewEnrolmentTokenView)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<NewEnrolmentTokenView>)> {
    let asked = fields.optional("organization", slug);
    let name = fields.required("name", text(64));
    let auto_accept = fields.optional("auto_accept", boolean);
    let uses = fields.optional("uses", nullable(count));
    let expires = fields.optional("expires", nullable(later_than(app.store.clock().now())));
    fields.finish()?;
    let slug = match asked {
        None if operator.user.superuser => {
            return Err(ApiError::field("organization", "This field is required."));
        }
        asked => operator.organization(asked).map_err(unknown)?,
    };
    let organization = app.store.organization(slug).await?.ok_or_else(ApiError::not_found);
    let organization = organization.map_err(unknown)?.id;
    operator.may_administer(organization)?;
    let token = secret::make(secret::ENROLMENT).map_err(|error| ApiError::internal(&error))?;
    let new = NewEnrolmentToken {
        organization,
        name: name.unwrap_or_default(),
        digest: sha256(token.as_bytes()),
        auto_accept: auto_accept.unwrap_or(false),
        uses: uses.flatten(),
        expires: expires.flatten(),
    };
    let made = operator.store(&app).make_enrolment_token(new).await?;
    let view = view(made.ok_or_else(ApiError::not_found)?);
    Ok((StatusCode::CREATED, Json(NewEnrolmentTokenView { view, token })))
}

#[utoipa::path(get, path = "/enrolment-token/{id}/", tag = "enrolment",
    params(("id" = Uuid, Path)), responses((status = 200, body = EnrolmentTokenView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<Uuid>,
) -> Answer<Json<EnrolmentTokenView>> {
    Ok(Json(view(find(&app, &operator, id).await?)))
}

/// Nobody comes with it any more; who came stays.
#[utoipa::path(delete, path = "/enrolment-token/{id}/", tag = "enrolment",
    params(("id" = Uuid, Path)), responses((status = 204)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<Uuid>,
) -> Answer<StatusCode> {
    find(&app, &operator, id).await?;
    match operator.store(&app).delete_enrolment_token(id).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(Rejection::Refused(UnknownToken)) => Err(ApiError::not_found()),
        Err(Rejection::Store(error)) => Err(error.into()),
    }
}

async fn find(app: &App, operator: &Operator, id: Uuid) -> Answer<EnrolmentToken> {
    let found = app.store.enrolment_token(id).await?;
    let found = operator.visible(found, |token| Some(token.organization))?;
    operator.may_administer(found.organization)?;
    Ok(found)
}

/// In a body, what is not found is a field's mistake.
fn unknown(error: ApiError) -> ApiError {
    error.of_field("organization", "There is no such organization.")
}

fn count(value: Value) -> Result<u32, String> {
    let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
    count.filter(|count| *count > 0).ok_or_else(|| "A whole number from 1 is required.".into())
}
