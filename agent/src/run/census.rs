//! When the modems are asked, and what they said last.

use crate::{inventory, route::Way, settings::Settings, uplink::UplinkHandle};
use shared::{ids::Slot, inventory::Modem};
use std::time::Duration;
use tokio::time::Instant;

/// First pause before a modem that could not be asked is looked at again; it doubles.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Hotplug events come in swarms, and a modem that has just appeared is still booting.
const AFTER_WAKE: Duration = Duration::from_secs(10);
/// What was said is good for so long where a decision rests on it.
const FRESH: Duration = Duration::from_secs(60);

/// The router's modems by their own word.
pub struct Census {
    due: Instant,
    /// The pause before modems that could not be asked are looked at again.
    look_again: Duration,
    taken: Option<(Instant, Vec<Modem>)>,
}

impl Census {
    pub fn new() -> Self {
        Self { due: Instant::now(), look_again: LOOK_AGAIN, taken: None }
    }

    pub fn due(&self) -> Instant {
        self.due
    }

    /// Something has changed.
    pub fn is_outdated(&mut self) {
        self.due = Instant::now();
    }

    /// Something may have changed.
    pub fn is_outdated_soon(&mut self) {
        self.due = self.due.min(Instant::now() + AFTER_WAKE);
    }

    pub fn is_fresh(&self) -> bool {
        self.taken.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH)
    }

    /// Takes an inventory, tells the coordinator, and says what the modems said. A modem that could
    /// not be asked, for instance because it is still booting, is looked at again soon: nothing can
    /// be asked of a device whose modem the coordinator does not know.
    pub async fn take(
        &mut self,
        settings: &Settings,
        boot_id: &str,
        uplink: &UplinkHandle,
    ) -> &[Modem] {
        let way = Way::find(uplink.base(), &settings.paths.ip).await;
        let inventory = inventory::take(settings, boot_id, &way).await;
        let modems = inventory.modems.clone();
        uplink.set_inventory(inventory);
        let interval = settings.uplink.inventory_interval;
        let pause = if modems.iter().all(|modem| modem.unreadable.is_none()) {
            self.look_again = LOOK_AGAIN;
            interval
        } else {
            let pause = self.look_again.min(interval);
            self.look_again = pause.saturating_mul(2);
            pause
        };
        self.due = Instant::now() + pause;
        &self.taken.insert((Instant::now(), modems)).1
    }

    /// Whether the way to the coordinator leads over the slot's modem alone; unknown counts.
    pub fn carries_the_route(&self, slot: &Slot) -> bool {
        let modems = self.taken.iter().flat_map(|(_, modems)| modems);
        modems.filter(|modem| modem.slot == *slot).all(|modem| modem.sole_uplink)
    }
}
