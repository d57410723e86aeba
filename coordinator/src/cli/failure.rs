//! Why a command could not do what was asked, for people in words and for scripts as the exit status.
//!
//! | status | |
//! |---|---|
//! | 0 | done |
//! | 1 | refused, or it failed: the server said no, an upgrade or a batch did not succeed |
//! | 2 | the command line is wrong |
//! | 3 | the server cannot be reached, or is not the one that the pin or CA stands for |
//! | 4 | not logged in, or this user may not |
//! | 141 | whoever read the output has closed it, as of a process that SIGPIPE ended |

use std::io;
use std::process::ExitCode;

use reqwest::StatusCode;

use super::output::{self, note};

/// What the server, or the way to it, had against a request.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot talk to {url}: {advice}")]
    Unreachable {
        url: String,
        advice: &'static str,
        #[source]
        cause: reqwest::Error,
    },
    #[error("not logged in: run `modem-upgrader login`, or set MODEM_UPGRADER_TOKEN")]
    NoToken,
    #[error("profile {0} is not logged in: run `modem-upgrader login --profile {0}`")]
    LoggedOut(String),
    #[error(
        "no profile is in use: choose one of {0} (`modem-upgrader profiles use NAME`), or run \
         `modem-upgrader login`"
    )]
    NoProfile(String),
    #[error(
        "the server does not take the API token ({0}): run `modem-upgrader login`, \
         or check MODEM_UPGRADER_TOKEN and --token"
    )]
    Unauthorized(String),
    #[error("name or password is wrong ({0})")]
    Password(String),
    #[error("not allowed: {0}")]
    Forbidden(String),
    #[error(
        "not allowed: {0} An administrator can give you the role (`modem-upgrader users role`)"
    )]
    NoRole(String),
    #[error(
        "not allowed: {0} Make one that writes (`modem-upgrader tokens new NAME --scope write`, with \
         another token), or log in (`modem-upgrader login`)"
    )]
    NarrowToken(String),
    #[error("refused as things stand: {0} `show`, or its list, says how they stand")]
    Conflict(String),
    #[error(
        "the server has no room: {0} Free space on its disk, or remove firmware that nobody needs \
         (`modem-upgrader images remove`), and try again"
    )]
    Full(String),
    #[error(
        "the server failed ({0}): its log says why. See whether the change was made (`modem-upgrader \
         audit`) before you try again"
    )]
    Broken(String),
    #[error("not found: check the id, and that its organization is one of yours")]
    NotFound,
    #[error("too many requests{told}: try again in {seconds} seconds")]
    Throttled {
        seconds: String,
        /// In brackets, what there are too many of, where the server says so.
        told: String,
    },
    #[error("the server cannot take this now ({0}): try again in a moment")]
    Unavailable(String),
    #[error("the server refused ({status}): {told}")]
    Refused { status: StatusCode, told: String },
    /// The command line asks for what cannot be; found out after it was parsed.
    #[error("{0}")]
    Usage(String),
    /// Of what there is to print.
    #[error("cannot write")]
    Output(#[source] io::Error),
}

/// 128 and SIGPIPE, as shells have it. It is no 0, which would be a success of what is followed.
const CLOSED: u8 = 141;

impl Failure {
    /// Whether the same may go well a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Throttled { .. } | Self::Unavailable(_) => true,
            Self::NoToken
            | Self::NoProfile(_)
            | Self::LoggedOut(_)
            | Self::Unauthorized(_)
            | Self::Password(_)
            | Self::Forbidden(_)
            | Self::NoRole(_)
            | Self::NarrowToken(_)
            | Self::NotFound
            | Self::Conflict(_)
            | Self::Full(_)
            | Self::Broken(_)
            | Self::Refused { .. }
            | Self::Usage(_)
            | Self::Output(_) => false,
        }
    }

    /// Nobody reads the output any more, which needs no words.
    fn is_closed(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn status(&self) -> u8 {
        match self {
            closed if closed.is_closed() => CLOSED,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::NoToken
            | Self::NoProfile(_)
            | Self::LoggedOut(_)
            | Self::Unauthorized(_)
            | Self::Password(_)
            | Self::Forbidden(_)
            | Self::NoRole(_)
            | Self::NarrowToken(_) => 4,
            Self::NotFound
            | Self::Throttled { .. }
            | Self::Unavailable(_)
            | Self::Conflict(_)
            | Self::Full(_)
            | Self::Broken(_)
            | Self::Refused { .. }
            | Self::Output(_) => 1,
        }
    }
}

/// Says why, and with which exit status. The one place that prints causes; some of them are words of the
/// server's.
pub fn end(error: &anyhow::Error) -> ExitCode {
    if !known(error).is_some_and(Failure::is_closed) {
        for line in format!("{error:#}").lines() {
            note!("error: {}", output::plain(line));
        }
    }
    exit_code(error)
}

/// The exit status of an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(known(error).map_or(1, Failure::status))
}

/// Whether it is only that it cannot be said.
pub fn is_unwritten(error: &anyhow::Error) -> bool {
    matches!(known(error), Some(Failure::Output(_)))
}

fn known(error: &anyhow::Error) -> Option<&Failure> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// 0 if all is well, else 1.
pub fn success(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The command line is wrong, in a way that its grammar does not show.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure::Usage(message.into()).into()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_status_survives_what_is_said_around_it() {
        let refused = Err::<(), _>(Failure::NoToken).context("the upload failed").unwrap_err();
        assert_eq!(exit_code(&refused), ExitCode::from(4));
        assert_eq!(exit_code(&anyhow::anyhow!("no such file")), ExitCode::from(1));
        assert_eq!(exit_code(&usage("both")), ExitCode::from(2));
    }
}
