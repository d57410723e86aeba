//! `device-firmware/` and `device/{id}/modem-firmware/`: which image a modem is to have. Asking for
//! another one starts the upgrade.

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Map, Value, json};
use shared::{
    ids::{DeviceId, ImageId, Slot},
    profile::{BUILT_IN, ToolProfile, options::argv},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, Operator,
    body::{Fields, id, nullable, object},
    category::missing,
    device,
    error::{Answer, ApiError},
    image,
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::operation::options;
use crate::store::{
    Rejection,
    firmware::{Assigned, Assignment, DeviceFirmware, FirmwareList, FirmwareRefused},
    listing::Order,
    operation::UpgradeRefused,
    repeat::Answered,
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["created", "modified"];

/// Which image a modem is to have.
#[derive(Debug, ToSchema)]
pub struct FirmwareBody {
    /// Null: none any more. Another one than it has starts the upgrade.
    pub image: Option<Uuid>,
    /// Which modem, where there are several.
    pub slot: Option<String>,
    /// The tool's own; those that only the router decides are ignored.
    #[schema(value_type = Option<Object>)]
    pub upgrade_options: Option<()>,
}

#[derive(Debug, ToSchema)]
pub struct FirmwarePatch {
    #[schema(required = false)]
    pub image: Option<Uuid>,
    /// Which modem, where there are several.
    pub slot: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub upgrade_options: Option<()>,
}

#[derive(Debug, ToSchema)]
pub struct NewFirmware {
    pub device: Uuid,
    #[schema(nullable = false, pattern = "^[a-z0-9-]{1,32}$", example = "main")]
    pub slot: Option<String>,
    pub image: Option<Uuid>,
    #[schema(value_type = Option<Object>)]
    pub upgrade_options: Option<()>,
}

#[derive(Debug, ToSchema)]
pub struct FirmwareView {
    pub id: Uuid,
    pub device: Uuid,
    pub slot: String,
    pub image: Option<Uuid>,
    /// By the versions read back from the modem, never by anybody's word.
    pub installed: bool,
    pub created: Time,
    pub modified: Time,
}

#[derive(Debug, ToSchema)]
pub struct AssignedView {
    pub id: Uuid,
    pub device: Uuid,
    pub slot: String,
    pub image: Option<Uuid>,
    pub installed: bool,
    pub created: Time,
    pub modified: Time,
    /// The upgrade that brings it about; null where the image is installed already.
    #[schema(required = false)]
    pub upgrade_operation: Option<OperationRef>,
}

#[derive(Debug, ToSchema)]
pub struct OperationRef {
    pub id: Uuid,
}

fn view(firmware: &DeviceFirmware) -> Value {
    json!({
        "id": firmware.id,
        "device": firmware.device,
        "slot": firmware.slot,
        "image": firmware.image,
        "installed": firmware.installed,
        "created": Time(firmware.created),
        "modified": Time(firmware.modified),
    })
}

fn assigned(assigned: &Assigned) -> (StatusCode, Json<Value>) {
    let mut view = view(&assigned.firmware);
    view["upgrade_operation"] = json!(assigned.operation.map(|id| json!({ "id": id })));
    (status(assigned), Json(view))
}

/// Of a slot that no image is meant for.
fn cleared(assigned: &Assigned) -> (StatusCode, Json<Value>) {
    (status(assigned), Json(view(&assigned.firmware)))
}

fn status(assigned: &Assigned) -> StatusCode {
    if assigned.created { StatusCode::CREATED } else { StatusCode::OK }
}

/// The same, to be kept.
fn kept((status, Json(view)): (StatusCode, Json<Value>)) -> Answered {
    Answered::json(status.as_u16(), &view)
}

#[utoipa::path(get, path = "/device-firmware/", tag = "upgrades",
    params(Page, ("device" = Option<Uuid>, Query), ("image" = Option<Uuid>, Query)),
    responses((status = 200, body = Listing<FirmwareView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<Value>>> {
    let newest = Order { column: "created", descending: true };
    let wanted = FirmwareList {
        scope: operator.sees(),
        organization: query.organization()?,
        device: query.id("device")?,
        image: query.id("image")?,
        order: query.order(COLUMNS, newest),
        rows: query.rows()?,
    };
    let found = app.store.device_firmwares(wanted).await?;
    Ok(Json(query.listing(found, |firmware| view(&firmware))?))
}

/// POST `{"device", "image", "slot"?, "upgrade_options"?}`
#[utoipa::path(post, path = "/device-firmware/", tag = "upgrades",
    request_body = NewFirmware,
    responses(
        (status = 200, body = AssignedView, description = "Somebody else was faster, with the same."),
        (status = 201, body = AssignedView),
    ))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<Value>)> {
    let device = fields.required("device", id::<DeviceId>);
    let slot = fields.optional("slot", slot);
    let wanted = Wanted::read(fields)?;
    let device = device.ok_or_else(|| ApiError::field("device", "This field is required."))?;
    let place = place(&app, &operator, device, slot, &mut query).await;
    let (device, slot) = match place {
        Err(error) if error.status == StatusCode::NOT_FOUND => {
            return Err(ApiError::field("device", missing(device)));
        }
        place => place?,
    };
    if app.store.device_firmware(device, slot.clone()).await?.is_some() {
        return Err(ApiError::field("device", "This modem has a firmware assigned already."));
    }
    assign(&app, &operator, (device, slot), wanted).await
}

#[utoipa::path(get, path = "/device/{id}/modem-firmware/", tag = "upgrades",
    params(("id" = Uuid, Path), ("slot" = Option<String>, Query, description = "Which modem, where there are several.")),
    responses((status = 200, body = FirmwareView)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
    mut query: ListQuery,
) -> Answer<Json<Value>> {
    device::find(&app, &operator, id).await?;
    let slot = the_slot(&app, id, asked_slot(&mut query)?).await?;
    let firmware = app.store.device_firmware(id, slot).await?;
    Ok(Json(view(&firmware.ok_or_else(ApiError::not_found)?)))
}

/// PUT makes it where there is none (201).
#[utoipa::path(put, path = "/device/{id}/modem-firmware/", tag = "upgrades",
    params(("id" = Uuid, Path), ("slot" = Option<String>, Query, description = "Which modem, where there are several.")),
    request_body = FirmwareBody,
    responses(
        (status = 200, body = AssignedView), (status = 201, body = AssignedView),
    ))]
