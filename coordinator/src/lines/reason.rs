//! Why a line was refused or ended, and how often each of it happened.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::codec::{Answer, Malformed};
use super::listener::Lines;
use crate::tokens;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal),+ $(,)?) => {
        /// Why a line was refused or ended; the label is the same in logs and in `/metrics`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$name),+];

            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Reason::$name => $label),+ }
            }
        }
    };
}

reasons! {
    /// All places for connections are taken.
    Full = "full",
    /// Too many connections of this peer have not authenticated yet.
    Crowded = "crowded",
    Handshake = "handshake",
    HandshakeTimeout = "handshake_timeout",
    ConnectTimeout = "connect_timeout",
    /// The first packet is not a CONNECT.
    NotConnect = "not_connect",
    Version = "protocol_version",
    Malformed = "malformed",
    Oversized = "oversized",
    ClientId = "client_id",
    NoCredentials = "no_credentials",
    TokenMalformed = "token_malformed",
    TokenSignature = "token_signature",
    TokenAudience = "token_audience",
    TokenExpired = "token_expired",
    /// A genuine token of somebody who is not known (any more).
    Unknown = "unknown",
    Revoked = "revoked",
    ForeignWill = "foreign_will",
    ForeignPublish = "foreign_publish",
    /// Answered with 0x80; the line stays.
    ForeignFilter = "foreign_filter",
    ExactlyOnce = "qos_2",
    StrayAck = "stray_ack",
    /// A second CONNECT, or a packet only servers send.
    Unexpected = "unexpected_packet",
    Flood = "flood",
    KeepAlive = "keep_alive",
    /// The token expired and its bearer did not come back with a new one.
    Lapsed = "token_lapsed",
    /// The peer does not take what is written to it.
    Stalled = "write_stalled",
    /// The store did not commit in time, or is gone.
    Uncommitted = "uncommitted",
    /// Somebody of the same name came.
    TakenOver = "taken_over",
    /// It said DISCONNECT.
    Left = "left",
    /// It went without a word.
    Lost = "lost",
    Stopping = "stopping",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Reason {
    /// The CONNACK for it, where MQTT has one.
    #[must_use]
    pub fn answer(self) -> Option<Answer> {
        match self {
            Reason::Version => Some(Answer::Version),
            Reason::ClientId => Some(Answer::ClientId),
            Reason::NoCredentials | Reason::TokenMalformed | Reason::TokenSignature => {
                Some(Answer::Credentials)
            }
            Reason::TokenAudience
            | Reason::TokenExpired
            | Reason::Unknown
            | Reason::Revoked
            | Reason::ForeignWill => Some(Answer::NotAuthorized),
            _ => None,
        }
    }

    /// Whether the line ended in the way of things, which is nothing to warn about.
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        matches!(
            self,
            Reason::Left | Reason::Lost | Reason::KeepAlive | Reason::TakenOver | Reason::Stopping
        )
    }

    /// Whether the will is published (MQTT 3.1.1, section 3.1.2.5). Not after a takeover: the
    /// newer line has said how things are, and an old will must not follow it ◆.
    #[must_use]
    pub fn publishes_will(self) -> bool {
        !matches!(self, Reason::Left | Reason::TakenOver | Reason::Stopping)
    }
}

impl From<Malformed> for Reason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Oversized => Reason::Oversized,
            Malformed::Version => Reason::Version,
            Malformed::Garbage => Reason::Malformed,
        }
    }
}

impl From<tokens::Refusal> for Reason {
    fn from(refusal: tokens::Refusal) -> Self {
        match refusal {
            tokens::Refusal::Malformed => Reason::TokenMalformed,
            tokens::Refusal::Signature => Reason::TokenSignature,
            tokens::Refusal::Audience => Reason::TokenAudience,
            tokens::Refusal::Expired => Reason::TokenExpired,
        }
    }
}

/// What one line was refused and went on: all of it is counted, the first is logged.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    logged: bool,
}

impl Refusals {
    /// A SUBSCRIBE of what is not the bearer's to hear.
    pub(super) fn filter(&mut self, lines: &Lines, bearer: Uuid, filter: &str) {
        let reason = Reason::ForeignFilter;
        lines.counters.count(reason);
        if !std::mem::replace(&mut self.logged, true) {
            let filter: String = filter.chars().take(160).collect();
            tracing::warn!(%bearer, ?filter, %reason, "SUBSCRIBE refused, the first of this line");
        }
    }
}

/// Counts since the start, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted from the socket.
    pub accepted: AtomicU64,
    /// Connections that authenticated.
    pub authenticated: AtomicU64,
    /// Messages taken from devices, and ticks among them dropped for a newer one.
    pub uplinks: AtomicU64,
    pub dropped_ticks: AtomicU64,
    by_reason: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    pub fn count(&self, reason: Reason) {
        if let Some(counter) = self.by_reason.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        self.by_reason.get(reason as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Every reason with its count.
    pub fn by_reason(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().map(|reason| (*reason, self.of(*reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_label() {
        let counters = Counters::default();
        for reason in Reason::ALL {
            counters.count(*reason);
        }
        assert!(counters.by_reason().all(|(_, count)| count == 1));
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
