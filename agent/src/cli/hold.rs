//! `hold`: after a power cut in the middle of a flash, who uses the modem's ports must not start before
//! the agent has looked at it. The early init script asks who that is; [`watch`] gives everything back
//! when no agent comes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::FAILED;
use crate::environment::{self, journal_path};
use crate::guardian::holders::{Holder, Holders};
use crate::guardian::{self, Presence};
use crate::settings::{Paths, Settings, SlotSettings};
use crate::staging::Mounts;
use crate::upgrade::journal::{Found, peek};
use crate::{clock, files, netifd, profiles};

/// What an entry of fstab names may appear on its bus after those entries were gone through.
const MOUNT_PATIENCE: Duration = Duration::from_secs(15);
const MOUNT_LOOK: Duration = Duration::from_millis(200);
/// Another watcher may be about to be ended: whoever stops a service starts the next watcher first.
const WATCHER_PATIENCE: Duration = Duration::from_secs(10);
const WATCHER_LOOK: Duration = Duration::from_millis(100);
/// netifd starts some seconds after the early script.
const INTERFACES_PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(1);

/// Notes as held, and prints, whatever would start at boot and must not. `service NAME` is to be kept
/// from starting by the caller, `interface NAME` by [`watch`].
pub fn hold(settings: &Settings) -> ExitCode {
    hold_once_mounted(settings, &environment::mounts(), MOUNT_PATIENCE)
}

fn hold_once_mounted(settings: &Settings, mounts: &Mounts, patience: Duration) -> ExitCode {
    let paths = &settings.paths;
    wait_for_journals(mounts, &paths.state_dir, patience);
    let Ok(boot_id) = clock::boot_id(&paths.proc) else { return ExitCode::from(FAILED) };
    let mut printed = BTreeSet::new();
    for slot in &settings.slots {
        let Some(taken) = interrupted(settings, slot, &boot_id) else { continue };
        let held = who_starts(settings, taken);
        let run_dir = paths.run_dir.join(slot.slot.as_str());
        if let Err(error) = Holders::new(&run_dir, settings.holders.programs(paths)).note(&held) {
            // Nobody would give back what is not on record.
            log::error!("slot {}: nothing is held: {error}", slot.slot);
            continue;
        }
        printed.extend(held.iter().map(ToString::to_string));
    }
    for line in printed {
        println!("{line}");
    }
    ExitCode::SUCCESS
}

/// Journals that lie on what is not mounted yet seem to be none. Who would be held waits as well: this comes
/// before they are started.
#[allow(clippy::disallowed_methods, reason = "a process of its own, without a runtime")]
fn wait_for_journals(mounts: &Mounts, state_dir: &Path, patience: Duration) {
    let deadline = clock::boottime().saturating_add(patience);
    while let Some(point) = mounts.missing(state_dir) {
        if clock::boottime() >= deadline {
            let (point, journals) = (point.display(), state_dir.display());
            log::error!("nothing is mounted on {point}: the journals in {journals} are not known");
            return;
        }
        std::thread::sleep(MOUNT_LOOK);
    }
}

/// Whom an upgrade had taken that the end of an earlier boot interrupted.
fn interrupted(settings: &Settings, slot: &SlotSettings, boot_id: &str) -> Option<Vec<Holder>> {
    match peek(&journal_path(settings, slot)) {
        Ok(Found::State { state, boot_id: before }) => {
            (state.record.holding && before != boot_id).then_some(state.record.held)
        }
        Ok(Found::Nothing | Found::Unreadable) => None,
        Err(error) => {
            log::error!("slot {}: the journal: {error}", slot.slot);
            None
        }
    }
}