pub async fn put(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
    mut query: ListQuery,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<Value>)> {
    let slot = fields.optional("slot", slot);
    let place = place(&app, &operator, id, slot, &mut query).await?;
    assign(&app, &operator, place, Wanted::of(id, fields)?).await
}

/// PATCH changes what is there.
#[utoipa::path(patch, path = "/device/{id}/modem-firmware/", tag = "upgrades",
    params(("id" = Uuid, Path), ("slot" = Option<String>, Query, description = "Which modem, where there are several.")),
    request_body = FirmwarePatch,
    responses(
        (status = 200, body = AssignedView),
        (status = 201, body = AssignedView, description = "Somebody has deleted it meanwhile."),
    ))]
pub async fn patch(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
    mut query: ListQuery,
    mut fields: Fields,
) -> Answer<(StatusCode, Json<Value>)> {
    let slot = fields.optional("slot", slot);
    let (device, slot) = place(&app, &operator, id, slot, &mut query).await?;
    let firmware = app.store.device_firmware(device, slot.clone()).await?;
    let firmware = firmware.ok_or_else(ApiError::not_found)?;
    let mut wanted = Wanted::of(id, fields)?;
    if wanted.image.is_none() && wanted.upgrade_options.is_none() {
        // Nothing is flashed by a request that asks for nothing.
        return Err(ApiError::bad_request("Say image, or upgrade_options: nothing was asked for."));
    }
    if wanted.image.is_none() {
        wanted.image = Some(firmware.image);
    }
    assign(&app, &operator, (device, slot), wanted).await
}

#[utoipa::path(delete, path = "/device/{id}/modem-firmware/", tag = "upgrades",
    params(("id" = Uuid, Path), ("slot" = Option<String>, Query, description = "Which modem, where there are several.")),
    responses((status = 204), (status = 409)))]
