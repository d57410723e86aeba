//! `upgrade-operation/`: what was asked of which modem, and how it goes.

use axum::{Json, extract::State};
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use shared::{
    failure::Failure,
    ids::{BatchId, DeviceId, ImageId, OperationId, OrganizationSlug, Slot},
    stages::{Phase, Stage},
};

use super::{
    App, Operator,
    body::{Fields, up_to},
    error::{Answer, ApiError},
    page::{ListQuery, Listing},
    path::Ids,
    time::Time,
};
use crate::operation::{
    Evidence, LateResult, Operation, Status,
    cancel::CannotCancel,
    report::{Report, ReportRefused},
};
use crate::store::{
    Rejection,
    listing::Order,
    operation::{ChangeRefused, OperationList},
};

/// An operation as the API, the live events and the dashboards' topics show it.
#[derive(Debug, Serialize)]
pub struct OperationView<'a> {
    id: OperationId,
    device: DeviceId,
    image: Option<ImageId>,
    status: Status,
    log: &'a str,
    progress_percent: u8,
    modified: Time,
    created: Time,
    stage: Option<Stage>,
    attempt: u32,
    failure: Option<&'a Failure>,
    modem: Modem<'a>,
    batch: Option<BatchId>,
    organization: &'a OrganizationSlug,
    upgrade_options: &'a Map<String, Value>,
    phase: Option<Phase>,
    /// What the device last said for people.
    detail: Option<&'a str>,
    stalled: bool,
    /// Bytes of the image fetched over the network, resumptions included.
    fetched: u64,
    evidence: Option<Evidence>,
    late_result: Option<&'a LateResult>,
    retry_of: Option<OperationId>,
    superseded_by: Option<OperationId>,
    /// Whether an attempt has passed the point of no return and is not known to be over.
    granted: bool,
    deadline: Option<Time>,
    finished: Option<Time>,
}

#[derive(Debug, Serialize)]
struct Modem<'a> {
    slot: &'a Slot,
}

pub fn view(operation: &Operation) -> OperationView<'_> {
    OperationView {
        id: operation.id,
        device: operation.device,
        image: operation.image,
        status: operation.status,
        log: &operation.log,
        progress_percent: operation.progress_percent,
        modified: Time(operation.modified),
        created: Time(operation.created),
        stage: operation.stage(),
        attempt: operation.attempt,
        failure: operation.failure.as_ref(),
        modem: Modem { slot: &operation.slot },
        batch: operation.batch,
        organization: &operation.organization,
        upgrade_options: &operation.upgrade_options,
        phase: operation.phase,
        detail: operation.detail.as_deref(),
        stalled: operation.stalled,
        fetched: operation.fetched,
        evidence: operation.evidence,
        late_result: operation.late_result.as_ref(),
        retry_of: operation.retry_of,
        superseded_by: operation.superseded_by,
        granted: operation.is_granted(),
        deadline: operation.deadline.map(Time),
        finished: operation.finished_at.map(Time),
    }
}

/// An operation on its way out.
#[derive(Debug)]
pub struct Shown(Operation);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        view(&self.0).serialize(serializer)
    }
}

/// The same as JSON bytes, for the feed.
pub fn payload(operation: &Operation) -> Bytes {
    serde_json::to_vec(&view(operation)).map(Bytes::from).unwrap_or_default()
}

pub async fn list(
    State(app): State<App>,
    operator: Operator,
    query: ListQuery,
) -> Answer<Json<Listing<Shown>>> {
    let device = query.id("device")?;
    listing(&app, &operator, &query, device).await
}

/// `device/{id}/upgrade-operation/`
pub async fn list_of_device(
    State(app): State<App>,
    operator: Operator,
    Ids(device): Ids<DeviceId>,
    query: ListQuery,
) -> Answer<Json<Listing<Shown>>> {
    app.store.device(operator.sees(), device).await?.ok_or_else(ApiError::not_found)?;
    listing(&app, &operator, &query, Some(device)).await
}

async fn listing(
    app: &App,
    operator: &Operator,
    query: &ListQuery,
    device: Option<DeviceId>,
) -> Answer<Json<Listing<Shown>>> {
    let choice = "Select a valid choice: idle, in-progress, success, failed, aborted or cancelled.";
    let newest = Order { column: "created", descending: true };
    let wanted = OperationList {
        scope: operator.sees(),
        organization: query.organization()?,
        device,
        image: query.id("image")?,
        batch: query.id("batch")?,
        status: query.filter("status", choice)?,
        order: query.order(&["created", "modified"], newest),
        rows: query.rows(),
    };
    let found = app.store.operations(wanted).await?;
    Ok(Json(query.listing(found, Shown)?))
}

pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
) -> Answer<Json<Shown>> {
    Ok(Json(Shown(find(&app, &operator, id).await?)))
}

/// PATCH: the word of a device's script that has only HTTP. It proves nothing.
pub async fn report(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
    mut fields: Fields,
) -> Answer<Json<Shown>> {
    may_change(&app, &operator, id).await?;
    let report = Report {
        progress_percent: fields.optional("progress_percent", up_to(100)),
        status: fields.optional("status", status),
    };
    fields.finish()?;
    let operation = operator.store(&app).report_operation(operator.sees(), id, report).await?;
    Ok(Json(Shown(operation)))
}

pub async fn cancel(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
) -> Answer<Json<Value>> {
    may_change(&app, &operator, id).await?;
    operator.store(&app).cancel_operation(operator.sees(), id, operator.user.name.clone()).await?;
    Ok(Json(json!({ "message": "The upgrade is cancelled: the modem will not be flashed." })))
}

pub(super) async fn find(app: &App, operator: &Operator, id: OperationId) -> Answer<Operation> {
    app.store.operation(operator.sees(), id).await?.ok_or_else(ApiError::not_found)
}

async fn may_change(app: &App, operator: &Operator, id: OperationId) -> Answer<()> {
    let operation = find(app, operator, id).await?;
    operator.may_change_in(&operation.organization)
}

fn status(value: Value) -> Result<Status, String> {
    let text = value.as_str().ok_or("Not a valid string.")?;
    text.parse().map_err(|_| format!("{text:?} is not a valid choice."))
}

impl From<Rejection<ChangeRefused<CannotCancel>>> for ApiError {
    fn from(rejection: Rejection<ChangeRefused<CannotCancel>>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(ChangeRefused::Unknown) => Self::not_found(),
            Rejection::Refused(ChangeRefused::Rule(rule)) => {
                Self::conflict(format!("The upgrade cannot be cancelled: {rule}."))
            }
        }
    }
}

impl From<Rejection<ChangeRefused<ReportRefused>>> for ApiError {
    fn from(rejection: Rejection<ChangeRefused<ReportRefused>>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(ChangeRefused::Unknown) => Self::not_found(),
            Rejection::Refused(ChangeRefused::Rule(rule @ ReportRefused::Percent)) => {
                Self::field("progress_percent", rule.to_string())
            }
            Rejection::Refused(ChangeRefused::Rule(rule)) => {
                Self::conflict(format!("The report is not taken: {rule}."))
            }
        }
    }
}
