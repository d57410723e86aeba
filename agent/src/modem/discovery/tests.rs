use std::fs;

use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.0.path().join("bus/usb/devices/usb1")).unwrap();
        tree
    }

    fn device(&self, bus: &str, id: &str, serial: Option<&str>) {
        let (vendor, product) = id.split_once(':').unwrap();
        let directory = self.0.path().join("bus/usb/devices").join(bus);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("idVendor"), format!("{vendor}\n")).unwrap();
        fs::write(directory.join("idProduct"), format!("{product}\n")).unwrap();
        if let Some(serial) = serial {
            fs::write(directory.join("serial"), format!("{serial}\n")).unwrap();
        }
    }

    fn interface(&self, bus: &str, number: u8, child: &str) {
        let name = format!("{bus}:1.{number}");
        let directory = self.0.path().join("bus/usb/devices").join(name);
        fs::create_dir_all(directory.join(child)).unwrap();
        fs::write(directory.join("bInterfaceNumber"), format!("{number:02x}\n")).unwrap();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::read(self.0.path()).unwrap()
    }
}

#[test]
fn the_at_port_is_found_by_interface_number_whatever_the_ttys_are_called() {
    let tree = Tree::new();
    tree.device("2-1", "1bc7:1070", Some("522db9de"));
    tree.interface("2-1", 0, "ttyUSB9");
    tree.interface("2-1", 1, "ep_01");
    tree.interface("2-1", 2, "net/wwan0");
    tree.interface("2-1", 3, "ttyUSB7");
    tree.interface("2-1", 4, "ttyUSB0");
    tree.interface("2-1", 5, "ttyUSB1");
    let [modem] = tree.snapshot().modems().try_into().unwrap();
    assert_eq!(modem.at, ["ttyUSB1", "ttyUSB0"], "the second AT port first");
    assert_eq!(modem.diag.as_deref(), Some("ttyUSB9"));
    assert_eq!(modem.net, ["wwan0"]);
    assert_eq!(modem.serial.as_deref(), Some("522db9de"));
    assert_eq!(modem.usb.to_string(), "1bc7:1070");
}

#[test]
fn a_port_of_cdc_acm_is_found_too() {
    let tree = Tree::new();
    tree.device("2-1", "1bc7:1070", None);
    tree.interface("2-1", 4, "tty/ttyACM0");
    let [modem] = tree.snapshot().modems().try_into().unwrap();
    assert_eq!(modem.at, ["ttyACM0"]);
}

#[test]
fn mbim_moves_the_ports_by_one_and_ecm_the_diag_port() {
    let tree = Tree::new();
    tree.device("2-1", "1bc7:1071", None);
    tree.device("2-2", "1bc7:1073", None);
    for number in [0, 4, 5, 6] {
        tree.interface("2-1", number, &format!("ttyUSB{number}"));
    }
    for number in [0, 4, 5, 6, 7] {
        tree.interface("2-2", number, &format!("ttyUSB1{number}"));
    }
    let [mbim, ecm] = tree.snapshot().modems().try_into().unwrap();
    assert_eq!(mbim.at, ["ttyUSB6", "ttyUSB5"]);
    assert_eq!(mbim.diag.as_deref(), Some("ttyUSB0"));
    assert_eq!(ecm.at, ["ttyUSB16", "ttyUSB15", "ttyUSB14", "ttyUSB17"]);
    assert_eq!(ecm.diag.as_deref(), Some("ttyUSB10"));
}

#[test]
fn interfaces_of_a_longer_bus_name_are_not_its_own() {
    let tree = Tree::new();
    tree.device("1-1", "1bc7:1070", None);
    tree.device("1-1.4", "1bc7:1070", None);
    tree.interface("1-1", 4, "ttyUSB2");
    tree.interface("1-1.4", 4, "ttyUSB6");
    let [outer, inner] = tree.snapshot().modems().try_into().unwrap();
    assert_eq!((outer.at, inner.at), (vec!["ttyUSB2".into()], vec!["ttyUSB6".into()]));
}

#[test]
fn the_usb_side_of_a_pcie_modem_and_other_devices_are_no_modems() {
    let tree = Tree::new();
    tree.device("1-1", "1bc7:1075", None);
    tree.device("1-2", "0bda:8153", None);
    assert_eq!(tree.snapshot().modems(), []);
    assert_eq!(tree.snapshot().abnormal(), []);
}

#[test]
fn every_mode_without_at_is_named() {
    let tree = Tree::new();
    tree.device("1-1", "1bc7:9010", None);
    tree.interface("1-1", 0, "ttyUSB0");
    tree.device("1-2", "1bc7:9000", None);
    tree.device("1-3", "05c6:9008", None);
    tree.device("1-4", "18d1:d00d", None);
    let abnormal = tree.snapshot().abnormal();
    let conditions: Vec<_> = abnormal.iter().map(|device| device.condition).collect();
    assert_eq!(
        conditions,
        [Condition::DownloadMode, Condition::CrashDump, Condition::Qdl, Condition::Fastboot]
    );
    assert_eq!(abnormal[0].ttys, ["ttyUSB0"]);
    assert_eq!(tree.snapshot().modems(), []);
}

