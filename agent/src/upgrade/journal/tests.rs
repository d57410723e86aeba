use super::*;
use crate::upgrade::{
    policy::Policy,
    state::{Outcome, Run, Step, tests::record},
};
use std::process::Command;

fn state(tries: u32) -> State {
    let mut state = State::new(record());
    state.record.attempts = tries;
    state
}

struct Lab {
    directory: tempfile::TempDir,
    mounted: bool,
}

impl Lab {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), mounted: false }
    }
    fn path(&self) -> PathBuf {
        self.directory.path().join("main/journal")
    }
    fn open(&self) -> Result<(Journal, Loaded), JournalError> {
        Journal::open(&self.path(), "boot-1", Reading::Whole)
    }
    fn starts(&self) -> Option<u32> {
        match self.open().unwrap().1 {
            Loaded::Empty => None,
            Loaded::State { state, .. } => Some(state.record.attempts),
        }
    }
    fn with_saves(count: u32) -> Self {
        let lab = Self::new();
        let (mut journal, _) = lab.open().unwrap();
        (1..=count).for_each(|n| journal.save(&state(n)).unwrap());
        lab
    }
    /// With saves, on a file system of its own that is read-only since; needs root.
    #[allow(clippy::disallowed_methods, reason = "mount(8) is no part of the agent")]
    fn read_only(count: u32) -> Option<Self> {
        let mut lab = Self::new();
        let mut mount = Command::new("mount");
        match mount.args(["-t", "tmpfs", "none"]).arg(lab.directory.path()).output() {
            Ok(output) if output.status.success() => lab.mounted = true,
            why => {
                eprintln!("SKIPPED: no file system can be mounted here: {why:?}");
                return None;
            }
        }
        let (mut journal, _) = lab.open().unwrap();
        (1..=count).for_each(|n| journal.save(&state(n)).unwrap());
        drop(journal);
        lab.remount("ro");
        Some(lab)
    }
    #[allow(clippy::disallowed_methods, reason = "mount(8) is no part of the agent")]
    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let directory = self.directory.path();
        assert!(
            Command::new("mount").args(["-o", &options]).arg(directory).status().unwrap().success()
        );
    }
    fn damage(&self, at: usize, with: u8) {
        let mut bytes = std::fs::read(self.path()).unwrap();
        bytes[at] ^= with;
        std::fs::write(self.path(), bytes).unwrap();
    }
}

impl Drop for Lab {
    #[allow(clippy::disallowed_methods, reason = "mount(8) is no part of the agent")]
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
        }
    }
}

#[test]
fn the_newest_save_is_found_again() {
    assert_eq!(Lab::new().starts(), None);
    for count in 1..5 {
        assert_eq!(Lab::with_saves(count).starts(), Some(count));
    }
}

#[test]
fn another_boot_is_told_apart() {
    let lab = Lab::with_saves(1);
    let (_, loaded) = Journal::open(&lab.path(), "boot-2", Reading::Whole).unwrap();
    assert!(matches!(loaded, Loaded::State { same_boot: false, .. }));
    assert!(matches!(lab.open().unwrap().1, Loaded::State { same_boot: true, .. }));
}

#[test]
fn an_interrupted_save_leaves_the_one_before() {
    // Generation 3 lies in slot 1, generation 2 in slot 0.
    for at in [0, 9, 15, 30, HEADER, HEADER + 40] {
        let lab = Lab::with_saves(3);
        lab.damage(SLOT + at, 0xff);
        assert_eq!(lab.starts(), Some(2), "damaged at {at}");
    }
    let first = Lab::with_saves(1);
    first.damage(SLOT + 20, 1);
    assert_eq!(first.starts(), None, "the very first save");
}

#[test]
fn a_journal_without_any_readable_state_is_set_aside_and_kept() {
    let lab = Lab::with_saves(2);
    lab.damage(HEADER, 1);
    lab.damage(SLOT + HEADER, 1);
    let Err(JournalError::Corrupt { aside }) = lab.open() else { panic!("not reported") };
    assert!(aside.exists() && !lab.path().exists());
}

