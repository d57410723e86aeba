//! `build/{id}/upgrade/`: the dry run of a batch and its start; `batch-upgrade-operation/` POST and
//! `retry/` start one as well.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::ids::{BatchId, BuildId, DeviceId, ImageId, OrganizationId, Slot};
use utoipa::openapi::{Object, ObjectBuilder, schema::Type};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    App, Operator,
    batch::{self, BatchView},
    body::{Fields, boolean, id, list, nullable, object, text, texts},
    build,
    category::missing,
    error::{Answer, ApiError},
    firmware::check_options,
    group,
    page::{ListQuery, Page},
    path::Ids,
    time::Time,
};
use crate::batch::verdict::{Allowance, Reason};
use crate::batch::{Course, Strategy};
use crate::store::Rejection;
use crate::store::batch::{
    Ask, BatchRefused, Member, NewBatch, PIECE, Preview, Selection, Verdict,
};
use crate::store::build::Build;
use crate::store::image::ImageList;
use crate::store::listing::{Order, Rows};
use crate::store::operation::EXPIRY_DAYS;
use crate::store::place::Kind;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Devices, models and the like that one request may name.
const MOST: usize = 5000;
const VOLATILE: &str = "allow_volatile_staging";

/// How to roll out; see docs/batches.md. Every field has a default.
#[derive(Debug, ToSchema)]
pub struct StrategyBody {
    #[schema(minimum = 1, default = 1)]
    pub canary: Option<u32>,
    #[schema(minimum = 1, maximum = 100, default = 2.0)]
    pub growth: Option<f64>,
    pub gate: Option<GateBody>,
    #[schema(minimum = 1)]
    pub max_concurrent: Option<u32>,
    pub failure_threshold: Option<ThresholdBody>,
    #[schema(minimum = 60, default = 3600)]
    pub offline_after_s: Option<u64>,
    pub start_at: Option<Time>,
    /// By default in 30 days.
    pub expires_at: Option<Time>,
    /// Null: windows are set on the routers.
    #[schema(nullable, schema_with = nothing)]
    pub window: (),
}

/// What a wave has to show.
#[derive(Debug, ToSchema)]
pub struct GateBody {
    #[schema(minimum = 1, maximum = 100, default = 100)]
    pub success_percent: Option<u8>,
    #[schema(minimum = 1, default = 1)]
    pub minimum: Option<u32>,
    #[schema(default = 600)]
    pub soak_s: Option<u64>,
}

