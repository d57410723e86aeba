//! Settings that would leave a modem alone in the middle of its upgrade: a slot has another name now, or
//! the state lies elsewhere, and nobody would look after what the journal is about; or what it is to be
//! recovered with, its image and its tool's profile, is looked for elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::busy::unfinished_in;
use crate::environment::journal_path;
use crate::guardian;
use crate::profiles;
use crate::settings::{Settings, SettingsError, SlotSettings};
use crate::upgrade::journal::{self, Found};
use crate::upgrade::state::State;

/// `settings`, unless a journal that is not finished has no slot in them: neither those where the state
/// is now, nor those of the slots `before`, the settings that were in force until now.
pub fn accepted(settings: Settings, before: Option<&Settings>) -> Result<Settings, SettingsError> {
    let journals = settings.slots.iter().map(|slot| journal_path(&settings, slot));
    let known: Vec<PathBuf> = journals.collect();
    let mut journals: BTreeMap<PathBuf, String> =
        journal::all(&settings.paths.state_dir).into_iter().flatten().collect();
    if let Some(before) = before {
        let old = before.slots.iter();
        journals.extend(old.map(|slot| (journal_path(before, slot), slot.slot.to_string())));
    }
    journals.retain(|path, _| !known.contains(path));
    let mut problems: Vec<String> =
        journals.iter().filter_map(|(path, slot)| forsaken(slot, path)).collect();
    problems.extend(before.iter().flat_map(|before| {
        let slots = before.slots.iter();
        slots.filter_map(|slot| means_elsewhere(before, slot, &settings))
    }));
    let run_dir = &settings.paths.run_dir;
    problems.extend(before.and_then(|before| tool_elsewhere(&before.paths.run_dir, run_dir)));
    if problems.is_empty() { Ok(settings) } else { Err(SettingsError::Unfinished(problems)) }
}

fn forsaken(slot: &str, path: &Path) -> Option<String> {
    let unfinished = unfinished_in(slot, path, State::must_go_on)?;
    let path = path.display();
    Some(format!("{unfinished}, and no slot is called so: name it until then ({path})"))
}

/// What the modem of `slot` may have to be recovered with, and would not be found by the settings of `now`.
fn means_elsewhere(before: &Settings, slot: &SlotSettings, now: &Settings) -> Option<String> {
    let Ok(Found::State { state, .. }) = journal::peek(&journal_path(before, slot)) else {
        return None;
    };
    if !state.must_go_on() {
        return None;
    }
    let (old, new) = (&before.paths, &now.paths);
    let staged = |directory: &&PathBuf| {
        directory.join(state.record.job.image.manifest_sha256.to_string()).is_dir()
    };
    let same = |one: &Path, other: &Path| {
        one == other
            || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|o| o == one))
    };
    let unfinished =
        || format!("slot {}: the upgrade is not finished: {}", slot.slot, state.phase());
    let lost = old
        .staging
        .iter()
        .filter(staged)
        .find(|directory| !new.staging.iter().any(|kept| same(kept, directory)));
    if let Some(directory) = lost {
        let directory = directory.display();
        return Some(format!("{}: [paths] staging keeps {directory} until then", unfinished()));
    }
    let profile = &state.record.target.as_ref()?.profile;
    let find = |directory: &Path| profiles::find(directory, profile).ok();
    let before = find(&old.profiles_dir);
    // One of the router's own may have the name of one that is built in.
    let gone = before.is_some() && find(&new.profiles_dir) != before;
    let directory = old.profiles_dir.display();
    gone.then(|| {
        format!(
            "{}: [paths] profiles_dir stays {directory}, where {profile} is, until then",
            unfinished()
        )
    })
}

