//! `busy`: whether this router may be given another system, or lose this agent, now. For the scripts of
//! the package, which know the exit statuses.

use std::process::ExitCode;

use super::{BUSY, UNFINISHED};
use crate::environment::journal_path;
use crate::guardian;
use crate::settings::Settings;
use crate::upgrade::journal::{Found, peek};

/// Tells of a running tool before an upgrade that is not finished.
pub fn busy(settings: &Settings) -> ExitCode {
    if guardian::is_any_running(&settings.paths.run_dir) {
        println!("a tool runs");
        return ExitCode::from(BUSY);
    }
    for slot in &settings.slots {
        let path = journal_path(settings, slot);
        match peek(&path) {
            Ok(Found::State { state, .. }) if state.has_touched() => {
                println!("slot {}: the upgrade is not finished: {}", slot.slot, state.phase());
                return ExitCode::from(UNFINISHED);
            }
            Ok(Found::State { .. } | Found::Nothing) => {}
            Ok(Found::Unreadable) => {
                println!("slot {}: the journal {} cannot be read", slot.slot, path.display());
                return ExitCode::from(UNFINISHED);
            }
            // What cannot be found out must not keep a broken router from being mended.
            Err(error) => println!("slot {}: {}: {error}", slot.slot, path.display()),
        }
    }
    ExitCode::SUCCESS
}
