//! `busy`: whether this router may be given another system, or lose this agent, now. For the scripts of
//! the package, which know the exit statuses.

use std::path::Path;
use std::process::ExitCode;

use super::{BUSY, UNFINISHED};
use crate::environment::{self, journal_path};
use crate::guardian;
use crate::settings::Settings;
use crate::staging::Mounts;
use crate::sysupgrade;
use crate::upgrade::journal::{self, Found, aside, peek};
use crate::upgrade::state::State;

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
    let unknown = not_mounted(&environment::mounts(), &settings.paths.state_dir);
    match unknown.or_else(|| unfinished(settings)) {
        Some(reason) => {
            println!("{reason}");
            ExitCode::from(UNFINISHED)
        }
        None => ExitCode::SUCCESS,
    }
}

/// The journals lie on a stick that is not there: nobody knows what they say.
fn not_mounted(mounts: &Mounts, state_dir: &Path) -> Option<String> {
    let point = mounts.missing(state_dir)?.display();
    let journals = state_dir.display();
    Some(format!("nothing is mounted on {point}: what the journals in {journals} say is not known"))
}

/// The first slot whose modem may still be in the middle of something, by its journal; also one that the
/// settings do not name any more.
pub fn unfinished(settings: &Settings) -> Option<String> {
    first_in(settings, State::has_touched)
}

/// The first slot that an agent has to go on with; any may be one while nobody can read the journals.
pub fn to_go_on_with(settings: &Settings) -> Option<String> {
    to_go_on_with_on(&environment::mounts(), settings)
}

fn to_go_on_with_on(mounts: &Mounts, settings: &Settings) -> Option<String> {
    let unknown = not_mounted(mounts, &settings.paths.state_dir);
    unknown.or_else(|| first_in(settings, State::must_go_on))
}

fn first_in(settings: &Settings, counts: fn(&State) -> bool) -> Option<String> {
    let slots = settings.slots.iter();
    let own = slots.map(|slot| (journal_path(settings, slot), slot.slot.to_string()));
    let nameless = journal::all(&settings.paths.state_dir).into_iter().flatten();
    own.chain(nameless).find_map(|(path, slot)| unfinished_in(&slot, &path, counts))
}

/// Whether the modem of `slot` may be in the middle of something, by the journal at `path`: what `counts`.
pub fn unfinished_in(
    slot: &str,
    path: &Path,
    counts: impl FnOnce(&State) -> bool,
) -> Option<String> {
    let unreadable =
        |path: &Path| Some(format!("slot {slot}: the journal {} cannot be read", path.display()));
    let aside = aside(path);
    match peek(path) {
        _ if aside.exists() => unreadable(&aside),
        Ok(Found::State { state, .. }) if counts(&state) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fragment, from_fragments};

    #[test]
    fn journals_on_a_stick_that_is_not_there_are_not_taken_for_none() {
        let root = tempfile::tempdir().unwrap();
        let (point, state_dir) = (root.path().join("mnt"), root.path().join("mnt/stick/state"));
        std::fs::create_dir(&point).unwrap();
        let reason = not_mounted(&Mounts::of(vec![point.clone()]), &state_dir).unwrap();
        assert!(reason.contains(&format!("nothing is mounted on {}", point.display())), "{reason}");
        assert_eq!(not_mounted(&Mounts::of(vec!["/proc".into()]), Path::new("/proc/self")), None);
        assert_eq!(not_mounted(&Mounts::of(vec![point.clone()]), &root.path().join("state")), None);
        // Who has to go on is started all the same, and finds out when the stick is there.
        let text = format!(
            "[coordinator]\nurl = \"https://h\"\n[paths]\nstate_dir = \"{}\"\n",
            state_dir.display()
        );
        let settings = from_fragments([Fragment::from_toml(&text, "t").unwrap()]).unwrap();
        assert!(to_go_on_with_on(&Mounts::of(vec![point]), &settings).is_some());
        assert_eq!(to_go_on_with_on(&Mounts::of(vec![]), &settings), None);
    }
}
