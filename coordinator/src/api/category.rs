//! `category/`: firmware grouped by vendor or model family.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::ids::{CategoryId, OrganizationId};
use utoipa::ToSchema;

use super::{
    App, Operator,
    body::{Fields, any_text, nullable, text},
    error::{Answer, ApiError},
    image::forget_files,
    organization::named,
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::store::{
    Rejection,
    category::{Category, CategoryChange, CategoryList, CategoryRefusal},
    listing::Order,
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["name", "created", "modified"];

/// What a category is made of.
#[derive(Debug, ToSchema)]
pub struct CategoryBody {
    #[schema(min_length = 1, max_length = 64, pattern = "\\S", example = "FN990A")]
    pub name: String,
    #[schema(max_length = 10000, nullable = false)]
    pub description: Option<String>,
    /// A slug or an id; null: shared by all, which is the superuser's to say. Left out: the user's only one, and shared
    /// where a superuser leaves it out; needed of who has several.
    #[schema(example = "default")]
    pub organization: Option<String>,
}

#[derive(Debug, ToSchema)]
pub struct CategoryPatch {
    #[schema(
        min_length = 1,
        max_length = 64,
        nullable = false,
        pattern = "\\S",
        example = "FN990A"
    )]
    pub name: Option<String>,
    #[schema(max_length = 10000, nullable = false)]
    pub description: Option<String>,
    #[schema(example = "default")]
    pub organization: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CategoryView {
    #[schema(value_type = Uuid)]
    id: CategoryId,
    created: Time,
    modified: Time,
    name: String,
    description: String,
    /// Null: shared by all.
    #[schema(value_type = Option<Uuid>)]
    organization: Option<OrganizationId>,
}

fn view(category: Category) -> CategoryView {
    CategoryView {
        id: category.id,
        created: Time(category.created),
        modified: Time(category.modified),
        name: category.name,
        description: category.description,
        organization: category.organization,
    }
}

#[utoipa::path(get, path = "/category/", tag = "firmware",
    params(Page, ("name" = Option<String>, Query)),
    responses((status = 200, body = Listing<CategoryView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<CategoryView>>> {
    let newest = Order { column: "created", descending: true };
    let wanted = CategoryList {
        scope: operator.sees(),
        organization: query.organization()?,
        name: query.text("name").map(str::to_owned),
        order: query.order(COLUMNS, newest),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.categories(wanted).await?, view)?))
}

#[utoipa::path(post, path = "/category/", tag = "firmware",
    request_body = CategoryBody,
    responses((status = 201, body = CategoryView)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    fields: Fields,
) -> Answer<(StatusCode, Json<CategoryView>)> {
    let mut change = read(&app, &operator, fields).await?;
    if change.organization.is_none() {
        change.organization = Some(operator.home()?);
    }
    operator.may_change(change.organization.flatten())?;
    let category = operator.store(&app).create_category(change).await?;
    Ok((StatusCode::CREATED, Json(view(category))))
}

#[utoipa::path(get, path = "/category/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = CategoryView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<CategoryId>,
) -> Answer<Json<CategoryView>> {
    Ok(Json(view(find(&app, &operator, id).await?)))
}

#[utoipa::path(put, path = "/category/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    request_body = CategoryBody,
    responses((status = 200, body = CategoryView), (status = 409)))]
pub async fn replace(
    app: State<App>,
    operator: Operator,
    id: Ids<CategoryId>,
    fields: Fields,
) -> Answer<Json<CategoryView>> {
    change(app, operator, id, fields).await
}

#[utoipa::path(patch, path = "/category/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    request_body = CategoryPatch,
    responses((status = 200, body = CategoryView), (status = 409)))]
pub async fn change(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<CategoryId>,
    fields: Fields,
) -> Answer<Json<CategoryView>> {
    let category = find(&app, &operator, id).await?;
    operator.may_change(category.organization)?;
    let change = read(&app, &operator, fields).await?;
    if let Some(organization) = change.organization {
        operator.may_change(organization)?;
    }
    Ok(Json(view(operator.store(&app).change_category(id, change).await?)))
}

#[utoipa::path(delete, path = "/category/{id}/", tag = "firmware",
    params(("id" = Uuid, Path)),
    responses((status = 204), (status = 409)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<CategoryId>,
) -> Answer<StatusCode> {
    let category = find(&app, &operator, id).await?;
    operator.may_change(category.organization)?;
    let files = operator.store(&app).delete_category(id).await?;
    forget_files(&app, files).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(app: &App, operator: &Operator, id: CategoryId) -> Answer<Category> {
    operator.visible(app.store.category(id).await?, |category| category.organization)
}

async fn read(app: &App, operator: &Operator, mut fields: Fields) -> Answer<CategoryChange> {
    let organization = fields.optional("organization", nullable(text(64)));
    let mut change = CategoryChange {
        name: fields.required("name", text(64)),
        description: fields.optional("description", any_text(10_000)),
        organization: None,
    };
    if let Some(asked) = organization {
        let found = match &asked {
            Some(name) => named(app, &operator.sees(), name).await?.map(|found| found.id),
            None => None,
        };
        if let (Some(name), None) = (&asked, found) {
            fields.refuse("organization", missing(name));
        }
        change.organization = Some(found);
    }
    fields.finish()?;
    Ok(change)
}

/// What a field says of an id that leads nowhere.
pub(super) fn missing(id: impl std::fmt::Display) -> String {
    format!("Invalid pk \"{id}\" - object does not exist.")
}

impl From<Rejection<CategoryRefusal>> for ApiError {
    fn from(rejection: Rejection<CategoryRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(CategoryRefusal::Unknown) => Self::not_found(),
            Rejection::Refused(CategoryRefusal::NameTaken) => {
                Self::field("name", "A category of this name exists in the organization.")
            }
            Rejection::Refused(CategoryRefusal::UnknownOrganization) => {
                Self::field("organization", "There is no such organization.")
            }
            Rejection::Refused(
                refusal @ (CategoryRefusal::InUse | CategoryRefusal::UsedElsewhere),
            ) => Self::conflict(format!("The category stays as it is: {refusal}.")),
        }
    }
}
