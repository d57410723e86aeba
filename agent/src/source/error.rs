//! Why something could not be fetched, and whether trying again may help.

use crate::staging::StagingError;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use shared::failure::FailureKind;
use std::time::Duration;

/// The longest pause a server may ask for.
const LONGEST_PAUSE_S: u64 = 24 * 3600;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    // Worth another try.
    #[error("no token for the coordinator at present")]
    NoToken,
    #[error("the coordinator did not accept the token")]
    Unauthorized,
    #[error("the transfer failed")]
    Network(#[source] reqwest::Error),
    #[error("the server fell silent")]
    Stalled,
    #[error("the body ended {missing} bytes early")]
    TooShort { missing: u64 },
    #[error("the server answered {status}")]
    Busy { status: u16, retry_after: Option<Duration> },
    // Final.
    #[error("the server does not have it for this device")]
    NotFound,
    #[error("the server refused with {status}")]
    Refused { status: u16 },
    #[error("a redirect is not followed: {0}")]
    Redirect(&'static str),
    #[error("the {what} is larger than {limit} bytes")]
    TooLarge { what: &'static str, limit: usize },
    #[error("the body is longer than what was asked for")]
    TooLong,
    #[error("the answer is not the image of the manifest: {0}")]
    OtherImage(String),
    #[error("block {index} does not have the manifest's digest")]
    Block { index: u64 },
    #[error(transparent)]
    Staging(#[from] StagingError),
}

impl From<reqwest::Error> for SourceError {
    /// Without the address: where images are redirected to, its query lets anybody in who reads it in a log.
    fn from(error: reqwest::Error) -> Self {
        Self::Network(error.without_url())
    }
}

impl SourceError {
    /// How the upgrade fails; `None`: it does not, try again later.
    #[must_use]
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::NoToken
            | Self::Unauthorized
            | Self::Network(_)
            | Self::Stalled
            | Self::TooShort { .. }
            | Self::Busy { .. } => None,
            Self::NotFound | Self::Refused { .. } | Self::Redirect(_) => Some(FailureKind::Refused),
            Self::TooLarge { .. } => Some(FailureKind::BadManifest),
            Self::TooLong | Self::OtherImage(_) | Self::Block { .. } => {
                Some(FailureKind::ChecksumMismatch)
            }
            Self::Staging(error) => Some(error.kind()),
        }
    }

    /// The pause the server asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy { retry_after, .. } = self { *retry_after } else { None }
    }

    /// What a status that carries no body for us means.
    pub(super) fn status(status: StatusCode, headers: &HeaderMap) -> Self {
        let code = status.as_u16();
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => busy(code, headers),
            _ if status.is_server_error() => busy(code, headers),
            _ => Self::Refused { status: code },
        }
    }
}

fn busy(status: u16, headers: &HeaderMap) -> SourceError {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds.map(|s: u64| Duration::from_secs(s.min(LONGEST_PAUSE_S)));
    SourceError::Busy { status, retry_after }
}
