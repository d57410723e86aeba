//! Reading what is asked for: whose modems, and how they are to be upgraded.

use serde_json::{Map, Value, json};
use shared::ids::DeviceId;
use uuid::Uuid;

use super::VOLATILE;
use crate::api::App;
use crate::api::body::{Fields, boolean, id, list, nullable, object, tag, text};
use crate::api::error::{Answer, ApiError};
use crate::api::page::ListQuery;
use crate::batch::Strategy;
use crate::batch::verdict::Allowance;
use crate::store::batch::{Ask, Selection};

/// Devices, models and the like that one request may name.
const MOST: usize = 5000;

/// Who is asked about, as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub selection: Selection,
    pub allowance: Allowance,
    pub organization: Option<String>,
}

/// What a body asks for.
pub struct Wish {
    pub asked: Asked,
    pub upgrade_options: Map<String, Value>,
    pub roll_out: RollOut,
}

#[derive(Debug, Clone, Default)]
pub struct RollOut {
    pub strategy: Strategy,
    pub start_at: Option<u64>,
    pub expires_at: Option<u64>,
}

/// A condition that takes several values, by its name in a query and in a body; either takes both.
type Names = [&'static str; 2];

const TAGS: Names = ["tag", "tags"];
const DEVICES: Names = ["device", "devices"];
const MODELS: Names = ["model", "models"];
const BOARDS: Names = ["board", "boards"];
const FROM_VERSIONS: Names = ["from_version", "from_versions"];
/// How far a client's clock may be behind.
const SKEW_MS: u64 = 5 * 60 * 1000;
/// An empty list of conditions would be none: everybody.
const EMPTY: &str = "This list is empty: it selects nobody. Leave it out to select by the others.";

/// `?upgrade_all=&group=&location=&tag=&device=&model=&board=&from_version=&organization=
/// &include_unsigned=&allow_volatile_staging=`; several tags or devices are separated by commas, or the
/// parameter comes several times. What routers and modems tell may have commas in it: only the latter.
pub fn asked_in(query: &mut ListQuery) -> Answer<Asked> {
    query.filled()?;
    let devices = words(query, DEVICES, true)?.into_iter();
    let devices: Result<Vec<_>, _> =
        devices.map(|text| Uuid::try_parse(&text).map(DeviceId)).collect();
    let devices = devices.map_err(|_| ApiError::field("device", "Enter a valid UUID."))?;
    let selection = Selection {
        group: query.id("group")?,
        location: query.id("location")?,
        tags: words(query, TAGS, true)?,
        models: words(query, MODELS, false)?,
        boards: words(query, BOARDS, false)?,
        from_versions: words(query, FROM_VERSIONS, false)?,
        devices,
        retry_of: None,
    };
    let allowance = Allowance {
        firmwareless: flag(query, "upgrade_all")? || !selection.devices.is_empty(),
        include_unsigned: flag(query, "include_unsigned")?,
        allow_volatile_staging: flag(query, VOLATILE)?,
    };
    let organization = query.text("organization").map(str::to_owned);
    Ok(Asked { selection, allowance, organization })
}

fn flag(query: &mut ListQuery, name: &'static str) -> Answer<bool> {
    match query.text(name) {
        None | Some("false" | "False" | "0") => Ok(false),
        Some("true" | "True" | "1") => Ok(true),
        Some(_) => Err(ApiError::field(name, "Must be a valid boolean.")),
    }
}

fn words(query: &mut ListQuery, names: Names, split: bool) -> Answer<Vec<String>> {
    let given = query.all(&names);
    let parts = given.iter().flat_map(|value| value.split(|c| split && c == ','));
    let words: Vec<String> =
        parts.map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.is_empty() && !given.is_empty() {
        return Err(ApiError::field(names[0], EMPTY));
    }
    Ok(words)
}

/// The fields of a body that starts a batch.
pub fn wish(app: &App, fields: &mut Fields) -> Wish {
    let word = |value| text(128)(value);
    let selection = Selection {
        group: fields.optional("group", nullable(id)).flatten(),
        location: fields.optional("location", nullable(id)).flatten(),
        tags: several(fields, TAGS, tag(128)),
        devices: several(fields, DEVICES, id),
        models: several(fields, MODELS, word),
        boards: several(fields, BOARDS, word),
        from_versions: several(fields, FROM_VERSIONS, word),
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

/// A list of conditions, or one of them as it is.
fn several<T>(
    fields: &mut Fields,
    names: Names,
    parse: impl Fn(Value) -> Result<T, String> + Copy,
) -> Vec<T> {
    let read = |value| match value {
        Value::Array(values) if values.is_empty() => Err(EMPTY.to_owned()),
        values @ Value::Array(_) => list(MOST, parse)(values),
        one => parse(one).map(|one| vec![one]),
    };
    names.into_iter().filter_map(|name| fields.optional(name, read)).flatten().collect()
}

/// What the audit log says of a batch beside the batch itself: whom it was asked for, and what was allowed.
pub fn on_record(ask: &Ask, options: &Map<String, Value>) -> Value {
    let (selection, allowance) = (&ask.selection, &ask.allowance);
    let mut asked = json!({
        "upgrade_all": allowance.firmwareless,
        "include_unsigned": allowance.include_unsigned,
        VOLATILE: allowance.allow_volatile_staging,
        "upgrade_options": options,
    });
    for (name, value) in [
        ("group", json!(selection.group)),
        ("location", json!(selection.location)),
        ("tags", json!(selection.tags)),
        ("devices", json!(selection.devices)),
        ("models", json!(selection.models)),
        ("boards", json!(selection.boards)),
        ("from_versions", json!(selection.from_versions)),
        ("retry_of", json!(selection.retry_of)),
    ] {
        if !value.is_null() && value != json!([]) {
            asked[name] = value;
        }
    }
    asked
}

/// A strategy, with the times in it that are the batch's.
pub fn roll_out(app: &App, value: Value) -> Result<RollOut, String> {
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
    let strategy = strategy(given)?;
    let now = app.store.clock().now();
    // A year that was mistyped must not begin at once; clocks that differ a little may.
    if start_at.is_some_and(|start| start.saturating_add(SKEW_MS) < now) {
        return Err("start_at: this time is over.".into());
    }
    let begins = start_at.unwrap_or(0).max(now);
    if expires_at.is_some_and(|expires| expires <= begins) {
        return Err("expires_at: it would be over before it begins.".into());
    }
    Ok(RollOut { strategy, start_at, expires_at })
}

/// What is wrong is told with its place.
fn strategy(given: Map<String, Value>) -> Result<Strategy, String> {
    let strategy: Strategy =
        serde_path_to_error::deserialize(Value::Object(given)).map_err(|bad| {
            let path = bad.path().to_string();
            match bad.into_inner().to_string() {
                problem if problem.starts_with("unknown field") => format!("{problem}."),
                problem => format!("{path}: {problem}."),
            }
        })?;
    strategy.check().map_err(|bad| format!("{bad}."))?;
    Ok(strategy)
}

fn read_time(text: &str) -> Result<u64, ()> {
    let time: jiff::Timestamp = text.parse().map_err(drop)?;
    time.as_millisecond().try_into().map_err(drop)
}
