//! `build/{id}/image/` and `firmware-image/`: the files that modems are flashed with.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use shared::{
    hex::Sha256,
    ids::{BuildId, ImageId, Slot},
    signature::KeyNumber,
};
use utoipa::ToSchema;

use super::{
    App, BASE, Operator, build,
    document::shapes::Conflict,
    error::{Answer, ApiError},
    manifest,
    page::{ListQuery, Listing, Page, Site},
    path::Ids,
    time::Time,
    upload::{Incoming, Parts},
};
use crate::artifacts::download::Stored;
use crate::store::{
    Rejection,
    build::Build,
    image::{Image, ImageList, ImageRefusal, NewImage},
    listing::{Order, Rows},
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["created", "modified", "type"];

/// The parts of an upload.
#[derive(Debug, ToSchema)]
pub struct ImageUpload {
    #[schema(value_type = String, format = Binary)]
    pub file: Vec<u8>,
    /// The upgrade tool: the name of a profile.
    #[schema(rename = "type", pattern = "^[a-z0-9-]{1,32}$", example = "telit-uxfp")]
    pub tool: String,
    /// A JSON list, or a part each; the manifest's models, if nothing is said.
    #[schema(nullable = false, example = json!("[\"FN990A28\"]"))]
    pub boards: Option<String>,
    /// What is signed, byte for byte. It may follow later.
    #[schema(nullable = false)]
    pub manifest: Option<String>,
    /// Signify text.
    #[schema(nullable = false)]
    pub signature: Option<String>,
}

#[derive(Debug, ToSchema)]
pub struct ManifestUpload {
    pub manifest: String,
    /// Signify text.
    pub signature: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ImageView {
    #[schema(value_type = Uuid)]
    id: ImageId,
    created: Time,
    modified: Time,
    /// Where to download it.
    file: String,
    #[serde(rename = "type")]
    tool: String,
    boards: Vec<String>,
    #[schema(value_type = Uuid)]
    build: BuildId,
    /// Bytes.
    size: u64,
    #[schema(value_type = String)]
    sha256: Sha256,
    /// Number of the key; null while there is no manifest.
    #[schema(value_type = Option<String>)]
    signed_by: Option<KeyNumber>,
}

fn view(image: Image, site: &Site) -> ImageView {
    ImageView {
        id: image.id,
        created: Time(image.created),
        modified: Time(image.modified),
        file: site.url(&format!("{BASE}/firmware-image/{}/download/", image.id)),
        tool: image.tool,
        boards: image.boards,
        build: image.build,
        size: image.size,
        sha256: image.sha256,
        signed_by: image.signed_by,
    }
}

#[utoipa::path(get, path = "/build/{id}/image/", tag = "firmware",
    params(("id" = Uuid, Path), Page, ("type" = Option<String>, Query)),
    responses((status = 200, body = Listing<ImageView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
    mut query: ListQuery,
) -> Answer<Json<Listing<ImageView>>> {
    build::find(&app, &operator, id).await?;
    let newest = Order { column: "created", descending: true };
    let wanted = ImageList {
        build: id,
        organization: query.organization()?,
        tool: query.text("type").map(str::to_owned),
        order: query.order(COLUMNS, newest),
        rows: query.rows()?,
    };
    let found = app.store.images(wanted).await?;
    Ok(Json(query.listing(found, |image| view(image, &query.site))?))
}

/// Takes the multipart parts `file`, `type`, and optionally `boards` (a JSON list, or a part each),
/// `manifest` and `signature`.
#[utoipa::path(post, path = "/build/{id}/image/", tag = "firmware",
    params(("id" = Uuid, Path)),
    request_body(content = ImageUpload, content_type = "multipart/form-data"),
    responses(
        (status = 201, body = ImageView),
        (status = 507, description = "The disk or the quota is full.", body = Conflict),
    ))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
    site: Site,
    incoming: Incoming,
) -> Answer<(StatusCode, Json<ImageView>)> {
    let build = build::find(&app, &operator, id).await?;
    operator.may_change(build.organization)?;
    let parts = incoming.read(Some(&app.artifacts)).await?;
    let image = record(&app, &operator, &build, parts).await?;
    Ok((StatusCode::CREATED, Json(view(image, &site))))
}

/// Checks the parts, keeps the file, and records the image; or leaves nothing behind.
async fn record(app: &App, operator: &Operator, of: &Build, parts: Parts) -> Answer<Image> {
    let required = |field| ApiError::field(field, "This field is required.");
    let (file_name, file) = parts.file.ok_or_else(|| required("file"))?;
    let tool = parts.tool.ok_or_else(|| required("type"))?;
    if tool.parse::<Slot>().is_err() {
        return Err(ApiError::field("type", "Expected the name of an upgrade tool."));
    }
    let (size, sha256) = (file.size, file.sha256);
    let build = of.id;
    let subject = manifest::Subject { category: &of.category_name, tool: &tool, size, sha256 };
    let signed = manifest::read(parts.manifest, parts.signature, subject)?;
    let models = signed.as_ref().map(|(_, manifest)| manifest.models.clone());
    let boards = parts.boards.or(models).unwrap_or_default();

    let kept = app.artifacts.hold().await;
    let was_there = app.artifacts.stored(sha256).await?.is_some();
    file.keep().await?;
    let recorded = async {
        let signed = match signed {
            None => None,
            Some((signed, manifest)) => {
                manifest::check_blocks(stored(app, sha256).await?, manifest).await?;
                Some(signed)
            }
        };
        let known = tool.clone();
        let new = NewImage { build, tool, boards, file_name, size, sha256, signed };
        match operator.store(app).create_image(new).await {
            Err(Rejection::Refused(ImageRefusal::TypeTaken)) if !was_there => {
                brought_back(app, build, known, sha256).await
            }
            recorded => Ok(recorded?),
        }
    };
    let recorded = recorded.await;
    drop(kept);
    if recorded.is_err() {
        forget_files(app, [sha256]).await;
    }
    recorded
}

/// A backup may have been restored without its firmware: the image is known, and its file is there again.
async fn brought_back(app: &App, build: BuildId, tool: String, sha256: Sha256) -> Answer<Image> {
    let wanted = ImageList {
        build,
        organization: None,
        tool: Some(tool),
        order: Order { column: "created", descending: false },
        rows: Rows { offset: 0, limit: 1 },
    };
    let known = app.store.images(wanted).await?.rows.into_iter().next();
    let same = known.filter(|image| image.sha256 == sha256);
    same.ok_or_else(|| Rejection::Refused(ImageRefusal::TypeTaken).into())
}

/// Removes files that no image names any more. What cannot be removed is swept at the next start.
pub(super) async fn forget_files(app: &App, files: impl IntoIterator<Item = Sha256>) {
    for sha256 in files {
        let used = async { app.store.is_file_used(sha256).await.map_err(ApiError::from) };
        if let Err(error) = app.artifacts.remove_unless(sha256, used).await {
            tracing::warn!(%sha256, status = %error.status, "a file that nothing names stays");
        }
    }
}

#[utoipa::path(get, path = "/build/{id}/image/{image_id}/", tag = "firmware",
    params(("id" = Uuid, Path), ("image_id" = Uuid, Path)),
    responses((status = 200, body = ImageView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(ids): Ids<(BuildId, ImageId)>,
    site: Site,
) -> Answer<Json<ImageView>> {
    Ok(Json(view(find_in(&app, &operator, ids).await?, &site)))
}

#[utoipa::path(delete, path = "/build/{id}/image/{image_id}/", tag = "firmware",
    params(("id" = Uuid, Path), ("image_id" = Uuid, Path)),
    responses((status = 204), (status = 409)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(ids): Ids<(BuildId, ImageId)>,
) -> Answer<StatusCode> {
    let image = find_in(&app, &operator, ids).await?;
    operator.may_change(image.organization)?;
    let file = operator.store(&app).delete_image(image.id).await?;
    forget_files(&app, [file]).await;
    Ok(StatusCode::NO_CONTENT)
}

/// `build/{id}/image/{id}/download/`
#[utoipa::path(get, path = "/build/{id}/image/{image_id}/download/", tag = "firmware",
    params(("id" = Uuid, Path), ("image_id" = Uuid, Path), ("Range" = Option<String>, Header, description = "`bytes=0-1023`, say.")),
    responses(
        (status = 200, description = "The whole file.", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 206, description = "A range of it.", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 304, description = "The one that the client has (If-None-Match)."),
        (status = 416, description = "The file has no such range."),
    ))]
