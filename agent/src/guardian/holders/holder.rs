//! Who holds a modem, as records and the journal name them.

use serde::{Deserialize, Serialize};

/// One holder, by a name from the router's own settings or profiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    Service(String),
    Interface(String),
    /// ModemManager, which goes on with its other modems: this one by ModemManager's uid of it.
    Modem(String),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Modem(uid) => write!(f, "modem {uid}"),
        }
    }
}
