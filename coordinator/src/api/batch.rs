//! `batch-upgrade-operation/`: how a roll-out goes, and holding it. [`upgrade`](super::upgrade)
//! starts them.

mod view;

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Json, extract::State};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use shared::ids::{BatchId, DeviceId, Slot};
use utoipa::ToSchema;

use super::{
    App, Operator,
    document::shapes::StatusName,
    error::{Answer, ApiError},
    operation::{self, OperationView},
    page::{ListQuery, Listing, Page, Paging},
    path::Ids,
    time::Time,
};
use crate::batch::{LeftOut, Reason};
use crate::store::{
    Rejection, Store,
    batch::{AbsentList, BatchList, BatchRefused, Report},
    listing::Order,
    operation::Place,
};
use view::bytes;
pub use view::{BatchPhase, BatchView, payload};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["created", "modified"];
/// What the list of those who were left out is ordered by.
pub const LEFT_OUT_COLUMNS: &[&str] = &["created"];

/// Operations up to which a batch shows their logs.
const WITH_LOGS: u64 = 1000;
/// Operations that are read at a time.
const PIECE: u32 = 500;
/// The same with their logs, of which each may have 16 KB.
const PIECE_WITH_LOGS: u32 = 50;

/// A batch with its operations; above 1000 of them their logs are empty.
#[derive(Debug, ToSchema)]
pub struct BatchDetail {
    #[schema(inline)]
    #[serde(flatten)]
    pub batch: BatchView,
    pub upgradeoperations: Vec<OperationView<'static>>,
}

/// A modem that was chosen when the batch was asked for, and is no member of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeftOutView {
    #[schema(value_type = Uuid)]
    device: DeviceId,
    name: String,
    #[schema(value_type = String)]
    slot: Slot,
    /// As of a dry run, or `not_selected`, `asked_since`, `batch_ended`, `options_refused`.
    #[schema(value_type = String)]
    reason: LeftOut,
    detail: &'static str,
    created: Time,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    message: &'static str,
    /// Operations past the point of no return.
    #[serde(skip_serializing_if = "Option::is_none")]
    will_finish: Option<u64>,
    /// Modems that will not be flashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<u64>,
}

#[utoipa::path(get, path = "/batch-upgrade-operation/", tag = "batches",
    params(Page, ("build" = Option<Uuid>, Query), ("status" = Option<StatusName>, Query)),
    responses((status = 200, body = Listing<BatchView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<BatchView>>> {
    let choice = "Select a valid choice: idle, in-progress, success, failed, aborted or cancelled.";
    let wanted = BatchList {
        scope: operator.sees(),
        organization: query.organization()?,
        build: query.id("build")?,
        status: query.filter("status", choice)?,
        order: query.order(COLUMNS, Order { column: "created", descending: true }),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.batches(wanted).await?, |report| BatchView::of(&report))?))
}