#[test]
fn a_half_removed_device_is_left_out() {
    let tree = Tree::new();
    fs::create_dir_all(tree.0.path().join("bus/usb/devices/1-1")).unwrap();
    tree.device("1-2", "1bc7:1070", None);
    fs::create_dir_all(tree.0.path().join("bus/usb/devices/1-2:1.4")).unwrap();
    let [modem] = tree.snapshot().modems().try_into().unwrap();
    assert!(modem.at.is_empty());
}

#[test]
fn the_lock_key_survives_download_mode() {
    let key = |id: &str| lock_key(id.parse().unwrap());
    assert_eq!(key("1bc7:1070"), key("1bc7:9010"));
    assert_ne!(key("1bc7:1070"), key("2c7c:0800"));
}

#[test]
fn every_composition_of_the_facts_is_a_modem_but_the_pcie_one() {
    let tree = Tree::new();
    for (bus, product) in (1..).zip(0x1070..=0x1079) {
        tree.device(&format!("1-{bus}"), &format!("1bc7:{product:04x}"), None);
        tree.interface(&format!("1-{bus}"), 5, &format!("ttyUSB{bus}"));
    }
    let modems = tree.snapshot().modems();
    let mut products: Vec<u16> = modems.iter().map(|modem| modem.usb.product).collect();
    products.sort_unstable();
    let known = [0x1070, 0x1071, 0x1072, 0x1073, 0x1074, 0x1077, 0x1078, 0x1079];
    assert_eq!(products, known);
    for modem in &modems {
        assert_eq!(modem.at.len(), 1, "interface 5 answers AT in each: {modem:?}");
        assert_eq!(modem.lock_key(), LOCK_KEY);
    }
}

/// A card in a slot, with what the kernel's MHI driver makes of it.
fn card(tree: &Tree, subsystem_device: &str) {
    let root = tree.0.path();
    let pci = root.join("devices/pci0000:00/0000:00:1c.0/0000:01:00.0");
    let wwan = pci.join("mhi0/wwan/wwan0");
    for port in ["wwan0at0", "wwan0at1", "wwan0mbim0", "wwan0qcdm0"] {
        fs::create_dir_all(wwan.join(port)).unwrap();
    }
    fs::create_dir_all(pci.join("mhi0/net/mhi_hwip0")).unwrap();
    fs::write(wwan.join("wwan0mbim0/type"), "MBIM\n").unwrap();
    fs::write(wwan.join("wwan0at1/type"), "AT\n").unwrap();
    for (name, value) in [
        ("vendor", "0x17cb"),
        ("device", "0x0308"),
        ("subsystem_vendor", "0x1c5d"),
        ("subsystem_device", subsystem_device),
    ] {
        fs::write(pci.join(name), format!("{value}\n")).unwrap();
    }
    let bridge = pci.parent().unwrap();
    fs::write(bridge.join("vendor"), "0x8086\n").unwrap();
    let class = root.join("class/wwan");
    fs::create_dir_all(&class).unwrap();
    for port in ["wwan0at0", "wwan0at1", "wwan0mbim0", "wwan0qcdm0"] {
        std::os::unix::fs::symlink(wwan.join(port), class.join(port)).unwrap();
    }
    std::os::unix::fs::symlink(&wwan, class.join("wwan0")).unwrap();
    fs::create_dir_all(root.join("class/net")).unwrap();
    let net = root.join("class/net/mhi_hwip0");
    std::os::unix::fs::symlink(pci.join("mhi0/net/mhi_hwip0"), net).unwrap();
}

#[test]
fn a_modem_behind_pcie_is_one_modem_though_its_usb_side_is_there_too() {
    let tree = Tree::new();
    card(&tree, "0x2010");
    tree.device("1-1", "1bc7:1075", None);
    tree.interface("1-1", 0, "ttyUSB0");
    let [modem] = tree.snapshot().modems().try_into().unwrap();
    assert_eq!(
        (modem.bus_id.as_str(), modem.usb.to_string()),
        ("0000:01:00.0", "17cb:0308".into())
    );
    assert_eq!(modem.bus, Bus::Pcie, "which no tool of ours reaches");
    assert_eq!(modem.at, ["wwan0at1", "wwan0at0"]);
    assert_eq!(modem.diag.as_deref(), Some("wwan0qcdm0"));
    assert_eq!(modem.net, ["mhi_hwip0"]);
    assert_eq!(modem.lock_key(), LOCK_KEY);
}

#[test]
fn another_card_with_the_same_chip_is_no_modem_of_ours() {
    let tree = Tree::new();
    card(&tree, "0x2015");
    assert_eq!(tree.snapshot().pcie.len(), 1);
    assert_eq!(tree.snapshot().modems(), []);
}
