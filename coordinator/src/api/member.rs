//! `organization/{id}/member/`: who belongs to an organization, which its administrators look after.
//! Nobody changes their own role.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::ids::{OrganizationId, UserId};
use utoipa::ToSchema;

use super::{
    App, Operator,
    account::RoleName,
    body::{Fields, text, word},
    error::{Answer, ApiError},
    organization,
    page::{ListQuery, Listing, Paging},
    path::Ids,
};
use crate::store::{
    Rejection,
    listing::Order,
    membership::{Member, MemberRefusal},
    user::Role,
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["name"];

#[derive(Debug, Serialize, ToSchema)]
pub struct MemberView {
    #[schema(value_type = Uuid)]
    user: UserId,
    username: String,
    #[schema(value_type = RoleName)]
    role: &'static str,
}

#[derive(Debug, ToSchema)]
pub struct NewMember {
    /// A user whom the superuser has made. Who belongs to others' organizations is the superuser's
    /// to add.
    #[schema(max_length = 150, example = "alice")]
    pub username: String,
    pub role: RoleName,
}

#[derive(Debug, ToSchema)]
pub struct MemberRole {
    pub role: RoleName,
}

fn view(member: Member) -> MemberView {
    MemberView { user: member.user, username: member.name, role: member.role.as_str() }
}

#[utoipa::path(get, path = "/organization/{id}/member/", tag = "organizations",
    params(("id" = Uuid, Path), Paging,
        ("ordering" = Option<String>, Query)), responses((status = 200, body = Listing<MemberView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OrganizationId>,
    mut query: ListQuery,
) -> Answer<Json<Listing<MemberView>>> {
    find(&app, &operator, id).await?;
    let by_name = Order { column: "name", descending: false };
    let order = query.order(COLUMNS, by_name);
    let found = app.store.members(id, order, query.rows()?).await?;
    Ok(Json(query.listing(found, view)?))
}

#[utoipa::path(post, path = "/organization/{id}/member/", tag = "organizations",
    params(("id" = Uuid, Path)), request_body = NewMember,
    responses((status = 201, body = MemberView)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OrganizationId>,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<MemberView>)> {
    find(&app, &operator, id).await?;
    let name = fields.required("username", text(150));
    let role = fields.required("role", word::<Role>);
    fields.finish()?;
    let (Some(name), Some(role)) = (name, role) else { return Err(ApiError::not_found()) };
    if name == operator.user.name && !operator.user.superuser {
        return Err(ApiError::forbidden());
    }
    let scope = operator.looks_after()?;
    let member = operator.store(&app).add_member(scope, id, name, role).await?;
    Ok((StatusCode::CREATED, Json(view(member))))
}

#[utoipa::path(get, path = "/organization/{id}/member/{user_id}/", tag = "organizations",
    params(("id" = Uuid, Path), ("user_id" = Uuid, Path)),
    responses((status = 200, body = MemberView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids((id, user)): Ids<(OrganizationId, UserId)>,
) -> Answer<Json<MemberView>> {
    find(&app, &operator, id).await?;
    Ok(Json(view(app.store.member(id, user).await?.ok_or_else(ApiError::not_found)?)))
}

#[utoipa::path(put, path = "/organization/{id}/member/{user_id}/", tag = "organizations",
    params(("id" = Uuid, Path), ("user_id" = Uuid, Path)), request_body = MemberRole,
    responses((status = 200, body = MemberView)))]
pub async fn replace(
    app: State<App>,
    operator: Operator,
    ids: Ids<(OrganizationId, UserId)>,
    fields: Fields,
) -> Answer<Json<MemberView>> {
    change(app, operator, ids, fields).await
}

#[utoipa::path(patch, path = "/organization/{id}/member/{user_id}/", tag = "organizations",
    params(("id" = Uuid, Path), ("user_id" = Uuid, Path)), request_body = MemberRole,
    responses((status = 200, body = MemberView)))]
pub async fn change(
    State(app): State<App>,
    operator: Operator,
    Ids((id, user)): Ids<(OrganizationId, UserId)>,
    mut fields: Fields,
) -> Answer<Json<MemberView>> {
    let member = find_other(&app, &operator, id, user).await?;
    let role = fields.required("role", word::<Role>);
    fields.fixed("user", user.to_string());
    fields.fixed("username", member.name);
    fields.finish()?;
    let role = role.unwrap_or(member.role);
    Ok(Json(view(operator.store(&app).change_member(id, user, role).await?)))
}

#[utoipa::path(delete, path = "/organization/{id}/member/{user_id}/", tag = "organizations",
    params(("id" = Uuid, Path), ("user_id" = Uuid, Path)), responses((status = 204)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids((id, user)): Ids<(OrganizationId, UserId)>,
) -> Answer<StatusCode> {
    find_other(&app, &operator, id, user).await?;
    operator.store(&app).remove_member(id, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The organization, if the user looks after it.
async fn find(app: &App, operator: &Operator, id: OrganizationId) -> Answer<()> {
    organization::find(app, operator, id).await?;
    operator.may_administer(id)
}

/// A member other than the user, whose own role is not theirs to change.
async fn find_other(
    app: &App,
    operator: &Operator,
    id: OrganizationId,
    user: UserId,
) -> Answer<Member> {
    find(app, operator, id).await?;
    let member = app.store.member(id, user).await?.ok_or_else(ApiError::not_found)?;
    if user == operator.user.user && !operator.user.superuser {
        return Err(ApiError::forbidden_because("Nobody changes their own role."));
    }
    Ok(member)
}

impl From<Rejection<MemberRefusal>> for ApiError {
    fn from(rejection: Rejection<MemberRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(MemberRefusal::Unknown) => Self::not_found(),
            Rejection::Refused(MemberRefusal::UnknownUser) => {
                Self::field("username", "There is no such user.")
            }
            Rejection::Refused(MemberRefusal::Known) => {
                Self::field("username", "The user is a member already.")
            }
        }
    }
}
