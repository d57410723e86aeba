//! `build/{id}/upgrade/`: the dry run of a batch and its start; `batch-upgrade-operation/` POST and
//! `retry/` start one as well.

pub mod read;
pub mod shapes;

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Map, Value};
use shared::ids::{BatchId, BuildId, OrganizationId};

use super::{
    App, Operator,
    batch::{self, BatchView},
    body::{Fields, boolean, id},
    build,
    category::missing,
    error::{Answer, ApiError},
    firmware::check_options,
    group,
    page::ListQuery,
    path::Ids,
};
use crate::batch::verdict::Allowance;
use crate::store::batch::{
    Ask, BatchRefused, Chosen, Look, Looker, NewBatch, PIECE, Report, Selection,
};
use crate::store::build::Build;
use crate::store::image::ImageList;
use crate::store::listing::{Order, Rows};
use crate::store::operation::EXPIRY_DAYS;
use crate::store::place::Kind;
use crate::store::repeat::Answered;
use crate::store::{Rejection, Store};
use read::{Asked, RollOut, Wish, asked_in, on_record, roll_out, wish};
use shapes::{BatchBody, PreviewQuery, PreviewView, RetryBody, Started, UpgradeBody, shown};

const DAY_MS: u64 = 24 * 3600 * 1000;
const VOLATILE: &str = "allow_volatile_staging";

/// What would become of every device: a dry run. Nothing is changed.
#[utoipa::path(get, path = "/build/{id}/upgrade/", tag = "batches",
    params(("id" = Uuid, Path), PreviewQuery),
    responses((status = 200, body = PreviewView)))]
pub async fn preview(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BuildId>,
    mut query: ListQuery,
) -> Answer<Json<PreviewView>> {
    let build = build::find(&app, &operator, id).await?;
    let asked = asked_in(&mut query)?;
    let rows = query.rows()?;
    let ask = ask(&app, &operator, &build, asked).await?;
    let (look, verdicts) = app.store.preview(ask, operator.user.user, rows).await?;
    check_known(&look)?;
    Ok(Json(shown(&look, &verdicts, &query)?))
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
    let wanted = wish(&app, &mut fields);
    fields.finish()?;
    let report = launch(&app, &operator, &build, wanted, started).await?;
    Ok((StatusCode::CREATED, Json(Started { batch: report.batch.id })))
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
    let build = fields.required("build", id::<BuildId>);
    let wanted = wish(&app, &mut fields);
    fields.finish()?;
    // `finish` has made sure of it.
    let id = build.ok_or_else(|| ApiError::field("build", "This field is required."))?;
    let build = build::find(&app, &operator, id).await;
    let build = build.map_err(|error| error.of_field("build", missing(id)))?;
    let whole = |report: &Report| Answered::json(201, &BatchView::of(report));
    let report = launch(&app, &operator, &build, wanted, whole).await?;
    Ok((StatusCode::CREATED, Json(BatchView::of(&report))))
}

/// A new batch of those that failed. Who may be being flashed still, runs the version already, or was
/// upgraded to another one since, is left out.
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
    if !failed.has_ended() {
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
    let wish = Wish {
        asked,
        upgrade_options: failed.upgrade_options.clone(),
        roll_out: roll_out.unwrap_or(own),
    };
    let report = launch(&app, &operator, &build, wish, started).await?;
    Ok((StatusCode::CREATED, Json(Started { batch: report.batch.id })))
}

fn started(report: &Report) -> Answered {
    Answered::json(201, &Started { batch: report.batch.id })
}

