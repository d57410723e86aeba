//! Whether a modem can be upgraded to a build, and by which of its images: what the dry run tells of
//! every device, and what a batch is made of. The router decides again, and with better knowledge.

use serde::{Deserialize, Serialize};
use shared::desired::{REQUIRED, VOLATILE_STAGING};
use shared::event::VersionLine;
use shared::identity::DeviceState;
use shared::ids::{BatchId, CategoryId, ImageId, OperationId};
use shared::inventory::{Inventory, Modem};
use shared::manifest::{Encoding, Manifest};

/// An image of the build, its manifest read.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: ImageId,
    /// The upgrade tool.
    pub tool: String,
    /// Routers' boards or modems' models it is for; empty: any. Where nobody named boards, an upload
    /// takes the manifest's models.
    pub boards: Vec<String>,
    pub manifest: Option<Manifest>,
    /// Key number, lowercase hex.
    pub signed_by: Option<String>,
}

/// What an operator asks for, as far as it decides about a modem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Also modems that have no firmware assigned.
    pub firmwareless: bool,
    /// Also routers that do not check signatures.
    pub include_unsigned: bool,
    pub allow_volatile_staging: bool,
}

/// A router.
#[derive(Debug, Clone, Copy)]
pub struct Router<'a> {
    pub state: DeviceState,
    pub deactivated: bool,
    /// Two boards use its identity.
    pub duplicate: bool,
    pub inventory: Option<&'a Inventory>,
}

/// The slot of a modem.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// The category of the firmware that it has, if it has one.
    pub category: Option<CategoryId>,
    pub active: Option<Active>,
    /// Its newest operation, if that was lost and its device not heard of since.
    pub lost: Option<OperationId>,
    /// Of a retry: something else was asked of the modem after what failed, and has not failed.
    pub moved_on: bool,
}

/// The unfinished operation of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    pub id: OperationId,
    pub image: Option<ImageId>,
    pub granted: bool,
    pub batch: Option<BatchId>,
}

/// Why a modem is left out; the later ones are closer to an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Pending,
    Revoked,
    Deactivated,
    Duplicate,
    ModemUnknown,
    NoImage,
    ImageWithoutManifest,
    WrongModel,
    WrongBoard,
    AlreadyThere,
    Firmwareless,
    OtherCategory,
    OperationActive,
    Lost,
    UpgradedSince,
    ManifestExpired,
    WrongStartVersion,
    NoInventory,
    AgentTooOld,
    ToolMissing,
    SignaturesOff,
    KeyNotTrusted,
    NoRoom,
    NoDurableStaging,
}

impl Reason {
    /// A sentence that says what to do, where something can be done.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Pending => "The device is not accepted yet.",
            Self::Revoked => "The device is revoked.",
            Self::Deactivated => "The device is deactivated.",
            Self::Duplicate => "Two boards use the device's identity: its jobs are held.",
            Self::ModemUnknown => "No modem was read yet: nothing tells whether the build fits.",
            Self::NoImage => "The build has no image.",
            Self::ImageWithoutManifest => {
                "The image has no signed manifest yet: complete it at image/{id}/manifest/."
            }
            Self::WrongModel => "No image of the build is for this model.",
            Self::WrongBoard => "No fitting image of the build is for this board.",
            Self::AlreadyThere => "The modem runs this version.",
            Self::Firmwareless => {
                "The modem has no firmware assigned: ask with upgrade_all, or name the device."
            }
            Self::OtherCategory => "The modem has firmware of another category assigned.",
            Self::OperationActive => "An unfinished upgrade of the modem cannot give way.",
            Self::Lost => {
                "Its last upgrade was lost and the device was not heard of since: nobody knows \
                 whether its modem is being flashed."
            }
            Self::UpgradedSince => {
                "Another upgrade of the modem has succeeded since: this one would take it back."
            }
            Self::ManifestExpired => "The manifest's not_after has passed: sign a newer one.",
            Self::WrongStartVersion => "The image may not start from the version that runs.",
            Self::NoInventory => "The device has not said yet what it can do.",
            Self::AgentTooOld => "The agent lacks what the job requires: upgrade its package.",
            Self::ToolMissing => "The router has no profile of the image's tool.",
            Self::SignaturesOff => {
                "The router does not check signatures: ask with include_unsigned."
            }
            Self::KeyNotTrusted => "The router does not trust the key that signed the image.",
            Self::NoRoom => "No staging directory has room for the image.",
            Self::NoDurableStaging => {
                "The modem is the only uplink and no staging directory with enough room survives a \
                 power cut: add storage, or ask with allow_volatile_staging where the router \
                 allows it as well."
            }
        }
    }
}

/// The image that the modem would get, or why none.
///
/// # Errors
/// The reason of the image that comes closest.
pub fn judge(
    router: &Router<'_>,
    modem: Option<&Modem>,
    place: &Place,
    images: &[Candidate],
    allowance: &Allowance,
    now: u64,
) -> Result<ImageId, Reason> {
    standing(router)?;
    let modem = modem.filter(|modem| !modem.model.is_empty()).ok_or(Reason::ModemUnknown)?;
    let mut closest = Reason::NoImage;
    for image in images {
        match fit(router, modem, place, image, allowance, now) {
            Ok(()) => return Ok(image.id),
            Err(reason) => closest = closest.max(reason),
        }
    }
    Err(closest)
}

