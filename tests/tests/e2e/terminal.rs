//! Commands on a terminal, and what a person would see there.

use nix::pty::{Winsize, openpty};
use std::{
    fs::File,
    io::{Read, Write},
    process::{Command, Stdio},
};

const ROWS: u16 = 40;
const COLUMNS: u16 = 110;

/// Runs it with this typed: its status, and all that came to the terminal.
pub fn run(mut command: Command, typed: &str) -> (Option<i32>, String) {
    let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let (mut master, slave) = (File::from(pty.master), pty.slave);
    let end = || Stdio::from(slave.try_clone().unwrap());
    command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm");
    let mut child = command.spawn().unwrap();
    // Or nobody would ever hear that the other end is closed.
    drop((command, slave));
    master.write_all(typed.as_bytes()).unwrap();
    let (mut said, mut some) = (Vec::new(), [0; 4096]);
    // At the end a master answers EIO.
    while let Ok(count @ 1..) = master.read(&mut some) {
        said.extend(some.iter().take(count));
    }
    (child.wait().unwrap().code(), String::from_utf8(said).unwrap())
}

/// The lines that were ever written: as long as the terminal is wide, or to their ends.
pub fn lines(said: &str) -> impl Iterator<Item = &str> {
    Piece::all(said)
        .flat_map(|piece| match piece {
            Piece::Text(text) => text.as_bytes().chunks(COLUMNS.into()),
            Piece::Return | Piece::Move { .. } => [].chunks(1),
        })
        .filter_map(|line| str::from_utf8(line).ok())
}

/// What stands on the terminal in the end.
#[derive(Debug, Default)]
pub struct Seen {
    lines: Vec<String>,
    row: usize,
    column: usize,
}

impl Seen {
    pub fn of(said: &str) -> Self {
        let mut seen = Self::default();
        for piece in Piece::all(said) {
            match piece {
                Piece::Text(text) => text.chars().for_each(|character| seen.put(character)),
                Piece::Return => seen.column = 0,
                Piece::Move { count, by: 'A' } => seen.row = seen.row.saturating_sub(count),
                Piece::Move { count, by: 'B' } => seen.row += count,
                Piece::Move { count: 2, by: 'K' } => seen.line().clear(),
                Piece::Move { by: 'K', .. } => {
                    let column = seen.column;
                    seen.line().truncate(column);
                }
                Piece::Move { by: 'J', .. } => {
                    let (row, column) = (seen.row, seen.column);
                    seen.line().truncate(column);
                    seen.lines.truncate(row + 1);
                }
                Piece::Move { .. } => {}
            }
        }
        seen
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    fn line(&mut self) -> &mut String {
        let rows = self.lines.len().max(self.row + 1);
        self.lines.resize_with(rows, String::new);
        &mut self.lines[self.row]
    }

    /// As ASCII has it: one byte is one column.
    fn put(&mut self, character: char) {
        if character == '\n' {
            self.row += 1;
            return;
        }
        assert!(character.is_ascii(), "{character}");
        if self.column == usize::from(COLUMNS) {
            (self.row, self.column) = (self.row + 1, 0);
        }
        let column = self.column;
        let line = self.line();
        while line.len() <= column {
            line.push(' ');
        }
        line.replace_range(column..=column, character.encode_utf8(&mut [0; 4]));
        self.column += 1;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// A line's end, or some of a line.
    Text(&'a str),
    Return,
    /// CSI: `ESC [ count by`.
    Move {
        count: usize,
        by: char,
    },
}

impl<'a> Piece<'a> {
    fn all(said: &'a str) -> impl Iterator<Item = Self> {
        let mut left = said;
        std::iter::from_fn(move || {
            let (piece, rest) = Self::first(left)?;
            left = rest;
            Some(piece)
        })
    }

    fn first(said: &'a str) -> Option<(Self, &'a str)> {
        if let Some(rest) = said.strip_prefix('\r') {
            return Some((Self::Return, rest));
        }
        if let Some(rest) = said.strip_prefix('\n') {
            return Some((Self::Text(&said[..1]), rest));
        }
        if let Some(sequence) = said.strip_prefix("\u{1b}[") {
            let end = sequence.find(|c: char| c.is_ascii_alphabetic())?;
            let count = sequence[..end].parse().unwrap_or(1);
            let by = char::from(sequence.as_bytes()[end]);
            return Some((Self::Move { count, by }, &sequence[end + 1..]));
        }
        let end = said.find(['\r', '\n', '\u{1b}']).unwrap_or(said.len());
        let (text, rest) = said.split_at(end.max(1).min(said.len()));
        (!text.is_empty()).then_some((Self::Text(text), rest))
    }
}
