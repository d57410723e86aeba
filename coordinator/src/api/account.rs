//! `user/`: who may use the coordinator. Users are the superuser's to make and change; everybody
//! sees and changes themselves at `user/me/`, as far as that raises nobody.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::Value;
use shared::ids::UserId;
use utoipa::ToSchema;

use super::{
    App, Operator,
    body::{Fields, any_text, boolean, nullable, text, word},
    error::{Answer, ApiError},
    organization::named,
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::password::{LONGEST, SHORTEST};
use crate::store::{
    Rejection,
    account::{User, UserChange, UserList},
    listing::{Order, Scope},
    user::{Role, UserRefusal},
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["name", "created", "modified"];

/// Organizations that one user may belong to.
const MEMBERSHIPS: usize = 1000;

#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    #[schema(value_type = Uuid)]
    id: UserId,
    username: String,
    superuser: bool,
    active: bool,
    has_password: bool,
    memberships: Vec<MembershipView>,
    last_login: Option<Time>,
    created: Time,
    modified: Time,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MembershipView {
    /// A slug.
    pub organization: String,
    /// Each includes the one before.
    #[schema(value_type = RoleName)]
    pub role: &'static str,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum RoleName {
    Viewer,
    Operator,
    Administrator,
}

#[derive(Debug, ToSchema)]
pub struct MembershipBody {
    /// A slug or an id.
    #[schema(max_length = 64, example = "default")]
    pub organization: String,
    pub role: RoleName,
}

/// What a user is made of. PATCH may leave any of it out.
#[derive(Debug, ToSchema)]
pub struct UserBody {
    #[schema(min_length = 1, max_length = 150, pattern = "^[A-Za-z0-9@.+_-]+$", example = "alice")]
    pub username: String,
    /// Null: nobody logs in as this user; tokens work.
    #[schema(format = Password, min_length = 10, max_length = 128, example = "correct horse battery")]
    pub password: Option<String>,
    #[schema(nullable = false)]
    pub superuser: Option<bool>,
    #[schema(nullable = false)]
    pub active: Option<bool>,
    /// All of them.
    #[schema(nullable = false, max_items = 1000)]
    pub memberships: Option<Vec<MembershipBody>>,
}

#[derive(Debug, ToSchema)]
pub struct UserPatch {
    #[schema(
        min_length = 1,
        max_length = 150,
        nullable = false,
        pattern = "^[A-Za-z0-9@.+_-]+$",
        example = "alice"
    )]
    pub username: Option<String>,
    #[schema(format = Password, min_length = 10, max_length = 128, example = "correct horse battery")]
    pub password: Option<String>,
    #[schema(nullable = false)]
    pub superuser: Option<bool>,
    #[schema(nullable = false)]
    pub active: Option<bool>,
    #[schema(nullable = false, max_items = 1000)]
    pub memberships: Option<Vec<MembershipBody>>,
}

#[derive(Debug, ToSchema)]
pub struct OwnPatch {
    #[schema(format = Password, min_length = 10, max_length = 128, example = "correct horse battery")]
    pub password: String,
    /// Needed of who has a password.
    #[schema(format = Password, nullable = false, max_length = 1024, example = "correct horse battery")]
    pub current_password: Option<String>,
}

fn view(user: User) -> UserView {
    let memberships = user.memberships.into_iter();
    UserView {
        id: user.id,
        username: user.name,
        superuser: user.superuser,
        active: user.active,
        has_password: user.has_password,
        memberships: memberships
            .map(|of| MembershipView { organization: of.slug.to_string(), role: of.role.as_str() })
            .collect(),
        last_login: user.last_login.map(Time),
        created: Time(user.created),
        modified: Time(user.modified),
    }
}

