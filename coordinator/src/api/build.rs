//! `build/`: one version of a category's firmware.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::ids::{BuildId, CategoryId, OrganizationId};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, Operator,
    body::{Fields, any_text, id, line, text},
    category::missing,
    error::{Answer, ApiError},
    image::forget_files,
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::store::{
    Rejection,
    build::{Build, BuildChange, BuildList, BuildRefusal},
    listing::Order,
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["version", "created", "modified"];

/// What a build is made of.
#[derive(Debug, ToSchema)]
pub struct BuildBody {
    pub category: Uuid,
    /// Once in its category.
    #[schema(min_length = 1, max_length = 64, pattern = "\\S", example = "45.00.004")]
    pub version: String,
    #[schema(max_length = 64, nullable = false, example = "Telit FN990A")]
    pub modem_model: Option<String>,
    /// Markdown.
    #[schema(max_length = 65536, nullable = false)]
    pub changelog: Option<String>,
}

#[derive(Debug, ToSchema)]
pub struct BuildPatch {
    #[schema(nullable = false)]
    pub category: Option<Uuid>,
    #[schema(
        min_length = 1,
        max_length = 64,
        nullable = false,
        pattern = "\\S",
        example = "45.00.004"
    )]
    pub version: Option<String>,
    #[schema(max_length = 64, nullable = false, example = "Telit FN990A")]
    pub modem_model: Option<String>,
    #[schema(max_length = 65536, nullable = false)]
    pub changelog: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BuildView {
    #[schema(value_type = Uuid)]
    id: BuildId,
    category_relation: CategoryRelation,
    created: Time,
    modified: Time,
    version: String,
    modem_model: String,
    /// Not in a batch's live events.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub(super) changelog: Option<String>,
    #[schema(value_type = Uuid)]
    category: CategoryId,
}

#[derive(Debug, Serialize, ToSchema)]
struct CategoryRelation {
    name: String,
    /// Null: shared by all.
    #[schema(value_type = Option<Uuid>)]
    organization: Option<OrganizationId>,
}

pub(super) fn view(build: Build) -> BuildView {
    BuildView {
        id: build.id,
        category_relation: CategoryRelation {
            name: build.category_name,
            organization: build.organization,
        },
        created: Time(build.created),
        modified: Time(build.modified),
        version: build.version,
        modem_model: build.modem_model,
        changelog: Some(build.changelog),
        category: build.category,
    }
}

#[utoipa::path(get, path = "/build/", tag = "firmware",
    params(Page, ("category" = Option<Uuid>, Query), ("version" = Option<String>, Query),
        ("modem_model" = Option<String>, Query)),
    responses((status = 200, body = Listing<BuildView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<BuildView>>> {
    let newest = Order { column: "created", descending: true };
    let wanted = BuildList {
        scope: operator.sees(),
        organization: query.organization()?,
        category: query.id("category")?,
        version: query.text("version").map(str::to_owned),
        modem_model: query.text("modem_model").map(str::to_owned),
        order: query.order(COLUMNS, newest),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.builds(wanted).await?, view)?))
}

#[utoipa::path(post, path = "/build/", tag = "firmware",
    request_body = BuildBody,
    responses((status = 201, body = BuildView)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    fields: Fields,
) -> Answer<(StatusCode, Json<BuildView>)> {
    let change = read(fields)?;
    // `read` has made sure of it: it is required.
    let category = change.category.ok_or_else(|| ApiError::field("category", "Required."))?;
    may_use(&app, &operator, category).await?;
    let build = operator.store(&app).create_build(category, change).await?;
    Ok((StatusCode::CREATED, Json(view(build))))
}

#[utoipa::path(get, path = "/build/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = BuildView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
) -> Answer<Json<BuildView>> {
    Ok(Json(view(find(&app, &operator, id).await?)))
}

#[utoipa::path(put, path = "/build/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    request_body = BuildBody,
    responses((status = 200, body = BuildView), (status = 409)))]
pub async fn replace(
    app: State<App>,
    operator: Operator,
    id: Ids<BuildId>,
    fields: Fields,
) -> Answer<Json<BuildView>> {
    change(app, operator, id, fields).await
}

#[utoipa::path(patch, path = "/build/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    request_body = BuildPatch,
    responses((status = 200, body = BuildView), (status = 409)))]
pub async fn change(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
    fields: Fields,
) -> Answer<Json<BuildView>> {
    let build = find(&app, &operator, id).await?;
    operator.may_change(build.organization)?;
    let change = read(fields)?;
    if let Some(category) = change.category {
        may_use(&app, &operator, category).await?;
    }
    Ok(Json(view(operator.store(&app).change_build(id, change).await?)))
}

#[utoipa::path(delete, path = "/build/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    responses((status = 204), (status = 409)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
) -> Answer<StatusCode> {
    let build = find(&app, &operator, id).await?;
    operator.may_change(build.organization)?;
    let files = operator.store(&app).delete_build(id).await?;
    forget_files(&app, files).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn find(app: &App, operator: &Operator, id: BuildId) -> Answer<Build> {
    operator.visible(app.store.build(id).await?, |build| build.organization)
}

/// Whether a build may be put under the category.
async fn may_use(app: &App, operator: &Operator, id: CategoryId) -> Answer<()> {
    let category = operator.visible(app.store.category(id).await?, |found| found.organization);
    let category = category.map_err(|error| error.of_field("category", missing(id)))?;
    operator.may_change(category.organization)
}

fn read(mut fields: Fields) -> Answer<BuildChange> {
    fields.ignore(&["category_relation"]);
    let change = BuildChange {
        category: fields.required("category", id),
        version: fields.required("version", text(64)),
        modem_model: fields.optional("modem_model", line(64)),
        changelog: fields.optional("changelog", any_text(65_536)),
    };
    fields.finish()?;
    Ok(change)
}

impl From<Rejection<BuildRefusal>> for ApiError {
    fn from(rejection: Rejection<BuildRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(BuildRefusal::Unknown) => Self::not_found(),
            Rejection::Refused(BuildRefusal::UnknownCategory) => {
                Self::field("category", "There is no such category.")
            }
            Rejection::Refused(BuildRefusal::VersionTaken) => {
                Self::field("version", "A build of this version exists in the category.")
            }
            Rejection::Refused(refusal @ (BuildRefusal::InUse | BuildRefusal::UsedElsewhere)) => {
                Self::conflict(format!("The build stays as it is: {refusal}."))
            }
        }
    }
}
