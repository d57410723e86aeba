//! The modem's end of a serial port: the master of a pty.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// A master whose slave is raw, like a USB tty that somebody set up.
#[derive(Debug)]
pub struct Pty {
    master: PtyMaster,
    /// `/dev/pts/7`.
    pub slave: PathBuf,
}

/// What a look at the port gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many bytes.
    Bytes(usize),
    Nothing,
    /// Nobody has the port open.
    Closed,
}

impl Pty {
    pub fn open() -> io::Result<Pty> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = PathBuf::from(ptsname_r(&master)?);
        make_raw(&slave)?;
        Ok(Pty { master, slave })
    }

    pub fn hear(&self, buffer: &mut [u8]) -> io::Result<Heard> {
        match nix::unistd::read(&self.master, buffer) {
            Ok(0) | Err(Errno::EIO) => Ok(Heard::Closed),
            Ok(count) => Ok(Heard::Bytes(count)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// How many of `bytes` went out: none while the other end does not read.
    pub fn say(&self, bytes: &[u8]) -> io::Result<usize> {
        match nix::unistd::write(&self.master, bytes) {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

/// The settings stay with the pty. Without this the slave would echo to us what we say before its reader
/// has set it up.
fn make_raw(slave: &Path) -> io::Result<()> {
    let fd =
        nix::fcntl::open(slave, OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut settings = tcgetattr(&fd)?;
    cfmakeraw(&mut settings);
    tcsetattr(&fd, SetArg::TCSANOW, &settings)?;
    Ok(())
}