/// When the batch stops by itself.
#[derive(Debug, ToSchema)]
pub struct ThresholdBody {
    #[schema(minimum = 1)]
    pub count: Option<u32>,
    #[schema(minimum = 1, maximum = 100, default = 20)]
    pub percent: Option<u8>,
    #[schema(default = 5)]
    pub minimum: Option<u32>,
    pub then: Option<ThenName>,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ThenName {
    Pause,
    Abort,
}

fn nothing() -> Object {
    ObjectBuilder::new().schema_type(Type::Null).build()
}

/// Which modems, and how.
#[derive(Debug, ToSchema)]
pub struct UpgradeBody {
    pub upgrade_all: Option<bool>,
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    pub tags: Option<Vec<String>>,
    pub devices: Option<Vec<Uuid>>,
    pub models: Option<Vec<String>>,
    pub boards: Option<Vec<String>>,
    pub from_versions: Option<Vec<String>>,
    pub include_unsigned: Option<bool>,
    pub allow_volatile_staging: Option<bool>,
    /// A slug or an id; of a shared build alone, and only by who sees several.
    pub organization: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub upgrade_options: Option<Value>,
    pub strategy: Option<StrategyBody>,
}

#[derive(Debug, ToSchema)]
pub struct BatchBody {
    pub build: Uuid,
    #[schema(inline)]
    #[serde(flatten)]
    pub upgrade: UpgradeBody,
}

#[derive(Debug, ToSchema)]
pub struct RetryBody {
    pub strategy: Option<StrategyBody>,
    pub include_unsigned: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Started {
    #[schema(value_type = Uuid)]
    batch: BatchId,
}

/// What would become of every modem of the selection.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewView {
    /// The associations that would change.
    device_modem_firmwares: Vec<Uuid>,
    /// Devices that have none yet and would get one.
    #[schema(value_type = Vec<Uuid>)]
    devices: Vec<DeviceId>,
    /// Modems that would be upgraded.
    count: usize,
    excluded: usize,
    /// A page of all.
    verdicts: Vec<VerdictView>,
    verdicts_next: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct VerdictView {
    #[schema(value_type = Uuid)]
    device: DeviceId,
    name: String,
    #[schema(value_type = String)]
    slot: Slot,
    will_upgrade: bool,
    /// The one it would get.
    #[schema(value_type = Option<Uuid>)]
    image: Option<ImageId>,
    #[schema(value_type = Option<String>)]
    reason: Option<Reason>,
    detail: &'static str,
}

/// What a dry run takes; lists are separated by commas.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PreviewQuery {
    pub upgrade_all: Option<bool>,
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    pub tag: Option<String>,
    pub device: Option<String>,
    pub model: Option<String>,
    pub board: Option<String>,
    pub from_version: Option<String>,
    pub include_unsigned: Option<bool>,
    pub allow_volatile_staging: Option<bool>,
}

/// Who is asked about, as it came.
#[derive(Debug, Clone, Default)]
struct Asked {
    selection: Selection,
    allowance: Allowance,
    organization: Option<String>,
}

/// What a body asks for.
struct Wish {
    asked: Asked,
    upgrade_options: Map<String, Value>,
    roll_out: RollOut,
}

#[derive(Debug, Clone, Default)]
struct RollOut {
    strategy: Strategy,
    start_at: Option<u64>,
    expires_at: Option<u64>,
}

/// What would become of every device: a dry run. Nothing is changed.
#[utoipa::path(get, path = "/build/{id}/upgrade/", tag = "batches",
    params(("id" = Uuid, Path), Page, PreviewQuery),
    responses((status = 200, body = PreviewView)))]
pub async fn preview(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
    query: ListQuery,
) -> Answer<Json<PreviewView>> {
    let build = build::find(&app, &operator, id).await?;
    let ask = ask(&app, &operator, &build, asked_in(&query)?).await?;
    let preview = look(&app, ask).await?;
    Ok(Json(shown(&preview, &query)?))
}

/// Starts the batch.
#[utoipa::path(post, path = "/build/{id}/upgrade/", tag = "batches",
    params(("id" = Uuid, Path)),
    request_body = UpgradeBody,
    responses((status = 201, body = Started)))]
pub async fn start(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<Started>)> {
    let build = build::find(&app, &operator, id).await?;
    let order = order(&app, &mut fields);
    fields.finish()?;
    let batch = launch(&app, &operator, &build, order, None).await?;
    Ok((StatusCode::CREATED, Json(Started { batch })))
}

/// Starts a batch, with the build in the body and the batch in the answer.
#[utoipa::path(post, path = "/batch-upgrade-operation/", tag = "batches",
    request_body = BatchBody,
    responses((status = 201, body = BatchView)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<BatchView>)> {
    let wanted = fields.required("build", id::<BuildId>);
    let order = order(&app, &mut fields);
    fields.finish()?;
    // `finish` has made sure of it.
    let wanted = wanted.ok_or_else(|| ApiError::field("build", "This field is required."))?;
    let build = build::find(&app, &operator, wanted).await;
    let build = build.map_err(|_| ApiError::field("build", missing(wanted)))?;
    let batch = launch(&app, &operator, &build, order, None).await?;
    let report = batch::find(&app, &operator, batch).await?;
    Ok((StatusCode::CREATED, Json(BatchView::of(&report))))
}

/// A new batch of those that failed. Who may be being flashed still, or runs the version already, is
/// left out.
#[utoipa::path(post, path = "/batch-upgrade-operation/{id}/retry/", tag = "batches",
    params(("id" = Uuid, Path)),
    request_body = RetryBody,
    responses((status = 201, body = Started)))]
