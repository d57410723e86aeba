use std::os::unix::fs::PermissionsExt as _;

use shared::identity::verify;

use super::*;

fn board(mac: Option<&str>) -> Board {
    let macs = mac.map(str::to_owned).into_iter().collect();
    Board { name: Some("glinet,gl-x3000".into()), mac: mac.map(Into::into), macs, serial: None }
}

fn nonce() -> Nonce {
    Nonce { nonce: Hex([9; 32]), expires_in: 60, audience: "coordinator".into(), time: 0 }
}

#[test]
fn the_key_is_made_once_and_private() {
    let state = tempfile::tempdir().unwrap();
    let first = Identity::open(state.path(), &board(Some("02:00:00:00:00:01"))).unwrap();
    assert_eq!(first.origin(), Origin::Made);
    let again = Identity::open(state.path(), &board(Some("02:00:00:00:00:01"))).unwrap();
    assert_eq!(again.origin(), Origin::Kept);
    assert_eq!(first.public_key(), again.public_key());
    let file = state.path().join("identity/device.json");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn another_board_gets_another_key_and_an_unreadable_part_does_not() {
    let state = tempfile::tempdir().unwrap();
    let first = Identity::open(state.path(), &board(Some("02:00:00:00:00:01"))).unwrap();
    let blind = Identity::open(state.path(), &board(None)).unwrap();
    assert_eq!(blind.public_key(), first.public_key());
    let cloned = Identity::open(state.path(), &board(Some("02:00:00:00:00:02"))).unwrap();
    assert_eq!(cloned.origin(), Origin::MadeForThisBoard);
    assert_ne!(cloned.public_key(), first.public_key());
    assert!(state.path().join("identity/former.json").exists());
}

#[test]
fn the_hardware_tells_a_board_and_its_name_only_where_nothing_else_does() {
    let board = |name: &str, macs: &[&str], serial: Option<&str>| Board {
        name: (!name.is_empty()).then(|| name.to_owned()),
        macs: macs.iter().map(|mac| (*mac).to_owned()).collect(),
        serial: serial.map(str::to_owned),
        ..Board::default()
    };
    let (mac, other) = (&["02:00:00:00:00:01"][..], &["02:00:00:00:00:02"][..]);
    for (what, one, two, expected) in [
        ("same MAC, other name", board("a", mac, None), board("b", mac, None), true),
        ("same serial, other name", board("a", &[], Some("1")), board("b", &[], Some("1")), true),
        ("a MAC unread, same serial", board("a", mac, Some("1")), board("b", &[], Some("1")), true),
        ("other MAC, same name", board("a", mac, None), board("a", other, None), false),
        ("other serial, same name", board("a", &[], Some("1")), board("a", &[], Some("2")), false),
        ("same MAC, other serial", board("a", mac, Some("1")), board("a", mac, Some("2")), false),
        ("other MAC, same serial", board("a", mac, Some("1")), board("a", other, Some("1")), false),
        ("nothing but other names", board("a", mac, None), board("b", &[], Some("1")), false),
        ("nothing but the same name", board("a", mac, None), board("a", &[], Some("1")), true),
        ("nothing at all", board("a", mac, None), board("", &[], Some("1")), true),
    ] {
        assert_eq!((one.may_be(&two), two.may_be(&one)), (expected, expected), "{what}");
    }
}

#[test]
fn a_board_that_a_release_renames_keeps_its_key() {
    let state = tempfile::tempdir().unwrap();
    let mac = Some("02:00:00:00:00:01");
    let named = |name: &str, mac| Board { name: Some(name.into()), ..board(mac) };
    let open = |board: &Board| Identity::open(state.path(), board).unwrap();
    let first = open(&named("glinet,gl-x3000", mac));
    let renamed = open(&named("glinet,x3000", mac));
    assert_eq!(renamed.origin(), Origin::Kept);
    assert_eq!(renamed.public_key(), first.public_key());
    assert!(!state.path().join("identity/former.json").exists());
    let blind = open(&named("glinet,x3000", None));
    assert_eq!(blind.public_key(), first.public_key(), "its new name is known by then");
    assert_eq!(open(&named("zyxel,nr7101", None)).origin(), Origin::MadeForThisBoard);
}

#[test]
fn a_corrupt_key_is_set_aside() {
    let state = tempfile::tempdir().unwrap();
    Identity::open(state.path(), &board(None)).unwrap();
    std::fs::write(state.path().join("identity/device.json"), "{").unwrap();
    let made = Identity::open(state.path(), &board(None)).unwrap();
    assert_eq!(made.origin(), Origin::MadeAfterCorruption);
    assert_eq!(std::fs::read(state.path().join("identity/corrupt.json")).unwrap(), b"{");
}

#[test]
fn a_disk_that_refuses_is_an_error() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("identity"), "a file").unwrap();
    assert!(Identity::open(state.path(), &board(None)).is_err());
}