/// With its operations, which are read while the answer goes out. One that is not read to its end counts
/// among the user's open streams.
#[utoipa::path(get, path = "/batch-upgrade-operation/{id}/", tag = "batches",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = BatchDetail)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BatchId>,
) -> Answer<Response> {
    let report = find(&app, &operator, id).await?;
    let open = app.streams.open(operator.user.user)?;
    let logs = report.batch.counts.total() <= WITH_LOGS;
    let mut head = bytes(&BatchView::of(&report)).to_vec();
    // The object goes on.
    head.pop();
    head.extend(br#","upgradeoperations":["#);
    let head = stream::once(async move { Ok::<_, Infallible>(Bytes::from(head)) });
    let tail = stream::once(async { Ok(Bytes::from_static(b"]}")) });
    let pieces = head.chain(operations(app.store.clone(), id, logs)).chain(tail);
    let body = Body::from_stream(pieces.inspect(move |_| {
        // Lives as long as the answer does.
        let _ = &open;
    }));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The operations as the elements of a JSON array. What fails in the middle breaks the array off,
/// which no parser takes for the whole.
fn operations(
    store: Store,
    id: BatchId,
    logs: bool,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send {
    let most = if logs { PIECE_WITH_LOGS } else { PIECE };
    let pieces = stream::unfold(Some(Place::default()), move |after| {
        let store = store.clone();
        async move {
            let after = after?;
            let piece = match store.operations_of_batch(id, after, most, logs).await {
                Ok(piece) => piece,
                Err(error) => {
                    tracing::error!(%error, "a batch's operations");
                    return Some((Bytes::from_static(b"\""), None));
                }
            };
            let last = piece.last().map(|(place, _)| *place)?;
            let mut bytes = Vec::new();
            for (index, (_, found)) in piece.iter().enumerate() {
                if after != Place::default() || index > 0 {
                    bytes.push(b',');
                }
                bytes.extend(operation::payload(found));
            }
            Some((Bytes::from(bytes), Some(last)))
        }
    });
    pieces.map(Ok)
}

/// Modems that were chosen when the batch was asked for, and that something has come between.
#[utoipa::path(get, path = "/batch-upgrade-operation/{id}/left-out/", tag = "batches",
    params(("id" = Uuid, Path), Paging, ("ordering" = Option<String>, Query)),
    responses((status = 200, body = Listing<LeftOutView>)))]
pub async fn left_out(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BatchId>,
    mut query: ListQuery,
) -> Answer<Json<Listing<LeftOutView>>> {
    find(&app, &operator, id).await?;
    let order = query.order(LEFT_OUT_COLUMNS, Order { column: "created", descending: false });
    let wanted = AbsentList { batch: id, order, rows: query.rows()? };
    let found = app.store.left_out(wanted).await?;
    Ok(Json(query.listing(found, |absent| LeftOutView {
        device: absent.device,
        name: absent.name,
        slot: absent.slot,
        reason: absent.why,
        detail: absent.why.detail(),
        created: Time(absent.created),
    })?))
}

/// No grants from here on; what was granted finishes.
#[utoipa::path(post, path = "/batch-upgrade-operation/{id}/pause/", tag = "batches",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Done), (status = 409)))]
pub async fn pause(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BatchId>,
) -> Answer<Json<Done>> {
    may_change(&app, &operator, id).await?;
    let reason = Reason::Operator { by: operator.user.name.clone() };
    let paused = operator.store(&app).pause_batch(operator.sees(), id, reason).await;
    let paused = paused.map_err(refused("paused"))?;
    let message = "The batch is paused: nothing new is granted.";
    Ok(Json(Done { message, will_finish: Some(paused.granted), cancelled: None }))
}

/// Grants again. Where the batch stopped by itself, what stopped it is forgiven.
#[utoipa::path(post, path = "/batch-upgrade-operation/{id}/resume/", tag = "batches",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Done), (status = 409)))]
pub async fn resume(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BatchId>,
) -> Answer<Json<Done>> {
    may_change(&app, &operator, id).await?;
    let resumed = operator.store(&app).resume_batch(operator.sees(), id).await;
    resumed.map_err(refused("resumed"))?;
    Ok(Json(Done { message: "The batch goes on.", will_finish: None, cancelled: None }))
}

/// Takes back what is not granted, at once; says how many will still finish.
#[utoipa::path(post, path = "/batch-upgrade-operation/{id}/cancel/", tag = "batches",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Done), (status = 409)))]
pub async fn cancel(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<BatchId>,
) -> Answer<Json<Done>> {
    let report = may_change(&app, &operator, id).await?;
    let restored = app.store.restored_at().await?;
    let reason = Reason::Operator { by: operator.user.name.clone() };
    let cancelled = operator.store(&app).cancel_batch(operator.sees(), id, reason).await;
    let withdrawal = cancelled.map_err(refused("cancelled"))?;
    withdraw(&app, id).await;
    let message = if restored.is_some_and(|restored| report.batch.created < restored) {
        "The batch is cancelled. It is older than the last restore: what devices were granted after the backup \
         they finish all the same, and report."
    } else {
        "The batch is cancelled: what was not granted will not be flashed."
    };
    Ok(Json(Done {
        message,
        will_finish: Some(withdrawal.will_finish),
        cancelled: Some(withdrawal.cancelled),
    }))
}

/// Makes a cancellation visible, from whose commit on nothing is granted. It is done, whatever fails here: the
/// pilot goes on.
async fn withdraw(app: &App, id: BatchId) {
    loop {
        match app.store.withdraw(id).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(batch = %id, %error, "what was cancelled is not shown so yet");
                return;
            }
        }
    }
}

pub(super) async fn find(app: &App, operator: &Operator, id: BatchId) -> Answer<Report> {
    app.store.batch_report(operator.sees(), id).await?.ok_or_else(ApiError::not_found)
}

pub(super) async fn may_change(app: &App, operator: &Operator, id: BatchId) -> Answer<Report> {
    let report = find(app, operator, id).await?;
    operator.may_change(Some(report.batch.organization))?;
    Ok(report)
}

/// What the API says where a batch cannot be `done`.
pub(super) fn refused(done: &'static str) -> impl FnOnce(Rejection<BatchRefused>) -> ApiError {
    move |rejection| match rejection {
        Rejection::Store(error) => error.into(),
        Rejection::Refused(BatchRefused::Unknown) => ApiError::not_found(),
        Rejection::Refused(BatchRefused::Empty) => {
            ApiError::bad_request("No modem is left that could be upgraded.")
        }
        Rejection::Refused(BatchRefused::Strategy(bad)) => {
            ApiError::field("strategy", format!("{bad}."))
        }
        Rejection::Refused(
            refused @ (BatchRefused::Course(_)
            | BatchRefused::Changed
            | BatchRefused::Gone(_)
            | BatchRefused::BeingMade),
        ) => ApiError::conflict(format!("The batch cannot be {done}: {refused}.")),
    }
}
