//! How bytes leave a port: in pieces, with pauses, sometimes several replies at once.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::pty::Pty;
use crate::random::Random;

/// Longest piece and longest pause of a stuttering port.
const PIECE: u64 = 14;
const PAUSE_MS: u64 = 3;

/// What a port has still to say.
#[derive(Debug)]
pub struct Voice {
    /// The pause before each piece, and the piece.
    pieces: VecDeque<(Duration, Vec<u8>)>,
    due: Instant,
}

impl Voice {
    pub fn new(now: Instant) -> Voice {
        Voice { pieces: VecDeque::new(), due: now }
    }

    /// At once and in one piece.
    pub fn say(&mut self, bytes: Vec<u8>) {
        self.pieces.push_back((Duration::ZERO, bytes));
    }

    /// As a tired USB hub would: cut anywhere.
    pub fn stutter(&mut self, bytes: &[u8], random: &mut Random) {
        if random.chance(30) {
            return self.say(bytes.to_vec());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = usize::try_from(1 + random.below(PIECE)).unwrap_or(1).min(rest.len());
            let (piece, tail) = rest.split_at(length);
            let pause = Duration::from_millis(random.below(PAUSE_MS));
            self.pieces.push_back((pause, piece.to_vec()));
            rest = tail;
        }
    }

    pub fn hush(&mut self) {
        self.pieces.clear();
    }

    /// Writes what is due; when the next piece is, if there is one.
    pub fn speak(&mut self, now: Instant, pty: &Pty) -> io::Result<Option<Instant>> {
        while let Some((_, piece)) = self.pieces.front_mut() {
            if self.due > now {
                break;
            }
            let said = pty.say(piece)?;
            piece.drain(..said);
            if !piece.is_empty() {
                self.due = now + Duration::from_millis(1);
                break;
            }
            self.pieces.pop_front();
            let pause = self.pieces.front().map_or(Duration::ZERO, |(pause, _)| *pause);
            self.due = now + pause;
        }
        Ok((!self.pieces.is_empty()).then_some(self.due))
    }
}