pub async fn download_in(
    State(app): State<App>,
    operator: Operator,
    Ids(ids): Ids<(BuildId, ImageId)>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let image = find_in(&app, &operator, ids).await?;
    Ok(stored(&app, image.sha256).await?.respond(&method, &headers, &image.file_name))
}

/// `firmware-image/{id}/download/`
#[utoipa::path(get, path = "/firmware-image/{id}/download/", tag = "firmware",
    params(("id" = Uuid, Path), ("Range" = Option<String>, Header, description = "`bytes=0-1023`, say.")),
    responses(
        (status = 200, description = "The whole file.", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 206, description = "A range of it.", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 304, description = "The one that the client has (If-None-Match)."),
        (status = 416, description = "The file has no such range."),
    ))]
pub async fn download(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<ImageId>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let image = find(&app, &operator, id).await?;
    Ok(stored(&app, image.sha256).await?.respond(&method, &headers, &image.file_name))
}

/// Completes an upload with `manifest` and `signature`, once.
#[utoipa::path(post, path = "/image/{id}/manifest/", tag = "firmware",
    params(("id" = Uuid, Path)),
    request_body(content = ManifestUpload, content_type = "multipart/form-data"),
    responses((status = 200, body = ImageView), (status = 409)))]
pub async fn complete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<ImageId>,
    site: Site,
    incoming: Incoming,
) -> Answer<Json<ImageView>> {
    let image = find(&app, &operator, id).await?;
    operator.may_change(image.organization)?;
    let parts = incoming.read(None).await?;
    let build = app.store.build(image.build).await?.ok_or_else(ApiError::not_found)?;
    let subject = manifest::Subject {
        category: &build.category_name,
        tool: &image.tool,
        size: image.size,
        sha256: image.sha256,
    };
    let (signed, manifest) = manifest::read(parts.manifest, parts.signature, subject)?
        .ok_or_else(|| ApiError::field("manifest", "This field is required."))?;
    manifest::check_blocks(stored(&app, image.sha256).await?, manifest).await?;
    Ok(Json(view(operator.store(&app).complete_image(id, signed).await?, &site)))
}

