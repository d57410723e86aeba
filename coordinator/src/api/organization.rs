//! `organization/`: the tenants. Made and deleted by the superuser; a slug never changes, because it
//! is a level of every topic.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::ids::{OrganizationId, OrganizationSlug};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, Operator,
    body::{Fields, slug, text},
    error::{Answer, ApiError},
    image::forget_files,
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::store::{
    Rejection,
    listing::{Order, Scope},
    organization::{Organization, OrganizationList, OrganizationRefusal},
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["slug", "name", "created"];

#[derive(Debug, Serialize, ToSchema)]
pub struct OrganizationView {
    #[schema(value_type = Uuid)]
    id: OrganizationId,
    #[schema(value_type = String)]
    slug: OrganizationSlug,
    name: String,
    created: Time,
    modified: Time,
}

#[derive(Debug, ToSchema)]
pub struct NewOrganization {
    #[schema(pattern = "^[a-z0-9-]{1,32}$", example = "north")]
    pub slug: String,
    /// The slug, if nothing is said.
    #[schema(
        min_length = 1,
        max_length = 128,
        nullable = false,
        pattern = "\\S",
        example = "North"
    )]
    pub name: Option<String>,
}

#[derive(Debug, ToSchema)]
pub struct OrganizationName {
    #[schema(min_length = 1, max_length = 128, pattern = "\\S", example = "North")]
    pub name: String,
}

fn view(organization: Organization) -> OrganizationView {
    OrganizationView {
        id: organization.id,
        slug: organization.slug,
        name: organization.name,
        created: Time(organization.created),
        modified: Time(organization.modified),
    }
}

#[utoipa::path(get, path = "/organization/", tag = "organizations",
    params(Page, ("slug" = Option<String>, Query)),
    responses((status = 200, body = Listing<OrganizationView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<OrganizationView>>> {
    let by_slug = Order { column: "slug", descending: false };
    let asked = query.filter("slug", "Enter an organization's slug.")?;
    let wanted = OrganizationList {
        scope: operator.sees(),
        slug: asked.or(query.organization()?),
        order: query.order(COLUMNS, by_slug),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.organizations_of(wanted).await?, view)?))
}

#[utoipa::path(post, path = "/organization/", tag = "organizations",
    request_body = NewOrganization, responses((status = 201, body = OrganizationView)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<OrganizationView>)> {
    operator.must_be_superuser()?;
    let slug = fields.required("slug", slug);
    let name = fields.optional("name", text(128));
    fields.finish()?;
    let slug = slug.ok_or_else(|| ApiError::field("slug", "This field is required."))?;
    let name = name.unwrap_or_else(|| slug.to_string());
    let made = operator.store(&app).create_organization(slug, name).await?;
    Ok((StatusCode::CREATED, Json(view(made))))
}

#[utoipa::path(get, path = "/organization/{id}/", tag = "organizations",
    params(("id" = Uuid, Path)), responses((status = 200, body = OrganizationView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OrganizationId>,
) -> Answer<Json<OrganizationView>> {
    Ok(Json(view(find(&app, &operator, id).await?)))
}

#[utoipa::path(put, path = "/organization/{id}/", tag = "organizations",
    params(("id" = Uuid, Path)), request_body = OrganizationName,
    responses((status = 200, body = OrganizationView)))]
pub async fn replace(
    app: State<App>,
    operator: Operator,
    id: Ids<OrganizationId>,
    fields: Fields,
) -> Answer<Json<OrganizationView>> {
    change(app, operator, id, fields).await
}

#[utoipa::path(patch, path = "/organization/{id}/", tag = "organizations",
    params(("id" = Uuid, Path)), request_body = OrganizationName,
    responses((status = 200, body = OrganizationView)))]
pub async fn change(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OrganizationId>,
    mut fields: Fields,
) -> Answer<Json<OrganizationView>> {
    let found = find(&app, &operator, id).await?;
    operator.may_administer(id)?;
    let name = fields.required("name", text(128));
    if let Some(slug) = fields.optional("slug", slug)
        && slug != found.slug
    {
        fields.refuse("slug", "A slug never changes.");
    }
    fields.finish()?;
    let name = name.unwrap_or(found.name);
    Ok(Json(view(operator.store(&app).rename_organization(id, name).await?)))
}

/// Only without devices; its firmware goes with it.
#[utoipa::path(delete, path = "/organization/{id}/", tag = "organizations",
    params(("id" = Uuid, Path)), responses((status = 204), (status = 409)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OrganizationId>,
) -> Answer<StatusCode> {
    find(&app, &operator, id).await?;
    operator.must_be_superuser()?;
    let files = operator.store(&app).delete_organization(id).await?;
    forget_files(&app, files).await;
    Ok(StatusCode::NO_CONTENT)
}

/// The organization of this id or slug, if `scope` sees it.
pub(super) async fn named(app: &App, scope: &Scope, name: &str) -> Answer<Option<Organization>> {
    let found = match (Uuid::try_parse(name), name.parse()) {
        (Ok(id), _) => app.store.organization_by_id(OrganizationId(id)).await?,
        (Err(_), Ok(slug)) => app.store.organization(slug).await?,
        (Err(_), Err(_)) => None,
    };
    Ok(found.filter(|found| scope.sees(Some(found.id))))
}

pub(super) async fn find(
    app: &App,
    operator: &Operator,
    id: OrganizationId,
) -> Answer<Organization> {
    operator.visible(app.store.organization_by_id(id).await?, |found| Some(found.id))
}

impl From<Rejection<OrganizationRefusal>> for ApiError {
    fn from(rejection: Rejection<OrganizationRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(OrganizationRefusal::Unknown) => Self::not_found(),
            Rejection::Refused(OrganizationRefusal::SlugTaken) => {
                Self::field("slug", "An organization of this slug exists.")
            }
            Rejection::Refused(refusal @ OrganizationRefusal::InUse) => {
                Self::conflict(format!("The organization stays: {refusal}."))
            }
        }
    }
}
