//! What this router says of itself.

use crate::{
    environment, files, guardian,
    modem::{
        self, ModemLock, NotReady, Ready, Seen, Snapshot,
        dialect::{self, VersionCommands},
        manager::{self, Managed},
        standing,
    },
    profiles,
    route::{Network, Way},
    settings::{Settings, SlotSettings},
    staging::{Durability, Place, Unusable},
    verify,
};
use shared::{
    desired::{CAPABILITIES, VOLATILE_STAGING},
    inventory::{self, Inventory, Modem, Staging, VERSION},
};
use std::path::Path;
use tokio::time::Instant;

/// Reads everything anew; `way` leads to the coordinator. The modems are asked over AT,
/// unless somebody flashes them; of those that ModemManager has, it is asked.
pub async fn take(settings: &Settings, boot_id: &str, way: &Way) -> Inventory {
    let mut modems = Vec::new();
    for slot in &settings.slots {
        modems.push(ask(settings, slot, way).await);
    }
    let paths = &settings.paths;
    let staging = environment::staging(settings);
    let staging = files::off_runtime(move || (staging.places(), staging.unusable())).await;
    let (places, unusable) = staging.unwrap_or_default();
    let keyring = verify::read_keyring(&paths.keys_dir).unwrap_or_default();
    Inventory {
        v: VERSION,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        capabilities: capabilities(settings),
        board: text(Path::new("/tmp/sysinfo/board_name")),
        hostname: text(&paths.proc.join("sys/kernel/hostname")),
        boot_id: boot_id.to_owned(),
        require_signature: settings.image.require_signature,
        keys: keyring.trusted.iter().map(|key| key.number.to_string()).collect(),
        profiles: profiles::names(&paths.profiles_dir),
        staging: places.into_iter().map(place).chain(unusable.into_iter().map(no_place)).collect(),
        modems,
    }
}

fn place(place: Place) -> Staging {
    Staging {
        path: place.directory.display().to_string(),
        free_bytes: place.room,
        durable: place.durability == Durability::Durable,
        problem: None,
    }
}

fn no_place(unusable: Unusable) -> Staging {
    Staging {
        path: unusable.directory.display().to_string(),
        free_bytes: 0,
        durable: false,
        problem: Some(shared::limits::cut(unusable.reason)),
    }
}