pub async fn retry(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BatchId>,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<Started>)> {
    let failed = batch::may_change(&app, &operator, id).await?.batch;
    let roll_out = fields.optional("strategy", |value| roll_out(&app, value));
    let include_unsigned = fields.optional("include_unsigned", boolean).unwrap_or_default();
    fields.finish()?;
    if failed.course != Course::Finished {
        return Err(ApiError::conflict("The batch cannot be retried: it has not finished."));
    }
    let gone = || ApiError::conflict("The batch cannot be retried: its build was deleted.");
    let build = build::find(&app, &operator, failed.build.ok_or_else(gone)?).await?;
    let own = RollOut { strategy: failed.strategy.clone(), ..RollOut::default() };
    let asked = Asked {
        selection: Selection { retry_of: Some(id), ..Selection::default() },
        allowance: Allowance { firmwareless: true, include_unsigned, ..Allowance::default() },
        organization: Some(failed.organization.to_string()),
    };
    let order = Wish {
        asked,
        upgrade_options: failed.upgrade_options.clone(),
        roll_out: roll_out.unwrap_or(own),
    };
    let batch = launch(&app, &operator, &build, order, Some(id)).await?;
    Ok((StatusCode::CREATED, Json(Started { batch })))
}

async fn launch(
    app: &App,
    operator: &Operator,
    build: &Build,
    mut order: Wish,
    retry_of: Option<BatchId>,
) -> Answer<BatchId> {
    if order.upgrade_options.get(VOLATILE) == Some(&Value::Bool(true)) {
        order.asked.allowance.allow_volatile_staging = true;
    }
    if order.asked.allowance.allow_volatile_staging {
        order.upgrade_options.insert(VOLATILE.into(), Value::Bool(true));
    }
    check_for_all(app, build, &order.upgrade_options).await?;
    let ask = ask(app, operator, build, order.asked).await?;
    operator.may_change(Some(ask.organization))?;
    let (organization, selection) = (ask.organization, ask.selection.clone());
    let preview = look(app, ask).await?;
    let members = preview.members();
    if members.is_empty() {
        return Err(ApiError::bad_request(nobody(&preview)));
    }
    let strategy = order.roll_out.strategy;
    strategy
        .check_for(members.len().try_into().unwrap_or(u64::MAX))
        .map_err(|bad| ApiError::field("strategy", format!("{bad}.")))?;
    let now = app.store.clock().now();
    let new = NewBatch {
        organization,
        build: build.id,
        group: selection.group,
        location: selection.location,
        upgrade_options: order.upgrade_options,
        strategy,
        retry_of,
        start_at: order.roll_out.start_at,
        expires_at: order.roll_out.expires_at.unwrap_or(now + EXPIRY_DAYS * DAY_MS),
    };
    make(app, operator, new, members).await
}

/// In pieces, so that the writer is free in between. The last step is what goes on record.
async fn make(
    app: &App,
    operator: &Operator,
    new: NewBatch,
    members: Vec<Member>,
) -> Answer<BatchId> {
    let batch = app.store.create_batch(new).await?;
    if let Err(error) = fill(app, operator, batch, &members).await {
        // Where even that fails, the pilot takes it back.
        let _ = match &error {
            Rejection::Refused(BatchRefused::Empty) => app.store.discard_batch(batch).await,
            Rejection::Refused(_) | Rejection::Store(_) => app.store.abandon_batch(batch).await,
        };
        return Err(batch::refused("started")(error));
    }
    Ok(batch)
}

async fn fill(
    app: &App,
    operator: &Operator,
    batch: BatchId,
    members: &[Member],
) -> Result<(), Rejection<BatchRefused>> {
    for piece in members.chunks(PIECE) {
        app.store.add_members(batch, piece.to_vec(), operator.user.name.clone()).await?;
    }
    operator.store(app).launch_batch(batch).await.map(drop)
}

async fn look(app: &App, ask: Ask) -> Answer<Preview> {
    let preview = app.store.preview(ask).await?;
    if preview.unknown.is_empty() {
        return Ok(preview);
    }
    let mut unknown = preview.unknown.iter().copied();
    Err(ApiError::field("devices", unknown.next().map(missing).unwrap_or_default()))
}

