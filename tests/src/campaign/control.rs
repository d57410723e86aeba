//! The shim's control file: what strikes at which operation, how many there were, whether time
//! stands still. Its layout is that of `struct control` in `shim/shim.c`.

use crate::random::Random;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// Rules the file has room for.
pub const RULES: usize = 8;
const WORD: u64 = 8;
const HEAD: u64 = 4;
const RULE: u64 = 5;

/// What a rule does. Numbers below 1000 are errno's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(pub u64);

impl Action {
    /// A read or write moves only a part.
    pub const SHORT: Self = Self(1000);
    /// SIGKILL to the process that does the operation, before it.
    pub const KILL: Self = Self(2000);
    /// Every process of the router stops at its next operation.
    pub const FREEZE: Self = Self(2001);
    /// Nothing this process does from here on has an effect.
    pub const DIE: Self = Self(2002);

    /// For as long as it lasts; where libraries simply try again, not for ever.
    #[must_use]
    pub fn times(self, wanted: u64) -> u64 {
        if self == Self(4) { wanted.min(50) } else { wanted }
    }

    /// Kinds of operations that a fault strikes: all that it applies to, or one of them. An open that fails
    /// is followed by no sync and no rename, so most of those would never fail.
    pub fn draw_kinds(self, random: &mut Random) -> u64 {
        let own: &[u64] = match self {
            Self(28) => &[OPEN, WRITE, SYNC, RENAME, MKDIR, TRUNCATE],
            Self(30) => &[OPEN, WRITE, RENAME, UNLINK, MKDIR, TRUNCATE],
            Self(24) => &[OPEN],
            Self(4) => &[OPEN, READ, WRITE, SYNC],
            Self(11) => &[READ, WRITE, IOCTL],
            Self::SHORT => &[READ, WRITE],
            _ => &[OPEN, READ, WRITE, SYNC, RENAME, UNLINK, MKDIR, TRUNCATE, IOCTL],
        };
        let one = random.pick(own).copied().filter(|_| random.chance(50));
        one.unwrap_or(EVERY_KIND)
    }

    /// The faults of a disk or a port, with the names that people know.
    pub const FAULTS: [(Self, &'static str); 7] = [
        (Self(28), "ENOSPC"),
        (Self(5), "EIO"),
        (Self(30), "EROFS"),
        (Self(24), "EMFILE"),
        (Self::SHORT, "short"),
        (Self(4), "EINTR"),
        (Self(11), "EAGAIN"),
    ];
}

/// Kinds of operations, as bits; as the shim has them.
const OPEN: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 4;
const SYNC: u64 = 8;
const RENAME: u64 = 16;
const UNLINK: u64 = 32;
const MKDIR: u64 = 64;
const TRUNCATE: u64 = 128;
const IOCTL: u64 = 256;
pub const EVERY_KIND: u64 = 0x1ff;
/// The same by their names, from the lowest bit on.
const KINDS: [&str; 9] =
    ["open", "read", "write", "sync", "rename", "unlink", "mkdir", "truncate", "ioctl"];

/// How often each kind of operation was seen and was made to fail: on files, and on ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage([[[u64; 2]; 2]; KINDS.len()]);

impl Coverage {
    pub fn add(&mut self, other: &Self) {
        let all = self.0.iter_mut().flatten().flatten();
        all.zip(other.0.iter().flatten().flatten()).for_each(|(sum, count)| *sum += count);
    }
}

impl std::fmt::Display for Coverage {
    /// `open 12 of 3456, ... ; ports: ...; never: ...`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cells = |port: usize| {
            let of_kind = KINDS.iter().zip(&self.0).map(move |(name, cells)| (*name, cells[port]));
            of_kind.filter(|(_, [seen, _])| *seen > 0)
        };
        let told = |port| {
            let told =
                cells(port).map(|(name, [seen, struck])| format!("{name} {struck} of {seen}"));
            told.collect::<Vec<_>>().join(", ")
        };
        write!(f, "files: {}", told(0))?;
        if cells(1).next().is_some() {
            write!(f, "; ports: {}", told(1))?;
        }
        let never = |port| cells(port).filter(|(_, [_, struck])| *struck == 0);
        let never: Vec<_> = never(0).chain(never(1)).map(|(name, _)| name).collect();
        if never.is_empty() { Ok(()) } else { write!(f, "; never: {}", never.join(", ")) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The first operation it may strike, from 1.
    pub at: u64,
    /// How often it strikes, at the operations from there that it applies to.
    pub times: u64,
    pub action: Action,
    pub kinds: u64,
}

/// The open file.
#[derive(Debug)]
pub struct Control(File);

impl Control {
    /// Makes the file, without rules.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn make(lab: &Path) -> io::Result<Self> {
        let path = lab.join("control");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(4096)?;
        Ok(Self(file))
    }

