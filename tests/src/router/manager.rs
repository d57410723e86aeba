//! ModemManager on a router: it has the modem's ports open while it runs, and `mmcli` tells of it.

use super::{Router, files::stand_in};
use std::{fs, io, os::unix::fs::symlink};

/// Ports that it has open, as far as they are there.
const PORTS: u32 = 16;

impl Router {
    /// Lets ModemManager, which starts and stops with its init script, own the modem. It takes a moment
    /// to close its ports.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn give_to_modem_manager(&self) -> anyhow::Result<()> {
        let ports = self.dir.join("ports");
        fs::create_dir_all(ports.join("fd"))?;
        for port in 0..PORTS {
            symlink(self.dir.join(format!("dev/ttyUSB{port}")), ports.join(format!("fd/{port}")))?;
        }
        fs::write(ports.join("cmdline"), "/usr/sbin/ModemManager\0")?;
        stand_in(&self.dir.join("bin/mmcli"), MMCLI)?;
        stand_in(&self.dir.join("init.d/modemmanager"), MODEM_MANAGER)?;
        let dir = self.dir.display();
        self.edit("agent.toml", "[paths]", &format!("[paths]\nmmcli = \"{dir}/bin/mmcli\""))?;
        Ok(symlink(ports, self.dir.join("proc/4711"))?)
    }

    /// Lets ModemManager have another modem too, whose network device is this one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn give_another(&self, interface: &str) -> io::Result<()> {
        fs::write(self.dir.join("another"), interface)
    }

    /// Lets ModemManager go on with closing its ports; until then it stays where [`Self::halt`] has put it.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn go_on(&self) -> io::Result<()> {
        fs::remove_file(self.dir.join("halt"))
    }

    /// Stops time for whoever stops ModemManager.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn halt(&self) -> io::Result<()> {
        fs::write(self.dir.join("halt"), "")
    }
}

/// What it knows of the modem's flash: the package, and neither `+CGMR` nor settings.
const MMCLI: &str = r#"#!/bin/sh
router=$(dirname "$(dirname "$0")")
[ -e "$router/modemmanager.running" ] || exit 1
flash() { tr ',{}' '\n\n\n' < "$router/modem.json" | sed -n "s/^ *\"$1\": *\"\\(.*\\)\"/\\1/p"; }
case "$*" in
'-L -K')
    echo 'modem-list.value[1] : /org/freedesktop/ModemManager1/Modem/0'
    [ ! -e "$router/another" ] || echo 'modem-list.value[2] : /org/freedesktop/ModemManager1/Modem/1' ;;
'-m 1 -K')
    echo 'modem.generic.device : /sys/devices/9-9'
    echo 'modem.generic.manufacturer : QUALCOMM INCORPORATED'
    echo "modem.generic.ports.value[1] : $(cat "$router/another") (net)" ;;
'-m 0 -K')
    echo "modem.generic.device : $router/sys/devices/2-1"
    echo 'modem.generic.manufacturer : Telit Wireless Solutions'
    echo 'modem.generic.model : FN990A28'
    echo "modem.generic.revision : $(flash package)"
    echo 'modem.generic.sim : /org/freedesktop/ModemManager1/SIM/0'
    echo 'modem.generic.access-technologies.value[1] : lte'
    echo 'modem.3gpp.operator-name : Lab Mobile'
    echo 'modem.3gpp.registration-state : home'
    echo "modem.3gpp.imei : $(flash imei)" ;;
'-i 0 -K') echo "sim.properties.iccid : $(flash iccid)" ;;
'-m 0 --signal-get -K') echo 'modem.signal.lte.rsrp : -81.00' ;;
*) exit 1 ;;
esac
"#;

/// As rc.common has it, as far as holders ask. One that a test leaves behind ends by itself, and does
/// nothing to a router that is made anew in its place.
const MODEM_MANAGER: &str = r#"#!/bin/sh
cd "$(dirname "$(dirname "$0")")" || exit 1
echo "modemmanager $1" >> holders.log
case "$1" in
    running | status) [ -e modemmanager.running ] ;;
    stop)
        rm -f modemmanager.running
        looks=0
        while [ -e halt ] && [ "$looks" -lt 3000 ]; do sleep 0.02; looks=$((looks + 1)); done
        setsid sh -c "sleep 0.3; rm -f proc/4711" > /dev/null 2>&1 < /dev/null & ;;
    start)
        : > modemmanager.running
        ln -s "$PWD/ports" proc/4711 ;;
esac
"#;
