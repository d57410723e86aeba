use super::*;
use crate::upgrade::{
    policy::Policy,
    state::{Outcome, tests::record},
};

fn state(tries: u32) -> State {
    let mut state = State::new(record());
    state.record.attempts = tries;
    state
}

struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }
    fn path(&self) -> PathBuf {
        self.directory.path().join("main/journal")
    }
    fn open(&self) -> Result<(Journal, Loaded), JournalError> {
        Journal::open(&self.path(), "boot-1")
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
    fn damage(&self, at: usize, with: u8) {
        let mut bytes = std::fs::read(self.path()).unwrap();
        bytes[at] ^= with;
        std::fs::write(self.path(), bytes).unwrap();
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
    let (_, loaded) = Journal::open(&lab.path(), "boot-2").unwrap();
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
