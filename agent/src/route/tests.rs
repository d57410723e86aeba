use super::*;

const HEADER: &str =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

/// A line of `/proc/net/route` as this CPU's kernel prints it.
fn v4(interface: &str, destination: [u8; 4], prefix: u32, metric: u32) -> String {
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0).to_be_bytes();
    let hex = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
    let (destination, mask) = (hex(destination), hex(mask));
    format!("{interface}\t{destination}\t0101A8C0\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
}

fn v6_default(interface: &str, metric: &str) -> String {
    let zero = "0".repeat(32);
    format!(
        "{zero} 00 {zero} 00 fe800000000000000000000000000001 {metric} 00000001 00000000 00000003 {interface}\n"
    )
}

struct Router(tempfile::TempDir);

impl Router {
    /// A modem at 1-1 with wwan0, a USB network adapter at 1-2 with usb0, and eth0 on the board.
    fn new(routes: &str, v6: &str) -> Self {
        let router = Self(tempfile::tempdir().unwrap());
        router.write("proc/net/route", &format!("{HEADER}{routes}"));
        router.write("proc/net/ipv6_route", v6);
        for (interface, device) in [
            ("wwan0", "sys/bus/usb/devices/1-1:1.2"),
            ("usb0", "sys/bus/usb/devices/1-2:1.0"),
            ("eth0", "sys/devices/platform/ethernet"),
        ] {
            std::fs::create_dir_all(router.path(device)).unwrap();
            router.interface(interface);
            let link = router.path(&format!("sys/class/net/{interface}/device"));
            std::os::unix::fs::symlink(router.path(device), link).unwrap();
        }
        for device in ["1-1", "1-2"] {
            std::fs::create_dir_all(router.path(&format!("sys/bus/usb/devices/{device}"))).unwrap();
        }
        router
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    fn interface(&self, name: &str) {
        std::fs::create_dir_all(self.path(&format!("sys/class/net/{name}"))).unwrap();
    }

    fn on_top(&self, upper: &str, lower: &str) {
        self.interface(upper);
        std::fs::create_dir(self.path(&format!("sys/class/net/{upper}/lower_{lower}"))).unwrap();
    }

    fn ask(&self, addresses: &[&str]) -> Sole {
        let network = Network { proc_root: self.path("proc"), sysfs: self.path("sys") };
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let way = Way { addresses, v4: Policy::Main, v6: Policy::Main };
        network.is_sole_uplink("1-1", &way, &[])
    }

    /// With rules, and default routes over these.
    fn ask_with_rules(&self, interfaces: &[&str]) -> Sole {
        let network = Network { proc_root: self.path("proc"), sysfs: self.path("sys") };
        let rules = Policy::Rules(interfaces.iter().map(|&name| name.to_owned()).collect());
        let addresses = vec!["203.0.113.9".parse().unwrap()];
        network.is_sole_uplink("1-1", &Way { addresses, v4: rules, v6: Policy::Main }, &[])
    }
}

fn not_sole(interface: &str) -> Sole {
    Sole::NotSole { interface: interface.into() }
}

#[test]
fn with_rules_all_tables_must_agree() {
    // The main table leads over the wire, as mwan3's does; marks may send packets elsewhere.
    let router = Router::new(&v4("eth0", [0; 4], 0, 5), "");
    assert_eq!(router.ask_with_rules(&["eth0", "usb0"]), not_sole("eth0"));
    assert_eq!(router.ask_with_rules(&["wwan0"]), Sole::Sole);
    for unsure in [&["eth0", "wwan0"][..], &["eth0", "nowhere"], &[]] {
        assert!(router.ask_with_rules(unsure).counts_as_sole(), "{unsure:?}");
        assert!(matches!(router.ask_with_rules(unsure), Sole::Unknown(_)), "{unsure:?}");
    }
}

#[test]
fn the_default_route_decides() {
    let modem = v4("wwan0", [0; 4], 0, 10);
    assert_eq!(Router::new(&modem, "").ask(&["203.0.113.9"]), Sole::Sole);
    let wired = v4("eth0", [0; 4], 0, 5) + &modem;
    assert_eq!(Router::new(&wired, "").ask(&["203.0.113.9"]), not_sole("eth0"));
    // A worse route elsewhere proves nothing.
    let spare = modem + &v4("eth0", [0; 4], 0, 20);
    assert_eq!(Router::new(&spare, "").ask(&["203.0.113.9"]), Sole::Sole);
}

#[test]
fn the_longest_prefix_comes_before_the_metric() {
    let routes = v4("eth0", [0; 4], 0, 0) + &v4("wwan0", [203, 0, 113, 0], 24, 900);
    let router = Router::new(&routes, "");
    assert_eq!(router.ask(&["203.0.113.9"]), Sole::Sole);
    assert_eq!(router.ask(&["203.0.114.9"]), not_sole("eth0"));
}

#[test]
fn one_address_without_the_modem_is_enough() {
    let router = Router::new(&v4("wwan0", [0; 4], 0, 0), &v6_default("eth0", "00000400"));
    assert_eq!(router.ask(&["203.0.113.9", "2001:db8::1"]), not_sole("eth0"));
    let router = Router::new(&v4("wwan0", [0; 4], 0, 0), &v6_default("wwan0", "00000400"));
    assert_eq!(router.ask(&["203.0.113.9", "2001:db8::1"]), Sole::Sole);
}

#[test]
fn another_usb_device_is_not_the_modem() {
    let router = Router::new(&v4("usb0", [0; 4], 0, 0), "");
    assert_eq!(router.ask(&["203.0.113.9"]), not_sole("usb0"));
}

#[test]
fn vlans_and_muxes_are_followed_down() {
    let router = Router::new(&v4("qmimux0", [0; 4], 0, 0), "");
    assert!(matches!(router.ask(&["203.0.113.9"]), Sole::Unknown(_)));
    router.on_top("qmimux0", "wwan0");
    assert_eq!(router.ask(&["203.0.113.9"]), Sole::Sole);
    let router = Router::new(&v4("br-wan", [0; 4], 0, 0), "");
    router.on_top("br-wan", "eth0.2");
    router.on_top("eth0.2", "eth0");
    assert_eq!(router.ask(&["203.0.113.9"]), not_sole("br-wan"));
}

#[test]
fn interfaces_that_lie_on_each_other_end_somewhere() {
    let router = Router::new(&v4("a", [0; 4], 0, 0), "");
    router.on_top("a", "b");
    router.on_top("b", "a");
    assert!(matches!(router.ask(&["203.0.113.9"]), Sole::Unknown(_)));
}

#[test]
fn a_tunnel_is_certain_only_where_no_way_leads_through_the_modem() {
    let tunnel = v4("wg0", [0; 4], 0, 0);
    let peer = |interface| v4(interface, [198, 51, 100, 1], 32, 0);
    for (routes, certain) in [
        (tunnel.clone() + &peer("eth0"), true),
        (tunnel.clone() + &peer("wwan0"), false),
        (tunnel.clone() + &peer("eth0") + &v4("wwan0", [0; 4], 0, 50), false),
        (tunnel.clone(), false),
    ] {
        let router = Router::new(&routes, "");
        router.write("sys/class/net/wg0/uevent", "DEVTYPE=wireguard\nINTERFACE=wg0\n");
        let answer = router.ask(&["203.0.113.9"]);
        assert_eq!(answer.counts_as_sole(), !certain, "{answer:?} for {routes}");
    }
}

#[test]
fn what_is_unknown_counts_as_sole() {
    let router = Router::new(&v4("pppoe-wan", [0; 4], 0, 0), "");
    router.interface("pppoe-wan");
    for answer in [router.ask(&["203.0.113.9"]), router.ask(&["2001:db8::1"]), router.ask(&[])] {
        assert!(matches!(answer, Sole::Unknown(_) | Sole::Unresolved), "{answer:?}");
        assert!(answer.counts_as_sole(), "{answer:?}");
    }
    std::fs::remove_file(router.path("proc/net/route")).unwrap();
    assert!(router.ask(&["203.0.113.9"]).counts_as_sole());
}

#[test]
fn routes_that_are_down_or_refuse_do_not_count() {
    let down = v4("wwan0", [0; 4], 0, 0).replace("\t0003\t", "\t0002\t");
    let reject = v4("wwan0", [203, 0, 113, 9], 32, 0).replace("\t0003\t", "\t0205\t");
    let router = Router::new(&(down + &reject + &v4("eth0", [0; 4], 0, 9)), "garbage\n\n");
    assert_eq!(router.ask(&["203.0.113.9"]), not_sole("eth0"));
    let local = "20010db8000000000000000000000001 80 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 00000000 00000002 00000000 80200001 lo\n";
    let router = Router::new("", &(local.to_owned() + &v6_default("wwan0", "00000001")));
    assert_eq!(router.ask(&["2001:db8::1"]), Sole::Sole);
}

#[tokio::test]
async fn another_modem_of_a_stopped_modem_manager_is_no_other_way() {
    let wired = v4("eth0", [0; 4], 0, 5);
    let other_modem = v4("usb0", [0; 4], 0, 5);
    let vlan_of_it = Router::new(&v4("usb0.7", [0; 4], 0, 5), "");
    vlan_of_it.on_top("usb0.7", "usb0");
    let ask = async |router: &Router, stopped: bool| {
        let mmcli = router.path("mmcli");
        let network = Network { proc_root: router.path("proc"), sysfs: router.path("sys") };
        let addresses = vec!["203.0.113.9".parse().unwrap()];
        let way = Way { addresses, v4: Policy::Main, v6: Policy::Main };
        network.is_sole_during_flash("1-1", &way, stopped.then_some(&mmcli)).await
    };
    let with_manager = |router: Router| {
        let body = "case \"$*\" in
            '-L -K') echo 'modem-list.value[1] : /org/freedesktop/ModemManager1/Modem/3' ;;
            *) echo 'modem.generic.ports.value[1] : usb0 (net)' ;;
            esac";
        crate::testing::script(&router.path("mmcli"), body);
        router
    };
    let router = Router::new(&other_modem, "");
    assert_eq!(ask(&router, true).await, not_sole("usb0"), "there is no mmcli");
    crate::testing::script(&router.path("mmcli"), "exit 1");
    assert_eq!(ask(&router, true).await, not_sole("usb0"), "ModemManager does not run");
    let router = with_manager(router);
    assert_eq!(ask(&router, false).await, not_sole("usb0"), "it is only inhibited");
    assert_eq!(ask(&router, true).await, Sole::Sole);
    assert_eq!(ask(&with_manager(vlan_of_it), true).await, Sole::Sole);
    let router = with_manager(Router::new(&wired, ""));
    assert_eq!(ask(&router, true).await, not_sole("eth0"));
    // Whoever does not answer may have it.
    let router = Router::new(&wired, "");
    std::fs::create_dir(router.path("mmcli")).unwrap();
    assert!(matches!(ask(&router, true).await, Sole::Unknown(_)));
}
