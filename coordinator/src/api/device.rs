//! `device/`: the routers and the modems in them.

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    hex::Hex,
    identity::DeviceState,
    ids::{DeviceId, OrganizationId, OrganizationSlug},
    inventory::{Inventory, Modem},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App, Operator,
    body::{self, Fields, boolean, nullable, tag},
    document::shapes::{DeviceStateName, InventoryShape, ModemShape},
    error::{Answer, ApiError},
    page::{ListQuery, Listing, Page},
    path::Ids,
    time::Time,
};
use crate::store::{
    Rejection,
    device::{Device, DeviceChange, DeviceList, DeviceRefusal, TAGS},
    listing::Order,
};

/// What its list is ordered by.
pub const COLUMNS: &[&str] = &["name", "created", "modified", "last_seen"];

/// What of a device can be set.
#[derive(Debug, ToSchema)]
pub struct DevicePatch {
    /// An administrator's to say: such a device keeps its line and gets no jobs.
    #[schema(nullable = false)]
    pub deactivated: Option<bool>,
    /// Of its organization; null: none.
    pub group: Option<Uuid>,
    pub location: Option<Uuid>,
    /// Without commas.
    #[schema(max_items = 64, nullable = false, example = json!(["spare-at-hand"]))]
    pub tags: Option<Vec<String>>,
    /// Beside those that it has, whoever else changes them meanwhile; not together with `tags`.
    #[schema(max_items = 64, nullable = false, example = json!(["spare-at-hand"]))]
    pub add_tags: Option<Vec<String>>,
    /// As `add_tags`. What is in both is added.
    #[schema(max_items = 64, nullable = false, example = json!(["retired"]))]
    pub remove_tags: Option<Vec<String>>,
}

/// A device with everything it says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceDetail {
    #[schema(inline)]
    #[serde(flatten)]
    device: DeviceView,
    #[schema(value_type = Option<InventoryShape>)]
    inventory: Option<Inventory>,
    inventory_at: Option<Time>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceView {
    #[schema(value_type = Uuid)]
    id: DeviceId,
    name: String,
    #[schema(value_type = Uuid)]
    organization: OrganizationId,
    #[schema(value_type = String)]
    organization_slug: OrganizationSlug,
    board: String,
    mac_address: Option<String>,
    serial: Option<String>,
    #[schema(value_type = DeviceStateName)]
    state: DeviceState,
    /// The device with the same MAC address or serial number, under another key, whose place it took; of a pending one, the
    /// one that is shut out if it is accepted.
    #[schema(value_type = Option<Uuid>)]
    replacement_of: Option<DeviceId>,
    group: Option<Uuid>,
    location: Option<Uuid>,
    tags: Vec<String>,
    #[schema(value_type = String)]
    public_key: Hex<32>,
    deactivated: bool,
    /// Two boards use this identity: its jobs are held. Null: not as far as anybody knows.
    duplicate: Option<Duplicate>,
    online: bool,
    last_seen: Option<Time>,
    agent_version: Option<String>,
    #[schema(value_type = Vec<ModemShape>)]
    modems: Vec<ModemView>,
    created: Time,
    modified: Time,
}

#[derive(Debug, Serialize, ToSchema)]
struct Duplicate {
    since: Time,
    reason: String,
}

#[derive(Debug, Serialize)]
struct ModemView {
    #[serde(flatten)]
    modem: Modem,
    /// When its model, IMEI and versions were read; older than the inventory where it is
    /// unreadable now. Null: never.
    read: Option<Time>,
}

fn modems(device: &Device) -> Vec<ModemView> {
    let modems = device.inventory.iter().flat_map(|known| known.modems.iter().cloned());
    let view = |modem: Modem| {
        let read = !modem.imei.is_empty() || !modem.versions.is_empty();
        let read_at = device.read_at.get(&modem.slot).filter(|_| read);
        ModemView { read: read_at.copied().map(Time), modem }
    };
    modems.map(view).collect()
}