fn standing(router: &Router<'_>) -> Result<(), Reason> {
    match router.state {
        DeviceState::Accepted if router.deactivated => Err(Reason::Deactivated),
        DeviceState::Accepted if router.duplicate => Err(Reason::Duplicate),
        DeviceState::Accepted => Ok(()),
        DeviceState::Revoked => Err(Reason::Revoked),
        DeviceState::Pending | DeviceState::Unknown => Err(Reason::Pending),
    }
}

fn fit(
    router: &Router<'_>,
    modem: &Modem,
    place: &Place,
    image: &Candidate,
    allowance: &Allowance,
    now: u64,
) -> Result<(), Reason> {
    let manifest = image.manifest.as_ref().ok_or(Reason::ImageWithoutManifest)?;
    let inventory = router.inventory.ok_or(Reason::NoInventory)?;
    if !manifest.fits(&modem.manufacturer, &modem.model) {
        return Err(Reason::WrongModel);
    }
    let named = |board: &String| *board == inventory.board || *board == modem.model;
    if !image.boards.is_empty() && !image.boards.iter().any(named) {
        return Err(Reason::WrongBoard);
    }
    let reads = |lines: &[VersionLine]| lines.iter().all(|line| modem.versions.contains(line));
    if reads(&manifest.reaches) {
        return Err(Reason::AlreadyThere);
    }
    free(place, image)?;
    if manifest.not_after.is_some_and(|end| now >= end) {
        return Err(Reason::ManifestExpired);
    }
    if !manifest.from.is_empty() && !manifest.from.iter().any(|set| reads(set)) {
        return Err(Reason::WrongStartVersion);
    }
    able(inventory, image, manifest)?;
    trusted(inventory, image, allowance)?;
    staged(inventory, modem, manifest, allowance)
}

/// Whether the slot is free for the image. What is not granted gives way to another image.
fn free(place: &Place, image: &Candidate) -> Result<(), Reason> {
    match place.active {
        Some(active) if active.granted || active.image == Some(image.id) || place.moved_on => {
            Err(Reason::OperationActive)
        }
        Some(_) | None if place.lost.is_some() => Err(Reason::Lost),
        Some(_) | None if place.moved_on => Err(Reason::UpgradedSince),
        Some(_) | None => Ok(()),
    }
}

fn able(inventory: &Inventory, image: &Candidate, manifest: &Manifest) -> Result<(), Reason> {
    let can = |name: &str| inventory.capabilities.iter().any(|known| known == name);
    let decodes = manifest.file.encoding == Encoding::Identity || can("zstd-1");
    if !decodes || !REQUIRED.iter().all(|name| can(name)) {
        return Err(Reason::AgentTooOld);
    }
    let tool = &manifest.tool.profile;
    if !inventory.profiles.contains(tool) && !inventory.profiles.contains(&image.tool) {
        return Err(Reason::ToolMissing);
    }
    Ok(())
}

fn trusted(inventory: &Inventory, image: &Candidate, allowance: &Allowance) -> Result<(), Reason> {
    if !inventory.require_signature {
        let wanted = allowance.include_unsigned;
        return if wanted { Ok(()) } else { Err(Reason::SignaturesOff) };
    }
    let known = image.signed_by.as_ref().is_some_and(|key| inventory.keys.contains(key));
    if known { Ok(()) } else { Err(Reason::KeyNotTrusted) }
}

fn staged(
    inventory: &Inventory,
    modem: &Modem,
    manifest: &Manifest,
    allowance: &Allowance,
) -> Result<(), Reason> {
    let decoded = manifest.file.decoded.as_ref().map_or(0, |decoded| decoded.size);
    let needed = manifest.file.size.saturating_add(decoded);
    let mut roomy = inventory.staging.iter().filter(|place| place.free_bytes >= needed);
    let router_allows = inventory.capabilities.iter().any(|name| name == VOLATILE_STAGING);
    if !modem.sole_uplink || (allowance.allow_volatile_staging && router_allows) {
        return roomy.next().map(drop).ok_or(Reason::NoRoom);
    }
    roomy.find(|place| place.durable).map(drop).ok_or(Reason::NoDurableStaging)
}

/// Whether the modem's firmware is the batch's business: of the build's category, or none and asked
/// for all the same.
///
/// # Errors
/// Only after [`judge`] has found an image: a modem that is there already is told so.
pub fn concerns(place: &Place, category: CategoryId, allowance: &Allowance) -> Result<(), Reason> {
    match place.category {
        Some(of) if of == category => Ok(()),
        Some(_) if !allowance.firmwareless => Err(Reason::OtherCategory),
        None if !allowance.firmwareless => Err(Reason::Firmwareless),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
