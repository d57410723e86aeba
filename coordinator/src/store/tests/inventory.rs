//! What a modem runs, by its own word.

use shared::inventory::{Inventory, Modem};

use super::*;
use crate::store::firmware::Assignment;

fn modem(versions: Vec<VersionLine>) -> Modem {
    Modem {
        slot: Slot::default(),
        manufacturer: "Telit".into(),
        model: "FN990A28".into(),
        imei: "1".into(),
        versions,
        usb: None,
        sole_uplink: true,
        network: None,
        unreadable: None,
    }
}

/// As an agent says it while somebody else talks to the modem.
fn busy() -> Modem {
    let nothing = String::new;
    Modem {
        manufacturer: nothing(),
        model: nothing(),
        imei: nothing(),
        unreadable: Some("in use by ModemManager".into()),
        ..modem(vec![])
    }
}

fn inventory(modem: Modem) -> Inventory {
    Inventory {
        v: 1,
        agent_version: "0.1.0".into(),
        capabilities: vec![],
        board: "b".into(),
        hostname: "r".into(),
        boot_id: String::new(),
        require_signature: true,
        keys: vec![],
        profiles: vec![],
        staging: vec![],
        modems: vec![modem],
    }
}

async fn known(f: &Fixture, device: DeviceId) -> (Modem, Option<u64>) {
    let device = f.store.device(Scope::Everything, device).await.unwrap().unwrap();
    let modem = device.inventory.unwrap().modems.remove(0);
    (modem, device.read_at.get(&Slot::default()).copied())
}

#[tokio::test]
async fn a_modem_that_cannot_be_asked_stays_what_it_was() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let say = async |modem| f.store.set_inventory(device, inventory(modem)).await.unwrap();
    say(busy()).await;
    assert_eq!(known(&f, device).await.0, busy(), "nothing was ever known");
    say(modem(versions())).await;
    f.pass(1000);
    say(busy()).await;
    f.pass(1000);
    say(busy()).await;
    let remembered = Modem { unreadable: busy().unreadable, ..modem(versions()) };
    assert_eq!(known(&f, device).await, (remembered, Some(NOW)));

    let another = Modem { imei: "2".into(), ..busy() };
    say(another.clone()).await;
    assert_eq!(known(&f, device).await, (another, Some(NOW + 2000)), "another modem's past");
    say(modem(vec![])).await;
    assert_eq!(known(&f, device).await.0, modem(vec![]), "it was asked and said nothing");
}

#[tokio::test]
async fn versions_that_nobody_could_tell_stay_while_the_others_are_the_same() {
    let line = |command: &str, value: &str| VersionLine {
        command: command.into(),
        line: 1,
        value: value.into(),
    };
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let say = async |modem| f.store.set_inventory(device, inventory(modem)).await.unwrap();
    let all = vec![line("+CGMR", "M0R.1"), line("#SWPKGV", "45.1")];
    say(modem(all.clone())).await;
    f.pass(1000);
    say(modem(vec![line("+CGMR", "M0R.1")])).await;
    assert_eq!(known(&f, device).await, (modem(all), Some(NOW + 1000)));
    say(modem(vec![line("+CGMR", "M0R.2")])).await;
    assert_eq!(known(&f, device).await.0, modem(vec![line("+CGMR", "M0R.2")]), "the other is past");
}

#[tokio::test]
async fn what_was_read_before_proves_nothing_anew() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let say = async |modem| f.store.set_inventory(device, inventory(modem)).await.unwrap();
    say(modem(versions())).await;
    let image = f.image("v2").await;
    f.ask(device, image).await.unwrap();
    say(busy()).await;
    assert!(!installed(&f.store, device).await);
    say(modem(versions())).await;
    assert!(installed(&f.store, device).await);
}

#[tokio::test]
async fn versions_prove_the_image_and_not_the_operation() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let op = f.ask(device, image).await.unwrap();
    f.store.start(device, op.id, request(1)).await.unwrap();
    f.store.set_inventory(device, inventory(modem(versions()))).await.unwrap();
    assert!(installed(&f.store, device).await);
    let op = f.operation(op.id).await;
    assert!(op.is_granted() && !op.status.is_terminal(), "{op:?}");
}