fn view(device: Device) -> (DeviceView, Option<Inventory>) {
    let modems = modems(&device);
    let inventory = device.inventory;
    let view = DeviceView {
        id: device.id,
        name: device.name,
        organization: device.organization,
        organization_slug: device.organization_slug,
        board: device.board,
        mac_address: device.mac,
        serial: device.serial,
        state: device.state,
        replacement_of: device.replacement_of,
        group: device.group,
        location: device.location,
        tags: device.tags,
        public_key: device.public_key,
        deactivated: device.deactivated,
        duplicate: device.duplicate.map(|(since, reason)| Duplicate { since: Time(since), reason }),
        online: device.online,
        last_seen: device.last_seen.map(Time),
        agent_version: inventory.as_ref().map(|known| known.agent_version.clone()),
        modems,
        created: Time(device.created),
        modified: Time(device.modified),
    };
    (view, inventory)
}

fn whole(device: Device) -> Value {
    let inventory_at = device.inventory_at.map(Time);
    let (device, inventory) = view(device);
    json!(DeviceDetail { device, inventory, inventory_at })
}

#[utoipa::path(get, path = "/device/", tag = "devices",
    params(
        Page,
        ("state" = Option<String>, Query, description = "accepted, pending or revoked."),
        ("name" = Option<String>, Query),
        ("board" = Option<String>, Query),
        ("online" = Option<bool>, Query),
        ("duplicate" = Option<bool>, Query),
        ("group" = Option<Uuid>, Query),
        ("location" = Option<Uuid>, Query),
        ("tag" = Option<String>, Query, description = "Devices that have it."),
    ),
    responses((status = 200, body = Listing<DeviceView>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    mut query: ListQuery,
) -> Answer<Json<Listing<DeviceView>>> {
    let newest = Order { column: "created", descending: true };
    let wanted = DeviceList {
        scope: operator.sees(),
        organization: query.organization()?,
        state: query.text("state").map(state).transpose()?,
        name: query.text("name").map(str::to_owned),
        board: query.text("board").map(str::to_owned),
        online: query.boolean("online")?,
        duplicate: query.boolean("duplicate")?,
        group: query.id("group")?,
        location: query.id("location")?,
        tag: query.text("tag").map(str::to_owned),
        order: query.order(COLUMNS, newest),
        rows: query.rows()?,
    };
    Ok(Json(query.listing(app.store.devices(wanted).await?, |device| view(device).0)?))
}

fn state(name: &str) -> Answer<DeviceState> {
    match serde_json::from_value(json!(name)) {
        Ok(DeviceState::Unknown) | Err(_) => {
            Err(ApiError::field("state", "Select a valid choice: accepted, pending or revoked."))
        }
        Ok(state) => Ok(state),
    }
}

#[utoipa::path(get, path = "/device/{id}/", tag = "devices",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DeviceDetail)))]
pub async fn detail(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
) -> Answer<Json<Value>> {
    Ok(Json(whole(find(&app, &operator, id).await?)))
}

/// What a device tells of itself, and what is seen of it.
const TOLD: [&str; 8] = [
    "board",
    "duplicate",
    "online",
    "last_seen",
    "agent_version",
    "modems",
    "inventory",
    "inventory_at",
];
/// What no PATCH changes.
const KEPT: [&str; 8] = [
    "name",
    "organization",
    "organization_slug",
    "state",
    "mac_address",
    "serial",
    "public_key",
    "replacement_of",
];

/// PATCH `{"deactivated", "group", "location", "tags", "add_tags", "remove_tags"}`: a deactivated
/// device keeps its line and gets no jobs.
#[utoipa::path(patch, path = "/device/{id}/", tag = "devices",
    params(("id" = Uuid, Path)),
    request_body = DevicePatch,
    responses((status = 200, body = DeviceDetail)))]
pub async fn change(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
    mut fields: Fields,
) -> Answer<Json<Value>> {
    let device = find_own(&app, &operator, id).await?;
    let mut change = DeviceChange {
        deactivated: fields.optional("deactivated", boolean),
        group: fields.optional("group", nullable(body::id)),
        location: fields.optional("location", nullable(body::id)),
        tags: fields.optional("tags", tags),
        add_tags: fields.optional("add_tags", tags).unwrap_or_default(),
        remove_tags: fields.optional("remove_tags", tags).unwrap_or_default(),
    };
    if change.tags.is_some() {
        for (field, given) in [("add_tags", &change.add_tags), ("remove_tags", &change.remove_tags)]
        {
            if !given.is_empty() {
                fields.refuse(field, "Either this or `tags`, which sets all of them.");
            }
        }
    }
    // A script may send back what it has read.
    fields.ignore(&TOLD);
    let shown = whole(device.clone());
    for field in KEPT {
        fields.fixed(field, shown[field].clone());
    }
    fields.finish()?;
    if change.deactivated == Some(device.deactivated) {
        change.deactivated = None;
    }
    if change.deactivated.is_some() {
        operator.may_administer(device.organization)?;
    }
    if change == DeviceChange::default() {
        return Ok(Json(whole(device)));
    }
    Ok(Json(whole(operator.store(&app).alter_device(operator.sees(), id, change).await?)))
}