fn tool_elsewhere(before: &Path, now: &Path) -> Option<String> {
    let runs = before != now && guardian::is_any_running(before);
    runs.then(|| format!("a tool runs: [paths] run_dir stays {} until it ends", before.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fragment, from_fragments};
    use crate::upgrade::journal::{Journal, Reading, aside};
    use crate::upgrade::state::{
        Gates, Record, Run, Step, Target,
        tests::{record, target},
    };

    struct Router(tempfile::TempDir);

    impl Router {
        fn settings(&self, state: &str, slots: &[&str]) -> Settings {
            let directory = self.0.path().display();
            let mut text = format!(
                "[coordinator]\nurl = \"https://h\"\n[paths]\nstate_dir = \"{directory}/{state}\"\n\
                 run_dir = \"{directory}/run\"\n"
            );
            for (slot, number) in slots.iter().zip(["356938035643809", "356938035643817"]) {
                text += &format!("[[slot]]\nname = \"{slot}\"\nimei = \"{number}\"\n");
            }
            from_fragments([Fragment::from_toml(&text, "t").unwrap()]).unwrap()
        }

        fn journal(&self, step: Step) -> PathBuf {
            let path = self.0.path().join("state/main/journal");
            let (mut journal, _) = Journal::open(&path, "b", Reading::Whole).unwrap();
            journal.save(&State { step, ..State::new(record()) }).unwrap();
            path
        }

        fn refused(&self, settings: Settings, before: Option<&Settings>) -> Option<String> {
            accepted(settings, before).err().map(|error| error.to_string())
        }
    }

    #[test]
    fn a_journal_that_is_not_finished_keeps_its_slot() {
        let router = Router(tempfile::tempdir().unwrap());
        let before = router.settings("state", &[]);
        let renamed = || router.settings("state", &["left", "right"]);
        assert_eq!(router.refused(renamed(), Some(&before)), None, "nothing was ever begun");
        let path = router.journal(Step::Waiting { gates: Gates::Commit });
        assert_eq!(router.refused(renamed(), Some(&before)), None, "its modem is untouched");
        router.journal(Step::Committing);
        assert!(router.refused(renamed(), None).is_some(), "it may have been granted");
        router.journal(Step::Recovering { tries: 3, run: Run::Attach });
        for before in [None, Some(&before)] {
            let refused = router.refused(renamed(), before).unwrap();
            assert_eq!(refused.lines().count(), 1, "{refused}");
            let says = refused.contains("slot main: ") && refused.contains("recovering");
            assert!(says && refused.contains(path.to_str().unwrap()), "{refused}");
        }
        assert_eq!(router.refused(router.settings("state", &["main", "right"]), None), None);
        // The state lies elsewhere now: only who knows where it was finds the journal.
        assert_eq!(router.refused(router.settings("elsewhere", &[]), None), None);
        assert!(router.refused(router.settings("elsewhere", &[]), Some(&before)).is_some());
        // Nobody knows what it was about.
        std::fs::rename(&path, aside(&path)).unwrap();
        assert!(router.refused(renamed(), None).unwrap().contains("cannot be read"));
    }

    #[test]
    fn what_a_modem_is_recovered_with_is_not_looked_for_elsewhere() {
        let router = Router(tempfile::tempdir().unwrap());
        let mut before = router.settings("state", &["main"]);
        let directory = |name: &str| router.0.path().join(name);
        before.paths.staging = vec![directory("stick"), directory("flash")];
        before.paths.profiles_dir = directory("profiles.d");
        let manifest = record().job.image.manifest_sha256.to_string();
        std::fs::create_dir_all(directory("stick").join(manifest)).unwrap();
        let with = |staging: &[&str]| {
            let mut now = before.clone();
            now.paths.staging = staging.iter().map(|name| directory(name)).collect();
            now
        };
        router.journal(Step::Waiting { gates: Gates::Commit });
        assert_eq!(router.refused(with(&["other"]), Some(&before)), None, "its modem is untouched");
        router.journal(Step::Recovering { tries: 1, run: Run::Attach });
        let refused = router.refused(with(&["flash"]), Some(&before)).unwrap();
        assert!(refused.contains("staging keeps") && refused.contains("stick"), "{refused}");
        assert_eq!(router.refused(with(&["other", "stick"]), Some(&before)), None);

        // The tool's profile of one's own.
        std::fs::create_dir(directory("profiles.d")).unwrap();
        let own = shared::profile::BUILT_IN[0].1.replace("\"telit-uxfp\"", "\"own\"");
        std::fs::write(directory("profiles.d").join("own.toml"), own).unwrap();
        let path = directory("state/main/journal");
        let (mut journal, _) = Journal::open(&path, "b", Reading::Whole).unwrap();
        let step = Step::Recovering { tries: 1, run: Run::Attach };
        let target = Target { profile: "own".into(), ..target() };
        let record = Record { target: Some(target), ..record() };
        journal.save(&State { step, ..State::new(record) }).unwrap();
        let mut moved = before.clone();
        moved.paths.profiles_dir = directory("elsewhere");
        let refused = router.refused(moved, Some(&before)).unwrap();
        assert!(refused.contains("profiles_dir stays") && refused.contains("own"), "{refused}");
        assert_eq!(router.refused(before.clone(), Some(&before)), None);
    }

    #[test]
    fn a_slot_without_a_name_is_not_forgotten_whoever_is_asked() {
        let router = Router(tempfile::tempdir().unwrap());
        let renamed = router.settings("state", &["left", "right"]);
        assert_eq!(crate::cli::busy::unfinished(&renamed), None);
        router.journal(Step::Recovering { tries: 3, run: Run::Attach });
        let unfinished = crate::cli::busy::unfinished(&renamed).unwrap();
        assert!(unfinished.contains("slot main"), "{unfinished}");
    }

    #[test]
    fn who_asked_for_a_grant_is_started_and_no_obstacle() {
        let router = Router(tempfile::tempdir().unwrap());
        let settings = router.settings("state", &["main"]);
        assert_eq!(crate::cli::busy::to_go_on_with(&settings), None);
        router.journal(Step::Committing);
        let reason = crate::cli::busy::to_go_on_with(&settings).unwrap();
        assert!(reason.contains("committing"), "{reason}");
        assert_eq!(crate::cli::busy::unfinished(&settings), None, "it may be waiting for days");
        router.journal(Step::Waiting { gates: Gates::Commit });
        assert_eq!(crate::cli::busy::to_go_on_with(&settings), None);
    }

    #[test]
    fn a_tool_that_runs_keeps_its_run_directory() {
        let router = Router(tempfile::tempdir().unwrap());
        let before = router.settings("state", &[]);
        let mut moved = before.clone();
        moved.paths.run_dir = router.0.path().join("other");
        let slot = before.paths.run_dir.join("main");
        crate::files::create_private_dir(&slot).unwrap();
        let lock = crate::files::try_lock(&slot.join("guardian.lock")).unwrap();
        let refused = router.refused(moved.clone(), Some(&before)).unwrap();
        assert!(refused.contains("a tool runs"), "{refused}");
        drop(lock);
        assert!(crate::files::is_free_soon(&slot.join("guardian.lock")));
        assert_eq!(router.refused(moved, Some(&before)), None);
    }
}
