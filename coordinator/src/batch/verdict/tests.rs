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
        of(c).capabilities.push(VOLATILE_STAGING.into());
        c.allowance.allow_volatile_staging = true;
    });
    let unwilling = Case::verdict(|c| {
        of(c).staging[0].durable = false;
        c.allowance.allow_volatile_staging = true;
    });
    assert_eq!(unwilling, Err(Reason::NoDurableStaging), "its router does not allow it");
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