/// The tools that the build has images for must take the options.
async fn check_for_all(app: &App, build: &Build, options: &Map<String, Value>) -> Answer<()> {
    let images = ImageList {
        build: build.id,
        tool: None,
        order: Order { column: "created", descending: false },
        rows: Rows { offset: 0, limit: 100 },
    };
    for image in app.store.images(images).await?.rows {
        check_options(&image.tool, options)?;
    }
    Ok(())
}

/// Whose devices: the build's organization; of a shared build the one that was named or is meant.
async fn ask(app: &App, operator: &Operator, build: &Build, asked: Asked) -> Answer<Ask> {
    let organization = match build.organization {
        Some(organization) => organization,
        None => whose(app, operator, &asked).await?,
    };
    let selection = asked.selection;
    for (kind, field, id) in
        [(Kind::Group, "group", selection.group), (Kind::Location, "location", selection.location)]
    {
        let Some(id) = id else { continue };
        let place = group::find(app, kind, operator, id).await;
        if !place.is_ok_and(|place| place.organization == organization) {
            return Err(ApiError::field(field, missing(id)));
        }
    }
    let (build, category) = (build.id, build.category);
    Ok(Ask { organization, build, category, selection, allowance: asked.allowance })
}

async fn whose(app: &App, operator: &Operator, asked: &Asked) -> Answer<OrganizationId> {
    let selection = &asked.selection;
    if asked.organization.is_none() {
        for (kind, id) in [(Kind::Group, selection.group), (Kind::Location, selection.location)] {
            let Some(id) = id else { continue };
            if let Ok(place) = group::find(app, kind, operator, id).await {
                return Ok(place.organization);
            }
        }
        if let Some(first) = selection.devices.first()
            && let Some(device) = app.store.device(operator.sees(), *first).await?
        {
            return Ok(device.organization);
        }
    }
    group::organization(app, operator, asked.organization.clone()).await
}

/// `?upgrade_all=&group=&location=&tag=&device=&model=&board=&from_version=&organization=
/// &include_unsigned=&allow_volatile_staging=`; lists are separated by commas.
fn asked_in(query: &ListQuery) -> Answer<Asked> {
    let flag = |name: &str| -> Answer<bool> {
        match query.text(name) {
            None | Some("false" | "False" | "0") => Ok(false),
            Some("true" | "True" | "1") => Ok(true),
            Some(_) => Err(ApiError::field(name, "Must be a valid boolean.")),
        }
    };
    let words = |name: &str| -> Vec<String> {
        let words = query.text(name).unwrap_or_default().split(',').map(str::trim);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let device = |text: String| Uuid::try_parse(&text).map(DeviceId);
    let devices: Result<Vec<_>, _> = words("device").into_iter().map(device).collect();
    let devices = devices.map_err(|_| ApiError::field("device", "Enter a valid UUID."))?;
    let selection = Selection {
        group: query.id("group")?,
        location: query.id("location")?,
        tags: words("tag"),
        models: words("model"),
        boards: query.text("board").map(str::to_owned).into_iter().collect(),
        from_versions: words("from_version"),
        devices,
        retry_of: None,
    };
    let allowance = Allowance {
        firmwareless: flag("upgrade_all")? || !selection.devices.is_empty(),
        include_unsigned: flag("include_unsigned")?,
        allow_volatile_staging: flag(VOLATILE)?,
    };
    let organization = query.text("organization").map(str::to_owned);
    Ok(Asked { selection, allowance, organization })
}

fn order(app: &App, fields: &mut Fields) -> Wish {
    let mut words = |field| fields.optional(field, texts(MOST, 128)).unwrap_or_default();
    let (tags, models, boards) = (words("tags"), words("models"), words("boards"));
    let from_versions = words("from_versions");
    let devices: Vec<DeviceId> = fields.optional("devices", list(MOST, id)).unwrap_or_default();
    let selection = Selection {
        group: fields.optional("group", nullable(id)).flatten(),
        location: fields.optional("location", nullable(id)).flatten(),
        tags,
        devices,
        models,
        boards,
        from_versions,
        retry_of: None,
    };
    let mut flag = |field| fields.optional(field, boolean).unwrap_or_default();
    let allowance = Allowance {
        firmwareless: flag("upgrade_all") || !selection.devices.is_empty(),
        include_unsigned: flag("include_unsigned"),
        allow_volatile_staging: flag(VOLATILE),
    };
    let organization = fields.optional("organization", nullable(text(64))).flatten();
    let upgrade_options = fields.optional("upgrade_options", nullable(object)).flatten();
    let roll_out = fields.optional("strategy", nullable(|value| roll_out(app, value))).flatten();
    Wish {
        asked: Asked { selection, allowance, organization },
        upgrade_options: upgrade_options.unwrap_or_default(),
        roll_out: roll_out.unwrap_or_default(),
    }
}

/// A strategy, with the times in it that are the batch's.
fn roll_out(app: &App, value: Value) -> Result<RollOut, String> {
    let mut given = object(value)?;
    let mut time = |field: &str| match given.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => read_time(&text)
            .map(Some)
            .map_err(|()| format!("{field}: expected a time as 2026-01-31T22:00:00Z.")),
        Some(_) => Err(format!("{field}: expected a time as 2026-01-31T22:00:00Z.")),
    };
    let (start_at, expires_at) = (time("start_at")?, time("expires_at")?);
    if given.remove("window").is_some_and(|window| !window.is_null()) {
        return Err("window: maintenance windows are set on the routers.".into());
    }
    let strategy: Strategy =
        serde_json::from_value(Value::Object(given)).map_err(|error| format!("{error}."))?;
    strategy.check().map_err(|bad| format!("{bad}."))?;
    let begins = start_at.unwrap_or(0).max(app.store.clock().now());
    if expires_at.is_some_and(|expires| expires <= begins) {
        return Err("expires_at: it would be over before it begins.".into());
    }
    Ok(RollOut { strategy, start_at, expires_at })
}

