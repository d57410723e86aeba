use shared::ids::OperationId;

use super::*;

const OWN: &str = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
const OTHER: &str = "7f9619ff-8b86-4011-b42d-00c04fc964ff";

fn org() -> OrganizationSlug {
    "acme".parse().unwrap()
}

fn own() -> DeviceId {
    OWN.parse().unwrap()
}

#[test]
fn admission_follows_the_epoch() {
    let admission = Admission::default();
    let subject = Uuid::from_u128(1);
    assert_eq!(admission.check(subject, 1), Err(Reason::Unknown));
    admission.set_epoch(subject, 1);
    assert_eq!(admission.check(subject, 1), Ok(()));
    admission.set_epoch(subject, 2);
    assert_eq!(admission.check(subject, 1), Err(Reason::Revoked));
    admission.revoke(subject);
    assert_eq!(admission.check(subject, 2), Err(Reason::Revoked));
    admission.forget(subject);
    assert_eq!(admission.check(subject, 2), Err(Reason::Unknown));
}

#[test]
fn client_ids_are_plain() {
    assert!(is_client_id(OWN));
    assert!(is_client_id("mosqsub-1"));
    for bad in ["", "a/b", "a b", "ä", "a+", "#", &"x".repeat(65)] {
        assert!(!is_client_id(bad), "{bad}");
    }
}

#[test]
fn a_device_says_only_its_own() {
    let ups = ["presence", "inventory", "event", "progress"];
    let own_ups = ups.map(|up| uplink(&org(), own(), &format!("mu/acme/{OWN}/up/{up}")));
    assert_eq!(
        own_ups,
        [Some(Up::Presence), Some(Up::Inventory), Some(Up::Event), Some(Up::Progress)]
    );
    for bad in [
        format!("mu/acme/{OTHER}/up/event"),
        format!("mu/other/{OWN}/up/event"),
        format!("mu/acme/{OWN}/up/other"),
        format!("mu/acme/{OWN}/down/wake"),
        format!("mu/acme/{OWN}/main/operation"),
        format!("mu/acme/{OWN}/up/event/"),
        format!("/mu/acme/{OWN}/up/event"),
        format!("mu/acme/{OWN}/up/+"),
        "$SYS/broker".to_owned(),
        String::new(),
    ] {
        assert_eq!(uplink(&org(), own(), &bad), None, "{bad}");
    }
}

#[test]
fn a_device_hears_only_its_own_two() {
    let hears = |filter: &str| downlink(&org(), own(), filter);
    assert_eq!(hears(&format!("mu/acme/{OWN}/down/wake")), Some(Down::Wake));
    assert_eq!(hears(&format!("mu/acme/{OWN}/down/ack")), Some(Down::Ack));
    for bad in [
        "#".to_owned(),
        "+/+/+/+/+".to_owned(),
        format!("mu/acme/{OWN}/down/+"),
        format!("mu/acme/{OWN}/#"),
        format!("mu/acme/{OTHER}/down/wake"),
        format!("mu/acme/{OWN}/up/event"),
        format!("$share/g/mu/acme/{OWN}/down/wake"),
    ] {
        assert_eq!(hears(&bad), None, "{bad}");
    }
}

#[test]
fn a_dashboard_hears_its_organization_by_exact_shapes() {
    let parse = |filter: &str| Filter::parse(&org(), filter);
    assert_eq!(parse("mu/acme/#"), Some(Filter::Everything));
    assert_eq!(parse("mu/acme/+/+/operation"), Some(Filter::Operations(None, None)));
    assert_eq!(
        parse(&format!("mu/acme/{OWN}/main/operation")),
        Some(Filter::Operations(Some(own()), Some(Slot::default())))
    );
    assert_eq!(parse("mu/acme/batches/+"), Some(Filter::Batches(None)));
    assert_eq!(
        parse(&format!("mu/acme/batches/{OWN}")),
        Some(Filter::Batches(Some(OWN.parse().unwrap())))
    );
    for bad in [
        "#",
        "+/acme/#",
        "mu/+/#",
        "mu/other/#",
        "mu/#",
        "mu/acme",
        "mu/acme/+",
        "mu/acme/+/#",
        "mu/acme/+/+/+",
        "mu/acme/+/up/event",
        "mu/acme/+/+/+/+",
        "mu/acme/batches/#",
        "$share/g/mu/acme/#",
        "$SYS/#",
        "mu/acme/x/main/operation",
        "",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn filters_match_what_they_name() {
    let operation = |device: &str, slot: &str| Subject::Operation {
        device: device.parse().unwrap(),
        slot: slot.parse().unwrap(),
        operation: OperationId(Uuid::from_u128(9)),
        created: 1,
        has_ended: false,
    };
    let batch = Subject::Batch(OWN.parse().unwrap());
    let matches =
        |filter: &str, subject: &Subject| Filter::parse(&org(), filter).unwrap().matches(subject);
    assert!(matches("mu/acme/#", &batch));
    assert!(matches("mu/acme/#", &operation(OTHER, "main")));
    assert!(matches("mu/acme/+/main/operation", &operation(OTHER, "main")));
    assert!(!matches("mu/acme/+/main/operation", &operation(OTHER, "second")));
    assert!(!matches(&format!("mu/acme/{OWN}/+/operation"), &operation(OTHER, "main")));
    assert!(!matches("mu/acme/+/+/operation", &batch));
    assert!(matches(&format!("mu/acme/batches/{OWN}"), &batch));
    assert!(!matches(&format!("mu/acme/batches/{OTHER}"), &batch));
    assert!(!matches("mu/acme/batches/+", &operation(OWN, "main")));
}
