//! What lies on a router before it is switched on: settings, keys, the profile of its tool, and what
//! the agent looks for in `/proc`, `/sys` and `/etc/init.d`.

use super::{Plan, Router};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

/// Writes all of it; the coordinator is at `url`.
pub fn write(router: &Router, plan: &Plan, url: &str) -> anyhow::Result<()> {
    let dir = &router.dir;
    let at = |path: &str| dir.join(path);
    fs::write(at("keys/operator.pub"), &plan.key)?;
    fs::write(at("enrolment-token"), &plan.uplink.enrolment_token)?;
    fs::write(at("proc/sys/kernel/hostname"), format!("{}\n", router.name))?;
    fs::write(at("proc/net/route"), route_table(plan.sole_uplink))?;
    fs::write(at("proc/net/ipv6_route"), "")?;
    fs::write(at("proc/sys/kernel/osrelease"), "6.6.73\n")?;
    fs::write(at("proc/meminfo"), "MemAvailable:     103384 kB\n")?;
    wired_port(dir)?;
    fs::write(at("profiles/telit-uxfp.toml"), profile(dir)?)?;
    let uxfp = at("bin/uxfp");
    if !uxfp.exists() {
        symlink(&router.exe, uxfp)?;
    }
    stand_in(&at("init.d/modemmanager"), &service("modemmanager"))?;
    stand_in(&at("init.d/watchcat"), &service("watchcat"))?;
    stand_in(&at("bin/ubus"), UBUS)?;
    stand_in(&at("bin/ip"), IP)?;
    for link in ["S70modemmanager", "S95watchcat"] {
        fs::write(at("rc.d").join(link), "")?;
    }
    fs::write(at("config/network"), network(dir))?;
    for holder in HOLDERS {
        fs::write(at(holder.sign), "")?;
    }
    fs::write(at("agent.toml"), settings(dir, url, &plan.uplink.pin))?;
    Ok(())
}

/// `/proc/net/route`: the default route over the modem, or over a wired port as well.
pub(super) fn route_table(sole: bool) -> String {
    let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
    let interface = if sole { "wwan0" } else { "eth0" };
    format!("{head}{interface}\t00000000\t0101A8C0\t0003\t0\t0\t10\t00000000\t0\t0\t0\n")
}

/// The built-in profile with this router's tool and times that suit a lab.
fn profile(dir: &Path) -> anyhow::Result<String> {
    let (_, text) = shared::profile::BUILT_IN
        .iter()
        .find(|(name, _)| *name == "telit-uxfp")
        .ok_or_else(|| anyhow::anyhow!("no built-in profile"))?;
    let program = dir.join("bin/uxfp");
    let mut changes = vec![("program", format!("{:?}", program.to_string_lossy()))];
    for (name, seconds) in
        [("idle_s", 5), ("total_s", 90), ("grace_s", 1), ("typical_s", 20), ("boot_s", 15)]
    {
        changes.push((name, seconds.to_string()));
    }
    let lines = text.lines().map(|line| {
        let change = changes.iter().find(|(name, _)| line.starts_with(&format!("{name} = ")));
        change.map_or_else(|| line.to_owned(), |(name, value)| format!("{name} = {value}"))
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn settings(dir: &Path, url: &str, pin: &str) -> String {
    let dir = dir.display();
    format!(
        r#"[coordinator]
url = "{url}"
pins = ["{pin}"]
enrolment_token_file = "{dir}/enrolment-token"

[uplink]
poll_interval_s = 5
retry_s = 1
retry_max_s = 4
mqtt_patience_s = 3

[paths]
state_dir = "{dir}/state"
run_dir = "{dir}/run"
staging = ["{dir}/staging"]
keys_dir = "{dir}/keys"
profiles_dir = "{dir}/profiles"
hooks_dir = "{dir}/hooks"
init_dir = "{dir}/init.d"
ip = "{dir}/bin/ip"
ubus = "{dir}/bin/ubus"
sysfs = "{dir}/sys"
dev = "{dir}/dev"
proc = "{dir}/proc"

[upgrade]
settle_s = 0
backoff_s = 1

[modem]
boot_silence_s = 15
away_s = 15
"#
    )
}

/// `eth0`, which is no USB device.
fn wired_port(dir: &Path) -> io::Result<()> {
    let device = dir.join("sys/devices/platform/ethernet");
    let interface = dir.join("sys/class/net/eth0");
    fs::create_dir_all(&device)?;
    fs::create_dir_all(&interface)?;
    if !interface.join("device").exists() {
        symlink(device, interface.join("device"))?;
    }
    Ok(())
}

pub(super) fn stand_in(path: &Path, script: &str) -> io::Result<()> {
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// `ip rule show` of a router without policy routing.
const IP: &str =
    "#!/bin/sh\nprintf '0:\\tfrom all lookup local\\n32766:\\tfrom all lookup main\\n'\n";

/// One that uses the modem while it works.
pub(super) struct Holder {
    /// As the agent calls it.
    pub name: &'static str,
    /// The file that is there while it runs.
    pub sign: &'static str,
}

pub(super) const HOLDERS: [Holder; 3] = [
    Holder { name: "service modemmanager", sign: "modemmanager.running" },
    Holder { name: "service watchcat", sign: "watchcat.running" },
    Holder { name: "interface wwan", sign: "wwan.up" },
];

/// As rc.common has it, as far as holders ask.
fn service(name: &str) -> String {
    r#"#!/bin/sh
router=$(dirname "$(dirname "$0")")
echo "NAME $1" >> "$router/holders.log"
case "$1" in
    running | status) [ -e "$router/NAME.running" ] ;;
    stop) rm -f "$router/NAME.running" ;;
    start) : > "$router/NAME.running" ;;
esac
"#
    .replace("NAME", name)
}

/// An interface that dials over the modem: netifd does not say which device is behind it.
fn network(dir: &Path) -> String {
    let device = dir.join("sys/devices/2-1");
    format!(
        "config interface 'lan'\n\toption device 'eth0'\n\n\
         config interface 'wwan'\n\toption proto '3g'\n\toption device '{}'\n",
        device.display()
    )
}

/// As far as netifd is asked and told.
const UBUS: &str = r#"#!/bin/sh
router=$(dirname "$(dirname "$0")")
up=false
[ -e "$router/wwan.up" ] && up=true
case "$2 $3" in
    'network.interface dump')
        echo '{"interface":[{"interface":"lan","up":true,"device":"eth0"},'
        echo "{\"interface\":\"wwan\",\"up\":$up,\"autostart\":$up}]}" ;;
    'network.interface.wwan status') echo "{\"up\":$up,\"autostart\":$up}" ;;
    'network.interface.wwan down') echo 'wwan down' >> "$router/holders.log"; rm -f "$router/wwan.up" ;;
    'network.interface.wwan up') echo 'wwan up' >> "$router/holders.log"; : > "$router/wwan.up" ;;
    *) exit 4 ;;
esac
"#;
