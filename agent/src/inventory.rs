//! What this router says of itself.

use crate::{
    environment, files,
    modem::{
        self, ModemLock, Seen,
        dialect::{self, VersionCommands},
    },
    profiles,
    route::Network,
    settings::{Settings, SlotSettings},
    staging::{Durability, Place},
    verify,
};
use shared::{
    desired::CAPABILITIES,
    inventory::{Inventory, Modem, Staging, VERSION},
};
use std::{net::IpAddr, path::Path};
use tokio::time::Instant;

/// Reads everything anew; `hosts` are the coordinator's addresses. The modems are asked over AT, unless somebody flashes them.
pub async fn take(settings: &Settings, boot_id: &str, hosts: &[IpAddr]) -> Inventory {
    let mut modems = Vec::new();
    for slot in &settings.slots {
        modems.push(ask(settings, slot, hosts).await);
    }
    let paths = &settings.paths;
    let staging = environment::staging(settings);
    let places = files::off_runtime(move || staging.places()).await.unwrap_or_default();
    let keyring = verify::read_keyring(&paths.keys_dir).unwrap_or_default();
    Inventory {
        v: VERSION,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        capabilities: CAPABILITIES.iter().map(|c| (*c).to_owned()).collect(),
        board: text(Path::new("/tmp/sysinfo/board_name")),
        hostname: text(&paths.proc.join("sys/kernel/hostname")),
        boot_id: boot_id.to_owned(),
        require_signature: settings.image.require_signature,
        keys: keyring.trusted.iter().map(|key| key.number.to_string()).collect(),
        profiles: profiles::names(&paths.profiles_dir),
        staging: places.into_iter().map(place).collect(),
        modems,
    }
}

fn place(place: Place) -> Staging {
    Staging {
        path: place.directory.display().to_string(),
        free_bytes: place.room,
        durable: place.durability == Durability::Durable,
    }
}

fn text(path: &Path) -> String {
    crate::files::read_text(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

async fn ask(settings: &Settings, slot: &SlotSettings, hosts: &[IpAddr]) -> Modem {
    match read(settings, slot, hosts).await {
        Ok(modem) => modem,
        Err(reason) => Modem {
            slot: slot.slot.clone(),
            manufacturer: String::new(),
            model: String::new(),
            imei: String::new(),
            versions: vec![],
            usb: None,
            sole_uplink: true,
            unreadable: Some(shared::limits::cut(reason)),
        },
    }
}

async fn read(settings: &Settings, slot: &SlotSettings, hosts: &[IpAddr]) -> Result<Modem, String> {
    let paths = &settings.paths;
    let _lock = ModemLock::acquire(&paths.run_dir, modem::discovery::LOCK_KEY)
        .map_err(|error| error.to_string())?;
    let place = modem::Place::new(&paths.sysfs, &paths.dev).sparing(&paths.proc);
    let deadline = Instant::now() + settings.modem.boot_silence;
    let mut ready = modem::wait_ready(&place, slot.sought(None), deadline).await.map_err(
        |error| match error.seen {
            Seen::InUse { by } => format!("in use by {by}"),
            _ => error.to_string(),
        },
    )?;
    let commands = VersionCommands::new([], &["#SWPKGV", "+CGMR"].map(str::to_owned));
    let versions = dialect::read_versions(&mut ready.port, &commands).await.unwrap_or_default();
    let network = Network { proc_root: paths.proc.clone(), sysfs: paths.sysfs.clone() };
    let sole = network.is_sole_uplink(&ready.modem.bus_id, hosts);
    Ok(Modem {
        slot: slot.slot.clone(),
        manufacturer: ready.identity.manufacturer,
        model: ready.identity.model,
        imei: ready.identity.imei,
        versions: crate::upgrade::perform::version_lines(versions),
        usb: Some(ready.modem.usb),
        sole_uplink: sole.counts_as_sole(),
        unreadable: None,
    })
}