async fn launch(
    app: &App,
    operator: &Operator,
    build: &Build,
    mut wish: Wish,
    answer: fn(&Report) -> Answered,
) -> Answer<Report> {
    if wish.upgrade_options.get(VOLATILE) == Some(&Value::Bool(true)) {
        wish.asked.allowance.allow_volatile_staging = true;
    }
    if wish.asked.allowance.allow_volatile_staging {
        wish.upgrade_options.insert(VOLATILE.into(), Value::Bool(true));
    }
    check_for_all(app, build, &wish.upgrade_options).await?;
    let ask = ask(app, operator, build, wish.asked).await?;
    operator.may_change(Some(ask.organization))?;
    let (organization, selection) = (ask.organization, ask.selection.clone());
    let asked = on_record(&ask, &wish.upgrade_options);
    let look = app.store.look(ask.clone(), Looker::Start(operator.user.user)).await?;
    check_known(&look)?;
    if look.modems() == 0 && ask.selection.retry_of.is_some() {
        let nothing = "The batch cannot be retried: nothing of it has failed or was aborted.";
        return Err(ApiError::bad_request(nothing));
    }
    if look.count == 0 {
        let why = look.excluded.iter().map(|(why, count)| (why.detail(), *count as u64));
        return Err(ApiError::bad_request(nobody(why)));
    }
    let strategy = wish.roll_out.strategy;
    strategy
        .check_for(look.count.try_into().unwrap_or(u64::MAX))
        .map_err(|bad| ApiError::field("strategy", format!("{bad}.")))?;
    let begins = wish.roll_out.start_at.unwrap_or(0).max(app.store.clock().now());
    let in_time = begins.saturating_add(EXPIRY_DAYS * DAY_MS);
    let new = NewBatch {
        organization,
        build: build.id,
        group: selection.group,
        location: selection.location,
        upgrade_options: wish.upgrade_options,
        strategy,
        retry_of: selection.retry_of,
        start_at: wish.roll_out.start_at,
        expires_at: wish.roll_out.expires_at.unwrap_or(in_time),
    };
    let record = operator.store_for(app, asked).answering(answer);
    make(app, &record, &operator.user.name, new, ask, &look.chosen()).await
}

/// In pieces, so that the writer is free in between, and each as its devices are by then. The last step is
/// what goes on record, and what the request is answered by.
async fn make(
    app: &App,
    record: &Store,
    by: &str,
    new: NewBatch,
    ask: Ask,
    chosen: &[Chosen],
) -> Answer<Report> {
    let ask = Arc::new(ask);
    let batch = app.store.create_batch(new).await.map_err(batch::refused("started"))?;
    let filled = async {
        for some in chosen.chunks(PIECE) {
            let members = app.store.chosen_members(ask.clone(), some.to_vec()).await?;
            app.store.add_members(batch, members, by.to_owned()).await?;
        }
        record.launch_batch(batch).await
    };
    let error = match filled.await {
        Ok(report) => return Ok(report),
        Err(error) => error,
    };
    if matches!(error, Rejection::Refused(BatchRefused::Empty)) {
        let why = app.store.left_out_for(batch).await.unwrap_or_default();
        let _ = app.store.discard_batch(batch).await;
        return Err(ApiError::bad_request(nobody(
            why.into_iter().map(|(why, count)| (why.detail(), count)),
        )));
    }
    // Where even that fails, the pilot takes it back.
    let _ = app.store.abandon_batch(batch).await;
    Err(batch::refused("started")(error))
}

fn check_known(look: &Look) -> Answer<()> {
    let unknown = look.unknown.first().copied();
    unknown.map_or(Ok(()), |id| Err(ApiError::field("devices", missing(id))))
}

/// The tools that the build has images for must take the options.
async fn check_for_all(app: &App, build: &Build, options: &Map<String, Value>) -> Answer<()> {
    let images = ImageList {
        build: build.id,
        organization: None,
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
        Some(own) => {
            if asked.organization.is_some()
                && group::organization(app, operator, asked.organization.clone()).await? != own
            {
                let others = "The build is another organization's, and so would the devices be.";
                return Err(ApiError::field("organization", others));
            }
            own
        }
        None => whose(app, operator, &asked).await?,
    };
    let selection = asked.selection;
    for (kind, field, id) in
        [(Kind::Group, "group", selection.group), (Kind::Location, "location", selection.location)]
    {
        let Some(id) = id else { continue };
        let place = group::find(app, kind, operator, id).await;
        let place = place.map_err(|error| error.of_field(field, missing(id)))?;
        if place.organization != organization {
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
            match group::find(app, kind, operator, id).await {
                Ok(place) => return Ok(place.organization),
                Err(error) if error.status == StatusCode::NOT_FOUND => {}
                Err(error) => return Err(error),
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

/// Why there is no batch.
fn nobody(why: impl Iterator<Item = (&'static str, u64)>) -> String {
    let told: Vec<_> = why.map(|(detail, count)| format!("{count} × {detail}")).collect();
    if told.is_empty() {
        return "Nobody would be upgraded: no device is selected.".into();
    }
    format!("Nobody would be upgraded: {}", told.join(" "))
}