fn text(path: &Path) -> String {
    crate::files::read_text(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

async fn ask(settings: &Settings, slot: &SlotSettings, way: &Way) -> Modem {
    match read(settings, slot, way).await {
        Ok(modem) => modem,
        Err(reason) => Modem {
            slot: slot.slot.clone(),
            manufacturer: String::new(),
            model: String::new(),
            imei: String::new(),
            versions: vec![],
            usb: None,
            sole_uplink: true,
            network: None,
            unreadable: Some(shared::limits::cut(reason)),
        },
    }
}

async fn read(settings: &Settings, slot: &SlotSettings, way: &Way) -> Result<Modem, String> {
    let paths = &settings.paths;
    // Also one that no agent follows just now: its modem's ports are nobody's but the tool's.
    if guardian::is_any_running(&paths.run_dir) {
        return Err("a modem of this router is being flashed".into());
    }
    let _lock = ModemLock::acquire(&paths.run_dir, modem::discovery::LOCK_KEY)
        .map_err(|error| error.to_string())?;
    let place = modem::Place::new(&paths.sysfs, &paths.dev).sparing(&paths.proc);
    let deadline = Instant::now() + settings.modem.boot_silence;
    match modem::wait_ready(&place, slot.sought(None), deadline).await {
        Ok(ready) => Ok(told_by_modem(settings, slot, way, ready).await),
        Err(NotReady { seen: Seen::InUse { by } }) => {
            let managed = manager::find(&paths.mmcli, slot.sought(None)).await;
            let managed = managed.map_err(|error| format!("in use by {by}; {error}"))?;
            let network = manager::baseline(&paths.mmcli, &managed).await.told();
            let network = inventory::Network { sim: Some(managed.sim), ..network };
            let told = told_by_manager(settings, slot, way, managed, &place.snapshot()).await;
            Ok(Modem { network: Some(network), ..told })
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn told_by_modem(
    settings: &Settings,
    slot: &SlotSettings,
    way: &Way,
    mut ready: Ready,
) -> Modem {
    let commands = VersionCommands::new([], &["#SWPKGV", "+CGMR"].map(str::to_owned));
    let versions = dialect::read_versions(&mut ready.port, &commands).await.unwrap_or_default();
    let network = standing::network(&mut ready.port).await.ok();
    let sole_uplink = is_sole_uplink(settings, &ready.modem.bus_id, way).await;
    Modem {
        slot: slot.slot.clone(),
        manufacturer: ready.identity.manufacturer,
        model: ready.identity.model,
        imei: ready.identity.imei,
        versions: crate::upgrade::perform::version_lines(versions),
        usb: Some(ready.modem.usb),
        sole_uplink,
        network: network.map(|network| network.told()),
        unreadable: None,
    }
}

/// What ModemManager cannot know is absent: the coordinator goes by what it was told last.
async fn told_by_manager(
    settings: &Settings,
    slot: &SlotSettings,
    way: &Way,
    managed: Managed,
    snapshot: &Snapshot,
) -> Modem {
    let versions = managed.versions();
    let sole_uplink = is_sole_uplink(settings, &managed.bus_id, way).await;
    let here = snapshot.modems().into_iter().find(|modem| modem.bus_id == managed.bus_id);
    Modem {
        slot: slot.slot.clone(),
        versions,
        manufacturer: managed.manufacturer,
        model: managed.model,
        imei: managed.imei,
        usb: here.map(|modem| modem.usb),
        sole_uplink,
        network: None,
        unreadable: None,
    }
}

/// As the gates of an upgrade will see it. Which tool that will be is not known here, and most have
/// ModemManager stopped.
async fn is_sole_uplink(settings: &Settings, bus_id: &str, way: &Way) -> bool {
    let paths = &settings.paths;
    let sole = Network::of(paths).is_sole_during_flash(bus_id, way, Some(&paths.mmcli)).await;
    sole.counts_as_sole()
}

fn capabilities(settings: &Settings) -> Vec<String> {
    let volatile = settings.image.allow_volatile_staging.then_some(&VOLATILE_STAGING);
    CAPABILITIES.iter().chain(volatile).map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Policy;
    use crate::settings::{Fragment, from_fragments};
    use crate::testing::script;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn nowhere() -> Way {
        Way { addresses: vec![], v4: Policy::Main, v6: Policy::Main }
    }

    /// A router whose modem's AT ports ModemManager has open.
    fn router(root: &Path) -> Settings {
        let device = root.join("sys/bus/usb/devices/2-1");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("idVendor"), "1bc7\n").unwrap();
        fs::write(device.join("idProduct"), "1070\n").unwrap();
        let interface = root.join("sys/bus/usb/devices/2-1:1.4");
        fs::create_dir_all(interface.join("ttyUSB2")).unwrap();
        fs::write(interface.join("bInterfaceNumber"), "04\n").unwrap();
        fs::create_dir_all(root.join("dev")).unwrap();
        let port = root.join("dev/ttyUSB2");
        fs::write(&port, "").unwrap();
        let process = root.join("proc/4711/fd");
        fs::create_dir_all(&process).unwrap();
        symlink(&port, process.join("9")).unwrap();
        fs::write(root.join("proc/4711/cmdline"), "/usr/sbin/ModemManager\0").unwrap();
        let text = format!(
            "[coordinator]\nurl = \"https://h\"\n[paths]\nsysfs = \"{0}/sys\"\ndev = \"{0}/dev\"\n\
             proc = \"{0}/proc\"\nrun_dir = \"{0}/run\"\nmmcli = \"{0}/mmcli\"",
            root.display()
        );
        from_fragments([Fragment::from_toml(&text, "t").unwrap()]).unwrap()
    }

    #[tokio::test]
    async fn while_modem_manager_has_the_ports_it_is_asked() {
        let root = tempfile::tempdir().unwrap();
        let settings = router(root.path());
        let body = "case \"$*\" in
            '-L -K') echo 'modem-list.value[1] : /org/freedesktop/ModemManager1/Modem/0' ;;
            *) echo 'modem.generic.manufacturer : Telit'
               echo 'modem.generic.model : FN990A28'
               echo 'modem.generic.revision : M0R.000002'
               echo 'modem.generic.device : /sys/devices/platform/usb2/2-1'
               echo 'modem.3gpp.registration-state : roaming'
               echo 'modem.generic.access-technologies.value[1] : 5gnr'
               echo 'modem.3gpp.imei : 356938035643809' ;;
            esac";
        script(&root.path().join("mmcli"), body);
        let modem = ask(&settings, &settings.slots[0], &nowhere()).await;
        assert_eq!(modem.unreadable, None);
        assert_eq!((modem.model.as_str(), modem.imei.as_str()), ("FN990A28", "356938035643809"));
        let [version] = modem.versions.try_into().unwrap();
        assert_eq!((version.command.as_str(), version.value.as_str()), ("+CGMR", "M0R.000002"));
        let network = modem.network.unwrap();
        assert_eq!((network.sim, network.registration.as_deref()), (Some(false), Some("roaming")));
        assert_eq!((network.technology.as_deref(), network.operator), (Some("5g"), None));
        assert_eq!(modem.usb.map(|id| id.to_string()).as_deref(), Some("1bc7:1070"));
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_used_is_told_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = router(root.path());
        let gone = root.path().join("none/staging");
        settings.paths.staging = vec![root.path().join("here"), gone.clone()];
        settings.slots.clear();
        let told = take(&settings, "boot", &nowhere()).await.staging;
        assert_eq!((told.len(), told[0].problem.as_deref()), (2, None));
        assert_eq!((told[1].path.as_str(), told[1].free_bytes), (gone.to_str().unwrap(), 0));
        assert!(told[1].problem.is_some() && !told[1].durable);
    }

    #[tokio::test]
    async fn without_its_answer_the_reason_is_said() {
        let root = tempfile::tempdir().unwrap();
        let settings = router(root.path());
        let modem = ask(&settings, &settings.slots[0], &nowhere()).await;
        let reason = modem.unreadable.unwrap();
        assert!(
            reason.starts_with("in use by ModemManager (pid 4711); mmcli cannot be run"),
            "{reason}"
        );
    }
}
