//! What the tool writes to: a file, not a pipe and not a terminal. A tool must not notice the
//! death of its guardian, and writing to a file neither blocks nor fails when nobody reads.
//!
//! The guardian reads behind the tool and gives back the room of what it has read.

use crate::files;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Read bytes that may lie on the disk before their room is given back.
const SLACK: u64 = 128 * 1024;
/// Unread bytes from which on the guardian skips: the file lies in memory.
const BACKLOG: u64 = 1024 * 1024;
/// What it still reads when it skips.
const NEWEST: u64 = 128 * 1024;

#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    read: u64,
    released: u64,
}

impl Output {
    /// Makes the file anew.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        files::remove_if_present(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(files::PRIVATE)
            .open(path)?;
        Ok(Self { path: path.to_owned(), file, read: 0, released: 0 })
    }

    /// A standard stream for the tool. Appending, so that both of its streams keep their order.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn stream(&self) -> io::Result<Stdio> {
        Ok(OpenOptions::new().append(true).open(&self.path)?.into())
    }

    /// The next bytes; 0 when the tool has written no more. Of a tool that writes faster than this
    /// is called the middle is lost.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.metadata()?.len();
        if length.saturating_sub(self.read) > BACKLOG {
            self.read = length - NEWEST;
            self.release()?;
        }
        let count = self.file.read_at(buffer, self.read)?;
        self.read += count as u64;
        if self.read - self.released > SLACK {
            self.release()?;
        }
        Ok(count)
    }

    fn release(&mut self) -> io::Result<()> {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let range = (i64::try_from(self.released), i64::try_from(self.read - self.released));
        let (Ok(from), Ok(length)) = range else { return Ok(()) };
        match fallocate(&self.file, hole, from, length) {
            Ok(()) => self.released = self.read,
            // Without holes (jffs2, ubifs) the file starts anew; a line written in this instant
            // may be lost, which costs a hint.
            Err(Errno::EOPNOTSUPP) => {
                self.file.set_len(0)?;
                (self.read, self.released) = (0, 0);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    #[allow(clippy::disallowed_methods, reason = "a child to read from")]
    fn tool(output: &Output, script: &str) -> std::process::Child {
        Command::new("/bin/sh")
            .args(["-c", script])
            .stdout(output.stream().unwrap())
            .stderr(output.stream().unwrap())
            .spawn()
            .unwrap()
    }

    fn read_all(output: &mut Output) -> Vec<u8> {
        let (mut buffer, mut all) = ([0; 4096], Vec::new());
        loop {
            match output.read(&mut buffer).unwrap() {
                0 => return all,
                count => all.extend(&buffer[..count]),
            }
        }
    }

    fn room(output: &Output) -> u64 {
        output.file.metadata().unwrap().blocks() * 512
    }

    #[test]
    fn both_streams_are_read_whole_and_take_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut output = Output::create(&directory.path().join("tool.out")).unwrap();
        let mut expected = Vec::new();
        for _ in 0..8 {
            assert!(tool(&output, "seq 1 50000; echo over >&2").wait().unwrap().success());
            let part = read_all(&mut output);
            assert!(part.starts_with(b"1\n2\n") && part.ends_with(b"50000\nover\n"));
            expected.extend(part);
        }
        assert!(expected.len() > 2_000_000);
        assert!(room(&output) < 2 * SLACK, "{} bytes kept", room(&output));
    }

    #[test]
    fn of_a_flood_the_newest_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut output = Output::create(&directory.path().join("tool.out")).unwrap();
        assert!(tool(&output, "seq 1 2000000; echo over").wait().unwrap().success());
        let read = read_all(&mut output);
        assert!(read.len() as u64 <= NEWEST);
        assert!(read.ends_with(b"2000000\nover\n"));
        assert!(room(&output) < 2 * SLACK, "{} bytes kept", room(&output));
    }
}