#[tokio::test]
async fn installed_ends_where_the_modem_says_otherwise_and_with_its_image() {
    let f = Fixture::new().await;
    let (device, image) = (f.device(1).await, f.image("v2").await);
    let proved = async || {
        let op = f.ask(device, image).await.unwrap();
        f.store.start(device, op.id, request(1)).await.unwrap();
        assert_eq!(tell(&f, device, op.id, 2, succeeded()).await, Verdict::Accepted);
        assert!(installed(&f.store, device).await);
    };
    let reads = async |versions| {
        f.store.set_inventory(device, inventory(modem(versions))).await.unwrap();
    };
    proved().await;
    reads(versions()).await;
    reads(vec![]).await;
    assert!(installed(&f.store, device).await, "what was not read contradicts nothing");
    let mut other = versions();
    other[0].value = "another".into();
    reads(other).await;
    assert!(!installed(&f.store, device).await);
    reads(versions()).await;
    assert!(installed(&f.store, device).await, "it runs it again, whoever brought it back");
    f.store
        .write::<_, Never, _>(|tx| {
            tx.execute("DELETE FROM images", [])?;
            Ok(())
        })
        .await
        .unwrap();
    assert!(!installed(&f.store, device).await);
}

#[tokio::test]
async fn an_older_operations_late_result_is_no_news_of_the_modem() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let (v2, v3) = (f.image("v2").await, f.image("v3").await);
    let older = f.ask(device, v2).await.unwrap();
    f.store.start(device, older.id, request(1)).await.unwrap();
    f.pass(2 * 24 * 3600 * 1000);
    f.store.expire_operations().await.unwrap();
    f.pass(1);
    f.store.record_signs(vec![Sign::Seen(device, f.store.clock().now())]).await.unwrap();
    f.ask(device, v3).await.unwrap();
    assert_eq!(tell(&f, device, older.id, 2, succeeded()).await, Verdict::Accepted);
    assert!(f.operation(older.id).await.late_result.is_some());
    assert_eq!(count(&f.store, "modems").await, 0);
}

#[tokio::test]
async fn a_modem_that_runs_a_known_image_has_its_firmware() {
    let f = Fixture::new().await;
    let device = f.device(1).await;
    let of = async |device| f.store.device_firmware(device, Slot::default()).await.unwrap();
    let firmware = async || of(device).await;
    let say = async |modem| f.store.set_inventory(device, inventory(modem)).await.unwrap();
    say(modem(versions())).await;
    assert_eq!(firmware().await, None);
    // An image that comes later does as well, once the device says again what it runs.
    let image = f.image("v2").await;
    let other = VersionLine { value: "another".into(), ..versions()[0].clone() };
    for stranger in [busy(), modem(vec![]), modem(vec![other])] {
        say(stranger).await;
        assert_eq!(firmware().await, None);
    }
    say(modem(versions())).await;
    let known = firmware().await.unwrap();
    assert_eq!((known.image, known.installed), (Some(image), true));

    // Two that would do; and what somebody has decided stays.
    f.image("v3").await;
    let second = f.device(2).await;
    f.store.set_inventory(second, inventory(modem(versions()))).await.unwrap();
    assert_eq!(of(second).await, None);
    f.store.clear_firmware(device, Slot::default()).await.unwrap();
    say(modem(versions())).await;
    assert_eq!(firmware().await.unwrap().image, None);
}

#[tokio::test]
async fn what_was_read_before_an_attempt_was_lost_says_nothing_is_installed() {
    let f = Fixture::new().await;
    let (v2, v3) = (f.image("v2").await, f.image("v3").await);
    let device = f.device(1).await;
    f.store.set_inventory(device, inventory(modem(versions()))).await.unwrap();
    let assign = async || {
        let wanted = Assignment {
            device,
            slot: Slot::default(),
            image: v3,
            upgrade_options: Default::default(),
            by: "admin".into(),
        };
        f.store.assign_firmware(wanted).await
    };
    let begun = f.ask(device, v2).await.unwrap();
    f.store.start(device, begun.id, request(1)).await.unwrap();
    f.pass(3 * 24 * 3600 * 1000);
    f.store.expire_operations().await.unwrap();
    assert!(assign().await.is_err(), "its modem may be being flashed");
    f.pass(1);
    let now = f.store.clock().now();
    f.store.record_signs(vec![Sign::Seen(device, now)]).await.unwrap();
    assert!(assign().await.unwrap().operation.is_some(), "nobody has read it since");
    let asked = assign().await.unwrap().operation.unwrap();
    f.store.cancel_operation(Scope::Everything, asked, "admin".into()).await.unwrap();
    f.store.set_inventory(device, inventory(modem(versions()))).await.unwrap();
    assert_eq!(assign().await.unwrap().operation, None, "now it was");
}
