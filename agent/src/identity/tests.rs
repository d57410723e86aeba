use std::os::unix::fs::PermissionsExt as _;

use shared::identity::verify;

use super::*;

fn board(mac: Option<&str>) -> Board {
    Board { name: Some("glinet,gl-x3000".into()), mac: mac.map(Into::into), serial: None }
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
    for (name, device, address) in [
        ("wwan0", "devices/usb1/1-1/1-1:1.2", "02:aa:00:00:00:01"),
        ("aether", "bus/usb/devices/1-2:1.0", "02:aa:00:00:00:02"),
        ("eth1", "devices/platform/eth", "02:00:00:00:00:11"),
        ("eth0", "devices/platform/eth", "02:00:00:00:00:10"),
    ] {
        let interface = sysfs.join("class/net").join(name);
        std::fs::create_dir_all(&interface).unwrap();
        std::fs::create_dir_all(sysfs.join(device)).unwrap();
        std::fs::write(interface.join("address"), format!("{address}\n")).unwrap();
        std::os::unix::fs::symlink(sysfs.join(device), interface.join("device")).unwrap();
    }
    let lo = sysfs.join("class/net/abc");
    std::fs::create_dir_all(&lo).unwrap();
    std::fs::write(lo.join("address"), "02:00:00:00:00:99").unwrap();

    let board = Board::read(sysfs);
    assert_eq!(board.name.as_deref(), Some("glinet,gl-x3000"));
    assert_eq!(board.mac.as_deref(), Some("02:00:00:00:00:10"));
    assert_eq!(board.serial, None);
}
