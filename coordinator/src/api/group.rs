//! `group/` and `location/`: what an organization sorts its devices by.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::ids::{OrganizationId, OrganizationSlug};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, Operator,
    body::{Fields, text},
    error::{Answer, ApiError},
    organization::named,
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::store::{
    Rejection,
    listing::Order,
    place::{Kind, Place, PlaceList, PlaceRefusal},
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["name", "created", "modified"];

/// A name, and whose it is.
#[derive(Debug, ToSchema)]
pub struct PlaceBody {
    #[schema(min_length = 1, max_length = 64, pattern = "\\S", example = "north")]
    pub name: String,
    /// A slug or an id; needed only by who sees several.
    #[schema(nullable = false, example = "default")]
    pub organization: Option<String>,
}

#[derive(Debug, ToSchema)]
pub struct PlaceName {
    #[schema(min_length = 1, max_length = 64, pattern = "\\S", example = "north")]
    pub name: String,
}

#[derive(Debug, ToSchema)]
pub struct PlacePatch {
    #[schema(
        min_length = 1,
        max_length = 64,
        nullable = false,
        pattern = "\\S",
        example = "north"
    )]
    pub name: Option<String>,
}

/// A group or a location.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlaceView {
    id: Uuid,
    name: String,
    #[schema(value_type = Uuid)]
    organization: OrganizationId,
    #[schema(value_type = String)]
    organization_slug: OrganizationSlug,
    created: Time,
    modified: Time,
}

fn view(place: Place) -> PlaceView {
    PlaceView {
        id: place.id,
        name: place.name,
        organization: place.organization,
        organization_slug: place.organization_slug,
        created: Time(place.created),
        modified: Time(place.modified),
    }
}

/// The handlers of one kind, which differ by their paths alone.
macro_rules! handlers {
    ($name:ident, $kind:expr, $all:tt, $one:tt) => {
        pub mod $name {
            use super::*;

            #[utoipa::path(get, path = $all, tag = "devices",
                                        params(Page, ("name" = Option<String>, Query)),
                                        responses((status = 200, body = Listing<PlaceView>)))]
            pub async fn list(
                State(app): State<App>,
                operator: Operator,
                mut query: ListQuery,
            ) -> Answer<Json<Listing<PlaceView>>> {
                super::list(&app, $kind, &operator, &mut query).await
            }

            #[utoipa::path(post, path = $all, tag = "devices",
                                        request_body = PlaceBody,
                                        responses((status = 201, body = PlaceView)))]
            pub async fn create(
                State(app): State<App>,
                operator: Operator,
                fields: Fields,
            ) -> Answer<(StatusCode, Json<PlaceView>)> {
                super::create(&app, $kind, &operator, fields).await
            }

            #[utoipa::path(get, path = $one, tag = "devices",
                                        params(("id" = Uuid, Path)),
                                        responses((status = 200, body = PlaceView)))]
            pub async fn detail(
                State(app): State<App>,
                operator: Operator,
                Ids(id): Ids<Uuid>,
            ) -> Answer<Json<PlaceView>> {
                Ok(Json(view(find(&app, $kind, &operator, id).await?)))
            }

            #[utoipa::path(put, path = $one, tag = "devices",
                                        params(("id" = Uuid, Path)),
                                        request_body = PlaceName,
                                        responses((status = 200, body = PlaceView)))]
            pub async fn replace(
                app: State<App>,
                operator: Operator,
                id: Ids<Uuid>,
                fields: Fields,
            ) -> Answer<Json<PlaceView>> {
                change(app, operator, id, fields).await
            }

            #[utoipa::path(patch, path = $one, tag = "devices",
                                        params(("id" = Uuid, Path)),
                                        request_body = PlacePatch,
                                        responses((status = 200, body = PlaceView)))]
            pub async fn change(
                State(app): State<App>,
                operator: Operator,
                Ids(id): Ids<Uuid>,
                fields: Fields,
            ) -> Answer<Json<PlaceView>> {
                super::change(&app, $kind, &operator, id, fields).await
            }

            /// Its devices are in none then.
            #[utoipa::path(delete, path = $one, tag = "devices",
                                        params(("id" = Uuid, Path)),
                                        responses((status = 204)))]
            pub async fn delete(
                State(app): State<App>,
                operator: Operator,
                Ids(id): Ids<Uuid>,
            ) -> Answer<StatusCode> {
                super::delete(&app, $kind, &operator, id).await
            }
        }
    };
}

handlers!(groups, Kind::Group, "/group/", "/group/{id}/");
handlers!(locations, Kind::Location, "/location/", "/location/{id}/");

async fn list(
    app: &App,
    kind: Kind,
    operator: &Operator,
    query: &mut ListQuery,
) -> Answer<Json<Listing<PlaceView>>> {
    let wanted = PlaceList {
        scope: operator.sees(),
        organization: query.organization()?,
        name: query.text("name").map(str::to_owned),
        order: query.order(COLUMNS, Order { column: "created", descending: true }),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.places(kind, wanted).await?, view)?))
}

async fn create(
    app: &App,
    kind: Kind,
    operator: &Operator,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<PlaceView>)> {
    let name = fields.required("name", text(64));
    let asked = fields.optional("organization", text(64));
    fields.finish()?;
    let organization = organization(app, operator, asked).await?;
    operator.may_change(Some(organization))?;
    // `finish` has made sure of it.
    let name = name.unwrap_or_default();
    let place = operator.store(app).create_place(kind, organization, name).await?;
    Ok((StatusCode::CREATED, Json(view(place))))
}

/// By its slug or id, or the only one that there is to this user.
pub(super) async fn organization(
    app: &App,
    operator: &Operator,
    asked: Option<String>,
) -> Answer<OrganizationId> {
    let sees = operator.sees();
    let (found, otherwise) = match &asked {
        Some(asked) => (named(app, &sees, asked).await?, "There is no such organization."),
        None => {
            let mut known = app.store.organizations().await?;
            known.retain(|known| sees.sees(Some(known.id)));
            let only = known.pop().filter(|_| known.is_empty());
            (only, "Name an organization.")
        }
    };
    found.map(|found| found.id).ok_or_else(|| ApiError::field("organization", otherwise))
}

async fn change(
    app: &App,
    kind: Kind,
    operator: &Operator,
    id: Uuid,
    mut fields: Fields,
) -> Answer<Json<PlaceView>> {
    let place = find(app, kind, operator, id).await?;
    operator.may_change(Some(place.organization))?;
    let name = fields.required("name", text(64));
    fields.fixed("organization", place.organization.to_string());
    fields.fixed("organization_slug", place.organization_slug.as_str());
    fields.finish()?;
    let place = match name {
        Some(name) => operator.store(app).rename_place(kind, id, name).await?,
        None => place,
    };
    Ok(Json(view(place)))
}

async fn delete(app: &App, kind: Kind, operator: &Operator, id: Uuid) -> Answer<StatusCode> {
    let place = find(app, kind, operator, id).await?;
    operator.may_change(Some(place.organization))?;
    operator.store(app).delete_place(kind, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn find(app: &App, kind: Kind, operator: &Operator, id: Uuid) -> Answer<Place> {
    operator.visible(app.store.place(kind, id).await?, |place| Some(place.organization))
}

impl From<Rejection<PlaceRefusal>> for ApiError {
    fn from(rejection: Rejection<PlaceRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(PlaceRefusal::Unknown) => Self::not_found(),
            Rejection::Refused(PlaceRefusal::NameTaken) => {
                Self::field("name", "The organization has one of this name.")
            }
        }
    }
}