#[utoipa::path(get, path = "/user/", tag = "users",
    params(
        Page,
        ("username" = Option<String>, Query),
        ("active" = Option<bool>, Query),
        ("superuser" = Option<bool>, Query),
    ),
    responses((status = 200, body = Listing<UserView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<UserView>>> {
    operator.must_be_superuser()?;
    let by_name = Order { column: "name", descending: false };
    let wanted = UserList {
        name: query.text("username").map(str::to_owned),
        active: query.boolean("active")?,
        superuser: query.boolean("superuser")?,
        organization: query.organization()?,
        order: query.order(COLUMNS, by_name),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.users(wanted).await?, view)?))
}

#[utoipa::path(post, path = "/user/", tag = "users", request_body = UserBody,
    responses((status = 201, body = UserView)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    fields: Fields,
) -> Answer<(StatusCode, Json<UserView>)> {
    operator.must_be_superuser()?;
    let change = read(&app, fields).await?;
    let user = operator.store(&app).create_account(change).await?;
    Ok((StatusCode::CREATED, Json(view(user))))
}

#[utoipa::path(get, path = "/user/{id}/", tag = "users", params(("id" = Uuid, Path)),
    responses((status = 200, body = UserView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<UserId>,
) -> Answer<Json<UserView>> {
    operator.must_be_superuser()?;
    Ok(Json(view(app.store.user(id).await?.ok_or_else(ApiError::not_found)?)))
}

/// A changed password, and `"active": false`, end all of the user's tokens.
#[utoipa::path(put, path = "/user/{id}/", tag = "users", params(("id" = Uuid, Path)),
    request_body = UserBody, responses((status = 200, body = UserView), (status = 409)))]
pub async fn replace(
    app: State<App>,
    operator: Operator,
    id: Ids<UserId>,
    fields: Fields,
) -> Answer<Json<UserView>> {
    change(app, operator, id, fields).await
}

/// A changed password, and `"active": false`, end all of the user's tokens.
#[utoipa::path(patch, path = "/user/{id}/", tag = "users", params(("id" = Uuid, Path)),
    request_body = UserPatch, responses((status = 200, body = UserView), (status = 409)))]
pub async fn change(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<UserId>,
    fields: Fields,
) -> Answer<Json<UserView>> {
    operator.must_be_superuser()?;
    app.store.user(id).await?.ok_or_else(ApiError::not_found)?;
    let change = read(&app, fields).await?;
    Ok(Json(view(operator.store(&app).change_user(id, change).await?)))
}

/// The last superuser stays.
#[utoipa::path(delete, path = "/user/{id}/", tag = "users", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 409)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<UserId>,
) -> Answer<StatusCode> {
    operator.must_be_superuser()?;
    operator.store(&app).delete_user(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who asks.
#[utoipa::path(get, path = "/user/me/", tag = "users", responses((status = 200, body = UserView)))]
pub async fn me(State(app): State<App>, operator: Operator) -> Answer<Json<UserView>> {
    let user = app.store.user(operator.user.user).await?;
    // Deleted meanwhile, and the token with them.
    Ok(Json(view(user.ok_or_else(ApiError::invalid_token)?)))
}

/// A new password of one's own. It ends all of one's tokens, that of this request too. The first one
/// cannot be set with a token that ends.
#[utoipa::path(patch, path = "/user/me/", tag = "users", request_body = OwnPatch,
    responses((status = 200, body = UserView)))]
pub async fn change_me(
    State(app): State<App>,
    operator: Operator,
    mut fields: Fields,
) -> Answer<Json<UserView>> {
    let new = fields.optional("password", password);
    let current = fields.optional("current_password", any_text(1024));
    fields.finish()?;
    let Some(new) = new else {
        return Err(ApiError::field("password", "This field is required."));
    };
    let id = operator.user.user;
    let was = app.store.password(id).await?;
    if was.is_none() && would_outlive_itself(&operator) {
        return Err(ApiError::forbidden_because("A token that ends gives nobody a password."));
    }
    if was.is_some() && current.is_none() {
        return Err(ApiError::field("current_password", "This field is required."));
    }
    if was.is_some() {
        let attempt = app.logins.take(id.0, app.store.clock().now());
        attempt.map_err(ApiError::throttled)?;
        let right = app.passwords.verify(current.unwrap_or_default(), was.clone()).await?;
        if !right {
            return Err(wrong_password());
        }
    }
    let password = Some(Some(app.passwords.hash(new).await?));
    let change = UserChange { password, password_was: Some(was), ..UserChange::default() };
    match operator.store(&app).change_user(id, change).await {
        Err(Rejection::Refused(UserRefusal::Unknown)) => Err(ApiError::invalid_token()),
        changed => Ok(Json(view(changed?))),
    }
}

