//! Asking whoever sits there: a word, a password without echo, a yes. Where nobody sits there, the
//! lines of standard input are the answers.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, bail};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

use super::failure::usage;
use super::output::note;

/// No name, password or token is longer.
const LONGEST: u64 = 4096;
const INTERRUPT: u8 = 0x03;

/// Whether a person can be asked.
pub fn is_attended() -> bool {
    io::stdin().is_terminal()
}

/// A line; `what` is shown to a person.
pub fn line(what: &str) -> anyhow::Result<String> {
    if is_attended() {
        ask(&format!("{what}: "))?;
    }
    given(read_line(&mut io::stdin().lock())?, what)
}

/// A line that is not shown while it is typed.
pub fn secret(what: &str) -> anyhow::Result<String> {
    if !is_attended() {
        return given(read_line(&mut io::stdin().lock())?, what);
    }
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.context("no terminal to ask at")?;
    write!(terminal, "{what}: ")?;
    let silent = Silent::begin(&terminal)?;
    let typed = read_line(&mut io::BufReader::new(&terminal));
    drop(silent);
    writeln!(terminal)?;
    given(typed?, what)
}

/// Whether to go on: with `--yes`, or if whoever sits there says so. Nobody else is asked: what comes in on standard
/// input may be meant for another command.
pub fn confirm(yes: bool, question: &str) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !is_attended() {
        return Err(usage(format!("{question} Nobody can be asked: give --yes")));
    }
    ask(&format!("{question} [y/N] "))?;
    let mut said = Vec::new();
    io::stdin().lock().take(LONGEST).read_until(b'\n', &mut said)?;
    if !said.ends_with(b"\n") {
        ask("\n")?;
    }
    let agreed = is_yes(&said);
    if !agreed {
        note!("Nothing was done.");
    }
    Ok(agreed)
}

fn is_yes(said: &[u8]) -> bool {
    matches!(said.trim_ascii().to_ascii_lowercase().as_slice(), b"y" | b"yes")
}

fn ask(question: &str) -> io::Result<()> {
    io::stderr().write_all(question.as_bytes())
}

fn given(typed: String, what: &str) -> anyhow::Result<String> {
    if typed.as_bytes().contains(&INTERRUPT) {
        bail!("interrupted");
    }
    if typed.is_empty() {
        bail!("no {} was given", what.to_lowercase());
    }
    Ok(typed)
}

/// Up to the line's end, or to an interrupt.
fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    for byte in input.take(LONGEST).bytes() {
        match byte? {
            b'\n' => break,
            byte => line.push(byte),
        }
        if line.last() == Some(&INTERRUPT) {
            break;
        }
    }
    let line = String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(line.trim_end_matches('\r').to_owned())
}

/// A terminal that does not show what is typed, until this is dropped. Ctrl-C ends the line, so
/// that the terminal is not left silent behind a process that is gone.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn begin(terminal: &'a File) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        silent.local_flags.insert(LocalFlags::ICANON);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_bounded() {
        let mut input = io::Cursor::new(b"alice\r\nsecret\n".to_vec());
        assert_eq!(read_line(&mut input).unwrap(), "alice");
        assert_eq!(read_line(&mut input).unwrap(), "secret");
        assert_eq!(read_line(&mut input).unwrap(), "");
        let mut interrupted = io::Cursor::new(b"sec\x03more\n".to_vec());
        assert_eq!(read_line(&mut interrupted).unwrap(), "sec\u{3}");
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert_eq!(read_line(&mut endless).unwrap().len(), 4096);
    }

    #[test]
    fn a_yes_is_a_whole_word() {
        for yes in ["y\n", "Y", " yes \r\n", "YES\n"] {
            assert!(is_yes(yes.as_bytes()), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yesterday\n", "y y\n"] {
            assert!(!is_yes(no.as_bytes()), "{no:?}");
        }
        assert!(!is_yes(&[0xff, b'y']));
    }

    #[test]
    fn nothing_and_an_interrupt_are_no_answers() {
        assert!(given(String::new(), "Password").is_err());
        assert!(given("abc\u{3}".into(), "Password").is_err());
    }
}
