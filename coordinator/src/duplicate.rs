//! Whether one identity speaks from two boards. Pure.
//!
//! A flash that was cloned with its key, and the board it came from, are one device to us: each would
//! be given the other's jobs. What tells them apart are things of which the newest is the only one
//! there is: the boot, the board. When one that was over comes back, somebody
//! else was here in between. Once may be a word that was late on its way; [`RETURNS`] times in a day
//! is two boards.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many of each are remembered.
const KNOWN: usize = 4;
/// Returns within [`WINDOW_MS`] that are no accident.
pub const RETURNS: usize = 3;
const WINDOW_MS: u64 = 24 * 3600 * 1000;
/// Bytes of what is remembered of one.
const LONGEST: usize = 128;

/// What somebody says of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trait {
    Boot,
    Board,
}

/// What was seen of a device lately, as it is kept with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sightings {
    boots: VecDeque<String>,
    boards: VecDeque<String>,
    /// When something that was over came back, in unix milliseconds.
    returns: VecDeque<u64>,
}

/// What a sighting comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As before: nothing has to be written.
    Known,
    /// Something new, or one return.
    Noted,
    /// Two boards use the identity.
    Duplicate(Trait),
}

impl Sightings {
    /// Takes note of `value`, seen at `now` (unix milliseconds).
    pub fn see(&mut self, what: Trait, value: &str, now: u64) -> Verdict {
        let known = match what {
            Trait::Boot => &mut self.boots,
            Trait::Board => &mut self.boards,
        };
        if value.is_empty()
            || value.len() > LONGEST
            || known.back().is_some_and(|last| last == value)
        {
            return Verdict::Known;
        }
        let returned = known.iter().position(|seen| seen == value);
        if let Some(place) = returned {
            known.remove(place);
        }
        known.push_back(value.to_owned());
        if known.len() > KNOWN {
            known.pop_front();
        }
        if returned.is_none() {
            return Verdict::Noted;
        }
        self.returns.push_back(now);
        self.returns.retain(|at| at + WINDOW_MS > now && *at <= now);
        if self.returns.len() >= RETURNS { Verdict::Duplicate(what) } else { Verdict::Noted }
    }
}

impl Trait {
    /// For people: why the identity is taken for two boards'.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Boot => "two boots take turns with this identity",
            Self::Board => "two kinds of board take turns with this identity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600 * 1000;

    fn verdicts(seen: &[(&str, u64)]) -> Vec<Verdict> {
        let mut sightings = Sightings::default();
        seen.iter().map(|(boot, hour)| sightings.see(Trait::Boot, boot, hour * HOUR)).collect()
    }

    #[test]
    fn a_router_that_reboots_is_one() {
        let boots = ["a", "b", "c", "d", "e", "f", "g"].map(|boot| (boot, 1));
        assert!(verdicts(&boots).iter().all(|verdict| *verdict == Verdict::Noted));
        assert_eq!(verdicts(&[("a", 1), ("a", 2)])[1], Verdict::Known);
    }

    #[test]
    fn one_late_word_is_no_second_board() {
        let seen = verdicts(&[("a", 1), ("b", 1), ("a", 1), ("b", 1), ("c", 2), ("d", 2)]);
        assert!(!seen.contains(&Verdict::Duplicate(Trait::Boot)), "{seen:?}");
    }

    #[test]
    fn two_that_take_turns_are_two_boards_within_a_day() {
        let turns = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)];
        assert_eq!(verdicts(&turns)[4], Verdict::Duplicate(Trait::Boot));
        let slow = [("a", 1), ("b", 2), ("a", 3), ("b", 28), ("a", 53)];
        assert_eq!(verdicts(&slow)[4], Verdict::Noted);
    }
}