/// Those `taken` before, and the holders of the settings and of every profile, as far as they start at
/// boot: an attempt that was interrupted early has taken nobody yet, and which profile it was stands in an
/// image that is not read here.
fn who_starts(settings: &Settings, taken: Vec<Holder>) -> Vec<Holder> {
    let paths = &settings.paths;
    let own = &settings.holders;
    let mut services: BTreeSet<String> = own.services.iter().cloned().collect();
    services.insert("modemmanager".to_owned());
    // Whatever is held is brought up again at the end.
    let network = netifd::configuration(&paths.init_dir);
    let comes_up = |name: &&String| netifd::starts_at_boot(&network, name);
    let mut interfaces: BTreeSet<String> =
        own.interfaces.iter().filter(comes_up).cloned().collect();
    for holder in taken {
        match holder {
            Holder::Service(name) => _ = services.insert(name),
            Holder::Interface(name) => _ = interfaces.insert(name),
            // ModemManager's name of the modem is one of an earlier life of it.
            Holder::Modem(_) => {}
        }
    }
    for name in profiles::names(&paths.profiles_dir) {
        match profiles::find(&paths.profiles_dir, &name) {
            Ok(profile) => {
                services.extend(profile.holds.rebooters);
                services.extend(profile.holds.services);
            }
            Err(error) => log::warn!("{error}"),
        }
    }
    let interfaces = interfaces.into_iter().map(Holder::Interface);
    let services = services.into_iter().filter(|name| starts_at_boot(&paths.init_dir, name));
    interfaces.chain(services.map(Holder::Service)).collect()
}

/// As `/etc/init.d/NAME enabled`: a link `S70NAME` in `rc.d` beside `init.d`.
fn starts_at_boot(init_dir: &Path, name: &str) -> bool {
    let links = init_dir.with_file_name("rc.d");
    std::fs::read_dir(links).into_iter().flatten().flatten().any(|entry| {
        let link = entry.file_name();
        let link = link.to_string_lossy();
        let order = link.strip_suffix(name).and_then(|order| order.strip_prefix('S'));
        order.is_some_and(|order| order.len() == 2 && order.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Keeps the interfaces of every slot down until an agent is there, and gives everything back once
/// there has been none for `grace`. Ends when nothing is held any more.
pub fn watch(settings: &Settings, grace: Duration) -> ExitCode {
    watch_unless_watched(settings, grace, WATCHER_PATIENCE)
}

#[allow(clippy::disallowed_methods, reason = "a process of its own, without a runtime")]
fn watch_unless_watched(settings: &Settings, grace: Duration, patience: Duration) -> ExitCode {
    let lock = settings.paths.run_dir.join("watch.lock");
    let deadline = clock::boottime().saturating_add(patience);
    let _alone = loop {
        match files::try_lock(&lock) {
            // One of them is enough: each stop of a service asks for one.
            Ok(None) if clock::boottime() >= deadline => return ExitCode::SUCCESS,
            Ok(None) => std::thread::sleep(WATCHER_LOOK),
            alone => break alone,
        }
    };
    let slots = settings.slots.iter().map(|slot| settings.paths.run_dir.join(slot.slot.as_str()));
    let held: Vec<_> = slots
        .filter(|run_dir| {
            let holders = Holders::new(run_dir, settings.holders.programs(&settings.paths));
            holders.taken().is_ok_and(|taken| !taken.is_empty())
        })
        .collect();
    std::thread::scope(|scope| {
        for run_dir in &held {
            scope.spawn(|| watch_one(&settings.paths, run_dir, settings, grace));
        }
    });
    ExitCode::SUCCESS
}

fn watch_one(paths: &Paths, run_dir: &Path, settings: &Settings, grace: Duration) {
    let programs = settings.holders.programs(paths);
    let agent_lock = Presence::lock_path(&paths.run_dir);
    let holders = Holders::new(run_dir, programs.clone());
    let patience = INTERFACES_PATIENCE.min(grace);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(keep_interfaces_down(&holders, &agent_lock, patience)),
        Err(error) => log::error!("{error}"),
    }
    guardian::give_back_when_orphaned(run_dir, &programs, &agent_lock, grace);
}

async fn keep_interfaces_down(holders: &Holders, agent_lock: &Path, patience: Duration) {
    let deadline = clock::boottime().saturating_add(patience);
    while clock::boottime() < deadline && !crate::files::is_locked(agent_lock).unwrap_or(false) {
        let taken = holders.taken().unwrap_or_default();
        let interfaces: Vec<_> =
            taken.into_iter().filter(|holder| matches!(holder, Holder::Interface(_))).collect();
        if interfaces.is_empty() {
            return;
        }
        if let Err(error) = holders.take(&interfaces).await {
            log::warn!("{error}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
#[path = "hold/tests.rs"]
mod tests;
