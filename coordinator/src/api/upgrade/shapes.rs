//! What batches look like in requests and answers, and in the API's document.

use serde::Serialize;
use serde_json::Value;
use shared::ids::{BatchId, DeviceId, ImageId, OperationId, Slot};
use utoipa::openapi::{Object, ObjectBuilder, schema::Type};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::error::{Answer, ApiError};
use crate::api::page::ListQuery;
use crate::api::time::Time;
use crate::batch::verdict::Reason;
use crate::store::batch::{Look, Verdict};

/// How to roll out; see docs/batches.md. Every field has a default.
#[derive(Debug, ToSchema)]
pub struct StrategyBody {
    #[schema(minimum = 1, default = 1, nullable = false, example = 1)]
    pub canary: Option<u32>,
    #[schema(minimum = 1, maximum = 100, default = 2.0, nullable = false, example = 3)]
    pub growth: Option<f64>,
    #[schema(nullable = false)]
    pub gate: Option<GateBody>,
    #[schema(minimum = 1)]
    pub max_concurrent: Option<u32>,
    #[schema(nullable = false)]
    pub failure_threshold: Option<ThresholdBody>,
    #[schema(minimum = 60, default = 3600, nullable = false, maximum = 31622400)]
    pub offline_after_s: Option<u64>,
    #[schema(minimum = 60, default = 90_000, nullable = false, maximum = 31622400)]
    pub patience_s: Option<u64>,
    #[schema(example = "2026-01-31T22:00:00Z")]
    pub start_at: Option<Time>,
    /// By default 30 days after it begins.
    #[schema(example = "2099-12-31T00:00:00Z")]
    pub expires_at: Option<Time>,
    /// Null: windows are set on the routers.
    #[schema(nullable, required = false, schema_with = nothing)]
    pub window: (),
}

/// What a wave has to show.
#[derive(Debug, ToSchema)]
pub struct GateBody {
    #[schema(minimum = 1, maximum = 100, default = 100, nullable = false)]
    pub success_percent: Option<u8>,
    #[schema(minimum = 1, default = 1, nullable = false, example = 1)]
    pub minimum: Option<u32>,
    #[schema(default = 600, nullable = false, maximum = 31622400, example = 1800)]
    pub soak_s: Option<u64>,
}

/// When the batch stops by itself.
#[derive(Debug, ToSchema)]
pub struct ThresholdBody {
    #[schema(minimum = 1)]
    pub count: Option<u32>,
    #[schema(minimum = 1, maximum = 100, default = 20)]
    pub percent: Option<u8>,
    #[schema(default = 5, nullable = false)]
    pub minimum: Option<u32>,
    #[schema(nullable = false)]
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

/// Which modems, and how. The dry run's names are taken as well; an unknown name and an empty list are
/// refused.
#[derive(Debug, ToSchema)]
pub struct UpgradeBody {
    #[schema(nullable = false, example = true)]
    pub upgrade_all: Option<bool>,
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    #[schema(nullable = false, min_items = 1, max_items = 5000, example = json!(["spare-at-hand"]))]
    pub tags: Option<Vec<String>>,
    #[schema(nullable = false, min_items = 1, max_items = 5000, example = json!(["5f0c3c1e-6d0f-4b53-9c0e-0a4ff0a6c1d7"]))]
    pub devices: Option<Vec<Uuid>>,
    #[schema(nullable = false, min_items = 1, max_items = 5000, example = json!(["FN990A28"]))]
    pub models: Option<Vec<String>>,
    #[schema(nullable = false, min_items = 1, max_items = 5000, example = json!(["glinet,gl-x3000"]))]
    pub boards: Option<Vec<String>>,
    #[schema(nullable = false, min_items = 1, max_items = 5000, example = json!(["45.00.003"]))]
    pub from_versions: Option<Vec<String>>,
    #[schema(nullable = false)]
    pub include_unsigned: Option<bool>,
    #[schema(nullable = false)]
    pub allow_volatile_staging: Option<bool>,
    /// A slug or an id; of a shared build alone, and only by who sees several.
    #[schema(max_length = 64, example = "default")]
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
    #[schema(nullable = false)]
    pub strategy: Option<StrategyBody>,
    #[schema(nullable = false)]
    pub include_unsigned: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Started {
    #[schema(value_type = Uuid)]
    pub batch: BatchId,
}

/// What would become of every modem of the selection.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewView {
    /// The associations that would change: all of them, on the first page; empty on the others.
    device_modem_firmwares: Vec<Uuid>,
    /// Devices that have none yet and would get one: all of them, on the first page; empty on the others.
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
    /// The older upgrade of the modem that would be taken back for it.
    replaces: Option<Replaced>,
}

/// An upgrade that was asked for and not begun.
#[derive(Debug, Serialize, ToSchema)]
struct Replaced {
    #[schema(value_type = Uuid)]
    operation: OperationId,
    /// The batch that it is of.
    #[schema(value_type = Option<Uuid>)]
    batch: Option<BatchId>,
}

/// What a dry run takes. The parameters that name several may come several times; the names of a body's
/// fields are taken as well.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PreviewQuery {
    /// Of the verdicts, from 1.
    #[param(minimum = 1)]
    pub page: Option<u32>,
    /// Verdicts a page: 10 by default, 100 at most.
    #[param(minimum = 1)]
    pub page_size: Option<u32>,
    /// A slug or an id; of a shared build alone, and only by who sees several.
    pub organization: Option<String>,
    pub upgrade_all: Option<bool>,
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    /// Or several, separated by commas.
    pub tag: Option<String>,
    /// Or several, separated by commas.
    pub device: Option<String>,
    /// One: it may have commas in it.
    pub model: Option<String>,
    /// One: their names have commas in them.
    pub board: Option<String>,
    /// One: it may have commas in it.
    pub from_version: Option<String>,
    pub include_unsigned: Option<bool>,
    pub allow_volatile_staging: Option<bool>,
}

/// A page of it.
pub fn shown(look: &Look, verdicts: &[Verdict], query: &ListQuery) -> Answer<PreviewView> {
    let (all, offset) = (look.modems(), query.rows()?.offset as usize);
    let first = offset == 0;
    if offset >= all && !first {
        return Err(ApiError::invalid_page());
    }
    // Once is enough: there may be a hundred thousand of them, and a thousand pages.
    let named = first.then(|| (look.firmware.clone(), look.without.clone()));
    let (device_modem_firmwares, devices) = named.unwrap_or_default();
    Ok(PreviewView {
        device_modem_firmwares,
        devices,
        count: look.count,
        excluded: all - look.count,
        verdicts: verdicts.iter().map(verdict).collect(),
        verdicts_next: query.next(all.try_into().unwrap_or(u64::MAX)),
    })
}

fn verdict(verdict: &Verdict) -> VerdictView {
    let replaces = verdict.replaces.map(|of| Replaced { operation: of.id, batch: of.batch });
    let well = match replaces {
        None => "It will be upgraded.",
        Some(_) => "It will be upgraded; an older upgrade that was not begun is taken back for it.",
    };
    VerdictView {
        device: verdict.device,
        name: verdict.name.clone(),
        slot: verdict.slot.clone(),
        will_upgrade: verdict.image.is_ok(),
        image: verdict.image.ok(),
        reason: verdict.image.err(),
        detail: verdict.image.err().map_or(well, Reason::detail),
        replaces,
    }
}