fn read_time(text: &str) -> Result<u64, ()> {
    let time: jiff::Timestamp = text.parse().map_err(drop)?;
    time.as_millisecond().try_into().map_err(drop)
}

/// Why there is no batch.
fn nobody(preview: &Preview) -> String {
    let mut reasons = BTreeMap::<Reason, usize>::new();
    for reason in preview.verdicts.iter().filter_map(|verdict| verdict.image.err()) {
        *reasons.entry(reason).or_default() += 1;
    }
    if reasons.is_empty() {
        return "Nobody would be upgraded: no device is selected.".into();
    }
    let told = reasons.iter().map(|(reason, count)| format!("{count} × {}", reason.detail()));
    format!("Nobody would be upgraded: {}", told.collect::<Vec<_>>().join(" "))
}

fn shown(preview: &Preview, query: &ListQuery) -> Answer<PreviewView> {
    let chosen = || preview.verdicts.iter().filter(|verdict| verdict.image.is_ok());
    let firmwares: Vec<Uuid> = chosen().filter_map(|verdict| verdict.firmware).collect();
    let without = chosen().filter(|verdict| verdict.firmware.is_none());
    let devices: Vec<DeviceId> = without.map(|verdict| verdict.device).collect();
    let (count, all) = (chosen().count(), preview.verdicts.len());
    let rows = query.rows();
    let (skip, take) = (rows.offset as usize, rows.limit as usize);
    let page: Vec<_> = preview.verdicts.iter().skip(skip).take(take).map(verdict).collect();
    if page.is_empty() && skip > 0 {
        return Err(ApiError::invalid_page());
    }
    Ok(PreviewView {
        device_modem_firmwares: firmwares,
        devices,
        count,
        excluded: all - count,
        verdicts: page,
        verdicts_next: query.next(all.try_into().unwrap_or(u64::MAX)),
    })
}

fn verdict(verdict: &Verdict) -> VerdictView {
    VerdictView {
        device: verdict.device,
        name: verdict.name.clone(),
        slot: verdict.slot.clone(),
        will_upgrade: verdict.image.is_ok(),
        image: verdict.image.ok(),
        reason: verdict.image.err(),
        detail: verdict.image.err().map_or("It will be upgraded.", Reason::detail),
    }
}
