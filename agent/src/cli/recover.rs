//! `recover`: a person's word that a held slot may go on.

use std::process::ExitCode;

use shared::ids::Slot;

use super::{FAILED, USAGE};
use crate::files;
use crate::guardian;
use crate::settings::Settings;
use crate::upgrade::perform::release_word;

/// Leaves the word where the agent looks for it, and where a restart forgets it.
pub fn say_go_on(settings: &Settings, slot: &Slot) -> ExitCode {
    if !settings.slots.iter().any(|known| known.slot == *slot) {
        eprintln!("this router has no slot {slot}");
        return ExitCode::from(USAGE);
    }
    if guardian::is_any_running(&settings.paths.run_dir) {
        eprintln!(
            "a tool is at work on a modem of this router: wait for its end, then say it again"
        );
        return ExitCode::from(FAILED);
    }
    let word = release_word(&settings.paths.run_dir, slot.as_str());
    let directory = word.parent().map_or(Ok(()), files::create_private_dir);
    match directory.and_then(|()| files::publish(&word, b"")) {
        Ok(()) => {
            println!("slot {slot} goes on as soon as the running agent sees this");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", word.display());
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fragment, from_fragments};

    #[test]
    fn only_a_slot_of_this_router_goes_on() {
        let run_dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[coordinator]\nurl = \"https://h\"\n[paths]\nrun_dir = \"{}\"",
            run_dir.path().display()
        );
        let settings = from_fragments([Fragment::from_toml(&text, "t").unwrap()]).unwrap();
        let other: Slot = "other".parse().unwrap();
        assert_eq!(say_go_on(&settings, &other), ExitCode::from(USAGE));
        assert!(!release_word(run_dir.path(), "other").exists());
        assert_eq!(say_go_on(&settings, &Slot::default()), ExitCode::SUCCESS);
        assert!(release_word(run_dir.path(), "main").exists());
    }
}
