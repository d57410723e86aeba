//! Where an option was written, in the words of its source.

use std::fmt;

/// The source of an option's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    CommandLine,
    /// A TOML file.
    File(String),
    Uci {
        /// `/etc/config/modem-upgrader`
        path: String,
        /// Unknown for what `uci set` changed and nobody committed.
        line: Option<u32>,
        /// `slot 'main'`
        section: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::CommandLine => f.write_str("command line"),
            Origin::File(path) => f.write_str(path),
            Origin::Uci { path, line: Some(line), .. } => write!(f, "{path}, line {line}"),
            Origin::Uci { path, line: None, .. } => write!(f, "{path}, uncommitted"),
        }
    }
}