#[test]
fn proofs_verify_for_their_own_purpose_only() {
    let state = tempfile::tempdir().unwrap();
    let identity = Identity::open(state.path(), &board(None)).unwrap();
    let key = identity.public_key();

    let token = identity.token_request(&nonce());
    let message = token_message("coordinator", &token.nonce, &key);
    assert!(verify(&key, &message, &token.signature));
    assert!(!verify(&key, &token_message("other", &token.nonce, &key), &token.signature));

    let enrol = identity.enrol(&nonce(), "secret", &Claims::default()).unwrap();
    let message = enrol_message("coordinator", &enrol.nonce, &key, "secret", &enrol.claims);
    assert!(verify(&key, &message, &enrol.signature));
    assert!(!verify(&key, &message, &token.signature));
}

#[test]
fn the_board_is_read_from_sysfs_without_what_hangs_on_usb() {
    let root = tempfile::tempdir().unwrap();
    let sysfs = root.path();
    let tree = sysfs.join("firmware/devicetree/base");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("compatible"), "glinet,gl-x3000\0mediatek,mt7981\0").unwrap();
    for (name, device, kind, address) in [
        ("wwan0", "devices/usb1/1-1/1-1:1.2", "0", "02:aa:00:00:00:01"),
        ("aether", "bus/usb/devices/1-2:1.0", "0", "02:aa:00:00:00:02"),
        // A DSA conduit without an address of its own.
        ("eth0", "devices/platform/eth", "1", "02:00:00:00:00:0f"),
        ("eth2", "devices/platform/eth", "0", "02:00:00:00:00:11"),
        ("eth1", "devices/platform/eth", "0", "02:00:00:00:00:10"),
        ("br0", "devices/platform/eth", "3", "02:00:00:00:00:33"),
        ("lan1", "devices/platform/eth", "2", "02:00:00:00:00:0f"),
        ("eth9", "devices/pci0/radio", "0", "02:00:00:00:00:22"),
    ] {
        let interface = sysfs.join("class/net").join(name);
        std::fs::create_dir_all(&interface).unwrap();
        std::fs::create_dir_all(sysfs.join(device)).unwrap();
        std::fs::write(interface.join("address"), format!("{address}\n")).unwrap();
        std::fs::write(interface.join("addr_assign_type"), format!("{kind}\n")).unwrap();
        std::os::unix::fs::symlink(sysfs.join(device), interface.join("device")).unwrap();
    }
    let lo = sysfs.join("class/net/abc");
    std::fs::create_dir_all(&lo).unwrap();
    std::fs::write(lo.join("address"), "02:00:00:00:00:99").unwrap();

    std::fs::create_dir(sysfs.join("class/net/eth9/phy80211")).unwrap();

    let board = Board::read(sysfs);
    assert_eq!(board.name.as_deref(), Some("glinet,gl-x3000"));
    assert_eq!(board.mac.as_deref(), Some("02:00:00:00:00:10"));
    assert_eq!(board.macs, ["02:00:00:00:00:10", "02:00:00:00:00:11"]);
    assert_eq!(board.serial, None);
    for name in ["eth1", "eth2"] {
        std::fs::remove_dir_all(sysfs.join("class/net").join(name)).unwrap();
    }
    let board = Board::read(sysfs);
    assert_eq!((board.mac.as_deref(), board.macs.len()), (Some("02:00:00:00:00:33"), 0));
}

#[test]
fn a_system_that_names_its_interfaces_otherwise_is_the_same_board() {
    let state = tempfile::tempdir().unwrap();
    let of = |macs: &[&str]| {
        let macs: Vec<_> = macs.iter().map(|mac| (*mac).to_owned()).collect();
        Board { mac: macs.first().cloned(), macs, ..Board::default() }
    };
    let key = |board: &Board| Identity::open(state.path(), board).unwrap().public_key();
    let first = key(&of(&["02:00:00:00:00:10", "02:00:00:00:00:11"]));
    assert_eq!(key(&of(&["02:00:00:00:00:11", "02:00:00:00:00:12"])), first);
    assert_eq!(key(&Board { mac: Some("02:00:00:00:00:33".into()), ..Board::default() }), first);
    assert_ne!(key(&of(&["02:00:00:00:00:12"])), first);
}