#[test]
fn a_file_cut_short_is_corrupt_unless_a_slot_is_whole() {
    let lab = Lab::with_saves(2);
    let bytes = std::fs::read(lab.path()).unwrap();
    std::fs::write(lab.path(), &bytes[..SLOT]).unwrap();
    assert_eq!(lab.starts(), Some(2), "generation 2 lies in slot 0");
    std::fs::write(lab.path(), b"").unwrap();
    assert!(matches!(lab.open(), Err(JournalError::Corrupt { .. })));
}

#[test]
fn what_an_earlier_process_may_not_have_synced_is_written_before_the_other_slot_is_touched() {
    let lab = Lab::with_saves(2);
    let (mut journal, _) = lab.open().unwrap();
    // Generation 2, in slot 0, was in memory only. The next save goes to slot 1, and is torn.
    let overwrite = |from: usize| {
        let mut bytes = std::fs::read(lab.path()).unwrap();
        bytes[from..from + 600].fill(0xff);
        std::fs::write(lab.path(), bytes).unwrap();
    };
    overwrite(0);
    journal.save(&state(3)).unwrap();
    overwrite(SLOT);
    assert_eq!(lab.starts(), Some(2));
}

#[test]
fn a_slot_that_the_disk_refuses_does_not_hide_that_the_modem_was_touched() {
    let slot = |step| {
        let on_disk = OnDisk::new("b", &State { step, ..state(1) });
        Slot::Valid { generation: 4, on_disk: Box::new(on_disk), bytes: Vec::new() }
    };
    let refused = || Err(io::Error::from_raw_os_error(5));
    let found = |slots| match newest(readable(slots, Reading::Half).ok()?) {
        Slot::Valid { generation, .. } => Some(generation),
        _ => None,
    };
    let recovering = || slot(Step::Recovering { tries: 1, run: Run::Attach });
    assert_eq!(found([Ok(recovering()), refused()]), Some(4));
    assert_eq!(found([refused(), Ok(recovering())]), Some(4));
    // What cannot be read may say that a tool was started since.
    assert_eq!(found([Ok(slot(Step::Inspecting)), refused()]), None);
    assert_eq!(found([refused(), Ok(Slot::Blank)]), None);
    assert_eq!(found([refused(), refused()]), None);
    // The next reading may go well.
    assert!(readable([Ok(recovering()), refused()], Reading::Whole).is_err());
}

#[test]
fn a_journal_on_a_disk_that_became_read_only_is_gone_on_with() {
    let Some(lab) = Lab::read_only(1) else { return };
    assert_eq!(lab.starts(), Some(1));
    let (mut journal, _) = lab.open().unwrap();
    let error = journal.save(&state(2)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    lab.remount("rw");
    journal.save(&state(2)).unwrap();
    assert_eq!(lab.starts(), Some(2));
}

#[test]
fn a_newer_version_is_left_alone() {
    let lab = Lab::with_saves(2);
    let body = br#"{"version":"2","state":{}}"#;
    let file = File::options().write(true).open(lab.path()).unwrap();
    file.write_all_at(&encode(7, body).unwrap(), offset(7)).unwrap();
    let before = std::fs::read(lab.path()).unwrap();
    assert!(matches!(lab.open(), Err(JournalError::Newer { .. })));
    assert_eq!(std::fs::read(lab.path()).unwrap(), before);
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_the_old_one_stays() {
    let lab = Lab::with_saves(1);
    let (mut journal, _) = lab.open().unwrap();
    let mut large = state(9);
    large.record.job.requires = vec!["x".repeat(1000); 40];
    assert!(journal.save(&large).is_err());
    assert_eq!(lab.starts(), Some(1));
}

#[test]
fn tries_are_not_journaled() {
    let lab = Lab::new();
    let (mut journal, _) = lab.open().unwrap();
    let again = Outcome::Again { reason: "x".into() };
    journal.save(&state(0).apply(again, &Policy::default())).unwrap();
    let Loaded::State { state, .. } = lab.open().unwrap().1 else { panic!() };
    assert_eq!(state.tries, 0);
}