/// Up to 64 words; sorted, each once.
fn tags(value: Value) -> Result<Vec<String>, String> {
    let mut tags = body::list(TAGS, tag(64))(value)?;
    tags.sort();
    tags.dedup();
    Ok(tags)
}

/// Lets a pending device in; the one that it replaces is revoked.
#[utoipa::path(post, path = "/device/{id}/accept/", tag = "devices",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DeviceDetail), (status = 409)))]
pub async fn accept(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
) -> Answer<Json<Value>> {
    find_administered(&app, &operator, id).await?;
    Ok(Json(whole(operator.store(&app).accept_device(operator.sees(), id).await?)))
}

/// Turns a pending device away: its key is not taken again.
#[utoipa::path(post, path = "/device/{id}/refuse/", tag = "devices",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DeviceDetail), (status = 409)))]
pub async fn refuse(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
) -> Answer<Json<Value>> {
    find_administered(&app, &operator, id).await?;
    Ok(Json(whole(operator.store(&app).refuse_device(operator.sees(), id).await?)))
}

/// The identity is one board's again: its jobs go on.
#[utoipa::path(post, path = "/device/{id}/release/", tag = "devices",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DeviceDetail)))]
pub async fn release(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
) -> Answer<Json<Value>> {
    find_administered(&app, &operator, id).await?;
    Ok(Json(whole(operator.store(&app).release_device(operator.sees(), id).await?)))
}

/// Shuts a device out for good: its key is not taken again.
#[utoipa::path(post, path = "/device/{id}/revoke/", tag = "devices",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DeviceDetail)))]
pub async fn revoke(
    State(app): State<App>,
    operator: Operator,
    Ids(id): Ids<DeviceId>,
) -> Answer<Json<Value>> {
    find_administered(&app, &operator, id).await?;
    Ok(Json(whole(operator.store(&app).revoke_device(operator.sees(), id).await?)))
}

pub(super) async fn find(app: &App, operator: &Operator, id: DeviceId) -> Answer<Device> {
    app.store.device(operator.sees(), id).await?.ok_or_else(ApiError::not_found)
}

/// One that the user looks after.
async fn find_administered(app: &App, operator: &Operator, id: DeviceId) -> Answer<Device> {
    let device = find(app, operator, id).await?;
    operator.may_administer(device.organization)?;
    Ok(device)
}

/// One that the user may change.
pub(super) async fn find_own(app: &App, operator: &Operator, id: DeviceId) -> Answer<Device> {
    let device = find(app, operator, id).await?;
    operator.may_change(Some(device.organization))?;
    Ok(device)
}

impl From<Rejection<DeviceRefusal>> for ApiError {
    fn from(rejection: Rejection<DeviceRefusal>) -> Self {
        match rejection {
            Rejection::Store(error) => error.into(),
            Rejection::Refused(DeviceRefusal::Unknown) => Self::not_found(),
            Rejection::Refused(refusal @ DeviceRefusal::UnknownGroup) => {
                Self::field("group", format!("Not set: {refusal}."))
            }
            Rejection::Refused(refusal @ DeviceRefusal::UnknownLocation) => {
                Self::field("location", format!("Not set: {refusal}."))
            }
            Rejection::Refused(refusal @ DeviceRefusal::TooManyTags) => {
                Self::field("add_tags", format!("Not added: {refusal}."))
            }
            Rejection::Refused(
                refusal @ (DeviceRefusal::Revoked
                | DeviceRefusal::NotPending
                | DeviceRefusal::SeveralRivals),
            ) => Self::conflict(format!("The device stays as it is: {refusal}.")),
        }
    }
}