    /// The file that is there.
    ///
    /// # Errors
    /// It is not.
    pub fn open(lab: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(lab.join("control"))?))
    }

    /// Starts counting anew under `rules`.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn reset(&self, rules: &[Rule]) -> io::Result<()> {
        let mut words = vec![0, 0, 0, rules.len() as u64];
        for rule in rules.iter().take(RULES - 1) {
            words.extend([rule.at, rule.times, rule.action.0, rule.kinds, 0]);
        }
        words.resize(usize::try_from(HEAD + RULE * RULES as u64).unwrap_or(0), 0);
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        self.0.write_all_at(&bytes, 0)
    }

    /// Puts `rule` in the last place, which [`Self::reset`] leaves free up to seven rules.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn arm(&self, rule: Rule) -> io::Result<()> {
        let last = RULES as u64 - 1;
        let place = HEAD + last * RULE;
        // Not at all until it is whole.
        self.put(place + 1, 0)?;
        self.put(place, rule.at)?;
        self.put(place + 2, rule.action.0)?;
        self.put(place + 3, rule.kinds)?;
        self.put(place + 1, rule.times)?;
        self.put(3, RULES as u64)
    }

    /// No rule strikes any more, and what stood still goes on.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn calm(&self) -> io::Result<()> {
        for rule in 0..RULES as u64 {
            self.put(HEAD + rule * RULE + 1, 0)?;
        }
        self.freeze(false)
    }

    /// Stops every process of the router at its next operation, or lets them go on.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        self.put(1, u64::from(frozen))
    }

    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.get(1) != 0
    }

    /// Whether [`Action::DIE`] has struck.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.get(2) != 0
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.get(0)
    }

    /// How often faults have struck; a rule that was armed alone does not count.
    #[must_use]
    pub fn struck(&self) -> u64 {
        (0..RULES as u64 - 1).map(|rule| self.get(HEAD + rule * RULE + 4)).sum()
    }

    /// What was seen and made to fail since the file was made.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        let cells = coverage.0.iter_mut().flatten().flatten();
        cells.zip(HEAD + RULE * RULES as u64..).for_each(|(cell, word)| *cell = self.get(word));
        coverage
    }

    fn get(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        // What cannot be read is as good as not struck: the run's own deadline ends it.
        let _ = self.0.read_exact_at(&mut bytes, word * WORD);
        u64::from_le_bytes(bytes)
    }

    fn put(&self, word: u64, value: u64) -> io::Result<()> {
        self.0.write_all_at(&value.to_le_bytes(), word * WORD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_the_shim_reads() {
        let lab = tempfile::tempdir().unwrap();
        let control = Control::make(lab.path()).unwrap();
        let rule = Rule { at: 7, times: 2, action: Action::KILL, kinds: EVERY_KIND };
        control.reset(&[rule, rule]).unwrap();
        let bytes = std::fs::read(lab.path().join("control")).unwrap();
        let word = |n: usize| u64::from_le_bytes(bytes[n * 8..n * 8 + 8].try_into().unwrap());
        assert_eq!([word(3), word(4), word(5), word(6), word(9)], [2, 7, 2, 2000, 7]);
        control.freeze(true).unwrap();
        assert!(control.is_frozen());
        control.calm().unwrap();
        assert!(!control.is_frozen());
        assert_eq!(control.get(5), 0);
    }

    #[test]
    fn what_was_never_made_to_fail_is_named() {
        let mut coverage = Coverage::default();
        (coverage.0[0][0], coverage.0[2][0], coverage.0[8][1]) = ([9, 2], [5, 0], [3, 1]);
        let mut sum = coverage;
        sum.add(&coverage);
        let told = "files: open 4 of 18, write 0 of 10; ports: ioctl 2 of 6; never: write";
        assert_eq!(sum.to_string(), told);
    }
}
