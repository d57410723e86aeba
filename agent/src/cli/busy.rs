//! `busy`: whether this router may be given another system, or lose this agent, now. For the scripts of
//! the package, which know the exit statuses.

use std::path::Path;
use std::process::ExitCode;

use super::{BUSY, UNFINISHED};
use crate::environment::journal_path;
use crate::guardian;
use crate::settings::Settings;
use crate::sysupgrade;
use crate::upgrade::journal::{self, Found, aside, peek};

/// Tells of a running tool before an upgrade that is not finished. `begun`: one whose grant is asked for
/// counts as running.
pub fn busy(settings: &Settings, begun: bool) -> ExitCode {
    let run_dir = &settings.paths.run_dir;
    // In this order: the first is let go when the second is taken.
    let about_to_start = begun && sysupgrade::is_begun(run_dir);
    if guardian::is_any_running(run_dir) {
        println!("a tool runs");
        return ExitCode::from(BUSY);
    }
    if about_to_start {
        println!("an upgrade is about to begin");
        return ExitCode::from(BUSY);
    }
    match unfinished(settings) {
        Some(reason) => {
            println!("{reason}");
            ExitCode::from(UNFINISHED)
        }
        None => ExitCode::SUCCESS,
    }
}

/// The first slot whose modem may still be in the middle of something, by its journal; also one that the
/// settings do not name any more.
pub fn unfinished(settings: &Settings) -> Option<String> {
    let slots = settings.slots.iter();
    let own = slots.map(|slot| (journal_path(settings, slot), slot.slot.to_string()));
    let nameless = journal::all(&settings.paths.state_dir).into_iter().flatten();
    own.chain(nameless).find_map(|(path, slot)| unfinished_in(&slot, &path))
}

/// Whether the modem of `slot` may be in the middle of something, by the journal at `path`.
pub fn unfinished_in(slot: &str, path: &Path) -> Option<String> {
    let unreadable =
        |path: &Path| Some(format!("slot {slot}: the journal {} cannot be read", path.display()));
    let aside = aside(path);
    match peek(path) {
        _ if aside.exists() => unreadable(&aside),
        Ok(Found::State { state, .. }) if state.has_touched() => {
            Some(format!("slot {slot}: the upgrade is not finished: {}", state.phase()))
        }
        Ok(Found::State { .. } | Found::Nothing) => None,
        Ok(Found::Unreadable) => unreadable(path),
        // What cannot be found out must not keep a broken router from being mended.
        Err(error) => {
            log::error!("slot {slot}: {}: {error}", path.display());
            None
        }
    }
}