/// The manifest's exact bytes.
#[utoipa::path(get, path = "/image/{id}/manifest/", tag = "firmware",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Object, content_type = "application/json")))]
pub async fn manifest(State(app): State<App>, operator: Operator, Ids(id): Ids<ImageId>) -> Answer {
    find(&app, &operator, id).await?;
    let signed = app.store.image_manifest(id).await?.ok_or_else(ApiError::not_found)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], signed.manifest).into_response())
}

/// Its signature, as signify text.
#[utoipa::path(get, path = "/image/{id}/signature/", tag = "firmware",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn signature(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<ImageId>,
) -> Answer {
    find(&app, &operator, id).await?;
    let signed = app.store.image_manifest(id).await?.ok_or_else(ApiError::not_found)?;
    Ok(signed.signature.into_response())
}

pub(super) async fn find(app: &App, operator: &Operator, id: ImageId) -> Answer<Image> {
    operator.visible(app.store.image(id).await?, |image| image.organization)
}

async fn find_in(
    app: &App,
    operator: &Operator,
    (build, image): (BuildId, ImageId),
) -> Answer<Image> {
    let image = find(app, operator, image).await?;
    if image.build == build { Ok(image) } else { Err(ApiError::not_found()) }
}

async fn stored(app: &App, sha256: Sha256) -> Answer<Stored> {
    app.artifacts.stored(sha256).await?.ok_or_else(|| {
        tracing::error!(%sha256, "a recorded file is not on disk");
        ApiError::not_found()
    })
}

impl From<Rejection<ImageRefusal>> for ApiError {
    fn from(rejection: Rejection<ImageRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(ImageRefusal::Unknown | ImageRefusal::UnknownBuild) => {
                Self::not_found()
            }
            Rejection::Refused(ImageRefusal::TypeTaken) => {
                Self::field("type", "The build has an image of this type.")
            }
            Rejection::Refused(refusal @ (ImageRefusal::HasManifest | ImageRefusal::InUse)) => {
                Self::conflict(format!("The image stays as it is: {refusal}."))
            }
        }
    }
}
