//! Whether a modem can be upgraded to a build, and by which of its images: what the dry run tells of
//! every device, and what a batch is made of. The router decides again, and with better knowledge.

use serde::Serialize;
use shared::desired::REQUIRED;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
    if !modem.sole_uplink || allowance.allow_volatile_staging {
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
mod tests {
    use shared::ids::Slot;
    use shared::inventory::Staging;
    use uuid::Uuid;

    use super::*;
    use crate::store::fixture::{manifest, versions};

    fn modem() -> Modem {
        Modem {
            slot: Slot::default(),
            manufacturer: "Telit".into(),
            model: "FN990A28".into(),
            imei: "490154203237518".into(),
            versions: vec![VersionLine { value: "M0F.1".into(), ..versions().remove(0) }],
            usb: None,
            sole_uplink: true,
            unreadable: None,
            network: None,
        }
    }

    fn inventory() -> Inventory {
        Inventory {
            v: 1,
            agent_version: "0.1.0".into(),
            capabilities: REQUIRED.iter().map(|&name| name.to_owned()).collect(),
            board: "glinet,gl-x3000".into(),
            hostname: "router".into(),
            boot_id: "b".into(),
            require_signature: true,
            keys: vec!["abab".into()],
            profiles: vec!["telit-uxfp".into()],
            staging: vec![Staging {
                path: "/srv".into(),
                free_bytes: 1 << 30,
                durable: true,
                problem: None,
            }],
            modems: vec![modem()],
        }
    }

    fn image() -> Candidate {
        Candidate {
            id: ImageId(Uuid::from_u128(1)),
            tool: "telit-uxfp".into(),
            boards: vec![],
            manifest: Some(manifest(b"firmware")),
            signed_by: Some("abab".into()),
        }
    }

    struct Case {
        state: DeviceState,
        deactivated: bool,
        duplicate: bool,
        inventory: Option<Inventory>,
        modem: Option<Modem>,
        place: Place,
        images: Vec<Candidate>,
        allowance: Allowance,
    }

    impl Case {
        fn new() -> Self {
            Self {
                state: DeviceState::Accepted,
                deactivated: false,
                duplicate: false,
                inventory: Some(inventory()),
                modem: Some(modem()),
                place: Place::default(),
                images: vec![image()],
                allowance: Allowance::default(),
            }
        }

        fn verdict(change: impl FnOnce(&mut Self)) -> Result<ImageId, Reason> {
            let mut case = Self::new();
            change(&mut case);
            let router = Router {
                state: case.state,
                deactivated: case.deactivated,
                duplicate: case.duplicate,
                inventory: case.inventory.as_ref(),
            };
            let modem = case.modem.as_ref();
            judge(&router, modem, &case.place, &case.images, &case.allowance, 10)
        }
    }

    fn of(case: &mut Case) -> &mut Inventory {
        case.inventory.as_mut().unwrap()
    }

    fn signed(case: &mut Case) -> &mut Manifest {
        case.images[0].manifest.as_mut().unwrap()
    }

    type Change = fn(&mut Case);

    #[test]
    fn whatever_is_in_the_way_is_told() {
        let cases: [(Reason, Change); 21] = [
            (Reason::Pending, |c| c.state = DeviceState::Pending),
            (Reason::Revoked, |c| c.state = DeviceState::Revoked),
            (Reason::Deactivated, |c| c.deactivated = true),
            (Reason::Duplicate, |c| c.duplicate = true),
            (Reason::ModemUnknown, |c| c.modem = None),
            (Reason::ModemUnknown, |c| c.modem.as_mut().unwrap().model.clear()),
            (Reason::NoImage, |c| c.images.clear()),
            (Reason::ImageWithoutManifest, |c| c.images[0].manifest = None),
            (Reason::NoInventory, |c| c.inventory = None),
            (Reason::WrongModel, |c| c.modem.as_mut().unwrap().model = "RM520N".into()),
            (Reason::WrongBoard, |c| c.images[0].boards = vec!["teltonika,rutx50".into()]),
            (Reason::AlreadyThere, |c| c.modem.as_mut().unwrap().versions = versions()),
            (Reason::ManifestExpired, |c| signed(c).not_after = Some(10)),
            (Reason::WrongStartVersion, |c| signed(c).from = vec![versions()]),
            (Reason::AgentTooOld, |c| of(c).capabilities.truncate(1)),
            (Reason::AgentTooOld, |c| signed(c).file.encoding = Encoding::Zstd),
            (Reason::ToolMissing, |c| of(c).profiles.clear()),
            (Reason::SignaturesOff, |c| of(c).require_signature = false),
            (Reason::KeyNotTrusted, |c| of(c).keys = vec!["cdcd".into()]),
            (Reason::NoDurableStaging, |c| of(c).staging[0].durable = false),
            (Reason::NoRoom, |c| {
                c.modem.as_mut().unwrap().sole_uplink = false;
                of(c).staging[0].free_bytes = 7;
            }),
        ];
        for (index, (reason, change)) in cases.into_iter().enumerate() {
            assert_eq!(Case::verdict(change), Err(reason), "case {index}");
        }
        assert_eq!(Case::verdict(|_| {}), Ok(image().id));
    }

    #[test]
    fn what_was_asked_for_is_let_through() {
        let image = image().id;
        let volatile = Case::verdict(|c| {
            of(c).staging[0].durable = false;
            c.allowance.allow_volatile_staging = true;
        });
        let unsigned = Case::verdict(|c| {
            of(c).require_signature = false;
            c.allowance.include_unsigned = true;
        });
        assert_eq!((volatile, unsigned), (Ok(image), Ok(image)));
    }

    #[test]
    fn only_what_is_not_granted_gives_way_to_another_image() {
        let active = |image: u128, granted| Active {
            id: OperationId(Uuid::from_u128(9)),
            image: Some(ImageId(Uuid::from_u128(image))),
            granted,
            batch: None,
        };
        let with = |active| Case::verdict(|c| c.place.active = Some(active));
        assert_eq!(with(active(1, false)), Err(Reason::OperationActive), "asked for already");
        assert_eq!(with(active(2, true)), Err(Reason::OperationActive));
        assert_eq!(with(active(2, false)), Ok(image().id));
        let newer = Case::verdict(|c| {
            c.place.moved_on = true;
            c.place.active = Some(active(2, false));
        });
        assert_eq!(newer, Err(Reason::OperationActive), "a retry takes nothing newer's place");
        assert_eq!(Case::verdict(|c| c.place.moved_on = true), Err(Reason::UpgradedSince));
        let lost = Case::verdict(|c| c.place.lost = Some(OperationId(Uuid::from_u128(9))));
        assert_eq!(lost, Err(Reason::Lost));
    }

    #[test]
    fn of_several_images_the_fitting_one_is_taken_and_the_closest_explains() {
        let other = Candidate { id: ImageId(Uuid::from_u128(2)), manifest: None, ..image() };
        assert_eq!(Case::verdict(|c| c.images.insert(0, other.clone())), Ok(image().id));
        let refused = Case::verdict(|c| {
            c.images.push(other);
            of(c).keys.clear();
        });
        assert_eq!(refused, Err(Reason::KeyNotTrusted));
    }

    #[test]
    fn firmware_of_the_category_or_all() {
        let (ours, theirs) = (CategoryId(Uuid::from_u128(1)), CategoryId(Uuid::from_u128(2)));
        let place = |category| Place { category, ..Place::default() };
        let all = Allowance { firmwareless: true, ..Allowance::default() };
        let few = Allowance::default();
        assert_eq!(concerns(&place(Some(ours)), ours, &few), Ok(()));
        assert_eq!(concerns(&place(Some(theirs)), ours, &few), Err(Reason::OtherCategory));
        assert_eq!(concerns(&place(None), ours, &few), Err(Reason::Firmwareless));
        assert_eq!(concerns(&place(None), ours, &all), Ok(()));
    }
}