pub async fn delete(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
    mut query: ListQuery,
) -> Answer<StatusCode> {
    let (device, slot) = place(&app, &operator, id, None, &mut query).await?;
    operator.store(&app).delete_firmware(device, slot).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a body asks for.
struct Wanted {
    /// `Some(None)`: no image any more; `None`: not said.
    image: Option<Option<ImageId>>,
    upgrade_options: Option<Map<String, Value>>,
}

impl Wanted {
    /// Of a modem of this device.
    fn of(device: DeviceId, mut fields: Fields) -> Answer<Self> {
        fields.fixed("device", device.to_string());
        Self::read(fields)
    }

    fn read(mut fields: Fields) -> Answer<Self> {
        fields.ignore(&["installed", "upgrade_operation"]);
        let image = fields.required("image", nullable(id::<ImageId>));
        let upgrade_options = fields.optional("upgrade_options", nullable(object));
        fields.finish()?;
        Ok(Self { image, upgrade_options: upgrade_options.map(Option::unwrap_or_default) })
    }
}

/// The modem that is meant, which the user may change.
async fn place(
    app: &App,
    operator: &Operator,
    id: DeviceId,
    slot: Option<Slot>,
    query: &mut ListQuery,
) -> Answer<(DeviceId, Slot)> {
    let device = device::find_own(app, operator, id).await?;
    if device.deactivated {
        return Err(ApiError::forbidden_because("The device is deactivated."));
    }
    let asked = asked_slot(query)?;
    let asked = slot.or(asked);
    Ok((id, the_slot(app, id, asked).await?))
}

/// The slot asked for, or the only one.
async fn the_slot(app: &App, device: DeviceId, asked: Option<Slot>) -> Answer<Slot> {
    let known = app.store.slots(device).await?;
    let names = || known.iter().map(Slot::as_str).collect::<Vec<_>>().join(", ");
    match asked {
        Some(slot) if known.is_empty() || known.contains(&slot) => Ok(slot),
        Some(_) => Err(ApiError::field("slot", format!("The device's slots are: {}.", names()))),
        None if known.len() > 1 => {
            let message = format!("The device has several modems: name one of {}.", names());
            Err(ApiError::field("slot", message))
        }
        None => Ok(known.into_iter().next().unwrap_or_default()),
    }
}

/// All that the query may say.
fn asked_slot(query: &mut ListQuery) -> Answer<Option<Slot>> {
    let asked = query.filter("slot", "Not a slot's name.")?;
    query.finish()?;
    Ok(asked)
}

fn slot(value: Value) -> Result<Slot, String> {
    value.as_str().and_then(|name| name.parse().ok()).ok_or_else(|| "Not a slot's name.".into())
}

async fn assign(
    app: &App,
    operator: &Operator,
    (device, slot): (DeviceId, Slot),
    wanted: Wanted,
) -> Answer<(StatusCode, Json<Value>)> {
    let Some(image) = wanted.image.flatten() else {
        let store = operator.store(app).answering(|done| kept(cleared(done)));
        return Ok(cleared(&store.clear_firmware(device, slot).await?));
    };
    let found = image::find(app, operator, image).await;
    let found = found.map_err(|error| error.of_field("image", missing(image)))?;
    let upgrade_options = wanted.upgrade_options.unwrap_or_default();
    check_options(&found.tool, &upgrade_options)?;
    let wanted =
        Assignment { device, slot, image, upgrade_options, by: operator.user.name.clone() };
    let store = operator.store(app).answering(|done| kept(assigned(done)));
    Ok(assigned(&store.assign_firmware(wanted).await?))
}

/// Whether the tool takes these options. Of a profile that only routers know, the form alone can be
/// checked here; the router checks the rest.
pub(super) fn check_options(tool: &str, given: &Map<String, Value>) -> Answer<()> {
    let refuse = |problem: String| ApiError::field("upgrade_options", problem);
    let job = options::read(given).map_err(|bad| refuse(format!("{bad}.")))?;
    let Some((_, profile)) = BUILT_IN.iter().find(|(name, _)| *name == tool) else {
        return Ok(());
    };
    let profile = ToolProfile::parse(profile).map_err(|error| ApiError::internal(&error))?;
    argv(&profile.options, &job.tool).map(drop).map_err(|bad| refuse(format!("{bad}.")))
}

impl From<Rejection<FirmwareRefused>> for ApiError {
    fn from(rejection: Rejection<FirmwareRefused>) -> Self {
        use UpgradeRefused as Upgrade;
        let refused = match rejection {
            Rejection::Store(error) => return error.into(),
            Rejection::Refused(FirmwareRefused::Unknown) => return Self::not_found(),
            Rejection::Refused(refused @ FirmwareRefused::InUse) => {
                return Self::conflict(format!("The firmware stays assigned: {refused}."));
            }
            Rejection::Refused(FirmwareRefused::Upgrade(refused)) => refused,
        };
        let message = format!("No upgrade is started: {refused}.");
        match refused {
            Upgrade::UnknownDevice => Self::not_found(),
            Upgrade::Deactivated => Self::forbidden_because("The device is deactivated."),
            Upgrade::UnknownImage | Upgrade::NoManifest => Self::field("image", message),
            Upgrade::Options(_) => Self::field("upgrade_options", message),
            Upgrade::NotAccepted
            | Upgrade::InProgress(_)
            | Upgrade::AskedFor(_)
            | Upgrade::NotHeardSince(_) => Self::conflict(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tool: &str, options: Value) -> Result<(), String> {
        let given = object(options).unwrap();
        check_options(tool, &given).map_err(|error| {
            error.body["upgrade_options"][0].as_str().unwrap_or_default().to_owned()
        })
    }

    #[test]
    fn options_are_the_tools_own() {
        let uxfp = "telit-uxfp";
        assert_eq!(check(uxfp, json!({})), Ok(()));
        assert_eq!(check(uxfp, json!({"speed": "921600", "debug": true})), Ok(()));
        let predecessors = json!({"tool_path": "/usr/bin/uxfp", "upgrade_timeout": 1200});
        assert_eq!(check(uxfp, predecessors), Ok(()));
        for (bad, word) in [
            (json!({"speed": "17"}), "speed"),
            (json!({"speed": "--help"}), "speed"),
            (json!({"debug": "yes; reboot"}), "debug"),
            (json!({"debug": "yes"}), "debug"),
            (json!({"script": "x"}), "script"),
            (json!({"speed": {"a": 1}}), "speed"),
            (json!({"-f": "x"}), "-f"),
        ] {
            let problem = check(uxfp, bad.clone()).unwrap_err();
            assert!(problem.contains(word), "{bad}: {problem}");
        }
        assert_eq!(check("a-profile-of-the-router", json!({"depth": 3})), Ok(()));
        assert!(check("a-profile-of-the-router", json!({"depth": "$(id)"})).is_err());
    }
}
