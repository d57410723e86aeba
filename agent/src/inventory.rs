//! What this router says of itself.

use crate::{
    modem::{self, ModemLock, dialect},
    profiles,
    route::{self, SoleUplink},
    settings::{Settings, SlotSettings},
    staging::Staging,
    verify,
};
use shared::{
    desired::CAPABILITIES,
    inventory::{Inventory, Modem, VERSION},
};
use std::{net::IpAddr, path::Path};
use tokio::time::Instant;

/// Reads everything anew; `host` is where the coordinator is. The modems are asked over AT, unless somebody flashes them.
pub async fn take(settings: &Settings, boot_id: &str, host: Option<IpAddr>) -> Inventory {
    let mut modems = Vec::new();
    for slot in &settings.slots {
        modems.push(ask(settings, slot, host).await);
    }
    let paths = &settings.paths;
    let keyring = verify::read_keyring(&paths.keys_dir).unwrap_or_default();
    let staging = Staging::new(&paths.staging, settings.image.reserve_bytes);
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
        staging: staging.inventory(),
        modems,
    }
}

fn text(path: &Path) -> String {
    crate::files::read_text(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

async fn ask(settings: &Settings, slot: &SlotSettings, host: Option<IpAddr>) -> Modem {
    match read(settings, slot, host).await {
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

async fn read(
    settings: &Settings,
    slot: &SlotSettings,
    host: Option<IpAddr>,
) -> Result<Modem, String> {
    let paths = &settings.paths;
    let _lock = ModemLock::acquire(&paths.run_dir, modem::discovery::LOCK_KEY)
        .map_err(|error| error.to_string())?;
    let place = modem::Place::new(&paths.sysfs, &paths.dev);
    let deadline = Instant::now() + settings.modem.boot_silence;
    let mut ready = modem::wait_ready(&place, slot.imei.as_deref(), deadline)
        .await
        .map_err(|error| error.to_string())?;
    let commands = ["#SWPKGV", "+CGMR"].map(str::to_owned);
    let versions = dialect::read_versions(&mut ready.port, &commands).await.unwrap_or_default();
    let sole = match host {
        Some(host) => route::sole_uplink(&paths.proc, &paths.sysfs, host, &ready.modem.bus_id),
        None => SoleUplink::Unknown("the coordinator's name has no address".into()),
    };
    Ok(Modem {
        slot: slot.slot.clone(),
        manufacturer: ready.identity.manufacturer,
        model: ready.identity.model,
        imei: ready.identity.imei,
        versions: crate::upgrade::perform::version_lines(versions),
        usb: Some(ready.modem.usb),
        sole_uplink: !matches!(sole, SoleUplink::No),
        unreadable: None,
    })
}