/// Whether the token could make itself a password, and with that a login and tokens without an end.
/// Superusers set everybody's passwords.
fn would_outlive_itself(operator: &Operator) -> bool {
    let user = &operator.user;
    user.expires.is_some() && !user.login && !user.superuser
}

fn wrong_password() -> ApiError {
    ApiError::field("current_password", "This is not the password.")
}

async fn read(app: &App, mut fields: Fields) -> Answer<UserChange> {
    fields.ignore(&["has_password", "last_login"]);
    let name = fields.required("username", username);
    let new = fields.optional("password", nullable(password));
    let superuser = fields.optional("superuser", boolean);
    let active = fields.optional("active", boolean);
    let asked = fields.optional("memberships", memberships);
    // An empty list is one as well: it takes all of them away.
    let mut memberships = asked.as_ref().map(|_| Vec::new());
    for (organization, role) in asked.into_iter().flatten() {
        match named(app, &Scope::Everything, &organization).await? {
            Some(found) => memberships.get_or_insert_default().push((found.id, role)),
            None => {
                let message = format!("There is no organization {organization:?}.");
                fields.refuse("memberships", message);
            }
        }
    }
    fields.finish()?;
    let password = match new {
        Some(Some(new)) => Some(Some(app.passwords.hash(new).await?)),
        Some(None) => Some(None),
        None => None,
    };
    Ok(UserChange { name, superuser, active, password, password_was: None, memberships })
}

/// What can stand in a log without surprise.
fn username(value: Value) -> Result<String, String> {
    let name = text(150)(value)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "@.+-_".contains(c);
    if name.chars().all(plain) {
        Ok(name)
    } else {
        Err("Enter letters, digits and @ . + - _ only.".into())
    }
}

fn password(value: Value) -> Result<String, String> {
    let password = any_text(LONGEST)(value)?;
    if password.chars().count() < SHORTEST {
        return Err(format!("Ensure this field has at least {SHORTEST} characters."));
    }
    Ok(password)
}

fn memberships(value: Value) -> Result<Vec<(String, Role)>, String> {
    let Value::Array(items) = value else { return Err("Expected a list.".into()) };
    if items.len() > MEMBERSHIPS {
        return Err(format!("Ensure this field has no more than {MEMBERSHIPS} items."));
    }
    let one = |item: Value| {
        let Value::Object(mut item) = item else { return Err("Expected objects.".to_owned()) };
        let mut field = |name: &str| item.remove(name).unwrap_or_default();
        Ok((text(64)(field("organization"))?, word::<Role>(field("role"))?))
    };
    items.into_iter().map(one).collect()
}

impl From<Rejection<UserRefusal>> for ApiError {
    fn from(rejection: Rejection<UserRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(UserRefusal::Unknown) => Self::not_found(),
            Rejection::Refused(UserRefusal::PasswordChanged) => wrong_password(),
            Rejection::Refused(UserRefusal::NameTaken) => {
                Self::field("username", "A user of this name exists.")
            }
            Rejection::Refused(refusal @ UserRefusal::UnknownOrganization) => {
                Self::field("memberships", format!("{refusal}."))
            }
            Rejection::Refused(refusal @ UserRefusal::LastSuperuser) => {
                Self::conflict(format!("The user stays a superuser: {refusal}."))
            }
        }
    }
}
