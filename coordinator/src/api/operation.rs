//! `upgrade-operation/`: what was asked of which modem, and how it goes.

use axum::{Json, extract::State};
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use shared::event::Outcome;
use shared::{
    failure::Failure,
    ids::{BatchId, DeviceId, ImageId, OperationId, OrganizationSlug, Slot},
    stages::{Phase, Stage},
};
use utoipa::ToSchema;

use super::{
    App, Operator,
    body::{Fields, up_to},
    document::shapes::{EvidenceName, FailureShape, PhaseName, StageName, StatusName},
    error::{Answer, ApiError},
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::operation::{
    Evidence, Operation, Status,
    cancel::CannotCancel,
    expiry::CannotWriteOff,
    report::{Report, ReportRefused},
    restored::is_uncertain,
};
use crate::store::{
    Rejection,
    listing::Order,
    operation::{ChangeRefused, OperationList},
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["created", "modified"];

/// An operation as the API, the live events and the dashboards' topics show it.
/// The word of a device's script.
#[derive(Debug, ToSchema)]
pub struct OperationReport {
    #[schema(minimum = 0, maximum = 100, nullable = false, example = 65)]
    pub progress_percent: Option<u8>,
    #[schema(nullable = false)]
    pub status: Option<StatusName>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    /// What came of it, for people.
    message: &'static str,
}

/// A part of an operation's log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogPart {
    /// Where it begins, in bytes.
    offset: usize,
    log: String,
    /// Where the next part begins.
    next_offset: usize,
    /// Whether nothing follows any more: the operation is over.
    complete: bool,
}

/// What the device said after the operation had been given up or taken back.
#[derive(Debug, Serialize, ToSchema)]
struct LateView<'a> {
    #[schema(value_type = Object)]
    outcome: &'a Outcome,
    received: Time,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OperationView<'a> {
    #[schema(value_type = Uuid)]
    id: OperationId,
    #[schema(value_type = Uuid)]
    device: DeviceId,
    #[schema(value_type = Option<Uuid>)]
    image: Option<ImageId>,
    #[schema(value_type = StatusName)]
    status: Status,
    log: &'a str,
    progress_percent: u8,
    modified: Time,
    created: Time,
    #[schema(value_type = Option<StageName>)]
    stage: Option<Stage>,
    attempt: u32,
    #[schema(value_type = Option<FailureShape>)]
    failure: Option<&'a Failure>,
    modem: Modem<'a>,
    #[schema(value_type = Option<Uuid>)]
    batch: Option<BatchId>,
    /// The batch's wave that it is in.
    wave: Option<u32>,
    /// A slug.
    #[schema(value_type = String)]
    organization: &'a OrganizationSlug,
    #[schema(value_type = Object)]
    upgrade_options: &'a Map<String, Value>,
    #[schema(value_type = Option<PhaseName>)]
    phase: Option<Phase>,
    /// What the device last said for people.
    detail: Option<&'a str>,
    stalled: bool,
    /// Bytes of the image fetched over the network, resumptions included.
    fetched: u64,
    #[schema(value_type = Option<EvidenceName>)]
    evidence: Option<Evidence>,
    late_result: Option<LateView<'a>>,
    #[schema(value_type = Option<Uuid>)]
    retry_of: Option<OperationId>,
    #[schema(value_type = Option<Uuid>)]
    superseded_by: Option<OperationId>,
    /// Whether an attempt has passed the point of no return and is not known to be over.
    granted: bool,
    deadline: Option<Time>,
    finished: Option<Time>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Modem<'a> {
    #[schema(value_type = String)]
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
        wave: operation.wave,
        organization: &operation.organization,
        upgrade_options: &operation.upgrade_options,
        phase: operation.phase,
        detail: operation.detail.as_deref(),
        stalled: operation.stalled,
        fetched: operation.fetched,
        evidence: operation.evidence,
        late_result: operation
            .late_result
            .as_ref()
            .map(|late| LateView { outcome: &late.outcome, received: Time(late.received) }),
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

#[utoipa::path(get, path = "/upgrade-operation/", tag = "upgrades",
    params(
        Page,
        ("device" = Option<Uuid>, Query),
        ("image" = Option<Uuid>, Query),
        ("batch" = Option<Uuid>, Query),
        ("status" = Option<StatusName>, Query),
    ),
    responses((status = 200, body = Listing<OperationView<'_>>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<Shown>>> {
    let device = query.id("device")?;
    listing(&app, &operator, &mut query, device).await
}

/// `device/{id}/upgrade-operation/`
#[utoipa::path(get, path = "/device/{id}/upgrade-operation/", tag = "upgrades",
    params(("id" = Uuid, Path), Page,
        ("image" = Option<Uuid>, Query),
        ("batch" = Option<Uuid>, Query),
        ("status" = Option<StatusName>, Query)),
    responses((status = 200, body = Listing<OperationView<'_>>)))]
pub async fn list_of_device(
    State(app): State<App>,
    operator: Operator,
    Ids(device): Ids<DeviceId>,
    mut query: ListQuery,
) -> Answer<Json<Listing<Shown>>> {
    let found = app.store.device(operator.sees(), device).await?;
    found.filter(|found| operator.is_for(found.id)).ok_or_else(ApiError::not_found)?;
    listing(&app, &operator, &mut query, Some(device)).await
}

async fn listing(
    app: &App,
    operator: &Operator,
    query: &mut ListQuery,
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
        order: query.order(COLUMNS, newest),
        rows: query.rows()?,
    };
    let found = app.store.operations(wanted).await?;
    Ok(Json(query.listing(found, Shown)?))
}

#[utoipa::path(get, path = "/upgrade-operation/{id}/", tag = "upgrades",
    params(("id" = Uuid, Path),
        ("log_offset" = Option<u64>, Query,
            description = "Bytes of the log that the client has: only what follows comes.")),
    responses((status = 200, body = OperationView<'_>)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
    mut query: ListQuery,
) -> Answer<Json<Shown>> {
    let mut found = find(&app, &operator, id).await?;
    let offset = query.filter("log_offset", NOT_AN_OFFSET)?;
    query.finish()?;
    if let Some(offset) = offset {
        found.log = found.log.split_off(boundary(&found.log, offset));
    }
    Ok(Json(Shown(found)))
}

const NOT_AN_OFFSET: &str = "Enter a whole number of bytes.";

/// The character that byte `offset` of the text belongs to, or the end.
fn boundary(text: &str, offset: usize) -> usize {
    let offset = offset.min(text.len());
    (0..=offset).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The log from a place on, for who has read up to there.
#[utoipa::path(get, path = "/upgrade-operation/{id}/log/", tag = "upgrades",
    params(("id" = Uuid, Path), ("offset" = Option<u64>, Query, description = "Bytes.")),
    responses((status = 200, body = LogPart)))]
pub async fn log(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
    mut query: ListQuery,
) -> Answer<Json<LogPart>> {
    let found = find(&app, &operator, id).await?;
    let asked = query.filter("offset", NOT_AN_OFFSET)?.unwrap_or(0);
    query.finish()?;
    let offset = boundary(&found.log, asked);
    Ok(Json(LogPart {
        offset,
        next_offset: found.log.len(),
        complete: found.finished_at.is_some(),
        log: found.log[offset..].to_owned(),
    }))
}

/// What an [`OperationView`] has beside: a script may send all that it was given.
const READ_ONLY: [&str; 22] = [
    "device",
    "image",
    "log",
    "stage",
    "attempt",
    "failure",
    "modem",
    "batch",
    "wave",
    "organization",
    "upgrade_options",
    "phase",
    "detail",
    "stalled",
    "fetched",
    "evidence",
    "late_result",
    "retry_of",
    "superseded_by",
    "granted",
    "deadline",
    "finished",
];

/// PATCH: the word of a device's script that has only HTTP. It proves nothing.
#[utoipa::path(patch, path = "/upgrade-operation/{id}/", tag = "upgrades",
    params(("id" = Uuid, Path)),
    request_body = OperationReport,
    responses((status = 200, body = OperationView<'_>), (status = 409)))]
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
    fields.ignore(&READ_ONLY);
    fields.finish()?;
    let operation = operator.store(&app).report_operation(operator.sees(), id, report).await?;
    Ok(Json(Shown(operation)))
}

#[utoipa::path(post, path = "/upgrade-operation/{id}/cancel/", tag = "upgrades",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Done), (status = 409)))]
pub async fn cancel(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
) -> Answer<Json<Done>> {
    may_change(&app, &operator, id).await?;
    let store = operator.store(&app);
    let by = operator.user.name.clone();
    let cancelled = store.cancel_operation(operator.sees(), id, by).await?;
    let message = if is_uncertain(&cancelled, app.store.restored_at().await?) {
        "The upgrade is cancelled. It is older than the last restore: what its device was granted after the \
         backup it finishes all the same, and reports."
    } else {
        "The upgrade is cancelled: the modem will not be flashed."
    };
    Ok(Json(Done { message }))
}

/// Ends an operation whose modem is in recovery, that waits for a person, or whose script has been silent for an hour: it
/// has failed, and what its device still says is kept as `late_result`. For administrators.
#[utoipa::path(post, path = "/upgrade-operation/{id}/write-off/", tag = "upgrades",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Done), (status = 409)))]
pub async fn write_off(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<OperationId>,
) -> Answer<Json<Done>> {
    let operation = find(&app, &operator, id).await?;
    operator.may_administer_in(&operation.organization)?;
    let by = operator.user.name.clone();
    operator.store(&app).write_off_operation(operator.sees(), id, by).await?;
    Ok(Json(Done {
        message: "The upgrade is given up: it has failed, and nobody knows the state of its modem.",
    }))
}

pub(super) async fn find(app: &App, operator: &Operator, id: OperationId) -> Answer<Operation> {
    let found = app.store.operation(operator.sees(), id).await?;
    found.filter(|found| operator.is_for(found.device)).ok_or_else(ApiError::not_found)
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

impl From<Rejection<ChangeRefused<CannotWriteOff>>> for ApiError {
    fn from(rejection: Rejection<ChangeRefused<CannotWriteOff>>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(ChangeRefused::Unknown) => Self::not_found(),
            Rejection::Refused(ChangeRefused::Rule(rule)) => {
                Self::conflict(format!("The upgrade cannot be written off: {rule}."))
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
            Rejection::Refused(ChangeRefused::Rule(rule @ ReportRefused::Nothing)) => {
                Self::bad_request(format!("The report is not taken: {rule}."))
            }
            Rejection::Refused(ChangeRefused::Rule(rule)) => {
                Self::conflict(format!("The report is not taken: {rule}."))
            }
        }
    }
}
